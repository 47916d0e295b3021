"""One cell of `make bench-modalities`: a whole pass on one set with one learner, and what its test rows say of every way; knows no page.

`python -m benchmarks.modality HALF SET LEARNER SEED PLACE FILE` writes FILE. The run folder lies under PLACE and is gone on with by the
next learner: generators are fitted and drawn from once per set and seed.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Case
from codsa_ray import Job, run
from codsa_ray.candidates import Candidate
from codsa_ray.judge import compared, title
from codsa_ray.kept import Kept
from codsa_ray.pipeline import reopened
from codsa_ray.risk import balanced, estimate, group_means

LEAST_TESTED = 5  # rows of a group that may be the worst one
NONE, OFFSET, CALIBRATED, WEIGHTS, BAGS = "none", "offset", "offset and calibration", "class or group weights", "bags"
OURS, DRAWN = "codsa's decision", "best with synthesis"
WAYS = (NONE, OFFSET, CALIBRATED, WEIGHTS, BAGS, OURS, DRAWN)


@dataclass(frozen=True)
class Set:
    """A data set, and how it is cut to size.

    Args:
        case: the rows, see benchmarks/tables.py.
        generators: of the run.
        note: what was done to the rows, for the page.
        most, most_test: training and test rows.
        options: of the job, beside what the case gives.
    """

    case: Case
    generators: tuple[str, ...]
    note: str
    most: int = 1200
    most_test: int = 1000
    options: tuple[tuple[str, Any], ...] = (("folds", 2), ("repeats", 1), ("trials", 5), ("draws", 1))


@dataclass(frozen=True)
class Half:
    """Sets of one kind: a module `benchmarks.modality_NAME` has one as HALF.

    Args:
        title: of its part of the page.
        sets: by name.
        learners: settings by the name on the page.
        quality: key of the report -> {its measure: (title, format)}: what is told of drawn rows.
        note: for the page.
    """

    title: str
    sets: dict[str, Set]
    learners: Callable[[], dict[str, str]]
    quality: dict[str, dict[str, tuple[str, str]]]
    note: str


def half_of(name: str) -> Half:
    """The half of that name."""
    found: Half = import_module(f"benchmarks.modality_{name}").HALF
    return found


def measure(half: Half, name: str, learner: str, seed: int, place: Path) -> dict[str, Any]:
    """A whole pass, and what the test rows say of it."""
    one, data = half.sets[name], place / f"{name}-{seed}"
    data.mkdir(parents=True, exist_ok=True)
    train, test = one.case.split(seed, one.most)
    test = test.iloc[: one.most_test]
    train.to_parquet(data / "train.parquet", index=False)
    test.to_parquet(data / "test.parquet", index=False)
    given = {**dict(one.options), **one.case.options, "generator": one.generators, "learner": half.learners()[learner], "seed": seed}
    started = time.perf_counter()
    job = Job(str(data / "train.parquet"), one.case.target, test=str(data / "test.parquet"), out=str(data / "run"), workers=1, **given)
    report = run(job)
    seconds = time.perf_counter() - started
    with reopened(report.folder) as kept:
        ways = judged(kept)
    facts = report.facts
    groups = {group["name"]: group["train"] for group in facts["groups"]}
    told = {key: _told(facts.get(key)) for key in half.quality}
    verdict = {key: facts["verdict"][key] for key in ("kind", "chosen", "best", "gain")}
    return {
        **{"rows": len(train), "test": len(test), "groups": groups, "seconds": seconds, "stages": facts["stages"], "ways": ways},
        **{"verdict": verdict, "quality": told, "notices": facts["notices"]},
    }


def _told(found: Any) -> dict[str, Any]:
    """A part of the report by measure; of one that has several pairs of sides their mean, by measure and side."""
    if not isinstance(found, list):
        return found or {}
    sides = ("real", "drawn", "independent")
    return {
        f"{key}_{side}": float(np.mean([pair[side][key] for pair in found])) for side in sides for key in (found[0][side] if found else ())
    }


def judged(kept: Kept) -> dict[str, dict[str, Any]]:
    """Per way its candidate, balanced test loss with standard error, and the worst group; a way that was not tried is left out."""
    scored, found = kept.scored, {}
    names = [group.name for group in kept.bench.rows.groups.items]
    group, mix = scored.test.group, scored.mix
    counts = np.bincount(group[group >= 0], minlength=len(names))
    for way, pair in chosen(kept).items():
        each = scored.test_losses(pair)
        if each is None:
            continue
        mean = estimate(each[:, None], group, mix)
        by_group = np.where((counts >= LEAST_TESTED) & (mix > 0), group_means(each, group, len(names)), -np.inf)
        worst = int(np.argmax(by_group))
        told = {"loss": float(mean.mean[0]), "se": float(mean.se[0]), "worst": float(by_group[worst]), "group": names[worst]}
        found[way] = {"candidate": title(*pair), **told}
    return found


def chosen(kept: Kept) -> dict[str, tuple[Candidate, str]]:
    """The (candidate, form) of each way: of several the one of least out-of-fold loss."""
    table, decision = kept.table, kept.decision
    pairs = compared(table.outcomes, kept.job.task, table.tuned(len(kept.bench.learner.variants())))
    assert table.truth is not None
    group = table.truth.group

    def least(among: Callable[[Candidate, str], bool]) -> tuple[Candidate, str] | None:
        mine = [pair for pair in pairs if among(*pair)]
        return min(mine, key=lambda pair: balanced(table.losses[pair[0].id, pair[1]], group, table.mix), default=None)

    found = {
        NONE: least(lambda c, form: c.kind == "plain" and c.fits == 1 and form == "raw"),
        OFFSET: least(lambda c, form: c.kind == "plain" and c.fits == 1 and form == "offset"),
        CALIBRATED: least(lambda c, form: c.kind == "plain" and c.fits == 1 and form == "calibrated"),
        WEIGHTS: least(lambda c, form: c.kind == "weights" and c.fits == 1 and form == "calibrated"),
        BAGS: least(lambda c, form: c.kind != "synthetic" and c.fits > 1 and form == "calibrated"),
        OURS: decision.chosen,
        DRAWN: decision.best,
    }
    return {way: pair for way, pair in found.items() if pair is not None}


if __name__ == "__main__":
    half, name, learner, seed, place, file = sys.argv[1:]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    value = measure(half_of(half), name, learner, int(seed), Path(place))
    Path(file).write_text(json.dumps(value))

"""Facts: everything report.json holds, gathered from stored scores and rows; judges nothing anew."""

import importlib.metadata as metadata
import os
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codsa_ray.audit.copies import marked
from codsa_ray.audit.drawn import audit
from codsa_ray.audit.images import MOST_ROWS, images
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.clock import Stage
from codsa_ray.errors import CandidateError
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.judge import Decision, calibration_of, title
from codsa_ray.outcomes import Table
from codsa_ray.plan import Plan
from codsa_ray.plugins import name_of
from codsa_ray.report.evaluation import evaluation
from codsa_ray.report.losses import candidates, curve, groups
from codsa_ray.report.scored import Scored
from codsa_ray.report.why import why
from codsa_ray.rows import FINAL
from codsa_ray.shipped import correction_of
from codsa_ray.verdict import CONFIDENCE

AUDIT_ROWS = 5_000
PACKAGES = ("codsa-ray", "ray", "torch", "pyarrow", "pandas", "numpy", "scikit-learn", "xgboost")


@dataclass(frozen=True)
class Facts:
    """What the report is made of.

    Args:
        judged: folder of the final candidates' test scores.
        plan: what was written (empty where nothing synthetic was).
        shipped: the candidate whose rows were written.
        failed: generators that could not be fitted or fell short, with the reason.
        said: notices of the fits.
    """

    job: Job
    bench: Bench
    table: Table
    decision: Decision
    judged: Folder
    plan: Plan
    shipped: Candidate
    read: dict[str, Any]
    failed: dict[str, str]
    stages: tuple[Stage, ...]
    said: tuple[str, ...] = ()


def gather(facts: Facts) -> dict[str, Any]:
    """report.json, and `correction` for correction.json; a number that is not finite is null."""
    return _finite(_gathered(facts))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _gathered(facts: Facts) -> dict[str, Any]:
    job, rows = facts.job, facts.bench.rows
    schema = rows.schema(FINAL)
    scored = Scored(facts.table, facts.decision, facts.judged, facts.bench.classes)
    nulls = {column.name: column.nulls for column in schema.columns}
    calibration = calibration_of(facts.table.outcomes[facts.shipped.id], scored.truth, job.task, facts.table.mix)
    names = tuple(group.name for group in rows.groups.items)
    compared, judged = candidates(scored, facts.bench), evaluation(scored, names, tuple(schema.classes), job.seed)
    form = facts.decision.chosen[1] if facts.shipped == facts.decision.chosen[0] else "calibrated"
    return {
        "version": metadata.version("codsa-ray"),
        "created": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "title": f"{os.path.basename(Folder(job.data).shown)}: {job.target}",
        "job": _job(job),
        "data": _data(facts),
        "verdict": _verdict(facts),
        "schema": [{**row, "nulls": nulls.get(row["column"])} for row in schema.shown()],
        "left_out": [{"column": column, "reason": reason} for column, reason in schema.left_out],
        "groups": groups(scored, facts.bench),
        "candidates": compared,
        "curve": curve(compared, job.task, facts.decision.chosen[0]),
        **judged,
        "why": why(scored, facts.bench, job.seed, job.rows),
        **_audited(facts),
        "stages": [stage.to_json() for stage in facts.stages],
        "redrawn": (redrawn := _redrawn(facts)),
        "notices": [*facts.read["notices"], *_notices(facts), *_again(redrawn), *_unmeasured(judged["metrics"])],
        "environment": {"python": platform.python_version(), "cores": os.cpu_count(), **{p: metadata.version(p) for p in PACKAGES}},
        "correction": correction_of(facts.bench, facts.shipped, form, title(facts.shipped, form), calibration),
    }


def _verdict(facts: Facts) -> dict[str, Any]:
    verdict = facts.decision.verdict
    return {
        **verdict.to_json(),
        "sentences": list(verdict.sentences()),
        "gain": {**asdict(verdict.gain), "level": CONFIDENCE} if verdict.gain else None,
        "chosen": verdict.chosen.called,
        "base": verdict.base.called,
        "best": verdict.best.called if verdict.best else None,
        "plan": _plan(facts) if facts.plan.size else None,
    }


def _plan(facts: Facts) -> dict[str, Any]:
    names = [region.name for region in facts.bench.partitions[FINAL].regions.items]
    return {
        "rows": facts.plan.size,
        "draws": facts.plan.draws,
        "row_weight": facts.plan.parts[0].row_weight,
        "regions": {name: int(count) for name, count in zip(names, facts.plan.counts, strict=True) if count},
    }


def _job(job: Job) -> dict[str, Any]:
    plain = job.to_json()
    for key in ("data", "test", "source", "out"):
        if plain[key]:
            plain[key] = Folder(plain[key]).shown
    for key in ("learner", "allocator", "strata"):
        plain[key] = _plugin(plain[key])
    return {**plain, "generator": [_plugin(value) for value in plain["generator"]]}


def _plugin(value: dict[str, Any]) -> str:
    return f"{value['name']}({', '.join(f'{k}={v}' for k, v in value['settings'].items())})"


def _data(facts: Facts) -> dict[str, Any]:
    rows, read = facts.bench.rows, facts.read
    counts = np.array(rows.counts)
    return {
        "rows": read["rows_out"],
        "train": int(counts[:-1].sum()),
        "test": int(counts[-1].sum()),
        "set_aside": read["set_aside"],
        **({"other_domains": sum(rows.others)} if rows.domain else {}),
        "columns": len(rows.schema(FINAL).order),
        "folds": rows.folds,
    }


def _thinned(bench: Bench) -> list[str]:
    rows, cap = bench.rows, bench.cap
    parts = {"held-out rows a fold": rows.counts[: rows.folds], "test rows": rows.counts[-1:]}
    large = [name for name, counts in parts.items() if max(map(sum, counts)) > cap]
    said = f"scores are of at most {cap:,} {' and as many '.join(large)}: large groups are thinned, which moves no group's mean"
    return [said] if large else []


def _notices(facts: Facts) -> list[str]:
    found = [*facts.said, *(f"generator {name} is out: {reason}" for name, reason in facts.failed.items())]
    found += _projected(facts)
    found += _sources(facts)
    found += [f"candidate {o.candidate.name} failed: {o.failed}" for o in facts.table.outcomes.values() if o.failed]
    found += _asked(facts)
    if facts.bench.partitions[FINAL].regions.counts.sum() > facts.bench.cap:
        found.append(
            f"the search saw at most {facts.bench.cap:,} training rows a fold: small regions whole, large ones thinned and weighted up"
        )
    found += _thinned(facts.bench)
    if facts.plan.size:
        of = "all training rows" if facts.shipped.share == 1 else f"a share {facts.shipped.share:g} of the training rows (`_weight` 0)"
        found.append(f"the rows written come from generators fitted on {of}: no score judged those rows, only their like")
    kept = "the run's fit/ and read/ folders hold real rows" + (
        "; this report shows some" if facts.job.rows else "; this report shows none"
    )
    return [*found, kept]


def _redrawn(facts: Facts) -> list[dict[str, Any]]:
    """Of each generator, the rows of its pools, and how many others were drawn again for which reason, the commonest first."""
    rows, why = Counter[str](), dict[str, Counter[str]]()
    for (name, *_), pool in facts.bench.pools.items():
        rows[name] += sum(shard.blocks for shard in pool.shards) * pool.block
        why.setdefault(name, Counter()).update(pool.redrawn())
    return [{"generator": name, "rows": rows[name], "reasons": dict(found.most_common())} for name, found in sorted(why.items()) if found]


def _again(redrawn: list[dict[str, Any]]) -> list[str]:
    found = []
    for one in redrawn:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in one["reasons"].items())
        total = sum(one["reasons"].values())
        found.append(f"generator {one['generator']}: {total:,} rows were drawn again beside the {one['rows']:,} that were kept: {reasons}")
    return found


def _sources(facts: Facts) -> list[str]:
    """Who learned from the source, or from rows of other domains, and what those weigh."""
    rows, alone = facts.bench.rows, [name_of(g) for g in facts.job.generator if not g.needs.source]  # type: ignore[union-attr]
    if facts.job.source and len(alone) == len(facts.job.generator):
        return ["the source was not used: none of the generators learns from one"]
    if rows.domain is None:
        return []
    found = [f"learned from rows of the target domain alone: {', '.join(alone)}"] if alone else []
    try:
        return [*found, facts.bench.ratio(FINAL).notice]
    except CandidateError as error:
        return [*found, f"no importance weights: {error}"]


def _asked(facts: Facts) -> list[str]:
    """What to know of the search: candidates given up, and a clock that ended it."""
    pruned = sum(outcome.pruned is not None for outcome in facts.table.outcomes.values())
    found = [f"{pruned} candidates were given up after some of the folds: their rows in the table say why"] if pruned else []
    if facts.job.seconds:
        found.append(f"the search stopped asking after {facts.job.seconds:g} s: another run of the same command may try other candidates")
    return found


def _unmeasured(metrics: dict[str, Any]) -> list[str]:
    """Metrics that are undefined, candidates that have none, and intervals from fewer rows than there are."""
    found = []
    for where in ("test", "out_of_fold"):
        part = metrics[where]
        found += part["notices"]
        if part["looked_at"] < part["rows"]:
            found.append(f"intervals of metrics stand on {part['looked_at']:,} of {part['rows']:,} rows and are that much wider")
    return list(dict.fromkeys(found))


def _projected(facts: Facts) -> list[str]:
    """What the allocator has to say of the plan that was written."""
    notice = getattr(facts.job.allocator, "notice", None)
    if notice is None or not facts.plan.size:
        return []
    text = notice(facts.bench.regions(FINAL, facts.shipped.share), facts.plan.size, facts.plan.parts[0].row_weight)
    return [text] if text else []


def _audited(facts: Facts) -> dict[str, Any]:
    """Drawn rows of the first fold's generator beside the rows it saw and the rows it did not."""
    best = facts.decision.best
    key = (best[0].generator, 0, 0, best[0].share) if best else next(iter(k for k in facts.bench.pools if k[1] == 0), None)
    if key is None or key not in facts.bench.pools:
        return {
            "fidelity": None,
            "privacy": None,
            "sample": [],
            "pictures": None,
            "images": [],
            "texts": [],
            "picture_quality": {},
            "text_quality": {},
            "coupling": [],
        }
    bench, part = facts.bench, facts.bench.partitions[0].of_generator(key[3])
    most = MOST_ROWS if images(bench.rows.schema(0)) else 4 * AUDIT_ROWS
    training = bench.rows.training(0, part.regions, part.rule, side=part.side)
    real = training.table(most)
    pool = bench.pools[key]
    have = pool.ceiling(len(part.regions))
    counts = np.minimum(np.bincount(real[REGION].to_numpy(), minlength=len(have)), have)
    counts = np.minimum(counts, max(min(AUDIT_ROWS, most) // max(len(counts), 1), 200))
    schema = bench.rows.schema(0)
    unseen, drawn = marked((bench.rows.unseen(0, part.regions, part.rule, most), pool.take(counts)), training.blocks(), schema)
    found = audit(real, unseen, drawn, schema, part.regions, facts.job.seed, facts.job.rows)
    return found | {"audited": key[0].rpartition("-")[0]}

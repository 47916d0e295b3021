"""`make bench-overhead`: a search of 60 candidates on 5 folds against the bare cost of its fits; writes docs/benchmarks/overhead.md.

Reads adult.parquet from the folder that CODSA_DATA names.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.data import data_folder
from benchmarks.results import machine
from codsa_ray import Job, pipeline
from codsa_ray.bench import Bench
from codsa_ray.outcomes import Outcome
from codsa_ray.trial import run_trial

PAGE = Path("docs/benchmarks/overhead.md")
ROWS, FOLDS, CANDIDATES, CORES = 10_000, 5, 60, 2
SIZE_ZERO = 14  # candidates without synthesis of logistic on two classes
TIMES, PLUS = 1.3, 8.0


@dataclass(frozen=True)
class Timed:
    """A learner that notes the seconds of its fits and scores."""

    learner: Any
    seconds: list[float] = field(default_factory=list)

    @property
    def needs(self) -> Any:
        """The learner's."""
        return self.learner.needs

    def variants(self) -> tuple["Timed", ...]:
        """The learner's, noting in the same list."""
        return tuple(Timed(learner, self.seconds) for learner in self.learner.variants())

    def encoder(self, *of: Any) -> Any:
        """The learner's."""
        return self.learner.encoder(*of)

    @classmethod
    def tiny(cls) -> "Timed":
        """Never asked for."""
        raise NotImplementedError

    def fit(self, *rows: np.ndarray, **settings: Any) -> "TimedPredictor":
        """Fits."""
        started = time.process_time()
        predictor = self.learner.fit(*rows, **settings)
        self.seconds.append(time.process_time() - started)
        return TimedPredictor(predictor, self.seconds)


@dataclass(frozen=True)
class TimedPredictor:
    """Its predictor."""

    predictor: Any
    seconds: list[float]

    def scores(self, X: np.ndarray) -> np.ndarray:
        """Scores; their seconds count to the fit's."""
        started = time.process_time()
        scores = self.predictor.scores(X)
        self.seconds[-1] += time.process_time() - started
        return np.asarray(scores)


@dataclass(frozen=True)
class Searched:
    """What a search cost and did.

    Args:
        wall: seconds.
        busy: core seconds of all processes, Ray's own among them.
        load: average number of running processes on the machine, the search's among them: beyond the cores, `wall` says little.
    """

    wall: float
    busy: float
    load: float
    outcomes: list[Outcome]
    bench: Bench


def searched(job: Job) -> Searched:
    """Runs the search of a job whose pools are drawn."""
    walls: dict[str, float] = {}

    def watch(stage: str, done: int, total: int, note: str = "") -> None:
        if total == 0 and " s" in note:
            walls[stage] = float(note.split(" s")[0].split()[-1])

    pipeline.run_until(job, "synthesize")
    before = busy()
    pipeline.run_until(job, "search", watch)
    after, load = busy(), os.getloadavg()[0]
    pipeline.run(job)
    with pipeline.reopened(job.out) as kept:
        bench = replace(kept.bench, cache=f"{job.out}-cache", memory={})
        return Searched(walls["search"], after - before, load, list(kept.table.outcomes.values()), bench)


def busy() -> float:
    """Core seconds of this process and all it started, ended ones included."""
    mine = psutil.Process()
    return sum(sum(one.cpu_times()[:4]) for one in [mine, *mine.children(recursive=True)])


def bare(bench: Bench, outcomes: list[Outcome]) -> list[float]:
    """Seconds of every fit that the search made, one after the other in this process."""
    timed = Timed(bench.learner)
    bench = replace(bench, learner=timed, memory={})
    for outcome in outcomes:
        for fold in range(_folds(outcome, bench)):
            run_trial(bench, outcome.candidate, fold)
    return timed.seconds


def _folds(outcome: Outcome, bench: Bench) -> int:
    """How many folds it was scored on."""
    ends = np.cumsum([len(bench.held_out(fold).y) for fold in range(FOLDS)])
    return int(np.searchsorted(ends, len(outcome.offset))) + 1


def main() -> None:
    """Measures and writes the page."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as place:
        table = pd.read_parquet(data_folder() / "adult.parquet").drop(columns=["split"])
        table.sample(round(ROWS / 0.8), random_state=0).to_parquet(f"{place}/adult.parquet")
        job = Job(
            f"{place}/adult.parquet",
            "income",
            out=f"{place}/run",
            generator=("bootstrap",),
            learner="logistic",
            trials=CANDIDATES - SIZE_ZERO,
            draws=1,
            folds=FOLDS,
            workers=CORES,
        )
        found = searched(job)
        seconds = bare(found.bench, found.outcomes)
    total, many = sum(seconds), len(found.outcomes)
    pruned = sum(outcome.pruned is not None for outcome in found.outcomes)
    page = [
        "# Overhead of the search",
        "",
        f"`make bench-overhead` on {date.today()}, {machine()}.",
        "",
        f"{many} candidates x {FOLDS} folds, logistic, {ROWS:,} training rows of adult; {pruned} were given up after some folds.",
        "",
        "| | core seconds |",
        "|---|---|",
        f"| the bare cost of {len(seconds)} fits, one process | {total:.1f} |",
        f"| the search: fits, mixing, correction, calibration, Ray and Tune | {found.busy:.1f} |",
        "",
        f"Wall: {found.wall:.1f} s by {CORES} workers at a load of {found.load:.1f} running processes; wanted on an idle machine: at most "
        f"{TIMES:g} x bare + {PLUS:g} s = {TIMES * total + PLUS:.1f} s (were the fits spread over {CORES} cores without loss: "
        f"{TIMES * total / CORES + PLUS:.1f} s).",
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(page) + "\n")
    print("\n".join(page))


if __name__ == "__main__":
    main()

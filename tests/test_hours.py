"""One piece of work that is longer than the run's hours is ended with them, keeps its checkpoints, and goes on with the same command."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from codsa_ray.contracts import Encoder, FittedGenerator, Needs, Predictor, Worker
from codsa_ray.errors import OutOfTime
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.learners.logistic import Logistic
from codsa_ray.pipeline import run, run_until
from codsa_ray.stages.fit import CHECKPOINT

import runs

LONG, HOURS = 300.0, 30 / 3600


def lingers(place: str) -> None:
    """For long, the first time."""
    if not (Path(place) / "quick").exists():
        (Path(place) / "begun").touch()
        time.sleep(LONG)


@dataclass(frozen=True)
class Slow:
    """Copies rows, in its own time."""

    place: str

    @property
    def needs(self) -> Needs:
        return Bootstrap().needs

    def fit(self, data: FitData, worker: Worker) -> None:
        worker.save(1, {"w": np.ones(2)}, {})
        lingers(self.place)
        Bootstrap().fit(data, worker)

    def load(self, folder: Folder) -> FittedGenerator:
        return Bootstrap().load(folder)

    @classmethod
    def tiny(cls) -> Self:
        return cls("")


@dataclass(frozen=True)
class SlowLearner:
    """A logistic regression, in its own time."""

    place: str

    @property
    def needs(self) -> Needs:
        return Logistic().needs

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: Any, schema: Any) -> Encoder:
        return Logistic().encoder(train, schema)

    def fit(self, X: Any, y: Any, weight: Any, *, classes: int, seed: int, offset: Any = None) -> Predictor:
        lingers(self.place)
        return Logistic().fit(X, y, weight, classes=classes, seed=seed, offset=offset)

    @classmethod
    def tiny(cls) -> Self:
        return cls("")


@pytest.mark.parametrize("what", ["fit", "trial"])
def test_hours_that_end_during_one_long_piece_of_work_end_it(ray: None, tmp_path: Path, what: str) -> None:
    slow: dict[str, Any] = {"fit": {"generator": (Slow(str(tmp_path)),)}, "trial": {"learner": SlowLearner(str(tmp_path))}}
    settings = {"generator": ("bootstrap",), **slow[what]}
    job = runs.job(runs.written(tmp_path, runs.patients(120)), tmp_path / "run", trials=1, **settings)
    run_until(job, {"fit": "read", "trial": "synthesize"}[what])
    # A busy machine may take longer to start a worker than the first of these.
    for hours in (HOURS, 3 * HOURS):
        started = time.perf_counter()
        with pytest.raises(OutOfTime, match="the same command goes on"):
            run(replace(job, max_hours=hours))
        if (tmp_path / "begun").exists():
            break
    assert time.perf_counter() - started < 3600 * hours + LONG / 2
    assert (tmp_path / "begun").exists()
    if what == "fit":
        assert list((tmp_path / "run" / "fit").glob(f"*/*/{CHECKPOINT}/last.json"))
    assert not list((tmp_path / "run" / "search").glob("*/*-*.parquet"))

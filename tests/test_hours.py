"""One piece of work that is longer than the run's hours is ended with them, keeps its checkpoints, and goes on with the same command."""

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codsa_ray.errors import OutOfTime
from codsa_ray.job import Job
from codsa_ray.pipeline import run, run_until
from codsa_ray.stages.fit import CHECKPOINT, _side_by_side

import runs
from failing import LONG, TIME, LackingCopies, LackingLogistic

HOURS = 30 / 3600


def ended(job: Job, hours: float) -> None:
    """The run ends with its hours, and long before the piece of work does."""
    started = time.perf_counter()
    with pytest.raises(OutOfTime, match="the same command goes on"):
        run(replace(job, max_hours=hours))
    assert time.perf_counter() - started < 3600 * hours + LONG / 3


def test_trainers_are_waited_for_beyond_the_end_but_not_for_ever(ray: None) -> None:
    from ray import remote

    fit: Any = "fit"
    started, sleeping = time.perf_counter(), remote(num_cpus=0)(lambda: time.sleep(LONG))
    with closing(_side_by_side([fit], lambda: 1, lambda fit: sleeping.remote(), started + 0.5, late=1.0)) as running:
        assert next(running) is None
        assert time.perf_counter() - started > 1.4
    assert time.perf_counter() - started < LONG / 3


@pytest.mark.parametrize("what", ["fit", "trial"])
def test_hours_that_end_during_one_long_piece_of_work_end_it(ray: None, tmp_path: Path, what: str) -> None:
    slow: dict[str, Any] = {
        "fit": {"generator": (LackingCopies(TIME, str(tmp_path)),)},
        "trial": {"learner": LackingLogistic(TIME, str(tmp_path))},
    }
    settings = {"generator": ("bootstrap",), **slow[what]}
    job = runs.job(runs.written(tmp_path, runs.patients(120)), tmp_path / "run", trials=1, **settings)
    run_until(job, {"fit": "read", "trial": "synthesize"}[what])
    ended(job, HOURS)
    # A busy machine may take longer to start a worker.
    if not (tmp_path / "begun").exists():
        ended(job, 3 * HOURS)
    assert (tmp_path / "begun").exists()
    if what == "fit":
        assert list((tmp_path / "run" / "fit").glob(f"*/*/{CHECKPOINT}/last.json"))
    assert not list((tmp_path / "run" / "search").glob("*/*-*.parquet"))

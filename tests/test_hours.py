"""One piece of work that is longer than the run's hours is ended with them, keeps its checkpoints, and goes on with the same command."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codsa_ray.errors import OutOfTime
from codsa_ray.pipeline import run, run_until
from codsa_ray.stages.fit import CHECKPOINT

import runs
from failing import LONG, TIME, LackingCopies, LackingLogistic

HOURS = 30 / 3600


@pytest.mark.parametrize("what", ["fit", "trial"])
def test_hours_that_end_during_one_long_piece_of_work_end_it(ray: None, tmp_path: Path, what: str) -> None:
    slow: dict[str, Any] = {
        "fit": {"generator": (LackingCopies(TIME, str(tmp_path)),)},
        "trial": {"learner": LackingLogistic(TIME, str(tmp_path))},
    }
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

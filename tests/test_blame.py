"""What the machine fails with ends the run and is never kept as a method's failure; the same command goes on to the same rows."""

import json
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import xgboost
from torch.distributed import DistBackendError

from codsa_ray.blame import why
from codsa_ray.errors import CandidateError, MachineError, SettingError
from codsa_ray.folder import Folder
from codsa_ray.outcomes import FACTS, TRUTH
from codsa_ray.pipeline import Report, run
from codsa_ray.rows import FINAL
from codsa_ray.stages.fit import CHECKPOINT, FitJob
from codsa_ray.stages.train import _reason

import runs
from failing import MEMORY, Broken, LackingCopies, LackingLogistic


def too_much() -> RuntimeError:
    """What torch raises where the machine has no such memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


def wrapped() -> CandidateError:
    """A learner's own words for it."""
    try:
        raise CandidateError("xgboost: no trees") from xgboost.core.XGBoostError("std::bad_alloc")
    except CandidateError as error:
        return error


MACHINE: list[Exception] = [
    too_much(),
    torch.OutOfMemoryError("Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
    DistBackendError("remote process exited or there was a network error"),
    RuntimeError("can't start new thread"),
    RuntimeError("[gloo/transport/tcp/pair.cc:544] Connection closed by peer [127.0.0.1]:1234"),
    xgboost.core.XGBoostError("[12:00:00] device_helpers.cuh: Memory allocation error: std::bad_alloc: cudaErrorMemoryAllocation"),
    BrokenProcessPool("a worker ended"),
    MemoryError(),
    wrapped(),
]
METHOD: list[Exception] = [
    ValueError("rows are out of order"),
    KeyError("weights"),
    FloatingPointError("the loss is nan"),
    torch.AcceleratorError("CUDA error: device-side assert triggered"),
    xgboost.core.XGBoostError("Check failed: label must be in [0, 1]"),
    SettingError("a base", "OSError: Connection refused by the hub", "name a folder"),
]


@pytest.mark.parametrize("error", MACHINE, ids=lambda error: type(error).__name__)
def test_the_machines_faults_are_the_machines(error: Exception) -> None:
    with pytest.raises(MachineError, match=f"{type(error).__name__}.*run again"):
        why(error)


@pytest.mark.parametrize("error", METHOD, ids=lambda error: type(error).__name__)
def test_a_methods_faults_are_the_methods(error: Exception) -> None:
    assert why(error) == f"{type(error).__name__}: {error}"


def test_of_a_spread_fit_the_rank_that_did_not_wait_says_why(tmp_path: Path) -> None:
    @dataclass
    class Failed(Exception):
        worker_failures: dict[int, Exception]

    fit = FitJob(Broken("fit"), FINAL, Folder(str(tmp_path)), "")
    lost = DistBackendError("NCCL error")
    assert _reason(Failed({0: lost, 1: ValueError("no such row")}), fit) == "ValueError: no such row"
    with pytest.raises(MachineError, match="out of memory"):
        _reason(Failed({0: lost, 1: torch.OutOfMemoryError("CUDA out of memory")}), fit)


def ended(report: Report) -> dict[str, bytes]:
    return runs.contents(report.augmented) | {"verdict": Path(report.folder, "verdict.json").read_bytes()}


@pytest.mark.parametrize("at", ["fit", "draw", "learner"])
def test_a_run_that_the_machine_failed_goes_on_to_the_same_rows(here: None, tmp_path: Path, at: str) -> None:
    place, data = tmp_path / "machine", runs.written(tmp_path, runs.patients())
    place.mkdir()
    settings: dict[str, Any] = {"generator": ("bootstrap", LackingCopies(MEMORY, str(place), at)), "trials": 2}
    if at == "learner":
        settings["learner"] = LackingLogistic(MEMORY, str(place), weighted=True)
    with pytest.raises(MachineError, match="allocate memory"):
        run(runs.job(data, tmp_path / "run", **settings))
    if at == "fit":
        assert list(Path(tmp_path, "run", "fit").glob(f"lacking_copies-*/*/{CHECKPOINT}")), "checkpoints are kept"
    (place / "mended").touch()
    disturbed, whole = run(runs.job(data, tmp_path / "run", **settings)), run(runs.job(data, tmp_path / "whole", **settings))
    assert not any(candidate["failed"] for candidate in disturbed.facts["candidates"])
    assert ended(disturbed) == ended(whole)


def test_a_trial_elsewhere_that_the_machine_failed_ends_the_run_and_stores_nothing(ray: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    learner = LackingLogistic(MEMORY, str(tmp_path), weighted=True)
    with pytest.raises(MachineError, match="allocate memory"):
        run(runs.job(data, tmp_path / "run", generator=("bootstrap",), learner=learner, trials=1))
    facts = [pq.read_schema(path).metadata[FACTS] for path in Path(tmp_path, "run", "search").glob("*/*.parquet") if path.name != TRUTH]
    assert facts
    assert not any(json.loads(fact)["failed"] for fact in facts)

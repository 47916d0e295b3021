"""Train: one fit spread over the workers of a Ray Train TorchTrainer; knows no method."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from codsa_ray.blame import waiting, why
from codsa_ray.errors import PLUGIN_FAILURES, CodsaError, InternalError, OutOfTime
from codsa_ray.filesystem import filesystem_of
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.nn.shards import is_shard
from codsa_ray.partition import Partition
from codsa_ray.plugins import as_fitted
from codsa_ray.rows import Rows
from codsa_ray.stages.source import Related

if TYPE_CHECKING:
    from codsa_ray.stages.fit import FitJob

Workers = int | tuple[int, int]
"""How many, or at least and at most: as many as there is room for, looked for again each time that some have to start."""
FAILURES = 2
CHECKPOINTS_KEPT = 2
LOOKS = 60.0
"""Seconds between two looks for room for more workers. Each time that there is, all of them start again from the last checkpoint."""
UP = "--max-hours are over during fit; the same command goes on from here"


@dataclass(frozen=True, eq=False)
class OnDisk(Mapping[str, np.ndarray]):
    """Arrays of safetensors files, each read when it is asked for: of what many ranks saved, one needs little.

    Args:
        files: array -> path.
    """

    files: dict[str, Path]

    @staticmethod
    def of(folder: Path) -> "OnDisk":
        """All arrays of all files directly inside."""
        found: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                found |= dict.fromkeys(file.keys(), path)
        return OnDisk(found)

    def __getitem__(self, name: str) -> np.ndarray:
        with safe_open(self.files[name], framework="numpy") as file:
            array: np.ndarray = file.get_tensor(name)
            return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


@dataclass
class TrainWorker:
    """One rank of a TorchTrainer: modules are wrapped for data parallelism, checkpoints go through Ray Train.

    Args:
        end: by time.time; a fit that is under way then raises OutOfTime, at its next checkpoint, on all ranks alike.
    """

    folder: Folder
    rank: int
    world: int
    device: str
    end: float = inf
    held: ExitStack = field(default_factory=ExitStack)

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """Places and wraps the module (DistributedDataParallel when there are several workers); one that is cut lies where it should."""
        import torch
        from ray.train.torch import prepare_model

        if not any(map(is_shard, module.parameters())):
            # Ray may know of GPUs that torch cannot use.
            module = prepare_model(module, move_to_device=torch.device("cpu") if self.device == "cpu" else True)
        return module, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Registers one checkpoint of all ranks: a file of each that brings arrays, and of rank 0 the state."""
        from ray import train
        from ray.train.collective import broadcast_from_rank_zero

        self.held.close()
        with tempfile.TemporaryDirectory() as place:
            folder = Folder(place)
            if arrays:
                folder.write_arrays(f"rank-{self.rank:05d}.safetensors", arrays)
            if self.rank == 0:
                folder.write_json("state.json", {"step": step, "meta": meta})
            train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(place) if folder.names() else None)
        # By one clock: a rank that went on alone would wait for the others for ever.
        if self.end < inf and broadcast_from_rank_zero(time.time() > self.end):
            raise OutOfTime(UP)

    def resume(self) -> tuple[int, Mapping[str, np.ndarray], dict[str, Any]] | None:
        """The newest registered checkpoint, saved by any number of ranks; its files are let go by the next save or report."""
        from ray import train

        checkpoint = train.get_checkpoint()
        if checkpoint is None:
            return None
        place = self.held.enter_context(checkpoint.as_directory())
        state = Folder(place).read_json("state.json")
        return state["step"], OnDisk.of(Path(place)), state["meta"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """A barrier for all ranks; the numbers reach Ray Train's log."""
        from ray import train

        self.held.close()
        train.report({"step": step, **metrics})


def _loop(config: dict[str, Any]) -> Any:
    """Fits; rank 0 returns what the fit has to say, UP where its time was over before."""
    import torch
    from ray import train

    context = train.get_context()
    rows, part, source = config["rows"], config["part"], config["source"]
    device = "cuda" if config["gpu"] and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        from ray.train.torch import get_device

        torch.cuda.set_device(get_device())
    worker = TrainWorker(Folder(config["folder"]), context.get_world_rank(), context.get_world_size(), device, config["end"])
    fold = config["fold"]
    related = source.data(fold, part) if source else None
    generator = config["generator"]
    try:
        as_fitted(generator).fit(rows.training(fold, part.regions, part.rule, related, part.side), worker)
    except OutOfTime:
        # No failure: Ray Train would try again.
        return UP
    # What had to be cut is not read whole for a remark.
    return [] if worker.rank or generator.needs.sharded else list(getattr(generator.load(worker.folder), "notice", ()))


def _reason(error: Exception, fit: "FitJob") -> str:
    """What the plug-in raised on the first rank that failed, in one line.

    Raises:
        CodsaError: the machine failed, and not the plug-in. Where a rank died, others fail too, in waiting for it.
    """
    failures = getattr(error, "worker_failures", None) or {0: error}
    beyond = [failure for failure in failures.values() if not isinstance(failure, PLUGIN_FAILURES)]
    if beyond and isinstance(beyond[0], CodsaError):
        raise beyond[0] from error
    if beyond:
        said = "; ".join(f"rank {rank}: {' '.join(str(failures[rank]).split())[:200]}" for rank in sorted(failures))
        raise InternalError(f"fit {fit.name} failed {1 + FAILURES} times, {said}; run again to go on from its last checkpoint") from error
    # Of those that only waited for another rank, the reason is that one's.
    first = {rank: failure for rank, failure in failures.items() if not waiting(failure)} or failures
    reasons = [why(first[rank]) for rank in sorted(first)]
    return reasons[0]


def workers_of(job: Job) -> Workers:
    """As many as GPUs; where fewer are enough, as many as there are."""
    most = max(1, int(job.gpus))
    return (min(job.least_gpus, most), most) if 0 < job.least_gpus < most else most


def train_fit(
    fit: "FitJob", rows: Rows, part: Partition, source: Related | None, job: Job, workers: Workers | None = None, end: float = inf
) -> str | None:
    """Fits over Ray Train workers (`workers_of` the job by default); a dead one costs what came after the last checkpoint.

    Args:
        end: see `TrainWorker`.

    Returns:
        Why it could not be fitted, or None.

    Raises:
        CodsaError: workers died more often than is put up with, could not do their part, or ran out of time; the checkpoints are kept.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from torch.distributed import is_nccl_available

    manifest, gpu, workers = fit.manifest, job.gpus > 0, workers or workers_of(job)
    # Ours, with its endpoint, times and retries: of an address Ray Train would make one of its own.
    store, place = filesystem_of((fit.folder / "train").address)
    trainer = TorchTrainer(
        _loop,
        train_loop_config={
            "generator": fit.generator,
            "fold": fit.fold,
            "rows": rows,
            "part": part,
            "source": source,
            "folder": fit.folder.address,
            "gpu": gpu,
            "end": end,
        },
        torch_config=TorchConfig(backend="nccl" if gpu and is_nccl_available() else "gloo"),
        scaling_config=_scaling(fit, gpu, workers),
        run_config=RunConfig(
            # One name a fit, under the run's own folder: building the same trainer again goes on from its last checkpoint.
            name="trainer",
            storage_path=place,
            storage_filesystem=store,
            failure_config=FailureConfig(max_failures=FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
        ),
    )
    try:
        result: Any = trainer.fit()
    except TrainingFailedError as error:
        reason = _reason(error, fit)
        fit.folder.delete("train")
        return reason
    if result.return_value == UP:
        raise OutOfTime(UP)
    fit.folder.delete("train")
    manifest.write(rows=int(part.regions.counts.sum()), workers=workers, notices=result.return_value or [], files=fit.written())
    return None


def _scaling(fit: "FitJob", gpu: bool, workers: Workers) -> Any:
    from ray.train import ScalingConfig

    needs, asked = fit.generator.needs, {"num_workers": workers, "elastic_resize_monitor_interval_s": LOOKS}
    each = {"CPU": 0.5, **({"GPU": 1} if gpu else {}), **({"memory": needs.memory} if needs.memory else {})}
    return ScalingConfig(use_gpu=gpu, resources_per_worker=each, accelerator_type=needs.accelerator, **asked)  # type: ignore[arg-type]

"""Train: one fit spread over the workers of a Ray Train TorchTrainer; knows no method."""

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.partition import Partition
from codsa_ray.rows import Rows
from codsa_ray.stages.source import Source

if TYPE_CHECKING:
    from codsa_ray.stages.fit import FitJob

FAILURES = 2
CHECKPOINTS_KEPT = 2


@dataclass
class TrainWorker:
    """One rank of a TorchTrainer: modules are wrapped for data parallelism, checkpoints go through Ray Train."""

    folder: Folder
    rank: int
    world: int
    device: str

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """Places and wraps the module (DistributedDataParallel when there are several workers)."""
        from ray.train.torch import prepare_model

        module = prepare_model(module)
        return module, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Registers a checkpoint; rank 0 brings the files, the others wait."""
        from ray import train

        if self.rank:
            train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as place:
            folder = Folder(place)
            folder.write_arrays("state.safetensors", arrays)
            folder.write_json("state.json", {"step": step, "meta": meta})
            train.report({"step": step}, checkpoint=train.Checkpoint.from_directory(place))

    def resume(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest registered checkpoint."""
        from ray import train

        checkpoint = train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as place:
            state = Folder(place).read_json("state.json")
            return state["step"], Folder(place).read_arrays("state.safetensors"), state["meta"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """A barrier for all ranks; the numbers reach Ray Train's log."""
        from ray import train

        train.report({"step": step, **metrics})


def _loop(config: dict[str, Any]) -> None:
    import torch
    from ray import train

    context = train.get_context()
    rows, part, source = config["rows"], config["part"], config["source"]
    device = "cuda" if config["gpu"] and torch.cuda.is_available() else "cpu"
    worker = TrainWorker(Folder(config["folder"]), context.get_world_rank(), context.get_world_size(), device)
    fold = config["fold"]
    related = source.data(fold, part) if source else None
    config["generator"].fit(rows.training(fold, part.regions, part.rule, related, part.side), worker)


def _reason(error: Exception) -> str:
    """What the first rank that failed raised, in one line."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    first = failures[min(failures)]
    return f"{type(first).__name__}: {' '.join(str(first).split())}"


def train_fit(fit: "FitJob", rows: Rows, part: Partition, source: Source | None, job: Job, workers: int | None = None) -> str | None:
    """Fits over `workers` Ray Train workers (as many as GPUs by default); a dead worker costs what came after the last checkpoint.

    Returns:
        Why it could not be fitted, or None.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    manifest = fit.manifest
    gpu = job.gpus > 0
    # One name a fit, under the run's own folder: building the same trainer again goes on from its last checkpoint.
    storage = (fit.folder / "train").address
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
        },
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers or max(1, int(job.gpus)), use_gpu=gpu, resources_per_worker={"CPU": 0.5, **({"GPU": 1} if gpu else {})}
        ),
        run_config=RunConfig(
            name="trainer",
            storage_path=storage,
            failure_config=FailureConfig(max_failures=FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        fit.folder.delete("train")
        return _reason(error)
    fit.folder.delete("train")
    manifest.write(rows=int(part.regions.counts.sum()), workers=workers or int(job.gpus))
    return None

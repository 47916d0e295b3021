"""Phases: one training after another behind one worker's checkpoints; knows no network and no data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from codsa_ray.contracts import Worker
from codsa_ray.folder import Folder


@dataclass
class Phase:
    """A worker as one of several trainings sees it: it resumes from its own checkpoints only.

    Args:
        rank, world, device, folder: the worker's.
        worker: whose checkpoints they are.
        name: of this training.
        first: step that its own step 0 is saved under, above all steps of the trainings before: a name is never written twice.
        before: plain data that the trainings before left.
    """

    rank: int
    world: int
    device: str
    folder: Folder
    worker: Worker
    name: str
    first: int
    before: dict[str, Any]

    @staticmethod
    def of(worker: Worker, name: str, first: int = 0, before: dict[str, Any] | None = None) -> "Phase":
        """One training of the worker's."""
        return Phase(worker.rank, worker.world, worker.device, worker.folder, worker, name, first, before or {})

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """As the worker does."""
        prepared: tuple[Any, Any] = self.worker.prepare(module, make_optimizer)
        return prepared

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Checkpoints under this training's name."""
        self.worker.save(self.first + step, arrays, {"phase": self.name, "before": self.before, "state": meta})

    def resume(self) -> tuple[int, Mapping[str, np.ndarray], dict[str, Any]] | None:
        """This training's newest checkpoint, or None."""
        saved = self.worker.resume()
        if saved is None or saved[2]["phase"] != self.name:
            return None
        return saved[0] - self.first, saved[1], saved[2]["state"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Tells progress, counted over all trainings."""
        self.worker.report(self.first + step, metrics)


def reached(worker: Worker, name: str) -> dict[str, Any] | None:
    """What the trainings before `name` left, where the worker's newest checkpoint is that training's."""
    saved = worker.resume()
    return saved[2]["before"] if saved is not None and saved[2]["phase"] == name else None

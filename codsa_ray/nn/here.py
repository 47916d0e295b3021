"""Here: the one process that a learner is fitted in, for the one training loop; knows no network and no cluster."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from codsa_ray.errors import CandidateError
from codsa_ray.folder import Folder
from codsa_ray.nn.train import Loss, Score, Trained, Training, train


@dataclass
class Here:
    """A worker that keeps no checkpoint: a trial that dies starts again."""

    device: str
    rank: int = 0
    world: int = 1
    folder: Folder = field(default_factory=lambda: Folder(""))

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """The module as it is."""
        return module, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Nothing is kept."""

    def resume(self) -> None:
        """Nothing was kept."""

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Nobody watches."""


def train_here(module: nn.Module, loss: Loss, score: Score | None, settings: Training, device: str, seed: int) -> Trained:
    """`train` in this process.

    Raises:
        CandidateError: the loss stopped being a number.
    """
    try:
        return train(module, loss, score, settings, Here(device), seed)
    except FloatingPointError as error:
        raise CandidateError(f"the network diverged: {error}") from error

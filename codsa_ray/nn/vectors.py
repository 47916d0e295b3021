"""Vectors: what an autoencoder is asked of the vectors between its halves, so that a diffusion can learn them; knows no modality.

Shapes: n rows, D dimensions.

The encoder is held to vectors of mean 0, variance 1 and no covariance over a batch (the variance and covariance terms of Bardes, Ponce &
LeCun 2022), and the decoder sees them with noise (Vincent et al. 2008). So a diffusion's small errors decode to what is near, and nothing
draws a text's vectors to nothing, as the divergence of a variational autoencoder does (Bowman et al. 2016).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.schedules import stratified
from codsa_ray.nn.train import Score

Read = Callable[[np.ndarray, torch.Generator | None], tuple[Tensor, ...]]
"""(rows, generator of what is forgotten, or None where nothing is) -> what the autoencoder is called with, before the noise."""
SCORED = 512
"""Held-out rows of one score."""


def uneven(vectors: Tensor) -> Tensor:
    """How far (n, D) vectors are from mean 0, variance 1 and no covariance: mean squares of each, which are 0 there."""
    centred = vectors - vectors.mean(0)
    covariance = centred.T @ centred / max(len(vectors) - 1, 1)
    spread = (covariance.diagonal() + 1e-4).sqrt()
    crossed = covariance - torch.diag(covariance.diagonal())
    return vectors.mean(0).square().mean() + (1 - spread).square().mean() + crossed.square().sum() / len(covariance)


@dataclass(frozen=True, eq=False)
class VectorLoss:
    """The training loss of one worker's share of a batch.

    Args:
        read: rows to the autoencoder's arguments.
        mass: (n,) float64 cumulative share of each row in a batch.
        size: D.
        shake: standard deviation of the noise that the decoder sees on vectors.
        batch: rows of a step, all workers together.
        worker: whose share it is.
    """

    read: Read
    mass: Tensor
    size: int
    shake: float
    batch: int
    worker: Worker

    def __call__(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Over the rows rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        total = -(-self.batch // world) * world
        own = self._drawn(total, generator)[rank::world]
        noise = self.shake * torch.randn(total, self.size, generator=generator)[rank::world]
        cost, vectors = self._asked(module, self.read(own, generator), noise)
        return cost + uneven(vectors)

    def score(self, seed: int) -> Score:
        """The reconstruction's cost alone of rows that are the same at every check, with noise and nothing forgotten."""

        @torch.no_grad()
        def score(module: nn.Module) -> float:
            generator, costs = torch.Generator().manual_seed(seed), []
            for _ in range(-(-SCORED // self.batch)):
                rows = self._drawn(self.batch, generator)
                noise = self.shake * torch.randn(len(rows), self.size, generator=generator)
                costs.append(float(self._asked(module, self.read(rows, None), noise)[0]))
            return float(np.mean(costs))

        return score

    def _drawn(self, count: int, generator: torch.Generator) -> np.ndarray:
        return np.asarray(torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1).numpy())

    def _asked(self, module: Any, inputs: tuple[Tensor, ...], noise: Tensor) -> tuple[Tensor, Tensor]:
        device = next(module.parameters()).device
        cost, vectors = module(*(part.to(device) for part in inputs), noise.to(device))
        return cost, vectors.float()


@dataclass(frozen=True, eq=False)
class Scaling:
    """What takes an encoder's vectors to mean 0 and variance 1 exactly: (D,) float32 mean and spread of training rows."""

    middle: np.ndarray
    spread: np.ndarray

    @staticmethod
    def none(size: int) -> "Scaling":
        """That changes nothing."""
        return Scaling(np.zeros(size, dtype=np.float32), np.ones(size, dtype=np.float32))

    @staticmethod
    def of(vectors: np.ndarray) -> "Scaling":
        """Of (n, D) vectors, n >= 1; a dimension that does not move is left as it is."""
        spread = vectors.std(axis=0)
        return Scaling(vectors.mean(axis=0).astype(np.float32), np.where(spread > 1e-6, spread, 1.0).astype(np.float32))

    def enter(self, vectors: np.ndarray) -> np.ndarray:
        """(n, D) as a diffusion learns them."""
        return ((vectors - self.middle) / self.spread).astype(np.float32)

    def leave(self, latents: np.ndarray) -> np.ndarray:
        """The inverse."""
        return (latents * self.spread + self.middle).astype(np.float32)

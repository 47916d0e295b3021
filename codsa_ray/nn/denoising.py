"""Denoising: latent rows as batches, and what one training step is asked for at random noise levels; knows no column.

Source: Karras et al. 2022 (noise levels), Ho & Salimans 2022 (condition dropping).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.layout import Layout
from codsa_ray.nn.precondition import Scales, losses
from codsa_ray.nn.schedules import log_normal, stratified
from codsa_ray.nn.train import Score
from codsa_ray.regions import Regions

LEVEL_MEAN, LEVEL_SPREAD = -0.8, 1.4
"""Of ln sigma in training; wider than pictures' -1.2, 1.2, because unit-normal columns decide at sigma near 1."""
DROP, DROP_REGION = 0.1, 0.4
"""Chance that a training row loses its whole condition, and that it loses the region's own embedding."""
SCORED = 4096
"""(row, noise level) pairs of one held-out score."""


@dataclass(frozen=True, eq=False)
class LatentRows:
    """Latent rows that batches are drawn from.

    Args:
        latents: (n, D) float32.
        regions: (n,) int64, sorted, so that evenly spaced draws give each region its share of every batch.
        mass: (n,) float64 cumulative share of each row in a batch.
        known: (n, D) bool, False where a latent says nothing; None: all of them are known.
    """

    latents: Tensor
    regions: Tensor
    mass: Tensor
    known: Tensor | None = None

    @staticmethod
    def natural(latents: np.ndarray, region: np.ndarray, regions: Regions, known: np.ndarray | None = None) -> "LatentRows":
        """Regions in proportion to all their rows, however many of them are among these."""
        return LatentRows._of(latents, region, regions.counts.astype(np.float64), known)

    @staticmethod
    def needed(latents: np.ndarray, region: np.ndarray, regions: Regions) -> "LatentRows":
        """Regions in proportion to the rows that balance would add to them; evenly where it adds none."""
        return LatentRows._of(latents, region, regions.deficits if regions.gap > 0 else np.ones(len(regions)), None)

    @staticmethod
    def _of(latents: np.ndarray, region: np.ndarray, weights: np.ndarray, known: np.ndarray | None) -> "LatentRows":
        mass = (weights / np.maximum(np.bincount(region, minlength=len(weights)), 1))[region]
        mass = mass if mass.sum() > 0 else np.ones(len(mass))
        told = None if known is None else torch.from_numpy(known)
        return LatentRows(torch.from_numpy(latents), torch.from_numpy(region), torch.from_numpy(np.cumsum(mass) / mass.sum()), told)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) row indices, systematic sampling with probability `mass`."""
        return torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1)


@dataclass(frozen=True, eq=False)
class DenoisingLoss:
    """The training loss of one worker's share of a batch.

    Args:
        layout: of latents.
        rows: to learn from.
        factors: (K, F) int64 levels of each region's factors, the region itself last.
        dtype: that the network computes in.
        batch: rows of a step, all workers together.
        worker: whose share it is.
    """

    layout: Layout
    rows: LatentRows
    factors: Tensor
    dtype: torch.dtype
    batch: int
    worker: Worker

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over the rows rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        total = -(-self.batch // world) * world
        keep = (torch.rand(total, self.factors.shape[1], generator=generator) >= self._chances()).float()
        keep *= (torch.rand(total, 1, generator=generator) >= DROP).float()
        return self.of(network, self.rows, keep, slice(rank, None, world), generator).mean()

    def of(self, network: nn.Module, rows: LatentRows, keep: Tensor, share: slice, generator: torch.Generator) -> Tensor:
        """(share of len(keep),) losses of rows drawn with stratified noise levels."""
        chosen = rows.draw(len(keep), generator)[share]
        order = torch.randperm(len(keep), generator=generator)
        sigma = log_normal(stratified(len(keep), generator)[order], LEVEL_MEAN, LEVEL_SPREAD)[share]
        noise = torch.randn(len(keep), self.layout.width, generator=generator)[share]
        device = torch.device(self.worker.device)
        clean, sigma, noise, keep = (part.to(device) for part in (rows.latents[chosen], sigma, noise, keep[share]))
        known = None if rows.known is None else rows.known[chosen].to(device, torch.float32)
        factors = self.factors[rows.regions[chosen]].to(device)
        noisy, scales = clean + sigma[:, None] * noise, Scales.at(sigma)
        noisy = noisy if known is None else noisy * known
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            raw = network(scales.enter * noisy, scales.level, factors, keep)
        return losses(raw, clean, noisy, sigma, self.layout, known)

    def score(self, held: LatentRows, seed: int) -> Score:
        """The loss on held-out rows at noise and levels that are the same at every check."""
        keep = torch.ones(SCORED, self.factors.shape[1])

        @torch.no_grad()
        def score(network: nn.Module) -> float:
            return float(self.of(network, held, keep, slice(None), torch.Generator().manual_seed(seed)).mean())

        return score

    def _chances(self) -> Tensor:
        chances = torch.zeros(self.factors.shape[1])
        chances[-1] = DROP_REGION if len(chances) > 1 else 0.0
        return chances

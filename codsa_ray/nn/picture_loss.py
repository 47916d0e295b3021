"""Picture loss: pictures with their region and columns as batches, and what one training step is asked; knows no network's insides.

Source: Ho & Salimans 2022 (condition dropping), Ruiz et al. 2023 (prior preservation: a base's own pictures among the batch, told nothing).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.noising import Noising
from codsa_ray.nn.schedules import stratified
from codsa_ray.nn.train import Score
from codsa_ray.regions import Regions

DROP, DROP_REGION = 0.1, 0.4
"""Chance that a picture loses its whole condition, and that it loses the region's own embedding where factors are told beside it."""
SCORED, CHUNK = 256, 32
"""(picture, noise level) pairs of one held-out score, and of them at a time."""
OWN = -1
"""Region of a base's own pictures."""


@dataclass(frozen=True, eq=False)
class PictureRows:
    """Pictures that batches are drawn from.

    Args:
        values: (n, ...) pixels or latents, as `enter` takes them.
        columns: (n, D) float32 table columns beside them.
        region: (n,) int64, sorted; OWN first, where there are such.
        mass: (n,) float64 cumulative share of each in a batch.
        enter: values to what is mixed with noise.
    """

    values: Tensor
    columns: Tensor
    region: Tensor
    mass: Tensor
    enter: Callable[[Tensor], Tensor]

    @staticmethod
    def of(
        values: Tensor, columns: np.ndarray, region: np.ndarray, weights: np.ndarray, enter: Callable[[Tensor], Tensor]
    ) -> "PictureRows":
        """Regions in proportion to weights (K,), however many pictures of each there are."""
        mass = (weights / np.maximum(np.bincount(region, minlength=len(weights)), 1))[region]
        mass = mass if mass.sum() > 0 else np.ones(len(mass))
        total = torch.from_numpy(np.cumsum(mass) / mass.sum())
        return PictureRows(values, torch.from_numpy(columns), torch.from_numpy(region), total, enter)

    def beside(self, own: Tensor, share: float) -> "PictureRows":
        """With a base's own pictures (m, ...) as `share` of every batch."""
        columns = self.columns.new_zeros(len(own), self.columns.shape[1])
        first = torch.linspace(share / len(own), share, len(own), dtype=torch.float64)
        return PictureRows(
            torch.cat([own, self.values]),
            torch.cat([columns, self.columns]),
            torch.cat([self.region.new_full((len(own),), OWN), self.region]),
            torch.cat([first, share + (1 - share) * self.mass]),
            self.enter,
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) indices, systematic sampling with probability `mass`."""
        return torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1)


def natural(regions: Regions, evenly: float, known: np.ndarray | float = 1.0) -> np.ndarray:
    """(K,) counts to the power 1 - evenly: 0 leaves regions as frequent as they are, 1 makes them equally so.

    `known` (K,) is the share of each region's rows that have a picture: the others are not learned from.
    """
    counts = regions.counts * known
    return np.where(counts > 0, counts ** (1 - evenly), 0.0)


def needed(regions: Regions) -> np.ndarray:
    """(K,) rows that balance would add to each; the same for all where it adds none."""
    return regions.deficits if regions.gap > 0 else np.ones(len(regions))


@dataclass(frozen=True, eq=False)
class PictureLoss:
    """The training loss of one worker's share of a batch.

    Args:
        rows: to learn from.
        factors: (K, F) int64 levels of each region's factors, the region itself last.
        noising: how pictures are mixed with noise.
        batch: pictures of a step, all workers together.
        worker: whose share it is.
    """

    rows: PictureRows
    factors: Tensor
    noising: Noising
    batch: int
    worker: Worker

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over the pictures rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        total = -(-self.batch // world) * world
        keep = torch.ones(total, self.factors.shape[1])
        if keep.shape[1] > 1:
            keep[:, -1] = (torch.rand(total, generator=generator) >= DROP_REGION).float()
        keep *= (torch.rand(total, 1, generator=generator) >= DROP).float()
        return self.of(network, self.rows, keep, slice(rank, None, world), generator).mean()

    def of(self, network: nn.Module, rows: PictureRows, keep: Tensor, share: slice, generator: torch.Generator) -> Tensor:
        """(share of len(keep),) costs of pictures drawn with stratified noise levels."""
        chosen = rows.draw(len(keep), generator)[share]
        places = stratified(len(keep), generator)[torch.randperm(len(keep), generator=generator)][share]
        device = torch.device(self.worker.device)
        clean = rows.enter(rows.values[chosen].to(device))
        noise = torch.randn(len(keep), *clean.shape[1:], generator=generator)[share].to(device)
        region = rows.region[chosen]
        kept = keep[share] * (region != OWN).float()[:, None]
        told = rows.columns[chosen] * kept.amax(1, keepdim=True)
        asked = self.noising.asked(clean, noise, places)
        raw = network(
            noisy=asked.noisy,
            time=asked.time,
            factors=self.factors[region.clamp(min=0)].to(device),
            keep=kept.to(device),
            columns=told.to(device),
        )
        return asked.costs(raw)

    def score(self, held: PictureRows, seed: int) -> Score:
        """The loss on held-out pictures at noise and levels that are the same at every check."""

        @torch.no_grad()
        def score(network: nn.Module) -> float:
            generator, costs = torch.Generator().manual_seed(seed), []
            for _ in range(SCORED // CHUNK):
                keep = torch.ones(CHUNK, self.factors.shape[1])
                costs.append(self.of(network, held, keep, slice(None), generator))
            return float(torch.cat(costs).mean())

        return score

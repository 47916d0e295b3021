"""Row loss: what one step of training sees of told rows, in which order; knows no network and no column.

A told row is one array per column (conditions first) of whatever a form of rows makes of cells: token numbers, or texts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.orders import Orders
from codsa_ray.nn.schedules import stratified
from codsa_ray.regions import Regions

Costs = Callable[[nn.Module, np.ndarray, Tensor, Tensor, Tensor | None], Tensor]
"""(module, (n,) rows, (n, C) order, (n, C) 1 where learned from, (n, C) bool by step what is not forgotten, or None) -> (n,) costs."""


@dataclass(frozen=True, eq=False)
class RowLoss:
    """The training loss of one worker's share of a batch.

    Args:
        costs: of rows.
        mass: (n,) float64 cumulative share of each row in a batch; rows are sorted by region, so that every batch holds each one's share.
        made: (n,) bool interpolated rows.
        orders: in which columns are told.
        batch: rows of a step, all workers together.
        drop: chance that a column, not a condition, is forgotten by those after it.
        worker: whose share it is.
    """

    costs: Costs
    mass: Tensor
    made: Tensor
    orders: Orders
    batch: int
    drop: float
    worker: Worker

    def __call__(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over the rows rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        total = -(-self.batch // world) * world
        rows, order, counted = self._drawn(total, generator)
        keep = (torch.rand(order.shape, generator=generator) >= self.drop) | (order < self.orders.conditions)
        share = slice(rank, None, world)
        return self.costs(module, rows[share].numpy(), order[share], counted[share], keep[share]).mean()

    @torch.no_grad()
    def score(self, module: nn.Module, count: int, seed: int) -> float:
        """The mean cost of `count` rows and orders that are the same at every check, nothing being forgotten."""
        rows, order, counted = self._drawn(count, torch.Generator().manual_seed(seed))
        parts = [slice(first, first + self.batch) for first in range(0, count, self.batch)]
        found = [self.costs(module, rows[part].numpy(), order[part], counted[part], None) for part in parts]
        return float(torch.cat(found).mean())

    def _drawn(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1)
        return rows, *self.orders.trained(self.made[rows], generator)


def natural(region: np.ndarray, made: np.ndarray, regions: Regions, known: np.ndarray | float = 1.0) -> Tensor:
    """Regions in proportion to all their training rows, however many are among the (n,); an interpolated row weighs as a real one.

    Where a cell is learned from that may be null, `known` (K,) is the share of each region's rows where it is not.
    """
    return _mass(region, made, regions.counts * known)


def needed(region: np.ndarray, regions: Regions) -> Tensor:
    """Regions in proportion to the rows that balance would add to them; evenly where it adds none."""
    return _mass(region, np.zeros(len(region), dtype=bool), regions.deficits if regions.gap > 0 else np.ones(len(regions)))


def _mass(region: np.ndarray, made: np.ndarray, weights: np.ndarray) -> Tensor:
    mass = (weights / np.maximum(np.bincount(region[~made], minlength=len(weights)), 1))[region]
    mass = mass if mass.sum() > 0 else np.ones(len(mass))
    return torch.from_numpy(np.cumsum(mass) / mass.sum())

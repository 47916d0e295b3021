"""Orders: which column of a row is told when, in training and in drawing; knows no token and no network."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

GREAT, LABEL_FIRST, IMBLLM = MODES = ("great", "label_first", "imbllm")
TOGETHER = 128
"""Rows of a block that share a random order, so that their steps are of the same column."""


@dataclass(frozen=True)
class Run:
    """Rows drawn in one order.

    Args:
        rows: how many.
        order: columns, those that the region gives first.
        start: column whose first value is given and not drawn, or None.
    """

    rows: int
    order: tuple[int, ...]
    start: int | None = None


@dataclass(frozen=True)
class Orders:
    """The order of columns, of which the first few are conditions: what the region gives.

    great: any order, conditions among the others (Borisov et al. 2023, definition 2). label_first: conditions, then the columns as they
    stand. imbllm: conditions, then the others in any order (fixed-y permutation; Nguyen et al. 2025).

    Args:
        mode: one of MODES.
        conditions: how many of the columns are.
        ordered: per column whether interpolated rows have it.
    """

    mode: str
    conditions: int
    ordered: tuple[bool, ...]

    def trained(self, made: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(n, C) columns by step, and (n, C) float 1 by column where a row's token is learned from; `made` (n,) marks interpolated rows."""
        columns, rows = len(self.ordered), len(made)
        condition = torch.arange(columns) < self.conditions
        absent = made[:, None] & ~torch.tensor(self.ordered) & ~condition
        counted = (~absent).float() * (1.0 if self.mode == GREAT else (~condition).float())
        if self.mode == LABEL_FIRST:
            return torch.arange(columns).expand(rows, columns), counted
        places = torch.rand(rows, columns, generator=generator) + 2.0 * absent
        return (places if self.mode == GREAT else places - 2.0 * condition).argsort(1), counted

    def drawn(self, rows: int, rng: np.random.Generator) -> list[Run]:
        """Runs of `rows` rows in all.

        imbllm starts as many rows from each column (Nguyen et al. 2025), from different ones where columns are more than rows.
        """
        first, free = tuple(range(self.conditions)), np.arange(self.conditions, len(self.ordered))
        if self.mode == LABEL_FIRST or len(free) == 0:
            return [Run(rows, first + tuple(free.tolist()))]
        if self.mode == GREAT:
            sizes = [min(TOGETHER, rows - done) for done in range(0, rows, TOGETHER)]
            return [Run(size, first + tuple(rng.permutation(free).tolist())) for size in sizes]
        starts = rng.permutation(free)[:rows]
        sizes = [rows // len(starts) + (index < rows % len(starts)) for index in range(len(starts))]
        orders = [(start, *rng.permutation(free[free != start]).tolist()) for start in starts.tolist()]
        return [Run(size, first + order, order[0]) for size, order in zip(sizes, orders, strict=True)]

"""Mass: how often each row comes in a batch; knows no region and no column."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codsa_ray.nn.schedules import stratified


@dataclass(frozen=True, eq=False)
class Mass:
    """Rows drawn systematically: each batch holds every stretch of rows as often as it weighs, to one.

    Args:
        total: (n,) float64 cumulative share of each row.
    """

    total: Tensor

    @staticmethod
    def of(weights: np.ndarray) -> "Mass":
        """Of (n,) weights >= 0, one of them above 0."""
        total = np.cumsum(weights, dtype=np.float64)
        return Mass(torch.from_numpy(total / total[-1]))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) int64 rows in random order."""
        chosen = torch.searchsorted(self.total, stratified(count, generator), right=True).clamp(max=len(self.total) - 1)
        return chosen[torch.randperm(count, generator=generator)]

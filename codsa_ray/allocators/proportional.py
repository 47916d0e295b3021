"""Proportional: synthetic rows are shared out as the real ones are; knows no target mix."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.regions import Regions


@dataclass(frozen=True)
class Proportional:
    """Weights in proportion to training rows: the data grow and their mix stays."""

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1."""
        counts = regions.counts
        return np.asarray(counts / counts.sum()) if counts.sum() else regions.shares

    @classmethod
    def tiny(cls) -> "Proportional":
        """The only instance."""
        return cls()

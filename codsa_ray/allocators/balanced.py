"""Balanced: synthetic rows go where full balance to the target mix lacks rows; knows no loss and no generator."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.regions import NEGLIGIBLE, Regions


@dataclass(frozen=True)
class Balanced:
    """Weights in proportion to `Regions.deficits`; the target mix where nothing is lacking."""

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1; `size` rows equal to the gap give the target mix exactly, but for whole rows."""
        deficits = regions.deficits
        if deficits.sum() <= NEGLIGIBLE * regions.counts.sum():
            return regions.shares
        return np.asarray(deficits / deficits.sum())

    @classmethod
    def tiny(cls) -> "Balanced":
        """The only instance."""
        return cls()

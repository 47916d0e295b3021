"""Density: synthetic rows go where rows are lacking, and more of them where real ones lie far apart; knows no loss and no label."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.landmarks import Landmarks
from codsa_ray.regions import Regions

FLOOR = 0.1


@dataclass(frozen=True)
class Density:
    """Weights in proportion to deficit x (mean distance to the k-th nearest training row of the same group) ^ power.

    The distance is a k-NN density estimate to the power -1/d (Loftsgaarden & Quesenberry 1965): twice as far apart is twice the weight,
    in any dimension. Power 0 is `balanced`. It takes effect where `--strata` cuts groups, and between groups that lack rows. A distance
    below FLOOR of the regions' mean counts as that much, so that a region of rows that all have copies gets rows too.

    Args:
        power: how much distance counts.
        k: neighbours.
        cap: training rows looked at; beyond it the larger regions are thinned and their distances taken for what they were before.
    """

    power: float = 1.0
    k: int = 5
    cap: int = 5_000

    def __post_init__(self) -> None:
        if self.power < 0 or min(self.k, self.cap) < 1:
            raise SettingError("power of at least 0, k and cap of at least 1", repr(self), "raise the one that is not")

    def measure(self, data: FitData) -> np.ndarray:
        """(K,) mean distance ^ power."""
        landmarks = Landmarks.among(data, self.cap)
        away = landmarks.by_region(landmarks.spread(landmarks.points, landmarks.group, self.k) * landmarks.unthinned())
        return np.asarray(np.maximum(away, FLOOR * away.mean()) ** self.power)

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1."""
        return regions.lacking

    @classmethod
    def tiny(cls) -> "Density":
        """Few rows."""
        return cls(cap=200)

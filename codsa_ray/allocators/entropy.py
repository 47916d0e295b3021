"""Entropy: synthetic rows go where rows are lacking, and more of them where classes mix; knows no loss and no density."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.landmarks import Landmarks
from codsa_ray.regions import Regions


@dataclass(frozen=True)
class Entropy:
    """Weights in proportion to deficit x mean (1 + H) ^ gamma, H the local entropy of a region's rows (LEO-CVAE; Zare et al. 2025).

    The paper draws the seeds of a class with chances in proportion to (1 + H) ^ gamma, which gives a region of it this share. Ours goes
    between groups too, and takes neighbours in the encoded space of `landmarks.Landmarks` where the paper takes columns as they are.
    Gamma 0 is `balanced`. Where labels are wrong by chance, entropy is no sign of a border, and more rows there teach the noise.

    Args:
        gamma: how much entropy counts; the paper has 2.5 for three classes and 0.5 for two.
        k: neighbours.
        cap: training rows looked at; beyond it the larger regions are thinned and weighted up.
    """

    gamma: float = 1.0
    k: int = 15
    cap: int = 5_000

    def __post_init__(self) -> None:
        if self.gamma < 0 or min(self.k, self.cap) < 1:
            raise SettingError("gamma of at least 0, k and cap of at least 1", repr(self), "raise the one that is not")

    def measure(self, data: FitData) -> np.ndarray:
        """(K,) mean (1 + H) ^ gamma."""
        landmarks = Landmarks.among(data, self.cap)
        return landmarks.by_region((1 + landmarks.entropy(landmarks.points, self.k)) ** self.gamma)

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1."""
        return regions.lacking

    @classmethod
    def tiny(cls) -> "Entropy":
        """Few rows."""
        return cls(cap=200)

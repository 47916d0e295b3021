"""Entropy: every group is cut where its rows lie among rows of other classes; knows no loss and no density."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.landmarks import Landmarks, upper


@dataclass(frozen=True)
class Entropy:
    """Stratum 1 holds the rows of a group of the highest local entropy, stratum 0 the rest (the score of LEO-CVAE; Zare et al. 2025).

    H = -sum_c p_c log2 p_c over the classes of the k nearest training rows, in the encoded space of `landmarks.Landmarks`: the paper takes
    columns as they are, so that the one of the largest numbers decides what is near. A group whose rows all have one entropy is whole.

    Args:
        share: of a group's training rows in stratum 1, about: rows of equal entropy stay together.
        k: neighbours.
        least: training rows under which a group is left whole.
        cap: training rows looked at; beyond it the larger groups are thinned and weighted up.
    """

    share: float = 0.25
    k: int = 15
    least: int = 40
    cap: int = 5_000

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or min(self.k, self.cap) < 1:
            raise SettingError("share between 0 and 1, k and cap of at least 1", repr(self), "change the one that is not")

    def fit(self, data: FitData) -> "EntropyRule":
        """The rule; time about n log n in min(rows, cap)."""
        landmarks = Landmarks.among(data, self.cap)
        scores = landmarks.entropy(landmarks.points, self.k)
        return EntropyRule(self.k, landmarks, upper(scores, landmarks.group, len(data.regions.mix), self.share, self.least))

    def load(self, folder: Folder) -> "EntropyRule":
        """The rule as it was saved."""
        return EntropyRule(self.k, Landmarks.load(folder), folder.read_arrays("edges.safetensors")["edges"])

    @classmethod
    def tiny(cls) -> "Entropy":
        """Small groups are cut too."""
        return cls(least=20)


@dataclass(frozen=True, eq=False)
class EntropyRule:
    """Where each group is cut.

    Args:
        k: neighbours.
        landmarks: training rows.
        edges: (G,) entropy above which a row is in stratum 1.
    """

    k: int
    landmarks: Landmarks
    edges: np.ndarray
    strata: int = 2

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        """(n,) int32 1 where classes mix, else 0."""
        scores = self.landmarks.entropy(self.landmarks.place(table), self.k)
        return np.asarray((groups >= 0) & (scores > self.edges[groups]), dtype=np.int32)

    def save(self, folder: Folder) -> None:
        """Writes landmarks and edges."""
        self.landmarks.save(folder)
        folder.write_arrays("edges.safetensors", {"edges": self.edges})

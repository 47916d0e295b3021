"""Sparse: every group is cut into its dense core and its thin outskirts; knows no loss and no label."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.landmarks import Landmarks, upper

METRICS = ("knn", "mahalanobis")
# Of a covariance, what is replaced by that of a sphere of its size: a group of few rows spans few directions.
SHRINK = 0.1


@dataclass(frozen=True)
class Sparse:
    """Stratum 1 holds the rows of a group around which there are the fewest others of it, stratum 0 the rest.

    How thin it is around a row is told by its distance to the k-th nearest training row of its group (a k-NN density estimate; Loftsgaarden
    & Quesenberry 1965), or by its Mahalanobis distance from the group's mean. Both in the encoded space of `landmarks.Landmarks`.

    Args:
        share: of a group's training rows in stratum 1.
        k: neighbours.
        metric: knn or mahalanobis.
        least: training rows under which a group is left whole.
        cap: training rows looked at; beyond it the larger groups are thinned.
    """

    share: float = 0.25
    k: int = 5
    metric: str = "knn"
    least: int = 40
    cap: int = 5_000

    def __post_init__(self) -> None:
        if self.metric not in METRICS or not 0 < self.share < 1 or min(self.k, self.cap) < 1:
            raise SettingError(f"metric {' or '.join(METRICS)}, share between 0 and 1, k and cap of at least 1", repr(self), "change it")

    def fit(self, data: FitData) -> "SparseRule":
        """The rule; time about n log n in min(rows, cap)."""
        landmarks = Landmarks.among(data, self.cap)
        scores = thinness(landmarks, landmarks.points, landmarks.group, self)
        return SparseRule(self, landmarks, upper(scores, landmarks.group, len(data.regions.mix), self.share, self.least))

    def load(self, folder: Folder) -> "SparseRule":
        """The rule as it was saved."""
        return SparseRule(self, Landmarks.load(folder), folder.read_arrays("edges.safetensors")["edges"])

    @classmethod
    def tiny(cls) -> "Sparse":
        """Small groups are cut too."""
        return cls(least=20)


@dataclass(frozen=True, eq=False)
class SparseRule:
    """Where each group is cut.

    Args:
        settings: as asked.
        landmarks: training rows.
        edges: (G,) thinness above which a row is in stratum 1.
    """

    settings: Sparse
    landmarks: Landmarks
    edges: np.ndarray
    strata: int = 2

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        """(n,) int32 1 in the outskirts, else 0."""
        scores = thinness(self.landmarks, self.landmarks.place(table), groups, self.settings)
        return np.asarray((groups >= 0) & (scores > self.edges[groups]), dtype=np.int32)

    def save(self, folder: Folder) -> None:
        """Writes landmarks and edges."""
        self.landmarks.save(folder)
        folder.write_arrays("edges.safetensors", {"edges": self.edges})


def thinness(landmarks: Landmarks, points: np.ndarray, groups: np.ndarray, settings: Sparse) -> np.ndarray:
    """(n,) how thin the row's group is around it."""
    if settings.metric == "knn":
        return landmarks.spread(points, groups, settings.k)
    found = np.zeros(len(points))
    for group in np.unique(groups[groups >= 0]):
        own = landmarks.points[landmarks.group == group]
        if len(own) > 1:
            away = points[groups == group] - own.mean(axis=0)
            covariance = np.atleast_2d(np.cov(own, rowvar=False))
            size = max(float(np.trace(covariance)) / len(covariance), np.finfo(float).tiny)
            inverse = np.linalg.inv((1 - SHRINK) * covariance + SHRINK * size * np.eye(len(covariance)))
            found[groups == group] = np.sqrt(np.einsum("ij,jk,ik->i", away, inverse, away))
    return found

"""Clusters: every group is cut into clusters of its own rows; knows no loss and no other group."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.landmarks import Landmarks
from codsa_ray.seeds import seed_of

STARTS = 4


@dataclass(frozen=True)
class Clusters:
    """k-means within each group (Lloyd 1982), in the encoded space of `landmarks.Landmarks`; stratum 0 is the largest cluster.

    Jo & Japkowicz (2004): what hurts under imbalance are small clusters inside a class (small disjuncts), not the class's size.

    Args:
        many: clusters of a group.
        least: training rows per cluster under which a group is left whole.
        cap: training rows looked at; beyond it the larger groups are thinned.
    """

    many: int = 3
    least: int = 20
    cap: int = 5_000

    def __post_init__(self) -> None:
        if min(self.many - 1, self.least, self.cap) < 1:
            raise SettingError("many of at least 2, least and cap of at least 1", repr(self), "raise the one that is not")

    def fit(self, data: FitData) -> "ClustersRule":
        """The rule; time linear in min(rows, cap)."""
        landmarks = Landmarks.among(data, self.cap)
        centres = np.full((len(data.regions.mix), self.many, landmarks.points.shape[1]), np.nan)
        for group in range(len(centres)):
            own = landmarks.points[landmarks.group == group]
            if len(own) >= self.many * self.least and len(np.unique(own, axis=0)) >= self.many:
                centres[group] = self._centres(own, seed_of(data.seed, "clusters", group))
        return ClustersRule(landmarks, centres, self.many)

    def _centres(self, points: np.ndarray, seed: int) -> np.ndarray:
        # One thread: the order of a sum must not depend on the machine.
        with threadpool_limits(1):
            found = KMeans(self.many, n_init=STARTS, random_state=seed % 2**32).fit(points)
        return np.asarray(found.cluster_centers_[np.argsort(-np.bincount(found.labels_, minlength=self.many), kind="stable")])

    def load(self, folder: Folder) -> "ClustersRule":
        """The rule as it was saved."""
        return ClustersRule(Landmarks.load(folder), folder.read_arrays("centres.safetensors")["centres"], self.many)

    @classmethod
    def tiny(cls) -> "Clusters":
        """Two clusters of small groups too."""
        return cls(many=2, least=10)


@dataclass(frozen=True, eq=False)
class ClustersRule:
    """The centres.

    Args:
        landmarks: training rows, for the space they span.
        centres: (G, strata, p), NaN for a group that is left whole.
        strata: clusters of a group.
    """

    landmarks: Landmarks
    centres: np.ndarray
    strata: int

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        """(n,) int32 nearest centre of the row's group."""
        points, found = self.landmarks.place(table), np.zeros(len(table), dtype=np.int32)
        for group in np.unique(groups[groups >= 0]):
            centres = self.centres[group]
            if np.isfinite(centres).all():
                mine = groups == group
                found[mine] = np.square(points[mine][:, None] - centres).sum(axis=2).argmin(axis=1)
        return found

    def save(self, folder: Folder) -> None:
        """Writes landmarks and centres."""
        self.landmarks.save(folder)
        folder.write_arrays("centres.safetensors", {"centres": self.centres})

"""Landmarks: where rows lie among a fold's training rows in the encoded space; knows no stratum rule and no allocator."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.spatial import cKDTree

from codsa_ray.embedding import Embedding, Numbers, thumbnails
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

# Beyond so many encoded columns, rows lie on their leading principal axes: a search tree is of no use in more dimensions.
AXES = 16
# Decimals of a coordinate on such axes: a product's last bits depend on how many rows are multiplied at once, a stratum must not.
PLACES = 6
# Neighbours whose distances tell a group's dimension.
SCALES = 10


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Training rows as points (`embedding.Numbers`: columns, and texts and pictures by their embedding), and what lies near any row.

    Distances are Euclidean. A row that is one of the landmarks is no neighbour of itself: of points at distance 0 one is left out.

    Args:
        table: (n,) canonical training rows with `_region`, pictures as thumbnails.
        schema, regions: of the training rows.
        encoder: learned on them.
        mean, axes: (d,), (d, p) what projects encoded rows.
        points: (n, p) float64 the rows' places.
    """

    table: pa.Table
    schema: Schema
    regions: Regions
    encoder: Numbers
    mean: np.ndarray
    axes: np.ndarray
    points: np.ndarray

    @staticmethod
    def of(table: pa.Table, schema: Schema, regions: Regions, embeddings: tuple[Embedding, ...] | None = None) -> "Landmarks":
        """From rows that `FitData.table` gave; embeddings are learned on them where none are given."""
        table = _small(table.select([*(column.name for column in schema.columns), REGION]), schema)
        encoder = Numbers.learn(table, schema) if embeddings is None else Numbers.of(table, schema, embeddings)
        X = encoder.encode(table)
        mean, axes = np.zeros(X.shape[1]), np.eye(X.shape[1])
        if X.shape[1] > AXES:
            mean = X.mean(axis=0)
            axes = np.linalg.eigh((X - mean).T @ (X - mean))[1][:, -AXES:]
        return Landmarks(table, schema, regions, encoder, mean, axes, _projected(X, mean, axes))

    @staticmethod
    def among(data: FitData, cap: int) -> "Landmarks":
        """At most about `cap` rows of the fit's, small regions whole."""
        return Landmarks.of(data.table(cap), data.schema, data.regions)

    @property
    def region(self) -> np.ndarray:
        """(n,) int64 region of each landmark."""
        return np.asarray(self.table[REGION].to_numpy(), dtype=np.int64)

    @property
    def group(self) -> np.ndarray:
        """(n,) int64 group of each landmark."""
        return self.regions.groups[self.region].astype(np.int64)

    @property
    def weight(self) -> np.ndarray:
        """(n,) training rows that each landmark stands for: 1 where its region was kept whole."""
        kept = np.bincount(self.region, minlength=len(self.regions))
        return np.asarray((self.regions.counts / np.maximum(kept, 1))[self.region])

    def place(self, table: pa.Table) -> np.ndarray:
        """(m, p) points of any canonical rows; each row's is the same whatever others it comes with."""
        return _projected(self.encoder.encode(table), self.mean, self.axes)

    def spread(self, points: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
        """(m,) distance to the k-th nearest landmark of the own group (the furthest where it has fewer; 0 where it has no other).

        Args:
            points: (m, p).
            groups: (m,) group of each; 0 is given for a group below 0.
            k: neighbours.
        """
        found = np.zeros(len(points))
        for group in np.unique(groups[groups >= 0]):
            mine, own = groups == group, self.points[self.group == group]
            if mine.any() and len(own) > 1:
                found[mine] = _nearest(own, points[mine], k)[0][:, -1]
        return found

    def unthinned(self) -> np.ndarray:
        """(n,) share of its distances within its group that each landmark would keep had no region been thinned: weight^(-1 / d).

        d is the dimension that the group's distances themselves tell (Levina & Bickel 2004, inverses averaged), 1 at least: the encoded
        space has more, as many as there are levels, and rows do not fill it.
        """
        found, weight = np.ones(len(self.points)), self.weight
        for group in np.unique(self.group[weight > 1]):
            own = self.group == group
            distance = _nearest(self.points[own], self.points[own], SCALES)[0] if own.sum() > 2 else np.zeros((0, 2))
            distance = distance[distance[:, 0] > 0]
            if len(distance):
                found[own] = weight[own] ** -min(float(np.log(distance[:, -1:] / distance[:, :-1]).mean()), 1.0)
        return found

    def entropy(self, points: np.ndarray, k: int) -> np.ndarray:
        """(m,) local entropy in bits: H = -sum_c p_c log2 p_c over the labels of the k nearest landmarks (Zare et al. 2025, LES).

        Landmarks count by `weight`. Labels are classes, or groups where the task has no classes.
        """
        if len(self.points) < 2 or not len(points):
            return np.zeros(len(points))
        label = self.schema.truth(self.table) if self.schema.task == "classification" else self.group
        near = _nearest(self.points, points, k)[1]
        mass = np.zeros((len(points), int(label.max()) + 1))
        np.add.at(mass, (np.arange(len(points))[:, None], label[near]), self.weight[near])
        share = mass / mass.sum(axis=1, keepdims=True)
        # Adding 0 turns -0 into 0.
        return -np.sum(share * np.log2(np.where(share > 0, share, 1.0)), axis=1) + 0.0

    def by_region(self, values: np.ndarray) -> np.ndarray:
        """(K,) mean of the landmarks' values in each region; the mean of all where it has none."""
        count = np.bincount(self.region, minlength=len(self.regions))
        total = np.bincount(self.region, weights=values, minlength=len(self.regions))
        return np.where(count > 0, total / np.maximum(count, 1), values.mean() if len(values) else 0.0)

    def save(self, folder: Folder) -> None:
        """Writes what `load` needs: the rows themselves, and embeddings as plain arrays."""
        folder.write_table("landmarks.parquet", self.table)
        told = [[item.name, item.kind] for item in self.encoder.embeddings]
        folder.write_json("landmarks.json", {"schema": self.schema.to_json(), "regions": self.regions.to_json(), "told": told})
        for index, item in enumerate(self.encoder.embeddings):
            folder.write_arrays(f"embedding-{index}.safetensors", item.to_arrays())

    @staticmethod
    def load(folder: Folder) -> "Landmarks":
        """As they were saved."""
        meta, table = folder.read_json("landmarks.json"), folder.read_table("landmarks.parquet")
        told = tuple(
            Embedding.from_arrays(name, kind, folder.read_arrays(f"embedding-{index}.safetensors"))
            for index, (name, kind) in enumerate(meta["told"])
        )
        return Landmarks.of(table, Schema.from_json(meta["schema"]), Regions.from_json(meta["regions"]), told)


def _small(table: pa.Table, schema: Schema) -> pa.Table:
    """Pictures as the thumbnails by which they are placed: a rule travels with its landmarks."""
    for column in schema.columns:
        if column.kind == "image":
            table = table.set_column(table.column_names.index(column.name), column.name, thumbnails(table[column.name]))
    return table


def upper(scores: np.ndarray, groups: np.ndarray, size: int, share: float, least: int) -> np.ndarray:
    """(G,) edges: of each group, about the `share` of rows with the highest scores lie above its edge.

    An edge lies half-way between two scores, so that no row is on it; the one whose share above is nearest to `share` is taken. It is
    infinite for a group of fewer than `least` rows or of a single score.

    Args:
        scores, groups: (n,) of training rows.
        size: G.
    """
    found = np.full(size, np.inf)
    for group in range(size):
        values, counts = np.unique(scores[groups == group], return_counts=True)
        if counts.sum() >= least and len(values) > 1:
            above = 1 - np.cumsum(counts)[:-1] / counts.sum()
            first = int(np.argmin(np.abs(above - share)))
            found[group] = (values[first] + values[first + 1]) / 2
    return found


def _projected(X: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    return X if X.shape[1] <= AXES else np.round((X - mean) @ axes, PLACES)


def _nearest(among: np.ndarray, points: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, k) distances and (m, k) positions of the k nearest, nearest first, one at distance 0 left out; fewer where there are fewer."""
    k = min(k, len(among) - 1)
    distance, index = cKDTree(among).query(points, k=np.arange(1, k + 2))
    own = (distance[:, 0] == 0).astype(np.int64)[:, None]
    chosen = np.arange(k) + own
    return np.take_along_axis(distance, chosen, axis=1), np.take_along_axis(index, chosen, axis=1)

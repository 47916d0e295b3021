"""SMOTE inside clusters of like density, with rows that only other classes surround left out (GK-SMOTE); knows no network.

Source: Miraj et al., GK-SMOTE, APWeb-WAIM 2025, arXiv:2509.11163, in the four steps of the author's public implementation, since the
paper's thresholds are not stated. Of a region's rows
1. those whose k nearest rows are all of other classes (Regions.labels) are noise and start no segment;
2. each other has the density f(p) = mean over q of exp(-d(p, q)^2 / 2 h^2), q being p itself and its k - 1 nearest of the rest;
3. two means of f part them in safe (dense) and borderline ones;
4. rows are drawn on segments to the k nearest of the same part (SMOTE), in proportion to the parts' sizes.
What we changed, and why:
- h, the deviation of a row's own k distances, makes f independent of scale: it tells even from uneven spacing, not dense from sparse.
  `bandwidth='region'` takes the median of those instead, one h for the region, so that f is a density. The published one is the default.
- Two means of numbers have an exact solution by sorting: no starts at random.
- Among the k nearest, rows of a region that `cap` thinned count for those that they stand for (neighbours.py): a rare row is judged amid
  all common ones, not amid those that were kept.
- Noise takes no part in 2 to 4; where every row is noise, all are kept and this is said. Distances and categories are SMOTE-NC's; a drawn
  row is null where the row that it starts from is.

Cost, n = min(rows, cap), d columns: time n x min(n, 10,000) x d, memory about 30 n d bytes; a block rows x k x d.

Not for: labels that are clean (it differs little from SMOTE then), rare rows that are scattered and right (they are taken for noise), or
columns tied by equations. The plain kernel density estimate of a region, noise on real rows, is `bootstrap` with its jitter.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa

from codsa_ray.cells import Cells
from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.filled import Filled, drawn_table
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.neighbours import Space, apart, commonest
from codsa_ray.seeds import rng_of

BANDWIDTHS = ("own", "region")
LEAST = 1e-12
"""Of a bandwidth: rows that stand on one point are all dense."""


@dataclass(frozen=True)
class GkSmote:
    """GK-SMOTE.

    Args:
        k: neighbours that tell noise, density and where a segment may lead; fewer in parts of at most k rows.
        bandwidth: of the kernel: each row's own, as published, or one of the region.
        cap: rows kept at most; beyond it the larger regions are thinned.
        block: rows of one block.
    """

    k: int = 5
    bandwidth: str = "own"
    cap: int = 10_000
    block: int = 2048

    def __post_init__(self) -> None:
        if self.bandwidth not in BANDWIDTHS:
            raise SettingError(f"bandwidth one of {', '.join(BANDWIDTHS)}", repr(self.bandwidth), "name one of them")
        if min(self.k, self.cap, self.block) < 1:
            raise SettingError("k, cap and block of at least 1", repr(self), "raise the one that is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(block=self.block)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Parts each region's rows and finds each row's neighbours in its part."""
        if worker.rank:
            return
        filled = Filled.of(data.table(self.cap), data.schema, data.regions)
        X = filled.matrix()
        space, n = Space.of(X, filled.ordered), len(filled)
        near, k, part = (
            np.repeat(np.arange(n, dtype=np.int32)[:, None], self.k, axis=1),
            np.ones(n, dtype=np.int32),
            np.zeros(n, dtype=np.int8),
        )
        notice = []
        for (start, stop), item in zip(pairwise(filled.starts), data.regions.items, strict=True):
            if start == stop:
                continue
            rows = np.arange(start, stop)
            part[rows] = self.parts(space, rows, filled.labels, filled.weight)
            if not part[rows].any():
                notice.append(f"{item.name}: every row is noise, all are kept")
                part[rows] = 1
            for cluster in (rows[part[rows] == 1], rows[part[rows] == 2]):
                if (most := min(self.k, len(cluster) - 1)) > 0:
                    near[cluster, :most], k[cluster] = space.nearest(cluster, cluster, most, space.cost(rows))[0], most
                elif len(cluster) == 1:
                    notice.append(f"{item.name}: a part of one row, which is copied")
        arrays = {"X": X, "nulls": filled.nulls, "starts": filled.starts, "near": near, "k": k, "part": part}
        worker.folder.write_arrays("rows.safetensors", arrays)
        worker.folder.write_json("gk_smote.json", {"cells": [c.to_json() for c in filled.cells], "notice": notice})

    def parts(self, space: Space, rows: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(rows,) 0 noise, 1 borderline or 2 safe, of one region's rows."""
        everything, cost = np.arange(len(space.ordered)), space.cost(rows)
        found = np.ones(len(rows), dtype=np.int8)
        if len(rows) < len(everything):
            near, _ = space.nearest(rows, everything, min(self.k, len(everything) - 1), cost)
            found[apart(rows, near, labels, weight) == 1] = 0
        kept = rows[found > 0]
        others = min(self.k, len(kept)) - 1
        if others > 0:
            found[found > 0] += upper(density(space.nearest(kept, kept, others, cost)[1], self.bandwidth))
        return found

    def load(self, folder: Folder) -> "FittedGkSmote":
        """Reads rows, parts and neighbours back."""
        meta = folder.read_json("gk_smote.json")
        cells = tuple(map(Cells.from_json, meta["cells"]))
        return FittedGkSmote(self.block, cells, folder.read_arrays("rows.safetensors"), tuple(meta["notice"]))

    @classmethod
    def tiny(cls) -> Self:
        """Small blocks."""
        return cls(block=256)


def density(distances: np.ndarray, bandwidth: str) -> np.ndarray:
    """(n,) f of rows whose nearest others are `distances` (n, k - 1) away; each row itself, at 0, is one of the k."""
    away = np.column_stack([np.zeros(len(distances)), distances])
    h = np.maximum(away.std(axis=1, keepdims=True), LEAST)
    h = h if bandwidth == "own" else np.maximum(np.median(h), LEAST)
    return np.asarray(np.exp(-0.5 * (away / h) ** 2).mean(axis=1))


def upper(values: np.ndarray) -> np.ndarray:
    """(n,) bool: the cluster of the larger mean, of the two that leave the least variance within (exact); none where all are equal."""
    order = np.sort(values)
    if order[0] == order[-1]:
        return np.zeros(len(values), dtype=bool)
    size = np.arange(1, len(values))
    low = np.cumsum(order)[:-1]
    # The variance between two parts is what the variance within lacks; equal values are never parted.
    between = (low - size * order.mean()) ** 2 / (size * (len(values) - size))
    between[order[1:] == order[:-1]] = -1.0
    return values > order[int(np.argmax(between))]


@dataclass(frozen=True)
class FittedGkSmote:
    """Rows sorted by region, with their parts and neighbours.

    Args:
        rows: rows of a block.
        cells: the columns.
        arrays: X (n, columns) encoded and filled, nulls (n, columns), near (n, k), k and part (n,); starts (K + 1,).
        notice: what had to give way, one line each.
    """

    rows: int
    cells: tuple[Cells, ...]
    arrays: dict[str, np.ndarray]
    notice: tuple[str, ...] = ()

    def block(self, region: int, seed: int) -> pa.Table:
        """Drawn rows of the region, every row that is no noise being the start of as many as any other, to one.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = (int(edge) for edge in self.arrays["starts"][region : region + 2])
        if start == stop:
            raise ShortOfRows(f"wanted rows of region {region} to draw between; got none; leave the region out or merge it")
        rng, X = rng_of(seed, "gk_smote", region), self.arrays["X"]
        kept = start + np.flatnonzero(self.arrays["part"][start:stop])
        base = rng.permutation(kept)[np.arange(self.rows) % len(kept)]
        near, k = self.arrays["near"][base], self.arrays["k"][base]
        other = near[np.arange(self.rows), rng.integers(0, k)]
        # Halved, which is exact, so that the difference of values near 1e308 stays finite.
        drawn = 2 * (X[base] / 2 + rng.random(self.rows)[:, None] * (X[other] / 2 - X[base] / 2))
        known = np.arange(near.shape[1]) < k[:, None]
        for j, cell in enumerate(self.cells):
            if not cell.ordered:
                drawn[:, j] = commonest(X[near, j], known, rng)
        return drawn_table(self.cells, drawn, self.arrays["nulls"][base])

"""Points on segments between near rows of one region, drawn by imbalanced-learn; knows nothing beyond such segments.

Sources: SMOTE and SMOTE-NC (Chawla et al. 2002, sections 4.2 and 6.1), Borderline-SMOTE 1 (Han, Wang & Mao 2005, section 3), ADASYN (He et
al. 2008, equations 1 to 5), SVM-SMOTE (Nguyen, Cooper & Kamei 2009). imbalanced-learn makes the points; what differs, and why:
- Neighbours are sought once, at fit, block by block (neighbours.py): never an n x n matrix, never a dense one-hot one.
- SMOTE-NC's rules for categories go with every kind, so that each takes mixed tables.
- "Outside" is of another class (Regions.labels), whatever other cells the region's class is cut into; rows of a region that `cap` thinned
  count for those that they stand for (neighbours.py), so that danger is judged at the true imbalance.
- A null takes part as the region's median or commonest value, and a drawn row is null where the row that it starts from is.
- SVM-SMOTE's support vectors are told by the margin, so that rows beyond the SVR rows that the machine is trained on are judged alike;
  half of its rows are drawn from the vectors in danger, where imbalanced-learn takes a share from Beta(10, 10) with that mean.

Cost, n = min(rows, cap), d columns: time n x min(n, 10,000) x d, for borderline, adasyn and svm once more per region's rows (linear in n
past 10,000), svm besides up to SVR^2 x d per region; memory about 30 n d bytes. A block costs its rows x k x d.

Not for: regions whose rows are few against the columns (segments fill the hull of five neighbours and leave their region's thin
directions out), columns tied by equations, or where mean and spread of the drawn rows have to be right: SMOTE shrinks the spread.
"""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from imblearn.over_sampling import SMOTE
from scipy import sparse
from sklearn.svm import SVC

from codsa_ray.cells import Cells
from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.filled import Filled, drawn_table
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.neighbours import Space, apart, commonest
from codsa_ray.seeds import rng_of

KINDS = ("smote", "borderline", "adasyn", "svm")
SVR = 5_000
"""Rows that SVM-SMOTE's machine is trained on at most."""
OUT = 0.5
"""How far beyond a safe support vector SVM-SMOTE goes, as a share of the way to a neighbour (imbalanced-learn's default)."""
TOLERANCE = 1e-3
"""libsvm's own: how far over 1 a support vector's margin may lie."""

SMALL = 2.0**-30


@dataclass(frozen=True)
class Interpolation:
    """SMOTE and its family.

    The kinds differ in which rows segments start from: any row; borderline: those of whose `around` neighbours at least half but not
    all are of another class; adasyn: rows weighted by that share; svm: support vectors of the region against all other classes, whose
    neighbours are not all of those. A segment leads towards a neighbour of the region; from svm's safe vectors it leads away from it.

    Args:
        kind: smote, borderline, adasyn or svm.
        k: neighbours of the region that a segment may lead to; fewer in regions of at most k rows.
        around: neighbours of any region that borderline, adasyn and svm look at.
        cap: rows kept at most; beyond it the larger regions are thinned.
        block: rows of one block.
    """

    kind: str = "smote"
    k: int = 5
    around: int = 10
    cap: int = 10_000
    block: int = 2048

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"kind one of {', '.join(KINDS)}", repr(self.kind), "name one of them")
        if min(self.k, self.around, self.block, self.cap) < 1:
            raise SettingError("k, around, block and cap of at least 1", repr(self), "raise the one that is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(block=self.block)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Finds each kept row's neighbours and how likely a segment starts from it."""
        if worker.rank:
            return
        filled = Filled.of(data.table(self.cap), data.schema, data.regions)
        X = filled.matrix()
        found = self._neighbours(Space.of(X, filled.ordered), filled, [item.name for item in data.regions.items])
        k = np.clip(np.diff(filled.starts) - 1, 1, self.k)
        arrays = {"X": X, "nulls": filled.nulls, "starts": filled.starts, "k": k}
        worker.folder.write_arrays("rows.safetensors", arrays | {"near": found.near, "weight": found.weight, "reach": found.reach})
        worker.folder.write_json("interpolation.json", {"cells": [c.to_json() for c in filled.cells], "notice": found.notice})

    def _neighbours(self, space: Space, filled: Filled, names: list[str]) -> "Found":
        n = len(filled)
        found = Found(np.repeat(np.arange(n, dtype=np.int32)[:, None], self.k, axis=1), np.ones(n), np.ones(n), [])
        for (start, stop), name in zip(pairwise(filled.starts), names, strict=True):
            rows = np.arange(start, stop)
            k = min(self.k, len(rows) - 1)
            if k < self.k and len(rows):
                found.notice.append(f"{name}: {len(rows)} rows, k lowered from {self.k} to {k}" + ("" if k else ": rows are copied"))
            if k <= 0:
                continue
            cost = space.cost(slice(start, stop))
            found.near[start:stop, :k] = space.nearest(rows, rows, k, cost)[0]
            if self.kind != "smote":
                weight, reach = self._starts(space, rows, cost, filled)
                if not weight.any():
                    found.notice.append(f"{name}: no row is near another class as {self.kind} wants, every row is a start")
                    weight, reach = np.ones(len(rows)), np.ones(len(rows))
                found.weight[start:stop], found.reach[start:stop] = weight, reach
        return found

    def _starts(self, space: Space, rows: np.ndarray, cost: float, filled: Filled) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) weight of each row of the region as a start, from the share of other classes around, and how far a segment goes."""
        everything = np.arange(len(space.ordered))
        near, _ = space.nearest(rows, everything, min(self.around, len(everything) - 1), cost)
        outside = apart(rows, near, filled.labels, filled.weight)
        danger, reach = (outside >= 0.5) & (outside < 1), np.ones(len(rows))
        if self.kind == "adasyn":
            return outside, reach
        if self.kind == "borderline":
            return danger.astype(float), reach
        vector = _supporting(space, rows, np.flatnonzero(filled.labels != filled.labels[rows[0]]), cost) & (outside < 1)
        in_danger, safe = vector & danger, vector & ~danger
        # Half of all draws each, where there are both.
        return in_danger / max(in_danger.sum(), 1) + safe / max(safe.sum(), 1), np.where(safe, -OUT, reach)

    def load(self, folder: Folder) -> "FittedInterpolation":
        """Reads rows and neighbours back."""
        meta = folder.read_json("interpolation.json")
        cells = tuple(map(Cells.from_json, meta["cells"]))
        return FittedInterpolation(self.block, cells, folder.read_arrays("rows.safetensors"), tuple(meta["notice"]))

    @classmethod
    def tiny(cls) -> Self:
        """Small blocks."""
        return cls(block=256)


@dataclass(frozen=True)
class Found:
    """What a fit finds.

    Args:
        near: (n, k) rows that segments lead to; the row itself where there are fewer.
        weight: (n,) of each row as a start.
        reach: (n,) how far towards the neighbour a segment goes.
        notice: what had to give way.
    """

    near: np.ndarray
    weight: np.ndarray
    reach: np.ndarray
    notice: list[str]


def _supporting(space: Space, rows: np.ndarray, others: np.ndarray, cost: float) -> np.ndarray:
    """(rows,) True where a support vector machine's margin between the region and the others is at most 1."""
    if not len(others) or not space.ordered.shape[1] + space.codes.shape[1]:
        return np.zeros(len(rows), dtype=bool)
    own = rows if len(rows) + len(others) <= SVR else _even(rows, SVR // 2)
    trained = np.sort(np.concatenate([own, _even(others, SVR - len(own))]))
    levels = space.codes.max(axis=0, initial=-1) + 1
    machine = SVC(gamma="scale").fit(_one_hot(space, trained, levels, cost), np.isin(trained, rows))
    margins = [machine.decision_function(_one_hot(space, part, levels, cost)) for part in np.array_split(rows, -(-len(rows) // SVR))]
    return np.concatenate(margins) <= 1 + TOLERANCE


def _even(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _one_hot(space: Space, rows: np.ndarray, levels: np.ndarray, cost: float) -> sparse.csr_matrix:
    """(rows, dimensions) in which Euclid's distance is the space's."""
    parts = [sparse.csr_matrix(space.ordered[rows])]
    for column, size in zip(space.codes[rows].T, levels, strict=True):
        place = (np.arange(len(rows)), column)
        parts.append(sparse.csr_matrix((np.full(len(rows), cost / np.sqrt(2)), place), shape=(len(rows), size)))
    return sparse.hstack(parts, format="csr")


@dataclass(frozen=True)
class Known:
    """Neighbours found beforehand, in the shape in which imbalanced-learn takes a neighbour search of one's own.

    Args:
        near: (m, k) position of the neighbours of the first m rows.
    """

    near: np.ndarray

    def __sklearn_clone__(self) -> Self:
        """Samplers clone what they are given; there is nothing to unlearn."""
        return self

    def fit(self, X: Any, y: Any = None) -> Self:
        """Nothing is left to learn."""
        return self

    def kneighbors(self, X: Any, n_neighbors: int | None = None, return_distance: bool = False) -> np.ndarray:
        """(m, 1 + k) each row itself, then its neighbours."""
        return np.column_stack([np.arange(len(self.near)), self.near])

    def kneighbors_graph(self, X: Any, n_neighbors: int | None = None) -> Any:
        """Not part of what the samplers ask."""
        raise NotImplementedError("neighbours are known by position, not as a graph")


@dataclass(frozen=True)
class FittedInterpolation:
    """Rows sorted by region, with their neighbours.

    Args:
        rows: rows of a block.
        cells: the columns.
        arrays: X (n, columns) encoded and filled, nulls (n, columns), near (n, k), weight and reach (n,); starts (K + 1,), k (K,).
        notice: lowered k, copied rows and the like, one line each.
    """

    rows: int
    cells: tuple[Cells, ...]
    arrays: dict[str, np.ndarray]
    notice: tuple[str, ...] = ()

    def block(self, region: int, seed: int) -> pa.Table:
        """Drawn rows of the region.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = self.arrays["starts"][region : region + 2]
        if start == stop:
            raise ShortOfRows(f"wanted rows of region {region} to interpolate between; got none; leave the region out or merge it")
        rng = rng_of(seed, "interpolation", region)
        weight = np.cumsum(self.arrays["weight"][start:stop])
        points = (np.arange(self.rows) + rng.random()) / self.rows * weight[-1]
        bases = start + np.minimum(np.searchsorted(weight, points, side="right"), stop - start - 1)
        near = self.arrays["near"][bases, : self.arrays["k"][region]]
        X, mark = self._drawn(bases, near, int(rng.integers(2**32)))
        for j, cell in enumerate(self.cells):
            if not cell.ordered:
                X[:, j] = commonest(self.arrays["X"][near[mark], j], np.ones(near.shape, dtype=bool), rng)
        return drawn_table(self.cells, X, self.arrays["nulls"][bases[mark]])

    def _drawn(self, bases: np.ndarray, near: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) whose ordered columns imbalanced-learn drew among the bases and their neighbours alone, and each row's base.

        The context is one row per base, then each base's neighbours, all marked with the base's position in a further column: both ends
        of a segment carry the same mark, so that a drawn row tells where it starts.
        """
        rows, k = near.shape
        ordered = [j for j, cell in enumerate(self.cells) if cell.ordered]
        mark = np.concatenate([np.arange(rows), np.repeat(np.arange(rows), k)])
        # Small by a power of two, which is exact, so that sums and differences of values near 1e308 stay finite.
        context = np.column_stack([mark, self.arrays["X"][np.concatenate([bases, near.ravel()])][:, ordered] * SMALL])
        context = np.vstack([context[:1], context])
        known = Known(rows + np.arange(rows * k).reshape(rows, k))
        sampler = SMOTE(sampling_strategy={True: len(mark) + rows}, k_neighbors=known, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="After over-sampling", category=UserWarning)
            drawn = sampler.fit_resample(context, np.arange(len(context)) > 0)[0][len(context) :]
        start = np.rint(drawn[:, 0]).astype(np.int64)
        X = np.empty((rows, len(self.cells)))
        base, reach = self.arrays["X"][bases[start]][:, ordered] * SMALL, self.arrays["reach"][bases[start]][:, None]
        # Beyond the largest float, and beyond what training showed, the bound is drawn.
        with np.errstate(over="ignore"):
            X[:, ordered] = np.where(reach == 1, drawn[:, 1:], base + reach * (drawn[:, 1:] - base)) / SMALL
        return X, start

"""Points on segments between near rows of one region, drawn by imbalanced-learn; knows nothing beyond such segments."""

import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
from imblearn.over_sampling import SMOTE
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from codsa_ray.cells import Cells
from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.seeds import rng_of

KINDS = ("smote", "borderline", "adasyn")


@dataclass(frozen=True)
class Interpolation:
    """SMOTE and SMOTE-NC (Chawla et al. 2002), Borderline-SMOTE 1 (Han, Wang & Mao 2005) and ADASYN (He et al. 2008).

    Neighbours are sought once, at fit, over columns scaled to unit deviation; the kinds differ in which rows segments start from: any
    row, those of whose `around` neighbours at least half but not all lie outside the region, or rows weighted by that share.
    Null cells take part as the region's median or commonest value, and a drawn row is null where the row that it starts from is.

    Args:
        kind: smote (SMOTE-NC's rules for categories and booleans, with every kind), borderline or adasyn.
        k: neighbours of the region that a segment may lead to; fewer in regions of at most k rows.
        around: neighbours of any region that borderline and adasyn look at.
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
        """Finds each kept row's neighbours; memory is linear and time at most quadratic in min(rows, cap)."""
        if worker.rank:
            return
        table = data.table(self.cap)
        table = table.take(pa.array(np.argsort(table[REGION].to_numpy(), kind="stable")))
        region = table[REGION].to_numpy()
        fixed = data.regions.constant_columns
        cells = [Cells.of(c, table[c.name]) for c in data.schema.columns if c.name not in fixed]
        encoded = [cell.encode(table[cell.column.name]) for cell in cells]
        nulls = np.array([null for _, null in encoded], dtype=bool).reshape(len(cells), -1).T
        starts = np.concatenate([[0], np.cumsum(np.bincount(region, minlength=len(data.regions)))])
        values = [_filled(cell, *pair, starts) for cell, pair in zip(cells, encoded, strict=True)]
        X = np.array(values).reshape(len(cells), -1).T
        codes = [index for index, cell in enumerate(cells) if not cell.ordered]
        near, weight, notice = self._neighbours(X, codes, starts, [item.name for item in data.regions.items])
        k = np.clip(np.diff(starts) - 1, 1, self.k)
        arrays = {"X": X, "nulls": nulls, "starts": starts, "k": k, "near": near, "weight": weight}
        worker.folder.write_arrays("rows.safetensors", arrays)
        worker.folder.write_json("interpolation.json", {"cells": [c.to_json() for c in cells], "notice": notice})

    def _neighbours(
        self, X: np.ndarray, codes: list[int], starts: np.ndarray, names: list[str]
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(n, k) rows that segments lead to, (n,) weight of each row as a start, and what had to give way."""
        near, weight, notice = np.repeat(np.arange(len(X))[:, None], self.k, axis=1), np.ones(len(X)), []
        for start, stop, name in zip(starts[:-1], starts[1:], names, strict=True):
            rows = stop - start
            k = min(self.k, rows - 1)
            if k < self.k and rows:
                notice.append(f"{name}: {rows} rows, k lowered from {self.k} to {k}" + (": rows are copied" if not k else ""))
            if k <= 0:
                continue
            space = _space(X, codes, slice(start, stop))
            found = NearestNeighbors(n_neighbors=k + 1).fit(space[start:stop]).kneighbors(space[start:stop], return_distance=False)
            near[start:stop, :k] = start + found[:, 1:]
            if self.kind != "smote":
                chosen = self._starts(space, start, stop)
                weight[start:stop] = chosen if chosen.any() else 1.0
                if not chosen.any():
                    notice.append(f"{name}: no row is near another region as {self.kind} wants, every row is a start")
        return near.astype(np.int32), weight, notice

    def _starts(self, space: sparse.csr_matrix, start: int, stop: int) -> np.ndarray:
        """(rows,) weight of each row of the region as a start, from the share of its neighbours that lie outside."""
        around = min(self.around, space.shape[0] - 1)
        found = NearestNeighbors(n_neighbors=around + 1).fit(space).kneighbors(space[start:stop], return_distance=False)[:, 1:]
        outside = ((found < start) | (found >= stop)).mean(axis=1)
        return outside if self.kind == "adasyn" else ((outside >= 0.5) & (outside < 1)).astype(float)

    def load(self, folder: Folder) -> "FittedInterpolation":
        """Reads rows and neighbours back."""
        meta = folder.read_json("interpolation.json")
        cells = tuple(map(Cells.from_json, meta["cells"]))
        return FittedInterpolation(self.block, cells, folder.read_arrays("rows.safetensors"), tuple(meta["notice"]))

    @classmethod
    def tiny(cls) -> Self:
        """Small blocks."""
        return cls(block=256)


def _filled(cell: Cells, values: np.ndarray, null: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(n,) float64; what is null or never drawn becomes the region's median or commonest value."""
    filled = values.astype(np.float64)
    known = ~null & (cell.ordered | (values < cell.levels))
    for start, stop in pairwise(starts):
        own = filled[start:stop][known[start:stop]]
        usual = 0.0 if not len(own) else np.quantile(own, 0.5, method="lower") if cell.ordered else np.bincount(own.astype(int)).argmax()
        filled[start:stop][~known[start:stop]] = usual
    return filled


def _space(X: np.ndarray, codes: list[int], own: slice) -> sparse.csr_matrix:
    """(n, dimensions) SMOTE-NC's space: another category costs the median deviation of the region's ordered columns, or 1 if that is 0."""
    ordered = np.delete(X, codes, axis=1)
    deviation = ordered.std(axis=0)
    ordered = ordered / np.where(deviation > 0, deviation, 1.0)
    cost = float(np.median(ordered[own].std(axis=0))) if ordered.shape[1] else 1.0
    parts = [sparse.csr_matrix(ordered)]
    for index in codes:
        levels = X[:, index].astype(int)
        ones = np.full(len(X), (cost or 1.0) / np.sqrt(2))
        parts.append(sparse.csr_matrix((ones, (np.arange(len(X)), levels)), shape=(len(X), levels.max() + 1)))
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
        arrays: X (n, columns) encoded and filled, nulls (n, columns), near (n, k), weight (n,); starts (K + 1,), k (K,).
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
                X[:, j] = _commonest(self.arrays["X"][near[mark], j], rng)
        nulls = self.arrays["nulls"][bases[mark]]
        return pa.table({cell.column.name: _cells(cell, X[:, j], nulls[:, j]) for j, cell in enumerate(self.cells)})

    def _drawn(self, bases: np.ndarray, near: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows, columns) whose ordered columns imbalanced-learn drew among the bases and their neighbours alone, and each row's base.

        The context is one row per base, then each base's neighbours, all marked with the base's position in a further column: both ends
        of a segment carry the same mark, so that a drawn row tells where it starts.
        """
        rows, k = near.shape
        ordered = [j for j, cell in enumerate(self.cells) if cell.ordered]
        mark = np.concatenate([np.arange(rows), np.repeat(np.arange(rows), k)])
        context = np.column_stack([mark, self.arrays["X"][np.concatenate([bases, near.ravel()])][:, ordered]])
        context = np.vstack([context[:1], context])
        known = Known(rows + np.arange(rows * k).reshape(rows, k))
        sampler = SMOTE(sampling_strategy={True: len(mark) + rows}, k_neighbors=known, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="After over-sampling", category=UserWarning)
            drawn = sampler.fit_resample(context, np.arange(len(context)) > 0)[0][len(context) :]
        start = np.rint(drawn[:, 0]).astype(np.int64)
        X = np.empty((rows, len(self.cells)))
        X[:, ordered] = drawn[:, 1:]
        return X, start


def _commonest(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) the commonest of each row's (n, k) codes, ties at random: SMOTE-NC's rule for categories."""
    votes = (codes[:, :, None] == codes[:, None, :]).sum(axis=2) + rng.random(codes.shape) / 2
    return np.take_along_axis(codes, votes.argmax(axis=1)[:, None], axis=1)[:, 0]


def _cells(cell: Cells, values: np.ndarray, null: np.ndarray) -> pa.Array:
    if cell.ordered and cell.column.kind != "numeric":
        values = np.minimum(np.rint(values).astype(np.uint64), np.uint64(cell.top))
    return cell.decode(values, null)

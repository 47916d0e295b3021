"""SMOGN: points between near rows of a region, noise around rows whose neighbours are far; knows nothing beyond that.

Cost, n rows of a region, d columns: time n^2 (d + log n), memory some 10 n d bytes and CHUNK x n distances; a block its cells.
Not for: large regions (time is quadratic: interpolation's is not), many columns against a region's rows (all neighbours are far then, and
every row is noise around a base), columns tied by equations, or where spread has to be right: segments shrink it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import cdist

from codsa_ray.cells import Cells
from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.filled import LARGEST
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.seeds import rng_of

CHUNK = 512  # rows whose distances to a whole region are held at once
SQUARED = 500  # powers of two below which squares are far from overflow; larger columns are scaled down, which is exact


@dataclass(frozen=True)
class Smogn:
    """SMOGN (Branco, Torgo & Ribeiro 2017), for regression; where the region fixes the target it draws the other columns alike.

    The paper calls a row rare where a relevance function of its target, 1 at the outer fences of the boxplot and 0 at the median, is over
    a threshold, and oversamples each run of rare targets. Here regions (target bins, or conditions) take that part: they are declared,
    and the allocator says which of them lack rows. Within a region a row is drawn from a random base row and one of its `k` nearest:

    - nearer than half the median distance from the base to the region's rows: on the segment between the two, categories from
      either, the target between theirs in inverse proportion to the distances to them (SMOTER; Torgo et al. 2013);
    - else around the base: ordered columns and the target with normal noise of min(pert, that half median) of the region's
      deviation, categories as often as the region has them.

    Distances are HEOM's (Wilson & Martinez 1997) without the target: ordered columns over their range, another category 1. Null cells
    take part as the region's median or commonest value, and a drawn row is null where its base is.

    Args:
        k: neighbours of the region; fewer in regions of at most k rows.
        pert: noise, as a share of a column's deviation in the region.
        cap: rows kept at most; beyond it the larger regions are thinned. Time is quadratic in a region's rows.
        block: rows of one block.
    """

    k: int = 5
    pert: float = 0.02
    cap: int = 10_000
    block: int = 2048

    def __post_init__(self) -> None:
        if min(self.k, self.cap, self.block) < 1 or self.pert < 0:
            raise SettingError("k, cap and block of at least 1 and pert of at least 0", repr(self), "raise the one that is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(block=self.block)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Finds each kept row's neighbours and which of them are near enough."""
        if worker.rank:
            return
        table = data.table(self.cap)
        table = table.take(pa.array(np.argsort(table[REGION].to_numpy(), kind="stable")))
        starts = np.concatenate([[0], np.cumsum(np.bincount(table[REGION].to_numpy(), minlength=len(data.regions)))])
        fixed = data.regions.constant_columns
        cells = [Cells.of(c, table[c.name]) for c in data.schema.columns if c.name not in fixed]
        encoded = [cell.encode(table[cell.column.name]) for cell in cells]
        X = np.array([_filled(cell, *pair, starts) for cell, pair in zip(cells, encoded, strict=True)]).reshape(len(cells), len(table)).T
        nulls = np.array([null for _, null in encoded], dtype=bool).reshape(len(cells), len(table)).T
        unit = np.ldexp(1.0, np.maximum(np.frexp(np.abs(X).max(axis=0, initial=0.0))[1] - SQUARED, 0))
        X = X / unit
        space = Space.of(X, cells, data.schema.target)
        near, close, reach = self._neighbours(space, starts)
        arrays = {"X": X, "nulls": nulls, "starts": starts, "near": near, "close": close, "reach": reach, "span": space.span, "unit": unit}
        worker.folder.write_arrays("rows.safetensors", arrays)
        few = [f"{item.name}: one row, which is copied" for item, n in zip(data.regions.items, np.diff(starts), strict=True) if n == 1]
        meta = {"cells": [cell.to_json() for cell in cells], "target": data.schema.target, "notice": few}
        worker.folder.write_json("smogn.json", meta)

    def _neighbours(self, space: "Space", starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, k) nearest rows of the region (a row itself where there are fewer), (n, k) whether near enough, (n,) half median distance."""
        near = np.repeat(np.arange(starts[-1])[:, None], self.k, axis=1)
        close, reach = np.zeros(near.shape, dtype=bool), np.zeros(len(near))
        for start, stop in pairwise(starts):
            k = min(self.k, stop - start - 1)
            for first in range(start, stop, CHUNK) if k > 0 else ():
                rows = np.arange(first, min(first + CHUNK, stop))
                distance = space.distances(rows, slice(start, stop))
                distance[np.arange(len(rows)), rows - start] = np.inf
                order = np.argsort(distance, axis=1, kind="stable")[:, :k]
                # Of the others: the row itself, at infinity, is the last of n and leaves the lower n - 1.
                reach[rows] = np.median(np.sort(distance, axis=1)[:, :-1], axis=1) / 2
                near[rows, :k] = start + order
                close[rows, :k] = np.take_along_axis(distance, order, axis=1) < reach[rows, None]
        return near.astype(np.int32), close, reach

    def load(self, folder: Folder) -> "FittedSmogn":
        """Reads rows and neighbours back."""
        meta = folder.read_json("smogn.json")
        cells = tuple(map(Cells.from_json, meta["cells"]))
        return FittedSmogn(self, cells, meta["target"], folder.read_arrays("rows.safetensors"), tuple(meta["notice"]))

    @classmethod
    def tiny(cls) -> Self:
        """Small blocks, noise that can be told apart."""
        return cls(pert=0.1, block=256)


def _filled(cell: Cells, values: np.ndarray, null: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(n,) float64; what is null or never drawn becomes the region's median or commonest value."""
    filled = values.astype(np.float64)
    known = ~null & (cell.ordered | (values < cell.levels))
    for start, stop in pairwise(starts):
        own = filled[start:stop][known[start:stop]]
        usual = 0.0 if not len(own) else np.quantile(own, 0.5, method="lower") if cell.ordered else np.bincount(own.astype(int)).argmax()
        filled[start:stop][~known[start:stop]] = usual
    return filled


@dataclass(frozen=True)
class Space:
    """Where rows are near: HEOM without the target.

    Args:
        ordered: (n, P) ordered columns over their range.
        codes: (n, Q) categories.
        span: (columns,) what an ordered column's difference is divided by; 0 for categories and the target.
    """

    ordered: np.ndarray
    codes: np.ndarray
    span: np.ndarray

    @staticmethod
    def of(X: np.ndarray, cells: list[Cells], target: str) -> "Space":
        """From encoded, filled columns."""
        ordered = np.array([cell.ordered and cell.column.name != target for cell in cells], dtype=bool)
        levels = np.array([not cell.ordered and cell.column.name != target for cell in cells], dtype=bool)
        width = np.ptp(X, axis=0) if len(X) else np.zeros(len(cells))
        span = np.where(ordered, np.where(width > 0, width, 1.0), 0.0)
        return Space(X[:, ordered] / span[ordered], X[:, levels].astype(np.int32), span)

    def distances(self, rows: np.ndarray, among: slice) -> np.ndarray:
        """(rows, among) distances."""
        squared = cdist(self.ordered[rows], self.ordered[among], "sqeuclidean")
        for column in self.codes.T:
            squared += column[rows, None] != column[None, among]
        return np.sqrt(squared)


@dataclass(frozen=True)
class FittedSmogn:
    """Rows sorted by region, with their neighbours.

    Args:
        settings: noise and block to draw with.
        cells: the columns.
        target: name of the target, which may be none of them.
        arrays: X in units of `unit`, nulls (n, columns); starts (K + 1,); near, close (n, k); reach (n,); span, unit (columns,).
        notice: regions whose rows are copied.
    """

    settings: Smogn
    cells: tuple[Cells, ...]
    target: str
    arrays: dict[str, np.ndarray]
    notice: tuple[str, ...] = ()

    def block(self, region: int, seed: int) -> pa.Table:
        """Drawn rows of the region.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = (int(edge) for edge in self.arrays["starts"][region : region + 2])
        if start == stop:
            raise ShortOfRows(f"wanted rows of region {region} to draw around; got none; leave the region out or merge it")
        rng = rng_of(seed, "smogn", region)
        base = rng.integers(start, stop, self.settings.block)
        rank = rng.integers(0, max(1, min(self.settings.k, stop - start - 1)), len(base))
        near, close = self.arrays["near"][base, rank], self.arrays["close"][base, rank]
        segment, ends = self._between(base, near, rng)
        by = np.where(close[:, None], segment, self._around(base, start, stop, rng))
        levels = np.where(close[:, None], ends, self._usual(start, stop, rng))
        nulls = self.arrays["nulls"][base]
        X, unit = self.arrays["X"][base], self.arrays["unit"]
        parts = zip(self.cells, X.T, by.T, levels.T, nulls.T, unit, strict=True)
        drawn = {cell.column.name: _cells(cell, *part) for cell, *part in parts}
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(drawn) if drawn else pa.table({"": base}).select([])

    def _between(self, base: np.ndarray, near: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(n, columns) steps from the base towards the neighbour, the target's by the distances to both, and values of one of them."""
        X, span = self.arrays["X"], self.arrays["span"]
        away, part = X[near] - X[base], rng.random(len(base))
        second = rng.random(away.shape) < 0.5
        length = np.sqrt(np.square(np.divide(away, span, out=np.zeros_like(away), where=span > 0)).sum(axis=1))
        other = (away != 0) & ~self._ordered
        to_base = np.hypot(part * length, np.sqrt((other & second).sum(axis=1)))
        to_near = np.hypot((1 - part) * length, np.sqrt((other & ~second).sum(axis=1)))
        total = to_base + to_near
        of_target = np.divide(to_base, total, out=np.full(len(base), 0.5), where=total > 0)
        targets = np.array([cell.column.name == self.target for cell in self.cells], dtype=bool)
        return away * np.where(targets, of_target[:, None], part[:, None]), np.where(second, X[near], X[base])

    def _around(self, base: np.ndarray, start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
        """(n, columns) steps of normal noise."""
        deviation = self.arrays["X"][start:stop].std(axis=0) * self._ordered
        scale = np.minimum(self.arrays["reach"][base], self.settings.pert)
        return rng.standard_normal((len(base), len(self.cells))) * scale[:, None] * deviation

    @property
    def _ordered(self) -> np.ndarray:
        return np.array([cell.ordered for cell in self.cells], dtype=bool)

    def _usual(self, start: int, stop: int, rng: np.random.Generator) -> np.ndarray:
        """(n, columns) values of the region's rows, column by column."""
        rows = rng.integers(start, stop, (self.settings.block, len(self.cells)))
        return self.arrays["X"][rows, np.arange(len(self.cells))]


def _cells(cell: Cells, values: np.ndarray, by: np.ndarray, levels: np.ndarray, null: np.ndarray, unit: float) -> pa.Array:
    if not cell.ordered:
        return cell.decode(levels, null)
    if cell.column.kind == "numeric":
        # Noise may lead beyond the largest float: the bound is drawn then.
        with np.errstate(over="ignore"):
            return cell.decode(np.clip((values + by) * unit, cell.column.low, cell.column.high), null)
    values = np.minimum(np.minimum(np.rint(values), LARGEST).astype(np.uint64), np.uint64(cell.top))
    return cell.decode(cell.moved(values, by), null)

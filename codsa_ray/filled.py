"""A fit's rows sorted by region, as plain numbers without holes; knows no distance and no generator."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from codsa_ray.cells import Cells
from codsa_ray.fitdata import REGION
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

LARGEST = float(2**64 - 2**11)
"""Largest float64 that fits in 64 bits."""


@dataclass(frozen=True, eq=False)
class Filled:
    """What neighbours are sought among and networks learn from, beside which cells were null.

    Args:
        cells: the columns that regions do not fix.
        values: (n,) encoded values of each, in its own dtype, so that integers beyond 2^53 stay exact. A null, or a category that is never
            drawn, reads as the region's lower median or commonest value, and as the table's where the region has none.
        nulls: (n, columns) bool.
        starts: (K + 1,) int64; region k is starts[k]:starts[k + 1].
        labels: (n,) int64 as `Regions.labels` has them.
        weight: (n,) rows that each stands for: 1 where its region was not thinned.
    """

    cells: tuple[Cells, ...]
    values: tuple[np.ndarray, ...]
    nulls: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    weight: np.ndarray

    @staticmethod
    def of(table: pa.Table, schema: Schema, regions: Regions) -> "Filled":
        """From a canonical table with its `_region`; time and memory are linear in its cells."""
        region = table[REGION].to_numpy()
        order = np.argsort(region, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(region, minlength=len(regions)))])
        fixed = regions.constant_columns
        cells = tuple(Cells.of(c, table[c.name]) for c in schema.columns if c.name not in fixed)
        nulls, values = np.empty((len(table), len(cells)), dtype=bool), []
        for index, cell in enumerate(cells):
            encoded, null = cell.encode(table[cell.column.name])
            nulls[:, index] = null[order]
            values.append(_filled(cell, encoded[order], nulls[:, index], starts))
        kept = np.diff(starts)
        labels, weight = regions.labels(schema.target), regions.counts / np.maximum(kept, 1)
        return Filled(cells, tuple(values), nulls, starts, np.repeat(labels, kept), np.repeat(weight, kept))

    def __len__(self) -> int:
        return len(self.nulls)

    @property
    def region(self) -> np.ndarray:
        """(n,) int64 region of each row."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @property
    def ordered(self) -> np.ndarray:
        """(columns,) bool: numerics, integers and datetimes."""
        return np.array([cell.ordered for cell in self.cells], dtype=bool)

    def matrix(self) -> np.ndarray:
        """(n, columns) float64."""
        X = np.empty(self.nulls.shape)
        for index, column in enumerate(self.values):
            X[:, index] = column
        return X

    def table(self) -> pa.Table:
        """The columns as canonical values; null only where the whole column is."""
        holes = np.ones(len(self), dtype=bool)
        pairs = zip(self.cells, self.values, self.nulls.T, strict=True)
        arrays = {cell.column.name: cell.decode(values, holes if null.all() else None) for cell, values, null in pairs}
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(arrays) if arrays else pa.table({"": holes}).select([])


def drawn_table(cells: tuple[Cells, ...], X: np.ndarray, nulls: np.ndarray) -> pa.Table:
    """Canonical rows of encoded ones: numbers kept within what training showed, whole where the column is.

    Args:
        cells: the columns.
        X: (n, columns) float64, codes of categories and booleans.
        nulls: (n, columns) bool.
    """
    arrays = {cell.column.name: _canonical(cell, X[:, j], nulls[:, j]) for j, cell in enumerate(cells)}
    return pa.table(arrays) if arrays else pa.table({"": nulls[:, :0].any(axis=1)}).select([])


def _canonical(cell: Cells, values: np.ndarray, null: np.ndarray) -> pa.Array:
    if cell.column.kind == "numeric":
        values = np.clip(values, cell.low, cell.high)
    elif cell.ordered:
        values = np.minimum(np.rint(np.clip(values, 0, LARGEST)).astype(np.uint64), np.uint64(cell.top))
    return cell.decode(values, null)


def _filled(cell: Cells, values: np.ndarray, null: np.ndarray, starts: np.ndarray) -> np.ndarray:
    known = ~null if cell.ordered else ~null & (values < cell.levels)
    if known.all():
        return values
    usual = _usual(cell, values[known])
    for start, stop in pairwise(starts):
        own = slice(start, stop)
        values[own][~known[own]] = _usual(cell, values[own][known[own]]) if known[own].any() else usual
    return values


def _usual(cell: Cells, values: np.ndarray) -> float | int:
    if not len(values):
        return 0
    middle = (len(values) - 1) // 2
    return np.partition(values, middle)[middle] if cell.ordered else int(np.bincount(values).argmax())

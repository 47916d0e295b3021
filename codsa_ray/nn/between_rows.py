"""Between rows: the ordered cells of points on segments between near rows of a region (SMOTE's); knows no network."""

import numpy as np
import pyarrow as pa
from scipy.spatial import cKDTree

from codsa_ray.cells import Cells
from codsa_ray.fitdata import REGION
from codsa_ray.schema import Column
from codsa_ray.seeds import rng_of

NEIGHBOURS = 5
MOST = 4_000
"""Rows of a region that neighbours are looked for among: the search is slow in many dimensions."""


def between_rows(table: pa.Table, columns: tuple[Column, ...], wanted: np.ndarray, seed: int) -> pa.Table:
    """Interpolated rows (Chawla et al. 2002), of which only the ordered columns mean anything (Nguyen et al. 2025).

    A row lies between a row and one of its five nearest of the region, by ordered columns in units of their deviation there; a cell is
    null where the first row's is. Regions of one row and tables without ordered columns give none.

    Args:
        table: canonical rows with `_region`.
        columns: those that are drawn.
        wanted: (K,) how many rows of each region.
        seed: of the rows.

    Returns:
        The columns, null where they have no order, and `_region`; regions in turn.
    """
    cells = [cell for cell in (Cells.of(c, table[c.name]) for c in columns) if cell.ordered]
    region, kinds = table[REGION].to_numpy(), table.select([*(c.name for c in columns), REGION]).schema
    found = [_of_region(table, cells, np.flatnonzero(region == k), int(wanted[k]), k, seed) for k in range(len(wanted)) if cells]
    drawn = pa.concat_tables([part for part in found if part is not None] or [kinds.empty_table()])
    blank = {field.name: pa.nulls(len(drawn), field.type) for field in kinds}
    return pa.table({**blank, **{name: drawn[name] for name in drawn.column_names}}, schema=kinds)


def _of_region(table: pa.Table, cells: list[Cells], rows: np.ndarray, many: int, region: int, seed: int) -> pa.Table | None:
    if len(rows) < 2 or many < 1:
        return None
    rng = rng_of(seed, "between", region)
    rows = np.sort(rng.permutation(rows)[:MOST])
    part = table.take(pa.array(rows))
    encoded = [cell.encode(part[cell.column.name]) for cell in cells]
    filled = np.stack([_filled(values.astype(np.float64), null) for values, null in encoded], axis=1)
    with np.errstate(over="ignore"):
        # Beyond float64: such a column then counts for nothing in distances.
        spread = filled.std(axis=0)
    points = filled / np.where(spread > 0, spread, 1.0)
    base = rng.integers(0, len(rows), many)
    used, back = np.unique(base, return_inverse=True)
    _, near = cKDTree(points).query(points[used], k=min(NEIGHBOURS + 1, len(rows)))
    other = near[back, rng.integers(1, near.shape[1], many)]
    step = (filled[other] - filled[base]) * rng.random(many)[:, None]
    drawn = {
        cell.column.name: cell.decode(cell.moved(values[base], step[:, j]), null[base]) if not null.all() else cell.empty(many)
        for j, (cell, (values, null)) in enumerate(zip(cells, encoded, strict=True))
    }
    return pa.table({**drawn, REGION: pa.array(np.full(many, region, dtype=np.int32))})


def _filled(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Nulls at the median of the others."""
    return np.where(null, np.median(values[~null]), values) if not null.all() else np.zeros(len(values))

"""Small pictures hidden in a table: columns PREFIX_ROW_COLUMN that fill a grid; knows no generator."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.nearest import MOST_REAL, Space
from codsa_ray.audit.picks import pick, region_of, thin
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

PIXEL = re.compile(r"(.+)_(\d+)_(\d+)")
LEAST_SIDE = 4
MOST_REGIONS = 4
PER_REGION = 10


@dataclass(frozen=True)
class Grid:
    """A full grid of columns.

    Args:
        rows, columns: its sides.
        names: column names, row by row.
        most: the largest value any of its columns takes in training rows.
    """

    rows: int
    columns: int
    names: tuple[str, ...]
    most: float

    @staticmethod
    def find(schema: Schema) -> "Grid | None":
        """The largest grid of numeric columns with one prefix; columns that the schema left out (constant ones) count as there."""
        kinds = {column.name: column.kind for column in schema.columns}
        places: dict[str, dict[tuple[int, int], str]] = {}
        for name in schema.order or tuple(kinds):
            match = PIXEL.fullmatch(name)
            if match and kinds.get(name, "numeric") in ("numeric", "integer"):
                places.setdefault(match[1], {})[int(match[2]), int(match[3])] = name
        grids = [grid for cells in places.values() if (grid := _full(cells, schema)) is not None]
        return max(grids, key=lambda grid: len(grid.names), default=None)

    def pixels(self, table: pa.Table) -> np.ndarray:
        """(n, rows * columns) float64; a null, and a column the table lacks, is 0."""
        flat = np.zeros((len(table), len(self.names)))
        for i, name in enumerate(self.names):
            if name in table.column_names:
                flat[:, i] = np.nan_to_num(table[name].cast(pa.float64()).to_numpy())
        return flat


def _full(cells: dict[tuple[int, int], str], schema: Schema) -> Grid | None:
    # Grids count from 0 or from 1.
    first_row, first_column = min(r for r, _ in cells), min(c for _, c in cells)
    rows, columns = max(r for r, _ in cells) - first_row + 1, max(c for _, c in cells) - first_column + 1
    if min(rows, columns) < LEAST_SIDE or len(cells) != rows * columns:
        return None
    names = tuple(cells[r + first_row, c + first_column] for r in range(rows) for c in range(columns))
    highs = [float(c.high) for c in schema.columns if c.name in names and c.high is not None]
    return Grid(rows, columns, names, max(highs, default=0.0)) if max(highs, default=0.0) > 0 else None


def pictures(real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int, rows: bool = True) -> dict[str, Any] | None:
    """Drawn pictures of the rarest regions beside real ones and beside each one's nearest real one.

    Args:
        real, drawn: canonical rows with `_region`.
        rows: False leaves real pictures out.

    Returns:
        {rows, columns, max, regions: [{name, real, drawn, nearest}]} with flat pixel lists, or None when no columns form a grid.
    """
    grid = Grid.find(schema)
    if grid is None or len(drawn) == 0 or len(real) == 0:
        return None
    found = np.bincount(region_of(drawn), minlength=len(regions))
    rarest = [int(k) for k in np.argsort(regions.counts, kind="stable") if found[k]][:MOST_REGIONS]
    points, space = thin(real, MOST_REAL, seed, "points"), Space.of(real, schema)
    shown = []
    for k in rarest:
        mine, theirs = _some(drawn, k, seed), _some(real, k, seed)
        index, _ = space.nearest(mine, points)
        near = points.take(pa.array(index))
        shown.append(
            {
                "name": regions.items[k].name,
                "drawn": grid.pixels(mine).tolist(),
                "real": grid.pixels(theirs).tolist() if rows else [],
                "nearest": grid.pixels(near).tolist() if rows else [],
            }
        )
    return {"rows": grid.rows, "columns": grid.columns, "max": grid.most, "regions": shown}


def _some(table: pa.Table, region: int, seed: int) -> pa.Table:
    regions = region_of(table)
    counts = np.zeros(region + 1, dtype=np.int64)
    counts[region] = min(PER_REGION, int((regions == region).sum()))
    return table.take(pa.array(pick(regions, counts, seed, "pictures")))

"""Columns of pictures as an audit can compare and show them: thumbnails, pixels, contrasts; knows no measure.

Pictures are looked at as thumbnails of at most SHOWN pixels a side, made once (`shrunk`): an audit compares thousands of rows many times.
"""

import base64
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.picks import pick, region_of, thin
from codsa_ray.embedding import thumbnail
from codsa_ray.errors import PictureError
from codsa_ray.picture import decoded, encoded, fitted
from codsa_ray.regions import Regions
from codsa_ray.schema import Column, Schema

SHOWN = 64
SIDE = 16
"""Of the thumbnails that distances are taken between."""
CELLS = 4
MOST_ROWS = 4_000
"""Rows of a table with pictures that are looked at: decoding one of a camera takes some 10 ms."""
MOST_REAL = 2_000
MOST_REGIONS, PER_REGION = 6, 10
MOST_COLUMNS = 3


def images(schema: Schema) -> tuple[Column, ...]:
    """The columns of pictures."""
    return tuple(column for column in schema.columns if column.kind == "image")


def shrunk(table: pa.Table, schema: Schema) -> pa.Table:
    """The table with every picture as a PNG file of at most SHOWN pixels a side, its aspect kept; what is no picture is null."""
    for column in images(schema):
        small = [_small(value) for value in table[column.name].to_pylist()]
        table = table.set_column(table.column_names.index(column.name), column.name, pa.array(small, pa.binary()))
    return table


def _small(picture: bytes | None) -> bytes | None:
    try:
        pixels = None if picture is None else decoded(picture, least=2 * SHOWN)
    except PictureError:
        return None
    if pixels is None:
        return None
    share = min(1.0, SHOWN / max(pixels.shape[:2]))
    return encoded(fitted(pixels, max(1, round(pixels.shape[0] * share)), max(1, round(pixels.shape[1] * share))))


def pixels(table: pa.Table, column: Column) -> np.ndarray:
    """(n, 3 SIDE^2) float32 in [0, 1] of the thumbnails; a null is NaN."""
    found = np.full((len(table), SIDE * SIDE * 3), np.nan, dtype=np.float32)
    for row, value in enumerate(table[column.name].to_pylist()):
        small = thumbnail(value, SIDE)
        if small is not None:
            found[row] = small.ravel() / np.float32(255)
    return found


def apart(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(n, m) root mean square difference of pixels in [0, 1]; a null is half of it away from a picture and at no distance from a null."""
    null, other = np.isnan(mine[:, 0]), np.isnan(theirs[:, 0])
    # Sums of squares lose half of their digits where two pictures are alike, so they are taken in float64.
    a, b = np.nan_to_num(mine).astype(np.float64), np.nan_to_num(theirs).astype(np.float64)
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    # Pixels are 255ths: what is less than one of them apart is rounding, and equal pictures are at no distance at all.
    found = np.sqrt(np.where(squares < 1e-7, 0.0, squares) / mine.shape[1])
    found[null[:, None] ^ other] = 0.5
    found[null[:, None] & other] = 0.0
    return found


def contrasts(table: pa.Table, column: Column) -> np.ndarray:
    """(n, 4 CELLS^2) float64 mean of each channel and deviation of greys in CELLS x CELLS cells of a picture; a null is NaN.

    Deviations within cells tell blurred pictures and noise, which means alone do not.
    """
    side = SHOWN // CELLS
    found = np.full((len(table), 4 * CELLS * CELLS), np.nan)
    for row, value in enumerate(table[column.name].to_pylist()):
        whole = thumbnail(value, SHOWN)
        if whole is not None:
            cells = whole.reshape(CELLS, side, CELLS, side, 3).astype(np.float64)
            found[row] = np.concatenate([cells.mean(axis=(1, 3)).ravel(), cells.mean(axis=4).std(axis=(1, 3)).ravel()])
    return found


def beside(real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int, rows: bool = True) -> list[dict[str, Any]]:
    """Drawn pictures of the rarest regions beside real ones and beside each one's nearest real one.

    Args:
        real, drawn: shrunk rows with `_region`.
        rows: False leaves real pictures out; distances stay.

    Returns:
        Per column {column, regions: [{name, drawn, nearest, real: PNG files as base64, distance: of each drawn one, fresh: median distance
        of the shown real ones to their nearest other}]}.
    """
    if len(real) == 0 or len(drawn) == 0:
        return []
    points = thin(real, MOST_REAL, seed, "pictures' points")
    found = np.bincount(region_of(drawn), minlength=len(regions))
    rarest = [int(k) for k in np.argsort(regions.counts, kind="stable") if found[k]][:MOST_REGIONS]
    told = []
    for column in images(schema)[:MOST_COLUMNS]:
        held = pixels(points, column)
        shown = [_region(regions, k, real, drawn, points, held, column, seed, rows) for k in rarest]
        told.append({"column": column.name, "regions": shown})
    return told


def _region(
    regions: Regions, k: int, real: pa.Table, drawn: pa.Table, points: pa.Table, held: np.ndarray, column: Column, seed: int, rows: bool
) -> dict[str, Any]:
    mine, theirs = _some(drawn, k, seed), _some(real, k, seed)
    far = apart(pixels(mine, column), held)
    nearest = points.take(pa.array(far.argmin(axis=1)))
    others = apart(pixels(theirs, column), held)
    # A real picture that is among the points is no neighbour of itself.
    others.sort(axis=1)
    fresh = np.where(others[:, 0] == 0, others[:, min(1, others.shape[1] - 1)], others[:, 0])
    return {
        "name": regions.items[k].name,
        "drawn": _texts(mine, column),
        "distance": [round(float(value), 4) for value in far.min(axis=1)],
        "fresh": round(float(np.median(fresh)), 4) if len(fresh) else None,
        "nearest": _texts(nearest, column) if rows else [],
        "real": _texts(theirs, column) if rows else [],
    }


def _some(table: pa.Table, region: int, seed: int) -> pa.Table:
    mine = region_of(table)
    counts = np.zeros(region + 1, dtype=np.int64)
    counts[region] = min(PER_REGION, int((mine == region).sum()))
    return table.take(pa.array(pick(mine, counts, seed, "pictures")))


def _texts(table: pa.Table, column: Column) -> list[str | None]:
    return [None if value is None else base64.b64encode(value).decode() for value in table[column.name].to_pylist()]

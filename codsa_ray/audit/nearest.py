"""Nearest training rows under a Gower-like distance; knows no generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.spatial.distance import cdist

from codsa_ray.audit.columns import ORDERED, compared, named, ordered
from codsa_ray.audit.images import apart, images, pixels
from codsa_ray.audit.picks import pick, region_of, thin
from codsa_ray.audit.texts import texts, vectors
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

BLOCK_BYTES = 64 * 2**20
SLOTS = 512
MOST_REAL = 10_000
MOST_REGIONS = 6
PER_REGION = 3
MOST_SHOWN = 1_000  # characters of a text


@dataclass(frozen=True)
class Space:
    """Distance between rows (after Gower 1971): the mean over columns of a difference in [0, 1].

    Ordered columns are scaled by their 1st to 99th percentile of training rows and clipped there, so that no long tail
    squeezes the rest; a null is half a spread away from mid-scale and no distance from a null. Categories differ by 0 or 1, texts by one
    less the cosine of their words (texts.py), pictures by the root mean square difference of the pixels of their thumbnails (images.py).

    Args:
        schema: of the rows.
        low, spread: (a,) of the ordered columns.
    """

    schema: Schema
    low: np.ndarray
    spread: np.ndarray

    @staticmethod
    def of(real: pa.Table, schema: Schema) -> "Space":
        """Scaled by training rows."""
        bounds = [_bounds(ordered(real, column)) for column in compared(schema) if column.kind in ORDERED]
        low, high = (np.array([b[side] for b in bounds], dtype=np.float64) for side in (0, 1))
        return Space(schema, low, np.where(high > low, high - low, 1.0))

    def place(self, table: pa.Table) -> "Placed":
        """Rows as numbers."""
        columns = compared(self.schema)
        values = [ordered(table, column) for column in columns if column.kind in ORDERED]
        scaled = np.clip((_stack(values, len(table)) - self.low) / self.spread, 0.0, 1.0)
        null = np.isnan(scaled)
        codes = [named(table, column)[0].astype(np.float64) for column in columns if column.kind not in ORDERED]
        told = tuple(vectors(table, column, SLOTS) for column in texts(self.schema))
        seen = tuple(pixels(table, column) for column in images(self.schema))
        return Placed(np.hstack([np.where(null, 0.5, scaled), 0.5 * null]), _stack(codes, len(table)), told, seen)

    @property
    def columns(self) -> int:
        """How many are compared, at least 1."""
        return max(1, len(compared(self.schema)) + len(texts(self.schema)) + len(images(self.schema)))

    def between(self, queries: pa.Table, points: pa.Table) -> np.ndarray:
        """(n, m) distance of every query to every point, all held at once."""
        return self.place(queries).apart(self.place(points)) / self.columns

    def nearest(self, queries: pa.Table, points: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(n,) position of the nearest point of each query (the earliest of equals) and (n,) its distance; memory bounded."""
        a, b = self.place(queries), self.place(points)
        step = max(1, BLOCK_BYTES // (16 * max(1, len(points))))
        index, distance = np.zeros(len(queries), dtype=np.int64), np.zeros(len(queries))
        for start in range(0, len(queries), step):
            rows = slice(start, start + step)
            total = a.part(rows).apart(b)
            index[rows] = total.argmin(axis=1)
            distance[rows] = total.min(axis=1) / self.columns
        return index, distance


@dataclass(frozen=True)
class Placed:
    """Rows of a Space.

    Args:
        values: (n, 2a) float64 scaled values, then null marks.
        codes: (n, b) float64 category codes.
        told: per text column (n, SLOTS) float32 vectors of length 1, or 0.
        seen: per column of pictures (n, d) float32 pixels.
    """

    values: np.ndarray
    codes: np.ndarray
    told: tuple[np.ndarray, ...]
    seen: tuple[np.ndarray, ...] = ()

    def part(self, rows: slice) -> "Placed":
        """Some of them."""
        told, seen = (tuple(own[rows] for own in part) for part in (self.told, self.seen))
        return Placed(self.values[rows], self.codes[rows], told, seen)

    def apart(self, other: "Placed") -> np.ndarray:
        """(n, m) sum of the columns' differences to other rows."""
        total = _gaps(self.values, other.values, "cityblock") + _gaps(self.codes, other.codes, "hamming") * self.codes.shape[1]
        for mine, theirs in zip(self.told, other.told, strict=True):
            # Two texts without a word are alike.
            silent = np.logical_and.outer(np.linalg.norm(mine, axis=1) == 0, np.linalg.norm(theirs, axis=1) == 0)
            total += np.where(silent, 0.0, 1.0 - mine @ theirs.T)
        for mine, theirs in zip(self.seen, other.seen, strict=True):
            total += apart(mine, theirs)
        return np.maximum(total, 0.0)


def _bounds(values: np.ndarray) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return 0.0, 1.0
    low, high = np.quantile(known, [0.01, 0.99])
    return (low, high) if high > low else (known.min(), known.max())


def _stack(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.column_stack(columns) if columns else np.zeros((rows, 0))


def _gaps(a: np.ndarray, b: np.ndarray, metric: Any) -> np.ndarray:
    return cdist(a, b, metric) if a.shape[1] else np.zeros((len(a), len(b)))


def sample(real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int, rows: bool = True) -> list[dict[str, Any]]:
    """A few drawn rows of each region, rarest regions first, beside their nearest training row.

    Args:
        real, drawn: canonical rows with `_region`.
        rows: False leaves the real rows out; their distance stays.

    Returns:
        [{region, distance, drawn: {column: value}, nearest: {column: value} | None}].
    """
    if len(drawn) == 0 or len(real) == 0:
        return []
    shown = drawn.take(pa.array(_few(drawn, regions, PER_REGION, seed)))
    points = thin(real, MOST_REAL, seed, "points")
    index, distance = Space.of(real, schema).nearest(shown, points)
    names = [column.name for column in schema.columns]
    mine, theirs = shown.select(names).to_pylist(), points.take(pa.array(index)).select(names).to_pylist()
    return [
        {
            "region": regions.items[region].name,
            "distance": float(distance[i]),
            "drawn": _plain(mine[i]),
            "nearest": _plain(theirs[i]) if rows else None,
        }
        for i, region in enumerate(region_of(shown))
    ]


def _few(table: pa.Table, regions: Regions, most: int, seed: int) -> np.ndarray:
    """Positions of up to `most` rows in each of the rarest regions that have any, region by region, rarest first."""
    region = region_of(table)
    found = np.bincount(region, minlength=len(regions))
    rarest = [k for k in np.argsort(regions.counts, kind="stable") if found[k]][:MOST_REGIONS]
    only = np.zeros(len(found), dtype=np.int64)
    only[rarest] = np.minimum(found[rarest], most)
    chosen = pick(region, only, seed, "sample")
    rank = {k: place for place, k in enumerate(rarest)}
    return chosen[np.argsort([rank[k] for k in region[chosen]], kind="stable")]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in row.items()}


def _value(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, str) and len(value) > MOST_SHOWN:
        return f"{value[:MOST_SHOWN]} ... ({len(value):,} characters)"
    return "a picture" if isinstance(value, bytes) else value

"""Encodings that learners share: canonical rows as float32 arrays, learned on fold-training rows; knows no learner and no target."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SchemaError
from codsa_ray.schema import Column, Schema

WIDTH = 512  # one-hot columns of all categorical features together; rarer levels share their feature's "other" column
KNOTS = 4096  # ranks of a feature whose values float32 cannot tell apart; 16 times the bins that histogram trees make of it
SOFT = 4.0  # standardised values are bent smoothly below this many deviations
ORDERED = frozenset({"numeric", "integer", "boolean", "datetime"})


@dataclass(frozen=True)
class Ordered:
    """A feature whose values have an order, and the range of it that training rows showed.

    Args:
        name: of the column.
        low, high: bounds of the training values; others are read as the nearer bound.
        middle: their median, a value of the column.
        nulls: training rows hold nulls.
    """

    name: str
    low: float | int
    high: float | int
    middle: float | int
    nulls: bool

    @classmethod
    def learn(cls, table: pa.Table, column: Column) -> Self:
        """From training rows; an all-null column has the range [0, 0]."""
        values, null = _values(table, column.name)
        seen = np.sort(values[~null])
        low, middle, high = seen[[0, len(seen) // 2, -1]].tolist() if len(seen) else (0, 0, 0)
        return cls(column.name, low, high, middle, bool(null.any()))

    def values(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int64 or float64 values within the range (nulls read as `middle`), (n,) bool nulls."""
        values, null = _values(table, self.name)
        values = np.clip(values, self.low, self.high)
        values[null] = self.middle
        return values, null

    def distance(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64 distance above `middle`, finite for any range: exact for integers within 2^53 of it, floats in units of 4."""
        if values.dtype != np.int64:
            return values / 4 - self.middle / 4
        # Unsigned differences wrap around and so are exact for any two int64, where the signed one overflows.
        bits, middle = values.view(np.uint64), np.int64(self.middle).view(np.uint64)
        return np.where(values >= self.middle, (bits - middle).astype(np.float64), -(middle - bits).astype(np.float64))


@dataclass(frozen=True)
class Levels:
    """A categorical feature: the values of training rows that have a code of their own.

    Args:
        name: of the column.
        items: most frequent first, ties by value.
        counts: training rows of each.
        nulls: training rows hold nulls.
    """

    name: str
    items: tuple[str, ...]
    counts: tuple[int, ...]
    nulls: bool

    @classmethod
    def learn(cls, table: pa.Table, column: Column) -> Self:
        """From training rows; values that the schema does not list are "other"."""
        values = table.column(column.name)
        known = values.filter(pc.is_in(values, value_set=pa.array(column.categories, values.type)))
        found = {pair["values"]: pair["counts"] for pair in pc.value_counts(known.combine_chunks()).to_pylist()}
        items = sorted(found, key=lambda level: (-found[level], level))
        return cls(column.name, tuple(items), tuple(found[level] for level in items), values.null_count > 0)

    def first(self, number: int) -> Self:
        """With codes for the `number` most frequent alone."""
        return replace(self, items=self.items[:number], counts=self.counts[:number])

    def codes(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int64 index into `items` (its length for other values and nulls), (n,) bool nulls."""
        values = table.column(self.name).combine_chunks()
        found = pc.index_in(values, value_set=pa.array(self.items, values.type), skip_nulls=True)
        codes = pc.fill_null(found, len(self.items)).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes, _nulls(values)


@dataclass(frozen=True)
class Scaled:
    """One standardised column, and a null flag where training rows hold nulls: (value, flag)."""

    feature: Ordered
    spread: float

    @classmethod
    def learn(cls, table: pa.Table, column: Column) -> Self:
        """The spread is that of the middle half, or of the values beside the median where half of the rows share one."""
        feature = Ordered.learn(table, column)
        values, null = feature.values(table)
        distance = feature.distance(values[~null])
        beside = np.abs(distance[distance != 0])
        if not len(beside):
            return cls(feature, 1.0)
        first, third = np.quantile(distance, (0.25, 0.75))
        return cls(feature, float((third - first) / 1.349 or np.median(beside)))

    @property
    def width(self) -> int:
        """Columns."""
        return 1 + self.feature.nulls

    def write(self, table: pa.Table, out: np.ndarray) -> None:
        """Writes (n, width); nulls read as the median."""
        values, null = self.feature.values(table)
        # The ratio is infinite only for spreads below 1e-308 of the range; the bend needs it finite.
        with np.errstate(over="ignore"):
            z = np.clip(self.feature.distance(values) / self.spread, -1e9, 1e9)
        out[:, 0] = np.where(null, 0.0, z / np.sqrt(1 + (z / SOFT) ** 2))
        if self.feature.nulls:
            out[:, 1] = null


@dataclass(frozen=True)
class Indicators:
    """One-hot columns: the levels, other or unseen, and null where training rows hold nulls (else a null is "other")."""

    feature: Levels

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.feature.items) + 1 + self.feature.nulls

    def write(self, table: pa.Table, out: np.ndarray) -> None:
        """Writes (n, width), out being zero."""
        codes, null = self.feature.codes(table)
        out[np.arange(len(codes)), codes + (null & self.feature.nulls)] = 1


@dataclass(frozen=True)
class OneHot:
    """Rows for learners that measure distances: nothing missing, every column of comparable size.

    Numbers, dates and booleans are centred at the median, scaled by the spread of the middle half and bent smoothly below SOFT deviations
    (robust scaling with smooth clipping: Holzmueller, Grinsztajn & Steinwart 2024), so that one wild value moves no other.

    Args:
        features: in the schema's order.
    """

    features: tuple[Scaled | Indicators, ...]

    @classmethod
    def learn(cls, table: pa.Table, schema: Schema, width: int = WIDTH) -> Self:
        """From fold-training rows; the `width` most frequent levels over all features keep a column of their own.

        Raises:
            SchemaError: a feature is neither ordered nor categorical.
        """
        levels = {column.name: Levels.learn(table, column) for column in _checked(schema) if column.kind == "categorical"}
        ranked = sorted((-count, name, place) for name, item in levels.items() for place, count in enumerate(item.counts))
        kept = Counter(name for _, name, _ in ranked[:width])
        codes = {name: Indicators(item.first(kept[name])) for name, item in levels.items()}
        return cls(tuple(codes[c.name] if c.name in codes else Scaled.learn(table, c) for c in schema.features))

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, d) float32 without NaN."""
        ends = np.cumsum([0] + [feature.width for feature in self.features])
        out = np.zeros((len(table), ends[-1]), dtype=np.float32)
        for feature, start, end in zip(self.features, ends[:-1], ends[1:], strict=True):
            feature.write(table, out[:, start:end])
        return out


@dataclass(frozen=True)
class Ranked:
    """One column in the order of the values: their distance above the median, or ranks where float32 would merge training values."""

    feature: Ordered
    knots: tuple[float | int, ...]

    @classmethod
    def learn(cls, table: pa.Table, column: Column) -> Self:
        """At most KNOTS evenly spaced order statistics of the distinct values serve as knots."""
        feature = Ordered.learn(table, column)
        values, null = feature.values(table)
        distinct = np.unique(values[~null])
        with np.errstate(over="ignore"):
            short = feature.distance(distinct).astype(np.float32)
        if np.all(np.isfinite(short)) and np.all(np.diff(short) > 0):
            return cls(feature, ())
        picks = np.linspace(0, len(distinct) - 1, min(KNOTS, len(distinct))).round().astype(np.int64)
        return cls(feature, tuple(distinct[picks].tolist()))

    def codes(self, table: pa.Table) -> np.ndarray:
        """(n,) float32, NaN for null."""
        values, null = self.feature.values(table)
        if self.knots:
            knots = np.asarray(self.knots, dtype=values.dtype)
            # Left plus right rank is odd on a knot and even between two, so that neighbours of a knot stay apart from it.
            codes = (np.searchsorted(knots, values, "left") + np.searchsorted(knots, values, "right")).astype(np.float32)
        else:
            codes = self.feature.distance(values).astype(np.float32)
        codes[null] = np.nan
        return codes


@dataclass(frozen=True)
class Coded:
    """One column of codes by frequency: 0 is the most frequent level, the number of levels stands for other and unseen values."""

    feature: Levels

    def codes(self, table: pa.Table) -> np.ndarray:
        """(n,) float32, NaN for null."""
        found, null = self.feature.codes(table)
        codes = found.astype(np.float32)
        codes[null] = np.nan
        return codes


@dataclass(frozen=True)
class Ordinal:
    """Rows for trees: one column per feature, order kept, NaN for null.

    Args:
        features: in the schema's order.
    """

    features: tuple[Ranked | Coded, ...]

    @classmethod
    def learn(cls, table: pa.Table, schema: Schema) -> Self:
        """From fold-training rows.

        Raises:
            SchemaError: a feature is neither ordered nor categorical.
        """
        return cls(tuple(Coded(Levels.learn(table, c)) if c.kind == "categorical" else Ranked.learn(table, c) for c in _checked(schema)))

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, features) float32."""
        out = np.empty((len(table), len(self.features)), dtype=np.float32)
        for index, feature in enumerate(self.features):
            out[:, index] = feature.codes(table)
        return out

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [asdict(feature) for feature in self.features]

    @classmethod
    def from_json(cls, value: list[dict[str, Any]]) -> Self:
        """The inverse of `to_json`."""
        return cls(tuple(_restored(item) for item in value))


def _restored(item: dict[str, Any]) -> Ranked | Coded:
    feature = item["feature"]
    if "knots" in item:
        return Ranked(Ordered(**feature), tuple(item["knots"]))
    return Coded(Levels(feature["name"], tuple(feature["items"]), tuple(feature["counts"]), feature["nulls"]))


def _checked(schema: Schema) -> tuple[Column, ...]:
    for column in schema.features:
        if column.kind not in ORDERED and column.kind != "categorical":
            got = f"column {column.name!r} of kind {column.kind}"
            raise SchemaError("numeric, integer, boolean, datetime or categorical features", got, "take a learner that reads it")
    return schema.features


def _nulls(values: pa.Array) -> np.ndarray:
    return pc.is_null(values).to_numpy(zero_copy_only=False)


def _values(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 or float64 with 0 at nulls, a copy; (n,) bool nulls."""
    column = table.column(name).combine_chunks()
    null = _nulls(column)
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.int64())
    return np.array(pc.fill_null(column, pa.scalar(0, column.type)).to_numpy(zero_copy_only=False)), null

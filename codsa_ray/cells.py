"""The cells of a canonical column as plain numbers, and back without loss; knows no region and no generator."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.schema import Column

LEVELS = frozenset({"categorical", "boolean"})


@dataclass(frozen=True)
class Cells:
    """How one column's values are counted.

    Categories and booleans are int32 codes below `levels` (`levels` itself: a category that is never drawn). Integers and datetimes
    are uint64 steps of `unit` above `base`, so that values beyond 2^53 stay exact and whole days stay whole. Numerics are float64.

    Args:
        column: the column.
        zone: time zone of a datetime column.
        base: smallest value (integer, datetime in microseconds).
        unit: greatest common divisor of the distances to `base`, at least 1.
        top: steps of the largest value.
        low, high: smallest and largest value (numeric); the column's own bounds may be wider.
    """

    column: Column
    zone: str | None = None
    base: int = 0
    unit: int = 1
    top: int = 0
    low: float = 0.0
    high: float = 0.0

    @staticmethod
    def of(column: Column, values: pa.ChunkedArray) -> "Cells":
        """Learned from fold-training values."""
        zone = values.type.tz if pa.types.is_timestamp(values.type) else None
        if column.kind in LEVELS or values.null_count == len(values):
            return Cells(column, zone)
        if column.kind == "numeric":
            bounds = pc.min_max(values)
            return Cells(column, zone, low=bounds["min"].as_py(), high=bounds["max"].as_py())
        known = values.drop_null().cast(pa.int64()).to_numpy()
        base = known.min()
        steps = np.unique(known.view(np.uint64) - base.view(np.uint64))
        unit = max(int(np.gcd.reduce(steps)), 1)
        return Cells(column, zone, int(base), unit, int(steps[-1]) // unit)

    @property
    def levels(self) -> int:
        """How many codes may be drawn; 0 for ordered columns."""
        return 2 if self.column.kind == "boolean" else len(self.column.categories)

    @property
    def ordered(self) -> bool:
        """True for numerics, integers and datetimes."""
        return self.column.kind not in LEVELS

    @property
    def type(self) -> pa.DataType:
        """The canonical arrow type."""
        types = {"numeric": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "datetime": pa.timestamp("us", self.zone)}
        return types.get(self.column.kind, pa.string())

    def encode(self, values: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) numbers (arbitrary where null) and (n,) bool nulls."""
        null = values.is_null().to_numpy()
        if self.column.kind == "categorical":
            found = pc.index_in(values, value_set=pa.array(self.column.categories, pa.string()))
            return found.fill_null(self.levels).to_numpy().astype(np.int32), null
        if self.column.kind == "boolean":
            return values.fill_null(False).to_numpy().astype(np.int32), null
        if self.column.kind == "numeric":
            return values.fill_null(0.0).to_numpy().astype(np.float64), null
        whole = values.cast(pa.int64()).fill_null(self.base).to_numpy()
        return (whole.view(np.uint64) - np.int64(self.base).view(np.uint64)) // np.uint64(self.unit), null

    def decode(self, numbers: np.ndarray, null: np.ndarray | None = None) -> pa.Array:
        """The inverse of `encode`; numerics are rounded to the column's places."""
        if self.column.kind == "categorical":
            codes = pa.array(numbers.astype(np.int32, copy=False), mask=null)
            return pa.DictionaryArray.from_arrays(codes, pa.array(self.column.categories, pa.string())).dictionary_decode()
        if self.column.kind == "boolean":
            return pa.array(numbers != 0, mask=null)
        if self.column.kind == "numeric":
            rounded = numbers if self.column.places is None else np.round(numbers, self.column.places)
            return pa.array(np.asarray(rounded, np.float64), mask=null)
        whole = numbers.astype(np.uint64) * np.uint64(self.unit) + np.int64(self.base).view(np.uint64)
        return pa.array(whole.view(np.int64), mask=null).cast(self.type)

    def moved(self, numbers: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Encoded ordered values moved by (n,) floats, in whole steps where the column has them, and kept within bounds."""
        if self.column.kind == "numeric":
            return np.clip(numbers + by, self.column.low, self.column.high)
        steps = np.rint(np.minimum(np.abs(by), 2.0**63)).astype(np.uint64)
        return np.where(by < 0, numbers - np.minimum(steps, numbers), numbers + np.minimum(steps, np.uint64(self.top) - numbers))

    def empty(self, rows: int) -> pa.Array:
        """Nothing but nulls."""
        return pa.nulls(rows, self.type)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Cells":
        """The inverse of `to_json`."""
        column = Column(**{**value["column"], "categories": tuple(value["column"]["categories"])})
        return Cells(**{**value, "column": column})

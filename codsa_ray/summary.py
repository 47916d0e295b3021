"""What is known of a set of rows column by column, the same however the rows are cut into blocks; knows no meaning of a column."""

import base64
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SchemaError
from codsa_ray.seeds import hash_rows
from codsa_ray.values import PLACES, decoded, plain
from codsa_ray.words import CHARACTER

SAMPLE = 10_000
DISTINCT = 100_000
# Floats are rarely categories, so fewer of their values are worth keeping.
DISTINCT_FLOATS = 10_000
DISTINCT_BYTES = 1 << 24
# Of a script without spaces that are counted as one word more.
CHARACTERS = 4
KEY = "codsa_ray summary sample"


@dataclass(frozen=True)
class ColumnSummary:
    """One column of a set of rows.

    Args:
        name, type: as in the rows (arrow type as text).
        rows, nulls: all of them, and those that are null.
        nans, infinities, unreadable: values that count as null: NaN, infinite, too large for the plain type.
        low, high: smallest and largest value (numbers, booleans 0 and 1, microseconds); None where there is none, and for text and bytes.
        whole: no value has a fraction.
        places: decimals that all values keep, or None beyond PLACES.
        characters, words: totals over text values.
        values: distinct values in the plain type, ascending; all, or those whose hash is below `horizon`.
        counts: int64 rows that hold each of `values`.
        horizon: hash of the first value left out, or None when all are there.
    """

    name: str
    type: str
    rows: int
    nulls: int
    nans: int
    infinities: int
    unreadable: int
    low: float | int | None
    high: float | int | None
    whole: bool
    places: int | None
    characters: int
    words: int
    values: pa.Array
    counts: pa.Array
    horizon: int | None

    @staticmethod
    def of(name: str, column: pa.ChunkedArray) -> "ColumnSummary":
        """Of one column of a block."""
        raw = decoded(column)
        array = plain(raw, name)
        nans, infinities = _odd(raw)
        unreadable = array.null_count - raw.null_count - nans - infinities
        # Pictures are no values to be told apart; counting them would hash and sort every byte.
        values, counts = _counted(array[:0] if pa.types.is_binary(array.type) else array)
        low, high = _bounds(values)
        whole, places = _places(values)
        characters, words = _lengths(values, counts)
        missing = (len(array), raw.null_count, nans, infinities, unreadable)
        kept = _kept(values, counts, None) if not pa.types.is_binary(array.type) else (values, counts, 0)
        return ColumnSummary(name, str(column.type), *missing, low, high, whole, places, characters, words, *kept)

    @property
    def known(self) -> int:
        """Rows with a value."""
        return self.rows - self.nulls - self.nans - self.infinities - self.unreadable

    @property
    def distinct(self) -> int:
        """How many distinct values; estimated beyond the cap (bottom-k: Bar-Yossef et al. 2002)."""
        if self.horizon is None:
            return len(self.values)
        return min(round(len(self.values) / (self.horizon / 2.0**64)), self.known) if self.horizon else self.known

    @property
    def exact(self) -> bool:
        """Every distinct value is in `values`."""
        return self.horizon is None

    @property
    def unique(self) -> bool:
        """No value occurs twice; beyond the cap: none of the values kept does."""
        return len(self.values) > 0 and pc.max(self.counts).as_py() == 1

    def merge(self, other: "ColumnSummary") -> "ColumnSummary":
        """Of both sets of rows.

        Raises:
            SchemaError: the column's type differs.
        """
        if (self.name, self.type) != (other.name, other.type):
            raise SchemaError(f"column {self.name!r} of one type", f"{self.type} and {other.name!r} of {other.type}", "cast it")
        totals = {
            key: getattr(self, key) + getattr(other, key)
            for key in ("rows", "nulls", "nans", "infinities", "unreadable", "characters", "words")
        }
        low = min((end for end in (self.low, other.low) if end is not None), default=None)
        high = max((end for end in (self.high, other.high) if end is not None), default=None)
        places = None if None in (self.places, other.places) else max(self.places or 0, other.places or 0)
        values, counts, horizon = _union(self, other)
        kept = {"values": values, "counts": counts, "horizon": horizon}
        return replace(self, **totals, low=low, high=high, whole=self.whole and other.whole, places=places, **kept)


def _odd(array: pa.Array) -> tuple[int, int]:
    if not pa.types.is_floating(array.type):
        return 0, 0
    return pc.sum(pc.is_nan(array)).as_py() or 0, pc.sum(pc.is_inf(array)).as_py() or 0


def _counted(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    found = pc.value_counts(array.drop_null())
    values, counts = found.field(0), found.field(1)
    if pa.types.is_null(array.type):
        return values, counts
    order = pc.sort_indices(values)
    return values.take(order), counts.take(order)


def _bounds(values: pa.Array) -> tuple[Any, Any]:
    if not len(values) or pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return None, None
    ends = pa.array([values[0], values[-1]], values.type)
    if pa.types.is_timestamp(values.type) or pa.types.is_boolean(values.type):
        ends = ends.cast(pa.int64())
    return ends[0].as_py(), ends[1].as_py()


def _places(values: pa.Array) -> tuple[bool, int | None]:
    if not pa.types.is_floating(values.type):
        return True, 0
    left = values.to_numpy()
    # Value by value: rounding a huge whole number to one decimal can change it, which must not depend on its company.
    for places in range(PLACES + 1):
        with np.errstate(over="ignore"):
            left = left[np.round(left, places) != left]
        if not len(left):
            return places == 0, places
    return False, None


def _lengths(values: pa.Array, counts: pa.Array) -> tuple[int, int]:
    if not pa.types.is_string(values.type) or not len(values):
        return 0, 0
    alone = pc.divide(pc.count_substring_regex(values, pattern=CHARACTER), CHARACTERS)
    words = pc.add(pc.count_substring_regex(values, pattern=r"\S+"), alone)
    characters, words = (pc.sum(pc.multiply(part.cast(pa.int64()), counts)).as_py() for part in (pc.utf8_length(values), words))
    return characters, words


def _hashes(values: pa.Array) -> np.ndarray:
    if pa.types.is_timestamp(values.type) or pa.types.is_boolean(values.type):
        values = values.cast(pa.int64())
    numbers = values.to_numpy(zero_copy_only=False)
    return np.asarray(pd.util.hash_array(numbers, categorize=False), dtype=np.uint64)


def _kept(values: pa.Array, counts: pa.Array, horizon: int | None) -> tuple[pa.Array, pa.Array, int | None]:
    """The values with the smallest hashes, up to the caps; what is left out does not depend on the order of merges."""
    text = pa.types.is_string(values.type)
    cap = DISTINCT_FLOATS if pa.types.is_floating(values.type) else DISTINCT
    if horizon is None and len(values) <= cap and (not text or values.nbytes <= DISTINCT_BYTES):
        return values, counts, None
    hashes = _hashes(values)
    order = np.argsort(hashes, kind="stable")
    sizes = pc.binary_length(values).to_numpy()[order].astype(np.int64) if text else np.zeros(len(values), np.int64)
    beyond = (np.arange(len(values)) >= cap) | (np.cumsum(sizes) > DISTINCT_BYTES)
    if beyond.any():
        first = int(hashes[order[np.argmax(beyond)]])
        horizon = first if horizon is None else min(horizon, first)
    if horizon is None:
        return values, counts, None
    keep = pa.array(hashes < np.uint64(horizon))
    return values.filter(keep), counts.filter(keep), horizon


def _union(a: ColumnSummary, b: ColumnSummary) -> tuple[pa.Array, pa.Array, int | None]:
    horizon = min((h for h in (a.horizon, b.horizon) if h is not None), default=None)
    if pa.types.is_null(a.values.type) or horizon == 0:
        return a.values, a.counts, horizon
    both = pa.table({"value": pa.chunked_array([a.values, b.values]), "count": pa.chunked_array([a.counts, b.counts])})
    total = both.group_by("value", use_threads=False).aggregate([("count", "sum")]).sort_by("value").combine_chunks()
    values, counts = (total[name].combine_chunks() for name in ("value", "count_sum"))
    return _kept(values, counts, horizon)


@dataclass(frozen=True)
class Summary:
    """Mergeable counts, bounds, categories and a bottom-k hash sample of each column.

    Args:
        rows: how many.
        columns: one per column, in the rows' order.
        keys: ascending hashes of the sampled rows' positions; the SAMPLE smallest of all rows.
        sample: these rows in plain types, bytes left out.
    """

    rows: int
    columns: tuple[ColumnSummary, ...]
    keys: pa.Array
    sample: pa.Table

    @staticmethod
    def of(block: pa.Table, positions: np.ndarray) -> "Summary":
        """Of one block; positions (n,) are global row positions, which key the sample.

        Raises:
            SchemaError: a column of a nested type.
        """
        columns = tuple(ColumnSummary.of(name, block[name]) for name in block.column_names)
        keys = hash_rows(np.asarray(positions), KEY)
        first = np.argsort(keys, kind="stable")[:SAMPLE]
        rows = block.take(pa.array(first))
        arrays = {c.name: plain(rows[c.name], c.name) for c in columns if not pa.types.is_binary(c.values.type)}
        return Summary(len(block), columns, pa.array(keys[first]), pa.table(arrays))

    def __getitem__(self, name: str) -> ColumnSummary:
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def merge(self, other: "Summary") -> "Summary":
        """Of both blocks; commutative and associative.

        Raises:
            SchemaError: the columns or their types differ.
        """
        if self.names != other.names:
            raise SchemaError(f"columns {list(self.names)}", f"{list(other.names)}", "give every block the same columns")
        columns = tuple(a.merge(b) for a, b in zip(self.columns, other.columns, strict=True))
        keys = np.concatenate([self.keys.to_numpy(), other.keys.to_numpy()])
        first = pa.array(np.argsort(keys, kind="stable")[:SAMPLE])
        sample = pa.concat_tables([self.sample, other.sample]).take(first).combine_chunks()
        return Summary(self.rows + other.rows, columns, pa.array(keys).take(first), sample)

    def quantiles(self, name: str, shares: np.ndarray) -> np.ndarray:
        """(len(shares),) float64 linear quantiles of a column's known sampled values (dates in microseconds), NaN where there is none."""
        values = self.sample[name].drop_null()
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        numbers = values.cast(pa.float64(), safe=False).to_numpy()
        return np.quantile(numbers, shares) if len(numbers) else np.full(len(shares), np.nan)

    def to_json(self) -> dict[str, Any]:
        """Plain data; arrays as base64 of an Arrow stream, so that they come back exactly."""
        columns = []
        for column in self.columns:
            arrays = {"values": column.values, "counts": column.counts}
            columns.append({**vars(column), "values": _packed(pa.table(arrays)), "counts": None})
        return {"rows": self.rows, "columns": columns, "keys": _packed(pa.table({"keys": self.keys})), "sample": _packed(self.sample)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Summary":
        """The inverse of `to_json`."""
        columns = []
        for item in value["columns"]:
            arrays = _unpacked(item["values"])
            columns.append(ColumnSummary(**{**item, **{key: arrays[key].combine_chunks() for key in ("values", "counts")}}))
        keys = _unpacked(value["keys"])["keys"].combine_chunks()
        return Summary(value["rows"], tuple(columns), keys, _unpacked(value["sample"]))


def _packed(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode()


def _unpacked(text: str) -> pa.Table:
    return pa.ipc.open_stream(base64.b64decode(text)).read_all()

"""A column: its kind, its bounds and its values in canonical and in DATA's types; knows no other column."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SchemaError
from codsa_ray.summary import ColumnSummary, Summary
from codsa_ray.values import EXACT, PICTURE, as_text, plain

KINDS = ("numeric", "integer", "categorical", "boolean", "datetime", "text", "image")
CATEGORIES = 200
# Beyond the cap, a category in fewer rows than this teaches a generator nothing that it could draw with other columns.
LEAST_ROWS = 5

CANONICAL = {
    "numeric": pa.float64(),
    "integer": pa.int64(),
    "categorical": pa.string(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "image": pa.binary(),
}


@dataclass(frozen=True)
class Column:
    """One column as training rows showed it.

    Args:
        name: as in DATA.
        kind: one of KINDS.
        type: arrow type of the column in DATA (str of it), restored by `Schema.original`.
        low, high: bounds of the non-null values (numeric float, integer int, datetime int microseconds); None where all null or
            not ordered.
        categories: for categorical columns the values that may be drawn, canonical strings, most frequent first (ties by value);
            for the target of a classification in class order.
        other: categorical values beyond the cap exist; they read as their own "other" code in encoders and are never drawn.
        nulls: share of null rows in training rows.
        places: decimals that all training values keep (numeric only), or None.
    """

    name: str
    kind: str
    type: str
    low: float | int | None = None
    high: float | int | None = None
    categories: tuple[str, ...] = ()
    other: bool = False
    nulls: float = 0.0
    places: int | None = None

    @property
    def arrow(self) -> pa.DataType:
        """The canonical type."""
        if self.kind != "datetime":
            return CANONICAL[self.kind]
        return pa.timestamp("us", getattr(type_of(self.type), "tz", None))

    @property
    def constant(self) -> bool:
        """Every value that is known is the same."""
        if self.kind == "categorical":
            return len(self.categories) == 1 and not self.other
        return self.low is not None and self.low == self.high

    def canonical(self, values: pa.ChunkedArray | pa.Array) -> pa.Array:
        """Values of DATA's type, or canonical ones, in the canonical type; what cannot be read is null."""
        if self.kind == "categorical":
            return as_text(values)
        array = plain(values, self.name)
        if array.type == self.arrow:
            return array
        if pa.types.is_string(array.type):
            return plain(_read(array, self.arrow), self.name)
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int64())
        try:
            return _fitting(array, self.kind).cast(self.arrow, safe=self.kind != "numeric")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(f"column {self.name!r} of kind {self.kind}", f"type {values.type}", "cast it or name another kind") from error

    def learned(self, summary: Summary, declared: frozenset[str] = frozenset(), cap: int = CATEGORIES) -> "Column":
        """The same column with bounds, categories, places and share of nulls of other training rows, but for what is declared."""
        found = summary[self.name]
        nulls = 1.0 - found.known / max(found.rows, 1)
        learned: dict[str, Any] = {"nulls": nulls}
        if self.kind == "categorical":
            learned["categories"], learned["other"] = self._categories(summary, declared, cap)
        elif self.kind in ("numeric", "integer", "datetime"):
            learned["low"], learned["high"], learned["places"], learned["nulls"] = self._bounds(found, nulls)
        return replace(self, **{key: value for key, value in learned.items() if key not in declared})

    def _categories(self, summary: Summary, declared: frozenset[str], cap: int) -> tuple[tuple[str, ...], bool]:
        found = summary[self.name]
        counts = Counter(dict(zip(as_text(found.values).to_pylist(), found.counts.to_pylist(), strict=True)))
        if not found.exact:
            # The values kept beyond the cap are a sample of values, not the frequent ones; rows are sampled by how often they come.
            counts = Counter(as_text(summary.sample[self.name]).drop_null().to_pylist())
        if "categories" in declared:
            return self.categories, bool(counts.keys() - set(self.categories))
        order = sorted(counts, key=lambda value: (-counts[value], value))
        if len(order) <= cap and found.exact:
            return tuple(order), False
        frequent = tuple(value for value in order[:cap] if counts[value] >= LEAST_ROWS)
        return frequent or tuple(order[:1]), True

    def _bounds(self, found: ColumnSummary, nulls: float) -> tuple[Any, Any, int | None, float]:
        number = float if self.kind == "numeric" else int
        places = found.places if self.kind == "numeric" else None
        if not pa.types.is_string(found.values.type):
            low, high = (None if end is None else number(end) for end in (found.low, found.high))
            return low, high, places, nulls
        # Text that a user declared to be numbers or dates.
        values = self.canonical(found.values)
        known = pc.sum(found.counts.filter(values.is_valid())).as_py() or 0
        block = ColumnSummary.of(self.name, pa.chunked_array([values]))
        return *self._bounds(block, nulls)[:3], 1.0 - known / max(found.rows, 1) if found.exact else nulls

    def broken(self, values: pa.Array) -> Iterator[tuple[str, np.ndarray]]:
        """(what the column wants, (n,) bool canonical values that are not so) for each of its rules."""
        null = np.asarray(values.is_null())
        if self.nulls == 0:
            yield "a value in every row", null
        if self.kind == "categorical":
            yield "a known category", ~null & ~np.asarray(pc.is_in(values, value_set=pa.array(self.categories, pa.string())))
        if self.kind not in ("numeric", "integer", "datetime"):
            return
        numbers = (values.cast(pa.int64()) if self.kind == "datetime" else values).fill_null(0).to_numpy(zero_copy_only=False)
        if self.kind == "numeric":
            yield "finite numbers", ~null & ~np.isfinite(numbers)
        if self.low is not None:
            yield f"at least {self.bound(self.low)}", ~null & (numbers < self.low)
        if self.high is not None:
            yield f"at most {self.bound(self.high)}", ~null & (numbers > self.high)
        if self.places is not None:
            yield f"at most {self.places} decimals", ~null & (np.round(numbers, self.places) != numbers)

    def bound(self, value: float | int | None) -> str:
        """A bound as people read it."""
        if self.kind == "datetime" and value is not None:
            return str(as_text(pa.array([value], pa.timestamp("us")))[0])
        return str(value)


def type_of(text: str) -> pa.DataType:
    """The arrow type whose `str` this is (flat types, dictionaries and pictures with their file).

    Raises:
        SchemaError: a type that rows of this package never have.
    """
    if text == str(PICTURE):
        return PICTURE
    if found := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=[01]>", text):
        return pa.dictionary(type_of(found[2]), type_of(found[1]))
    if found := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", text):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"(decimal\d+)\((\d+), (-?\d+)\)", text):
        return getattr(pa, found[1])(int(found[2]), int(found[3]))
    if found := re.fullmatch(r"fixed_size_binary\[(\d+)\]", text):
        return pa.binary(int(found[1]))
    try:
        return pa.type_for_alias(text)
    except ValueError as error:
        raise SchemaError("numbers, text, dates, booleans or bytes", f"type {text}", "cast or drop the column") from error


def _read(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Text as numbers, booleans or dates; what cannot be read is null."""
    text = pc.utf8_trim_whitespace(text)
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        coded = text.dictionary_encode()
        return pa.array([_one(value, kind) for value in coded.dictionary], kind).take(coded.indices)


def _one(value: pa.Scalar, kind: pa.DataType) -> Any:
    try:
        return value.cast(kind)
    except pa.ArrowInvalid:
        return None


def _fitting(array: pa.Array, kind: str) -> pa.Array:
    if kind == "integer" and pa.types.is_floating(array.type):
        fits = pc.and_(pc.equal(array, pc.trunc(array)), pc.less_equal(pc.abs(array), EXACT))
        return pc.if_else(fits, array, pa.scalar(None, array.type))
    if kind == "boolean":
        return pc.if_else(pc.is_in(array, value_set=pa.array([0, 1], array.type)), array, pa.scalar(None, array.type))
    return array


def restored(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The inverse of `Column.canonical` for values that `kind` holds."""
    if kind == PICTURE:
        return pa.StructArray.from_arrays([array, pa.nulls(len(array), pa.string())], fields=list(PICTURE), mask=array.is_null())
    if pa.types.is_dictionary(kind):
        coded = restored(array, kind.value_type).dictionary_encode()
        return pa.DictionaryArray.from_arrays(coded.indices.cast(kind.index_type), coded.dictionary)
    if pa.types.is_string(array.type) and (pa.types.is_floating(kind) or pa.types.is_date(kind)):
        array = array.cast(pa.float64() if pa.types.is_floating(kind) else pa.timestamp("us"))
    if pa.types.is_floating(array.type) and pa.types.is_integer(kind):
        array = pc.round(array)
    if pa.types.is_integer(array.type) and pa.types.is_decimal(kind):
        array = array.cast(pa.decimal256(76, max(kind.scale, 0)))
    if pa.types.is_time32(kind):
        array = array.cast(pa.int32())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        array = as_text(array)
    return array.cast(kind, safe=not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)))

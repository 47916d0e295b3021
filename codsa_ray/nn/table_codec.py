"""Table codec: canonical columns to latent rows and back; knows no network.

Each column has states: values with a code of their own (a category, a value with much of the mass, null) and, for ordered columns, the
rest, which stands on the quantiles. A column of one state costs no dimension. Cost: O(rows log rows) to fit, O(rows) per column else.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.nn.layout import Layout
from codsa_ray.nn.precondition import CODE
from codsa_ray.nn.quantiles import Quantiles
from codsa_ray.schema import Column

SPIKE = 0.25
"""A value with more than this share of the rows gets a code of its own: as a stretch of the quantiles it would squeeze all others."""


@dataclass(frozen=True, eq=False)
class ColumnCodec:
    """One column.

    Args:
        name: of the column.
        values: (V,) canonical arrow values (null among them) with codes 0 to V - 1.
        quantiles: of the values without a code, or None.
        rest: code V exists: values without a code. Without quantiles they are never drawn.
    """

    name: str
    values: pa.Array
    quantiles: Quantiles | None
    rest: bool

    @staticmethod
    def of(column: Column, values: pa.Array) -> "ColumnCodec":
        """Learns from (n,) canonical values, n >= 1."""
        if column.kind in ("categorical", "boolean"):
            return _levels(column, values)
        return _ordered(column, values)

    @property
    def levels(self) -> int:
        """Codes there are."""
        return len(self.values) + self.rest

    def codes(self, values: pa.Array) -> np.ndarray:
        """(n,) int64 code of each value; -1 where there is none, which no learned row has."""
        others = pc.if_else(values.is_valid(), len(self.values) if self.rest else -1, -1)
        return pc.coalesce(pc.index_in(values, value_set=self.values), others).to_numpy(zero_copy_only=False).astype(np.int64)

    def known(self, values: pa.Array) -> np.ndarray:
        """(n,) bool values such as learned rows had: with a code, and numbers between the ends. Where all are null, none is."""
        codes = self.codes(values)
        found = (codes >= 0) & (values.null_count < len(values))
        if self.quantiles is not None:
            rest = codes == len(self.values)
            numbers = _numbers(values.filter(pa.array(rest)))
            found[rest] &= (self.quantiles.knots[0] <= numbers) & (numbers <= self.quantiles.knots[-1])
        return found

    def scores(self, values: pa.Array, codes: np.ndarray) -> np.ndarray:
        """(n,) normal scores, 0 (their mean) where the value has a code; of a value beyond the ends, the nearest one's."""
        assert self.quantiles is not None
        result = np.zeros(len(values))
        rest, knots = codes == len(self.values), self.quantiles.knots
        result[rest] = self.quantiles.encode(np.clip(_numbers(values.filter(pa.array(rest))), knots[0], knots[-1]))
        return result

    def decode(self, codes: np.ndarray, scores: np.ndarray | None) -> pa.Array:
        """(n,) canonical values of codes, taken from the scores where the code is the rest."""
        if self.quantiles is None or scores is None:
            return self.values.take(pa.array(codes))
        drawn = pa.array(self.quantiles.decode(scores)).cast(self.values.type)
        if not len(self.values):
            return drawn
        fixed = self.values.take(pa.array(np.minimum(codes, len(self.values) - 1)))
        return pc.if_else(pa.array(codes == len(self.values)), drawn, fixed)


def _levels(column: Column, values: pa.Array) -> ColumnCodec:
    order = pa.array(column.categories, values.type) if column.kind == "categorical" else pa.array([False, True])
    seen = order.filter(pc.is_in(order, value_set=values.unique()))
    rest = len(values) - values.null_count > pc.sum(pc.is_in(values, value_set=seen, skip_nulls=True)).as_py()
    if values.null_count or not len(seen):
        seen = pa.concat_arrays([seen, pa.nulls(1, values.type)])
    return ColumnCodec(column.name, seen, None, rest)


def _ordered(column: Column, values: pa.Array) -> ColumnCodec:
    counts = values.value_counts()
    often, value = counts.field("counts").to_numpy(), counts.field("values")
    coded = pc.or_(pa.array(often > SPIKE * len(values)), value.is_null())
    if pc.sum(pc.invert(coded)).as_py() == 1:
        coded = pa.array(np.ones(len(value), dtype=bool))
    spikes = value.filter(coded)
    spikes = spikes.take(pc.array_sort_indices(spikes))
    others = values.filter(pc.invert(pc.is_in(values, value_set=spikes)))
    quantiles = Quantiles.of(_numbers(others), column.places) if len(others) else None
    return ColumnCodec(column.name, spikes, quantiles, quantiles is not None)


def _numbers(values: pa.Array) -> np.ndarray:
    """float64 or int64 (datetimes as microseconds)."""
    return (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_numpy(zero_copy_only=False)


@dataclass(frozen=True, eq=False)
class TableCodec:
    """All columns. Numbers come first in a latent row, codes after, those of equal levels together.

    Args:
        columns: one codec per column.
    """

    columns: tuple[ColumnCodec, ...]

    @staticmethod
    def of(columns: tuple[Column, ...], table: pa.Table) -> "TableCodec":
        """Learns the given columns from a canonical table of at least one row."""
        return TableCodec(tuple(ColumnCodec.of(column, _whole(table, column.name)) for column in columns))

    @property
    def _real(self) -> list[ColumnCodec]:
        return [column for column in self.columns if column.quantiles is not None]

    @property
    def _coded(self) -> list[ColumnCodec]:
        return sorted((column for column in self.columns if column.levels > 1), key=lambda column: column.levels)

    @property
    def layout(self) -> Layout:
        """Of a latent row."""
        levels = [column.levels for column in self._coded]
        return Layout(len(self._real), tuple((levels.count(size), size) for size in sorted(set(levels))))

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, layout.width) float32 latents of canonical rows."""
        rows = np.zeros((len(table), self.layout.width), dtype=np.float32)
        codes = {column.name: column.codes(_whole(table, column.name)) for column in self.columns}
        for index, column in enumerate(self._real):
            rows[:, index] = column.scores(_whole(table, column.name), codes[column.name])
        start = len(self._real)
        for column in self._coded:
            own = codes[column.name]
            rows[np.flatnonzero(own >= 0), start + own[own >= 0]] = CODE
            start += column.levels
        return rows

    def known(self, table: pa.Table) -> np.ndarray:
        """(n, layout.width) bool of rows from elsewhere: the dimensions of values such as learned rows had."""
        found = {column.name: column.known(_whole(table, column.name)) for column in self.columns}
        owners = [*self._real, *(column for column in self._coded for _ in range(column.levels))]
        return np.array([found[column.name] for column in owners], dtype=bool).reshape(len(owners), len(table)).T

    def decode(self, rows: np.ndarray) -> pa.Table:
        """Canonical rows of (n, layout.width) latents; each code is the most likely one that may be drawn."""
        nothing = np.zeros(len(rows), dtype=np.int64)
        scores = {column.name: rows[:, index] for index, column in enumerate(self._real)}
        codes, start = {}, len(self._real)
        for column in self._coded:
            drawn = column.levels if column.quantiles is not None else len(column.values)
            codes[column.name] = rows[:, start : start + drawn].argmax(1)
            start += column.levels
        values = {c.name: c.decode(codes.get(c.name, nothing), scores.get(c.name)) for c in self.columns}
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(values) if values else pa.table({"": nothing}).select([])

    def to_json(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        plain = [
            {
                "name": column.name,
                "type": _type_text(column.values.type),
                "values": _plain(column.values),
                "places": None if column.quantiles is None else column.quantiles.places,
                "rest": column.rest,
            }
            for column in self.columns
        ]
        knots = {f"knots/{index}": c.quantiles.knots for index, c in enumerate(self.columns) if c.quantiles is not None}
        return plain, knots

    @staticmethod
    def from_json(plain: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> "TableCodec":
        """The inverse of `to_json`."""
        columns = []
        for index, item in enumerate(plain):
            knots = arrays.get(f"knots/{index}")
            values = _restored(item["values"], item["type"])
            columns.append(ColumnCodec(item["name"], values, None if knots is None else Quantiles(knots, item["places"]), item["rest"]))
        return TableCodec(tuple(columns))


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _type_text(kind: pa.DataType) -> str:
    return f"datetime {kind.tz or ''}".strip() if pa.types.is_timestamp(kind) else str(kind)


def _plain(values: pa.Array) -> list[Any]:
    return (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()


def _restored(values: list[Any], text: str) -> pa.Array:
    if text.startswith("datetime"):
        return pa.array(values, pa.int64()).cast(pa.timestamp("us", text.removeprefix("datetime").strip() or None))
    return pa.array(values, pa.type_for_alias(text))

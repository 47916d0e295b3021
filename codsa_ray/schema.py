"""Names, kinds and bounds of the columns, the target and the task; knows no row beyond what the summary says."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.column import CATEGORIES, restored, type_of
from codsa_ray.column import KINDS as KINDS
from codsa_ray.column import Column as Column
from codsa_ray.errors import SchemaError
from codsa_ray.predicate import Predicate
from codsa_ray.summary import Summary
from codsa_ray.values import PICTURE, decoded


@dataclass(frozen=True)
class Schema:
    """The columns that take part, in DATA's order, target included.

    Args:
        columns: columns that are drawn and (but for target and hidden) learned from.
        target: name of the target column.
        task: classification, regression or anomaly.
        hidden: columns known for training rows but not given to the learner.
        order: every column name of DATA in its order, those left out included.
        types: arrow type (str) of every column of DATA, aligned with `order`.
        left_out: (column, reason) for columns that do not take part.
        constraints: predicates over columns (text) that every drawn row must satisfy, e.g. "a <= b".
        declared: (column, field) for each field that the user stated and `relearn` keeps.
    """

    columns: tuple[Column, ...]
    target: str
    task: str
    hidden: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    constraints: tuple[str, ...] = ()
    declared: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def features(self) -> tuple[Column, ...]:
        """Columns a learner sees."""
        return tuple(c for c in self.columns if c.name != self.target and c.name not in self.hidden)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in id order: by number where all are numbers, else by text (anomaly: the commoner text first)."""
        return self[self.target].categories

    @property
    def kinds(self) -> frozenset[str]:
        """Of the columns that take part."""
        return frozenset(column.kind for column in self.columns)

    @property
    def arrow(self) -> pa.Schema:
        """Names and canonical types of the columns."""
        return pa.schema([(column.name, column.arrow) for column in self.columns])

    def truth(self, table: pa.Table) -> np.ndarray:
        """Class ids or values of the target, of rows in DATA's types or canonical ones.

        Returns:
            (n,) int64 class ids (classification; -1 where null or unseen in training); (n,) float64 values (regression) or
            0 and 1 (anomaly), NaN where null or unseen.
        """
        values = self[self.target].canonical(table[self.target])
        if self.task == "regression":
            return np.asarray(values.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False))
        ids = pc.index_in(values, value_set=pa.array(self.classes, pa.string()))
        if self.task == "anomaly":
            return np.asarray(ids.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
        return np.asarray(ids.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))

    def canonical(self, table: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """The schema's columns in canonical types, and how many values became null (infinite, unreadable) per column.

        Canonical types: numeric float64 (no NaN, no infinity: null), integer int64, boolean bool, categorical string,
        datetime timestamp[us] (zone kept), text string, image binary. NaN was no value and is not counted.

        Raises:
            SchemaError: a column is missing or of a type that its kind cannot be read from.
        """
        arrays, lost = {}, {}
        for column in self.columns:
            values = _present(table, column)
            arrays[column.name] = column.canonical(values)
            values = decoded(values) if values.type == PICTURE else values
            missing = pc.sum(values.is_null(nan_is_null=pa.types.is_floating(values.type))).as_py() or 0
            if arrays[column.name].null_count > missing:
                lost[column.name] = arrays[column.name].null_count - missing
        return pa.table(arrays, schema=self.arrow), lost

    def original(self, table: pa.Table) -> pa.Table:
        """Canonical rows in DATA's columns, order and types; columns left out are null. The inverse of `canonical` on drawn rows.

        Dictionaries come back unordered, nanoseconds rounded down to microseconds.

        Raises:
            SchemaError: a value that DATA's type cannot hold.
        """
        taking_part = {column.name for column in self.columns}
        arrays = {}
        for name, text in zip(self.order, self.types, strict=True):
            kind = type_of(text)
            try:
                arrays[name] = restored(table[name].combine_chunks(), kind) if name in taking_part else pa.nulls(len(table), kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise SchemaError(f"values of {name!r} that fit {text}", str(error), "narrow its bounds with --schema") from error
        return pa.table(arrays)

    def violations(self, table: pa.Table) -> tuple[np.ndarray, dict[str, int]]:
        """(n,) bool rows that break a bound, a category, a place or a constraint, and the count per reason.

        A row for which a constraint is neither true nor false (a null in it) keeps it.

        Raises:
            SchemaError: a column is missing or not canonical.
        """
        found = self.broken(table)
        broken = np.any([*found.values()], axis=0) if found else np.zeros(len(table), dtype=bool)
        return broken, {reason: int(rows.sum()) for reason, rows in found.items()}

    def broken(self, table: pa.Table) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool rows that break it, where some do; see `violations`.

        Raises:
            SchemaError: a column is missing or not canonical.
        """
        found = self._broken(table)
        return {f"{name!r} wants {wanted}" if name else f"the constraint {wanted}": rows for name, wanted, rows in found if rows.any()}

    def check(self, table: pa.Table) -> None:
        """Raises SchemaError (column, wanted, got) unless every row of the canonical table is one the schema allows."""
        for name, wanted, rows in self._broken(table):
            if rows.any():
                first = int(np.argmax(rows))
                columns = [name] if name else [c for c in Predicate.parse(wanted).columns if c in table.column_names]
                got = ", ".join(f"{column} = {table[column][first].as_py()!r}" for column in columns)
                where = f"column {name!r}: {wanted}" if name else f"rows with {wanted}"
                raise SchemaError(where, f"{got} ({rows.sum()} of {len(rows)} rows)", "draw these rows again")

    def _broken(self, table: pa.Table) -> Iterator[tuple[str, str, np.ndarray]]:
        for column in self.columns:
            values = _present(table, column).combine_chunks()
            if values.type != column.arrow:
                raise SchemaError(f"column {column.name!r} of type {column.arrow}", str(values.type), "give canonical rows")
            for wanted, rows in column.broken(values):
                yield column.name, wanted, rows
        for text in self.constraints:
            yield "", text, ~Predicate.parse(text).mask(table, null=True)

    def relearn(self, summary: Summary) -> "Schema":
        """The same columns, kinds and classes with bounds, categories, places and nulls of other training rows (a fold's)."""
        columns = []
        for column in self.columns:
            declared = frozenset(field for name, field in self.declared if name == column.name)
            classes = column.name == self.target and self.task != "regression"
            # What the final schema did not cap (a group column) is not capped here either.
            cap = CATEGORIES if column.other else len(column.categories)
            columns.append(column.learned(summary, declared | {"categories", "other"} if classes else declared, cap))
        return replace(self, columns=tuple(columns))

    def shown(self) -> list[dict[str, str]]:
        """One printable row per column of DATA: column, kind, range, nulls, note."""
        reasons, parts = dict(self.left_out), {column.name: column for column in self.columns}
        return [
            _row(parts[name], self) if name in parts else _line(name, "left out", "", "", reasons.get(name, ""))
            for name in self.order or tuple(parts)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Schema":
        """The inverse of `to_json`."""
        columns = tuple(Column(**{**item, "categories": tuple(item["categories"])}) for item in value["columns"])
        flat = {key: tuple(value[key]) for key in ("hidden", "order", "types", "constraints")}
        pairs = {key: tuple(map(tuple, value[key])) for key in ("left_out", "declared")}
        return Schema(**{**value, **flat, **pairs, "columns": columns})


def _present(table: pa.Table, column: Column) -> pa.ChunkedArray:
    index = table.schema.get_field_index(column.name)
    if index < 0:
        raise SchemaError(f"column {column.name!r} ({column.kind})", f"{table.num_columns} columns without it", "add it to the rows")
    return table.column(index)


def _row(column: Column, schema: Schema) -> dict[str, str]:
    if column.kind == "categorical":
        values = f"{len(column.categories)}: {', '.join(column.categories[:4])}{', ...' if len(column.categories) > 4 else ''}"
    elif column.low is None:
        values = ""
    else:
        values = f"{column.bound(column.low)} to {column.bound(column.high)}"
    notes = [
        ("target", column.name == schema.target),
        ("hidden from learners", column.name in schema.hidden),
        ("rarer values read as 'other' and never drawn", column.other),
        ("constant", column.constant),
    ]
    return _line(column.name, column.kind, values, f"{column.nulls:.2%}" if column.nulls else "", "; ".join(t for t, true in notes if true))


def _line(column: str, kind: str, values: str, nulls: str, note: str) -> dict[str, str]:
    return {"column": column, "kind": kind, "range": values, "nulls": nulls, "note": note}

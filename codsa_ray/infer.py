"""Inference: the schema that training rows show, with what the user declares on top; knows only their summary."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.column import CATEGORIES, KINDS, LEAST_ROWS, Column
from codsa_ray.errors import GroupError, SchemaError
from codsa_ray.predicate import Predicate
from codsa_ray.probes import DATE, NUMBER
from codsa_ray.schema import Schema
from codsa_ray.summary import ColumnSummary, Summary
from codsa_ray.values import as_text

MOST_CLASSES = 100
FEW_ROWS = 20
# An integer column without a repeat is an id where this many repeats were to be expected of random draws from its range
# (uniform draws repeat least of all): a chance of exp(-7), one in a thousand, to be wrong.
REPEATS = 7.0
TEXT_WORDS = 3
TEXT_CHARACTERS = 200
CONSTRAINTS = "constraints"
FIELDS = ("kind", "low", "high", "categories", "places", "leave_out")
DECLARABLE = {
    "categorical": ("categories",),
    "numeric": ("low", "high", "places"),
    "integer": ("low", "high"),
    "datetime": ("low", "high"),
}
# Kinds that the values of each plain type can be declared to be.
READABLE = {
    "int64": ("integer", "numeric", "categorical", "boolean"),
    "double": ("numeric", "integer", "categorical"),
    "bool": ("boolean", "categorical", "integer"),
    "string": ("categorical", "text", "numeric", "integer", "datetime"),
    "binary": ("image",),
}


def infer(
    summary: Summary,
    target: str,
    *,
    task: str = "classification",
    hidden: tuple[str, ...] = (),
    group_columns: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Schema:
    """The schema of training rows.

    Columns of one value take part; columns without a value and id-like columns (more than FEW_ROWS values, none twice) are
    left out with the reason. Categories beyond the CATEGORIES most frequent, or in fewer than LEAST_ROWS rows where there are
    more, read as other. The target of a classification is categorical whatever its type.

    Args:
        summary: of the training rows.
        target: the column to predict.
        task: classification, regression or anomaly.
        hidden: columns known for training rows that learners do not see.
        group_columns: columns that make groups: never left out, every category kept.
        keep: id-like columns to keep.
        overrides: column -> {kind, low, high, categories, places, leave_out}, and "constraints" -> predicates every drawn row keeps.

    Raises:
        SchemaError: the column at fault, what was wanted and what there was.
    """
    for role, names in (("target", (target,)), ("hidden", hidden), ("group column", group_columns), ("keep", keep)):
        for name in names:
            _known(name, summary.names, role)
    if target in hidden:
        raise SchemaError("a target that is not hidden", repr(target), "hide other columns")
    stated, constraints = _stated(overrides or {}, summary.names)
    wishes = _Wishes(summary, target, task, group_columns, keep, stated)
    found = [(column.name, wishes.column(column)) for column in summary.columns]
    declared = tuple((name, field) for name in summary.names for field in FIELDS if field in stated.get(name, {}))
    columns = tuple(column for _, column in found if isinstance(column, Column))
    schema = Schema(
        columns=columns,
        target=target,
        task=task,
        hidden=tuple(name for name in hidden if any(column.name == name for column in columns)),
        order=summary.names,
        types=tuple(column.type for column in summary.columns),
        left_out=tuple((name, reason) for name, reason in found if isinstance(reason, str)),
        constraints=constraints,
        declared=declared,
    )
    _check_constraints(schema, summary)
    return schema


def near(name: str, names: Iterable[str]) -> str:
    """The names most like `name`, fit for "did you mean ...?"."""
    names = list(names)
    folded = {other.casefold(): other for other in names}
    found = [folded[key] for key in difflib.get_close_matches(name.casefold(), folded, 3, 0.5)]
    shown = found or [*names[:6], *(["..."] if len(names) > 6 else [])]
    return " or ".join(shown) if found else f"one of {', '.join(shown)}"


def refuse(schema: Schema, kinds: frozenset[str], who: str, others: Callable[[frozenset[str]], list[str]] = lambda kinds: []) -> None:
    """Raises SchemaError, which names the column, when the schema has a column of a kind that `who` does not handle.

    Args:
        others: the names of those that handle some kinds.
    """
    for column in schema.columns:
        if column.kind not in kinds:
            got = f"column {column.name!r} of kind {column.kind}"
            able = others(schema.kinds)
            do = f'choose {" or ".join(able) or "another plug-in"}, or declare {{"{column.name}": {{"leave_out": true}}}} with --schema'
            raise SchemaError(f"columns of kind {', '.join(sorted(kinds))} for {who}", got, do)


def _known(name: str, names: Iterable[str], role: str) -> None:
    if name not in names:
        raise SchemaError(f"a {role} that is a column", repr(name), f"did you mean {near(name, names)}?")


def _stated(overrides: Mapping[str, Any], names: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """What is declared of each column, and the constraints."""
    stated: dict[str, dict[str, Any]] = {}
    constraints: tuple[str, ...] = ()
    for name, value in overrides.items():
        if name == CONSTRAINTS and isinstance(value, list | tuple):
            constraints = tuple(map(str, value))
            continue
        _known(name, names, "name in --schema")
        if not isinstance(value, Mapping):
            raise SchemaError(f'{{"kind": ...}} for column {name!r}', repr(value), "see the description of --schema")
        for field in value:
            if field not in FIELDS:
                raise SchemaError(f"{', '.join(FIELDS)} for column {name!r}", repr(field), f"did you mean {near(field, FIELDS)}?")
        stated[name] = dict(value)
    return stated, constraints


@dataclass(frozen=True)
class _Wishes:
    """What is asked of the columns."""

    summary: Summary
    target: str
    task: str
    groups: tuple[str, ...]
    keep: tuple[str, ...]
    stated: Mapping[str, Mapping[str, Any]]

    def column(self, found: ColumnSummary) -> Column | str:
        """The column, or why it is left out."""
        stated = self.stated.get(found.name, {})
        needed = found.name == self.target or found.name in self.groups
        reason = self._reason(found, stated)
        if reason and needed:
            role = "target" if found.name == self.target else "group column"
            raise SchemaError(f"values in the {role} {found.name!r}", reason, "name another column")
        if reason:
            return reason
        column = Column(found.name, self._kind(found, stated), found.type)
        if found.name == self.target:
            return self._target(column, stated)
        column = _declared(column, stated, found)
        column = column.learned(self.summary, frozenset(stated), len(found.values) if needed else CATEGORIES)
        if column.other and "categories" not in stated and _most_rows(self.summary, found) < LEAST_ROWS:
            return f"{found.distinct} distinct values, none of them in {LEAST_ROWS} rows"
        _check_bounds(column)
        return column

    def _reason(self, found: ColumnSummary, stated: Mapping[str, Any]) -> str | None:
        if stated.get("leave_out"):
            return "left out by --schema"
        if found.unreadable:
            got = f"column {found.name!r} of type {found.type} with {found.unreadable} larger ones"
            raise SchemaError(f"values that fit {found.values.type}", got, "cast it to text or to double, or leave it out with --schema")
        if found.known == 0:
            return f"no value in {found.rows} rows"
        wanted = found.name in (self.target, *self.groups, *self.keep) or "kind" in stated
        if not wanted and _id_like(found):
            return f"like an id: {found.known} values, none twice (--keep keeps it)"
        return None

    def _kind(self, found: ColumnSummary, stated: Mapping[str, Any]) -> str:
        kind = str(stated.get("kind", "categorical" if "categories" in stated else kind_of(found)))
        if found.name == self.target and "kind" not in stated and self.task != "regression" and kind not in ("text", "image"):
            kind = "categorical"
        possible = READABLE.get(str(found.values.type), ("datetime", "categorical"))
        if kind not in KINDS:
            wanted = f"a kind out of {', '.join(KINDS)} for column {found.name!r}"
            raise SchemaError(wanted, repr(kind), f"did you mean {near(kind, KINDS)}?")
        clock = kind == "categorical" and found.type.startswith(("time32", "time64", "duration"))
        if kind not in possible or clock:
            raise SchemaError(f"column {found.name!r} as {', '.join(possible)}", f"{kind} for type {found.type}", "cast the column first")
        return kind

    def _target(self, column: Column, stated: Mapping[str, Any]) -> Column:
        found = self.summary[column.name]
        if self.task == "regression":
            if column.kind not in ("numeric", "integer"):
                raise SchemaError(f"a numeric target {column.name!r} for regression", column.kind, "give --task classification")
            column = _declared(column, stated, found).learned(self.summary, frozenset(stated))
            if column.low == column.high:
                raise SchemaError(f"two or more values of {column.name!r}", f"one: {column.low}", "name another --target")
            return column
        if column.kind != "categorical":
            raise SchemaError(f"a target {column.name!r} of classes", column.kind, "name another --target or give --task regression")
        classes = _classes(found, self.task)
        listed = tuple(map(str, stated.get("categories", classes)))
        if sorted(listed) != sorted(classes):
            raise SchemaError(f"every class of {column.name!r} once ({', '.join(classes)})", ", ".join(listed), "correct --schema")
        return replace(column, categories=listed, nulls=1.0 - found.known / found.rows)


def kind_of(found: ColumnSummary) -> str:
    """The kind that a column's type and values show."""
    plain = found.values.type
    if pa.types.is_binary(plain):
        return "image"
    if found.type.startswith("dictionary") and not pa.types.is_boolean(plain):
        return "categorical"
    if pa.types.is_string(plain):
        return "datetime" if _is_date(found) else "text" if _is_text(found) else "categorical"
    if pa.types.is_timestamp(plain):
        return "datetime"
    return {"int64": "integer", "double": "numeric", "bool": "boolean"}[str(plain)]


def _is_date(found: ColumnSummary) -> bool:
    """Text of which every value is a date as we spell it, so that reading it as one loses nothing."""
    if not len(found.values) or not pc.all(pc.match_substring_regex(found.values, DATE)).as_py():
        return False
    try:
        return as_text(found.values.cast(pa.timestamp("us"))).equals(found.values)
    except pa.ArrowInvalid:
        return False


def _is_text(found: ColumnSummary) -> bool:
    long = found.words >= TEXT_WORDS * found.known or found.characters >= TEXT_CHARACTERS * found.known
    return long and found.known > FEW_ROWS and found.distinct > found.known / 2


def _id_like(found: ColumnSummary) -> bool:
    plain = found.values.type
    if found.known <= FEW_ROWS or not found.unique or kind_of(found) in ("text", "datetime"):
        return False
    if pa.types.is_string(plain):
        return True
    if not (pa.types.is_integer(plain) or pa.types.is_floating(plain)) or not found.whole or found.low is None or found.high is None:
        return False
    return found.known * (found.known - 1) / 2 / (int(found.high) - int(found.low) + 1) >= REPEATS


def _most_rows(summary: Summary, found: ColumnSummary) -> int:
    """Rows of the commonest value; beyond the cap on distinct values: of the sampled rows."""
    counts = found.counts if found.exact else pc.value_counts(summary.sample[found.name].drop_null()).field(1)
    return int(pc.max(counts).as_py() or 0)


def _classes(found: ColumnSummary, task: str) -> tuple[str, ...]:
    """Class names in order; see `Schema.classes`."""
    texts = as_text(found.values).to_pylist()
    numbers = bool(pc.all(pc.match_substring_regex(pa.array(texts, pa.string()), NUMBER)).as_py())
    least, most = (2, MOST_CLASSES) if task == "classification" else (1, 2)
    if not least <= len(texts) or found.distinct > most:
        advice = "name another --target" + (", bin it, or give --task regression" if numbers and found.distinct > most else "")
        got = f"{found.distinct} distinct values" if len(texts) != 1 else f"one: {texts[0]!r}"
        raise SchemaError(f"{least} to {most} classes in the target {found.name!r}", got, advice)
    if numbers:
        return tuple(sorted(texts, key=lambda text: (float(text), text)))
    counts = dict(zip(texts, found.counts.to_pylist(), strict=True))
    truth = set(texts) <= {"false", "true"}
    return tuple(sorted(texts, key=lambda text: (-counts[text] if task == "anomaly" and not truth else 0, text)))


def _declared(column: Column, stated: Mapping[str, Any], found: ColumnSummary) -> Column:
    """The column with the user's bounds, categories and places.

    Raises:
        SchemaError: a value that the column's kind does not have.
    """
    allowed = DECLARABLE.get(column.kind, ())
    fields = {key: value for key, value in stated.items() if key not in ("kind", "leave_out")}
    for field, value in fields.items():
        if field not in allowed:
            wanted = f"{' or '.join(allowed) or 'nothing but kind'} for {column.kind} column {column.name!r}"
            raise SchemaError(wanted, field, "drop it from --schema")
        try:
            fields[field] = _value(column.kind, field, value)
        except (TypeError, ValueError) as error:
            got = f"{field} = {value!r}"
            raise SchemaError(f"a value that {column.kind} column {column.name!r} can have", got, "correct --schema") from error
    if found.exact and (unseen := sorted(set(fields.get("categories", ())) - set(as_text(found.values).to_pylist()))):
        do = f"did you mean {near(unseen[0], as_text(found.values).to_pylist())}?"
        raise SchemaError(f"categories that column {column.name!r} has", repr(unseen[0]), do)
    return replace(column, **fields)


def _value(kind: str, field: str, value: Any) -> Any:
    if field == "categories":
        if isinstance(value, str):
            raise TypeError("a list")
        return tuple("true" if v is True else "false" if v is False else str(v) for v in value)
    if field == "places":
        return range(16)[value]
    if kind == "numeric":
        return float(value)
    if kind == "datetime" and not isinstance(value, int):
        moment = pd.Timestamp(value)
        return pa.scalar(moment if moment.tz is None else moment.tz_convert(None), pa.timestamp("us")).value
    if isinstance(value, bool) or int(value) != value:
        raise TypeError("a whole number")
    return int(value)


def _check_bounds(column: Column) -> None:
    if column.low is not None and column.high is not None and column.low > column.high:
        got = f"{column.bound(column.low)} > {column.bound(column.high)}"
        raise SchemaError(f"low <= high in column {column.name!r}", got, "correct --schema")


def _check_constraints(schema: Schema, summary: Summary) -> None:
    for text in schema.constraints:
        try:
            predicate = Predicate.parse(text)
            predicate.check([column.name for column in schema.columns])
            sampled = set(predicate.columns) <= set(summary.sample.column_names)
            kept = not sampled or bool(predicate.mask(summary.sample, null=True).any())
        except GroupError as error:
            raise SchemaError(error.wanted, error.got, error.do) from error
        if not kept:
            raise SchemaError(f"a constraint that some training row keeps: {text}", "none of the rows sampled", "correct it in --schema")

"""Predicates: SQL-like conditions over columns, parsed by sqlglot and evaluated by pyarrow; knows no group and no schema."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from codsa_ray.errors import GroupError
from codsa_ray.values import as_text, plain

EXAMPLE = "a condition such as: age >= 30 AND sex IN ('F', 'M')"
# sqlite reads both "age group" and `age group` as a column.
DIALECT = "sqlite"
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
SPELLED_TRUTH = pa.array(["true", "false", None])
STAMP = pa.timestamp("us")

Value: TypeAlias = "pa.Array | pa.Scalar"
# The base class of nodes goes by another name in some releases of sqlglot.
Node: TypeAlias = Any

COMPARISONS: dict[type, Callable] = {
    exp.EQ: pc.equal,
    exp.NEQ: pc.not_equal,
    exp.GT: pc.greater,
    exp.GTE: pc.greater_equal,
    exp.LT: pc.less,
    exp.LTE: pc.less_equal,
}
ARITHMETIC: dict[type, Callable] = {exp.Add: pc.add, exp.Sub: pc.subtract, exp.Mul: pc.multiply, exp.Div: pc.divide}
_BOTH = {"this", "expression"}
# What each construct may hold; anything else that sqlglot can read is refused by name.
ALLOWED: dict[type, set[str]] = {
    **dict.fromkeys(COMPARISONS, _BOTH),
    **dict.fromkeys(ARITHMETIC, _BOTH | {"typed", "safe"}),
    exp.And: _BOTH,
    exp.Or: _BOTH,
    exp.Not: {"this"},
    exp.Paren: {"this"},
    exp.Neg: {"this"},
    exp.In: {"this", "expressions", "negate"},
    exp.Between: {"this", "low", "high", "negate"},
    exp.Like: _BOTH | {"negate"},
    exp.Is: _BOTH | {"negate"},
    exp.Null: set(),
    exp.Boolean: {"this"},
    exp.Literal: {"this", "is_string"},
    exp.Column: {"this"},
    exp.Identifier: {"this", "quoted"},
    exp.Cast: {"this", "to"},
    exp.DataType: {"this", "nested"},
}
# Kinds whose values are equal where their spelling is.
EQUATED = ({"text"}, {"text", "number"}, {"text", "truth value"}, {"truth value"})
DATES = ("DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ")


@dataclass(frozen=True)
class Predicate:
    """A condition over columns.

    Supported: = <> < <= > >=, AND OR NOT, IN (list), BETWEEN, LIKE, IS [NOT] NULL, + - * /, parentheses, text, number,
    TRUE/FALSE, DATE '...' and TIMESTAMP '...' literals, "quoted" and `quoted` columns. Column names are case-sensitive.

    It holds for the same rows whether a column has DATA's type or its canonical one: text and numbers are equal where their
    spelling is (`code = 3` holds for '3'); they are ordered as numbers where both read as numbers, else text is ordered as
    text and a text that is no number compares with a number as null; text is read as ISO where it meets a date; a date with
    a zone meets one without by its own wall clock. NaN, infinity and division by zero are null.

    Args:
        text: as the user wrote it.
        columns: names it reads, in order of appearance.
    """

    text: str
    columns: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> "Predicate":
        """Reads the text.

        Raises:
            GroupError: a syntax error (with its position), or a construct that is not supported (by name).
        """
        tree = _tree(text)
        return Predicate(text, tuple(dict.fromkeys(column.name for column in tree.find_all(exp.Column, bfs=False))))

    def check(self, names: Iterable[str]) -> None:
        """Raises GroupError, with the nearest names, unless every column is one of `names`."""
        names = list(names)
        for column in self.columns:
            if column in names:
                continue
            folded = {name.casefold(): name for name in names}
            near = " or ".join(folded[name] for name in difflib.get_close_matches(column.casefold(), folded, 3, 0.5))
            advice = f"did you mean {near}?" if near else "write text as 'text', columns as \"column\""
            raise GroupError(f"columns that exist in {self.text!r}", f"unknown column {column!r}", advice)

    def mask(self, table: pa.Table, *, null: bool = False) -> np.ndarray:
        """Rows for which the condition is true, by SQL's three-valued logic.

        Args:
            table: holds at least `columns`, in DATA's types or canonical ones.
            null: what unknown counts as: False selects (WHERE), True forgives (CHECK constraints).

        Returns:
            (n,) bool.

        Raises:
            GroupError: an unknown column, or values that cannot be compared.
            SchemaError: a nested column.
        """
        self.check(table.column_names)
        try:
            held = _condition(_Rows(table, self.text).value(_tree(self.text)), self.text)
        except RecursionError as error:
            raise _too_deep(self.text) from error
        if isinstance(held, pa.Scalar):
            known = held.as_py()
            return np.full(len(table), null if known is None else known)
        return np.asarray(held.fill_null(null).to_numpy(zero_copy_only=False), dtype=bool)


@dataclass(frozen=True)
class _Rows:
    table: pa.Table
    text: str

    def value(self, node: Node) -> Value:
        """An array per row, or a scalar where no column takes part."""
        kind = type(node)
        if kind in (exp.And, exp.Or):
            join = pc.and_kleene if kind is exp.And else pc.or_kleene
            return reduce(join, [_condition(self.value(part), self.text) for part in node.flatten()])
        if kind in COMPARISONS:
            return _compare(COMPARISONS[kind], self.value(node.this), self.value(node.expression), self.text)
        if kind in ARITHMETIC:
            left, right = (_operand(self.value(part), self.text) for part in (node.this, node.expression))
            return _finite(ARITHMETIC[kind](left, right))
        found: Value = getattr(self, "_" + kind.__name__.lower())(node)
        return pc.invert(found) if node.args.get("negate") else found

    def _paren(self, node: Node) -> Value:
        return self.value(node.this)

    def _not(self, node: Node) -> Value:
        return pc.invert(_condition(self.value(node.this), self.text))

    def _neg(self, node: Node) -> Value:
        found = self.value(node.this)
        literal = isinstance(found, pa.Scalar) and pa.types.is_integer(found.type)
        return pc.negate(found if literal else _operand(found, self.text))

    def _in(self, node: Node) -> Value:
        left = self.value(node.this)
        return reduce(pc.or_kleene, [_compare(pc.equal, left, self.value(item), self.text) for item in node.expressions])

    def _between(self, node: Node) -> Value:
        middle = self.value(node.this)
        low = _compare(pc.greater_equal, middle, self.value(node.args["low"]), self.text)
        return pc.and_kleene(low, _compare(pc.less_equal, middle, self.value(node.args["high"]), self.text))

    def _like(self, node: Node) -> Value:
        return pc.match_like(_spelled(self.value(node.this)), node.expression.name)

    def _is(self, node: Node) -> Value:
        return pc.is_null(self.value(node.this))

    def _null(self, node: Node) -> Value:
        return pa.scalar(None, pa.null())

    def _boolean(self, node: Node) -> Value:
        return pa.scalar(bool(node.this))

    def _literal(self, node: Node) -> Value:
        if node.is_string:
            return pa.scalar(node.name)
        number = float(node.name) if set(node.name) & set(".eE") else int(node.name)
        return pa.scalar(number if abs(number) < 2**63 else float(number))

    def _cast(self, node: Node) -> Value:
        return _time(pa.scalar(node.this.name), self.text)

    def _column(self, node: Node) -> Value:
        return plain(self.table[node.name], node.name)


def _kind(value: Value) -> str:
    for name, test in (
        ("text", pa.types.is_string),
        ("number", lambda t: pa.types.is_integer(t) or pa.types.is_floating(t)),
        ("truth value", pa.types.is_boolean),
        ("date", pa.types.is_timestamp),
        ("null", pa.types.is_null),
    ):
        if test(value.type):
            return name
    return str(value.type)


def _compare(op: Callable, left: Value, right: Value, text: str) -> Value:
    kinds = {_kind(left), _kind(right)}
    if "null" in kinds:
        return pa.scalar(None, pa.bool_())
    if "date" in kinds and kinds <= {"date", "text"}:
        return op(*_same_clock(_time(left, text), _time(right, text)))
    if kinds == {"number"}:
        return op(*_same_numbers(left, right))
    if op in (pc.equal, pc.not_equal) and kinds in EQUATED:
        return op(_spelled(left), _spelled(right))
    if kinds <= {"text", "number"}:
        return _ordered(op, left, right, as_text_too=kinds == {"text"})
    got = f"a {' and a '.join(sorted(kinds))} in {text!r}"
    raise GroupError("values that can be compared", got, "compare a column with a value of its own kind")


def _ordered(op: Callable, left: Value, right: Value, as_text_too: bool) -> Value:
    numbers = op(_number(left), _number(right))
    # Text that came from integers must be ordered as the integers were, so numbers go first where both sides are numbers.
    return pc.coalesce(numbers, op(left, right)) if as_text_too else numbers


def _same_numbers(left: Value, right: Value) -> tuple[Value, Value]:
    if pa.types.is_integer(left.type) and pa.types.is_integer(right.type):
        return left, right
    return left.cast(pa.float64(), safe=False), right.cast(pa.float64(), safe=False)


def _same_clock(left: Value, right: Value) -> tuple[Value, Value]:
    if (left.type.tz is None) == (right.type.tz is None):
        return left, right
    return tuple(value if value.type.tz is None else pc.local_timestamp(value) for value in (left, right))


def _spelled(value: Value) -> Value:
    return as_text(pa.array([value.as_py()], value.type))[0] if isinstance(value, pa.Scalar) else as_text(value)


def _finite(value: Value) -> Value:
    return pc.if_else(pc.is_finite(value), value, pa.scalar(None, value.type))


def _number(value: Value) -> Value:
    """Numbers as they are, text as the double it spells, or null."""
    if _kind(value) == "number":
        return value.cast(pa.float64(), safe=False)
    trimmed = pc.utf8_trim_whitespace(value)
    spelled = pc.if_else(pc.match_substring_regex(trimmed, NUMBER), trimmed, pa.scalar(None, pa.string()))
    return _finite(spelled.cast(pa.float64()))


def _operand(value: Value, text: str) -> Value:
    kind = _kind(value)
    if kind == "null":
        return pa.scalar(None, pa.float64())
    if kind == "number" or (kind == "text" and not isinstance(value, pa.Scalar)):
        return _number(value)
    raise GroupError("numbers in arithmetic", f"a {kind} in {text!r}", "calculate with number columns and numbers only")


def _time(value: Value, text: str) -> Value:
    """Text as the moment it spells in ISO 8601 (a literal keeps its offset as UTC), or null for a text in a column that spells none."""
    if _kind(value) == "date":
        return value
    if isinstance(value, pa.Scalar):
        try:
            moment = pd.to_datetime(value.as_py(), format="ISO8601")
        except ValueError as error:
            raise GroupError("a date such as '2024-12-31'", f"{value.as_py()!r} in {text!r}", "write dates as ISO 8601") from error
        return pa.scalar(moment.tz_convert("UTC") if moment.tz else moment, pa.timestamp("us", "UTC" if moment.tz else None))
    spelled = value.dictionary_encode()
    moments = pd.to_datetime(pd.Series(spelled.dictionary.to_pylist(), dtype=object), format="ISO8601", errors="coerce", utc=True)
    wall = pa.Array.from_pandas(moments.dt.tz_localize(None)).cast(STAMP, safe=False)
    return wall.take(spelled.indices)


def _condition(value: Value, text: str) -> Value:
    kind = _kind(value)
    if kind == "truth value":
        return value
    if kind == "null":
        return pa.scalar(None, pa.bool_())
    if kind == "text" and isinstance(value, pa.Array) and pc.all(pc.is_in(value, SPELLED_TRUTH)).as_py():
        return pc.equal(value, "true")
    raise GroupError(EXAMPLE, f"a {kind} where a condition belongs in {text!r}", "compare it with something")


@lru_cache(maxsize=1024)
def _tree(text: str) -> Node:
    try:
        trees = sqlglot.parse(text, read=DIALECT)
        if len(trees) != 1 or trees[0] is None:
            got = f"{sum(tree is not None for tree in trees)} in {text!r}"
            raise GroupError("one condition", got, "join conditions with AND or OR, or give each its own option")
        for node in trees[0].walk():
            _allow(node, text)
    except RecursionError as error:
        raise _too_deep(text) from error
    except ParseError as error:
        raise GroupError(EXAMPLE, f"{text!r}, which cannot be read {_place(error)}", "correct it there") from error
    except TokenError as error:
        raise GroupError(EXAMPLE, f"{text!r}, which cannot be read up to its end (character {len(text)})", "close every quote") from error
    return trees[0]


def _place(error: ParseError) -> str:
    first: dict[str, Any] = error.errors[0] if error.errors else {}
    line, near = first.get("line") or 1, first.get("highlight") or ""
    # sqlglot gives the last character of the offending word; people look for the first.
    column = max((first.get("col") or 1) - len(near) + 1, 1)
    return f"at {f'line {line}, ' if line > 1 else ''}character {column} ({near!r})"


def _too_deep(text: str) -> GroupError:
    return GroupError("a condition of moderate depth", f"{text[:40]!r}..., {len(text)} characters", "use IN (...) or fewer parentheses")


def _allow(node: Node, text: str) -> None:
    extra = {key for key, value in node.args.items() if value} - ALLOWED.get(type(node), set())
    fine = type(node) in ALLOWED and not extra
    if isinstance(node, exp.In):
        fine = fine and bool(node.expressions)
    elif isinstance(node, exp.Is):
        fine = fine and isinstance(node.expression, exp.Null)
    elif isinstance(node, exp.Like):
        fine = fine and isinstance(node.expression, exp.Literal) and node.expression.is_string
    elif isinstance(node, exp.Cast):
        fine = fine and isinstance(node.this, exp.Literal) and node.this.is_string and node.to.this.name in DATES
    if not fine:
        what = "the function" if isinstance(node, exp.Func) and type(node) not in ALLOWED else node.key.upper()
        wanted = "comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, IS NULL and + - * /"
        raise GroupError(wanted, f"{what} {node.sql()} in {text!r}", "write it with these")
    if isinstance(node, exp.Cast):
        _time(pa.scalar(node.this.name), text)

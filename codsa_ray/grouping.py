"""Grouping: how rows are told into cells of label x group columns x predicate, as declared; knows no counts and no mix."""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import GroupError
from codsa_ray.predicate import Predicate
from codsa_ray.values import as_text

NULL = "null"
REST = "rest"

# (label, values of the group columns, index of the first predicate that holds); None is null.
Key = tuple[str | None, tuple[str | None, ...], int]
Merge = tuple[str, str | None, str | None]

_MERGE = re.compile(":".join([r'(?:"((?:[^"]|"")*)"|([^:]+))', "=".join([r'(?:"((?:[^"]|"")*)"|([^=]*))'] * 2)]), re.DOTALL)
_PLAIN_WORD = re.compile(r"[^:=\"]+")


@dataclass(frozen=True)
class Grouping:
    """What makes a group.

    Args:
        target: its label is part of every group; None where it plays no part.
        columns: group columns, crossed with the label.
        predicates: conditions; a row belongs to the first that holds, or to the rest.
        merges: (column, FROM, INTO), values that count as another; None is null. Their order does not matter.
        bins: quantile bins that a numeric target is cut into; 0 takes labels as they are.
        edges: inner edges of the bins, ascending (see `binned`).
    """

    target: str | None
    columns: tuple[str, ...] = ()
    predicates: tuple[str, ...] = ()
    merges: tuple[Merge, ...] = ()
    bins: int = 0
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, times in Counter(self._named).items():
            if times > 1:
                raise GroupError("each group column once, and not the target", f"{name!r} {times} times", "give it once")
        for text in self.predicates:
            Predicate.parse(text)
        for column, source, _ in self.merges:
            if column not in self._named:
                raise GroupError("merges of the target or of a group column", repr(column), "name one of them before the colon")
            self._merged(column, source)

    @property
    def _named(self) -> tuple[str, ...]:
        return (*((self.target,) if self.target is not None else ()), *self.columns)

    @staticmethod
    def parse_merge(text: str) -> Merge:
        """Reads `COL:FROM=INTO`; each of the three may stand in double quotes ("" inside for one), and a bare null is null.

        Raises:
            GroupError: it does not read so.
        """
        found = _MERGE.fullmatch(text)
        if found is None:
            do = """put values with = or : in double quotes, such as --merge 'income:"<=50K"=">50K"'"""
            raise GroupError("--merge 'COL:FROM=INTO'", repr(text), do)
        quoted, bare = found.groups()[::2], found.groups()[1::2]
        column, source, into = (b if q is None else q.replace('""', '"') for q, b in zip(quoted, bare, strict=True))
        return column, None if bare[1] == NULL else source, None if bare[2] == NULL else into

    def check(self, names: Iterable[str]) -> None:
        """Raises GroupError, with the nearest names, unless every column it uses is one of `names`."""
        names = list(names)
        for column in self._named:
            if column not in names:
                near = " or ".join(difflib.get_close_matches(column, names, 3, 0.5) or names[:5])
                raise GroupError("group columns that exist", f"no column {column!r}", f"did you mean {near}?")
        for text in self.predicates:
            Predicate.parse(text).check(names)

    def binned(self, values: np.ndarray) -> "Grouping":
        """The grouping with the edges of `bins` equal-count bins of (n,) target values (equal edges become one)."""
        known = values[np.isfinite(values)]
        inner = np.quantile(known, np.arange(1, self.bins) / self.bins, method="higher") if len(known) else np.zeros(0)
        return replace(self, edges=tuple(float(edge) for edge in np.unique(inner)))

    def relabel(self, table: pa.Table) -> pa.Table:
        """The table with the merges of the target applied to the target itself; its type is kept.

        Raises:
            GroupError: the target's type cannot hold the value merged into.
        """
        if self.bins or all(column != self.target for column, _, _ in self.merges):
            return table
        self.check(table.column_names)
        index = table.column_names.index(str(self.target))
        field, encoded = table.field(index), _encoded(table.column(index))
        texts = as_text(encoded.dictionary)
        merged = pa.array([self._merged(str(self.target), text) for text in texts.to_pylist()], pa.string())
        kept = pc.fill_null(pc.equal(texts, merged), True)
        try:
            changed = pc.if_else(kept, None, merged).cast(encoded.dictionary.type)
        except pa.ArrowInvalid as error:
            got = " and ".join(f"{into!r}" for column, _, into in self.merges if column == self.target)
            raise GroupError(f"--merge into a value of type {encoded.dictionary.type}", got, f"name a value of {self.target!r}") from error
        values = pc.if_else(kept, encoded.dictionary, changed).take(encoded.indices)
        if pa.types.is_dictionary(field.type):
            encoded = values.dictionary_encode()
            values = pa.DictionaryArray.from_arrays(
                encoded.indices.cast(field.type.index_type), encoded.dictionary, ordered=field.type.ordered
            )
        return table.set_column(index, field, values)

    def keys(self, table: pa.Table) -> tuple[list[Key], np.ndarray]:
        """The cells that occur in a table, original or canonical, and (n,) int64 index of each row's cell among them.

        Raises:
            GroupError: a column is not there, or cannot be grouped by.
        """
        self.check(table.column_names)
        partial: list[tuple[Any, ...]] = [()]
        codes = np.zeros(len(table), dtype=np.int64)
        for levels, level in self._factors(table):
            present, codes = _compress(codes * len(levels) + level, len(partial) * len(levels))
            partial = [(*partial[p // len(levels)], levels[p % len(levels)]) for p in present]
        return [(label, tuple(values), rule) for label, *values, rule in partial], codes

    def cells(self, table: pa.Table) -> dict[Key, int]:
        """Rows per cell; the counts of several tables add up."""
        keys, codes = self.keys(table)
        return dict(zip(keys, map(int, np.bincount(codes, minlength=len(keys))), strict=True))

    def name(self, key: Key) -> str:
        """What people read: "income=>50K, sex=Female, age < 30"."""
        label, values, rule = key
        words = [] if self.target is None else [f"{self.target} {label}" if self.bins else _equal(self.target, label)]
        words += [_equal(column, value) for column, value in zip(self.columns, values, strict=True)]
        if self.predicates:
            words.append(self.predicates[rule] if rule < len(self.predicates) else REST)
        return ", ".join(words) or "all"

    def order(self, key: Key) -> tuple[Any, ...]:
        """Sorts cells: by label, values, predicate; numbers by size and before text, null last."""
        label = (0, float(self._intervals().index(key[0])), "") if self.bins and key[0] is not None else rank(key[0])
        return label, tuple(map(rank, key[1])), key[2]

    def _merged(self, column: str, value: str | None) -> str | None:
        seen = [value]
        while found := {into for name, source, into in self.merges if name == column and source == seen[-1]}:
            into = found.pop()
            if found or into in seen:
                got = f"{shown(value)} of {column!r} merged twice or in a circle"
                raise GroupError("merges that end in one value each", got, "leave one of these --merge out")
            seen.append(into)
        return seen[-1]

    def _intervals(self) -> list[str]:
        if not self.edges:
            return ["any"]
        between = [f"in [{low!r}, {high!r})" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return [f"< {self.edges[0]!r}", *between, f">= {self.edges[-1]!r}"]

    def _factors(self, table: pa.Table) -> Iterator[tuple[list[Any], np.ndarray]]:
        """(levels, (n,) int64 level of each row) of label, group columns and predicate, in the order of Key."""
        if self.target is None:
            yield [None], np.zeros(len(table), dtype=np.int64)
        elif self.bins:
            yield self._bin_levels(table[self.target])
        else:
            yield self._text_levels(self.target, table[self.target])
        for column in self.columns:
            yield self._text_levels(column, table[column])
        first = np.full(len(table), len(self.predicates), dtype=np.int64)
        for index in reversed(range(len(self.predicates))):
            first[Predicate.parse(self.predicates[index]).mask(table)] = index
        yield list(range(len(self.predicates) + 1)), first

    def _bin_levels(self, column: pa.ChunkedArray) -> tuple[list[Any], np.ndarray]:
        values = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy()
        level = np.searchsorted(np.array(self.edges), values, side="right")
        return [*self._intervals(), None], np.where(np.isfinite(values), level, len(self.edges) + 1)

    def _text_levels(self, name: str, column: pa.ChunkedArray) -> tuple[list[Any], np.ndarray]:
        try:
            encoded = _encoded(column)
            texts = [*as_text(encoded.dictionary).to_pylist(), None]
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
            got = f"column {name!r} of type {column.type}"
            raise GroupError("numbers, text, dates or truth values to group by", got, "leave it out of the groups") from error
        place: dict[str | None, int] = {}
        levels = np.array([place.setdefault(self._merged(name, text), len(place)) for text in texts], dtype=np.int64)
        return list(place), levels[encoded.indices.fill_null(len(texts) - 1).to_numpy().astype(np.int64)]


def merge_option(merge: Merge) -> str:
    """The option that `Grouping.parse_merge` reads back, ready to be typed in a shell."""
    column, source, into = (_worded(word) for word in merge)
    return "--merge " + shell_quoted(f"{column}:{source}={into}")


def shell_quoted(text: str) -> str:
    """In single quotes, whatever it holds."""
    return "'" + text.replace("'", "'\\''") + "'"


def rank(value: str | None) -> tuple[int, float, str]:
    """Sorts values: numbers by size, then text, then null."""
    if value is None:
        return 2, 0.0, ""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    return (0, number, value) if math.isfinite(number) else (1, 0.0, value)


def shown(value: str | None) -> str:
    """A value as people read it; quoted where it could be taken for something else."""
    if value is None:
        return NULL
    return f'"{value}"' if value in ("", NULL) or ", " in value or '"' in value else value


def _worded(word: str | None) -> str:
    if word is None:
        return NULL
    return word if _PLAIN_WORD.fullmatch(word) and word != NULL else '"' + word.replace('"', '""') + '"'


def _equal(column: str, value: str | None) -> str:
    return f"{column}={shown(value)}"


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    array = column.combine_chunks()
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _compress(codes: np.ndarray, radix: int) -> tuple[np.ndarray, np.ndarray]:
    """The codes below radix that occur, ascending, and (n,) int64 place of each row's code among them."""
    if radix > 4 * len(codes) + 1024:
        present, place = np.unique(codes, return_inverse=True)
        return present, place
    present = np.flatnonzero(np.bincount(codes, minlength=radix))
    place = np.zeros(radix, dtype=np.int64)
    place[present] = np.arange(len(present))
    return present, place[codes]

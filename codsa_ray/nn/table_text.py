"""Table text: canonical rows as texts "name is value," column by column, and back; knows no network and no library of tokenizers.

Source: Borisov et al. 2023 (GReaT), definition 1. What differs: numbers are spelled character by character, so that bounds are a matter of
the next character (spelling.py), and names, which only repeat the order that was drawn, are given and never drawn.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.cells import Cells
from codsa_ray.errors import SettingError
from codsa_ray.nn.grammar import Tokens, ValueGrammar
from codsa_ray.nn.spelling import DIGITS, PARTS, SIGNIFICANT, Lattice
from codsa_ray.regions import Regions
from codsa_ray.schema import Column

NULL = "null"
CHARACTERS = "0123456789-.: "
"""Of numbers and dates."""
UNKNOWN = "unknown value"
"""What a category that is never drawn reads as."""
CUT = Lattice(0, 1, PARTS)
"""The lattice of a numeric column told as a share of its span. (Whole numbers from 0 to PARTS have it too, and mean the same by it.)"""
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds of the years 1 to 9999, which ISO 8601 spells in ten characters."""


@dataclass(frozen=True)
class ColumnText:
    """The spelling of one column.

    Args:
        cells: its values as numbers.
        null: null may be drawn.
        lattice: of the numbers, where there are at least two.
    """

    cells: Cells
    null: bool
    lattice: Lattice | None

    @staticmethod
    def of(column: Column, values: pa.ChunkedArray) -> "ColumnText":
        """Learned from fold-training values."""
        cells = Cells.of(column, values)
        known = len(values) - values.null_count
        drawable = bool(known) if cells.ordered else cells.levels > 0
        return ColumnText(cells, bool(values.null_count) or not drawable, _lattice(cells) if cells.ordered and known else None)

    @property
    def words(self) -> list[str]:
        """Texts beside those of the lattice, null last."""
        found: list[str] = []
        if self.cells.column.kind == "categorical":
            found = [_quoted(value) for value in self.cells.column.categories]
        elif self.cells.column.kind == "boolean":
            found = ["false", "true"]
        return [*found, *([NULL] if self.null else [])]

    def texts(self, values: pa.ChunkedArray) -> list[str]:
        """The text of each value; a category that is never drawn is UNKNOWN."""
        numbers, null = self.cells.encode(values)
        if self.lattice is None:
            words = [*self.words[: self.cells.levels], UNKNOWN] if not self.cells.ordered else [NULL]
            codes = np.zeros(len(numbers), dtype=np.int64) if self.cells.ordered else numbers.astype(np.int64)
            return [NULL if blank else words[code] for code, blank in zip(codes.tolist(), null.tolist(), strict=True)]
        spelled = {number: self.lattice.spell(self._whole(number)) for number in np.unique(numbers).tolist()}
        return [NULL if blank else spelled[number] for number, blank in zip(numbers.tolist(), null.tolist(), strict=True)]

    def values(self, texts: Sequence[str]) -> pa.Array:
        """The canonical values of texts."""
        null = np.array([text == NULL for text in texts], dtype=bool)
        if null.all():
            return self.cells.empty(len(texts))
        code = {word: index for index, word in enumerate(self.words)}
        of: dict[str, Any] = {text: code[text] if self.lattice is None else self._number(text) for text in set(texts) - {NULL}}
        kind = np.float64 if self.cells.column.kind == "numeric" else np.uint64 if self.cells.ordered else np.int32
        return self.cells.decode(np.array([of.get(text, 0) for text in texts], dtype=kind), null)

    def _whole(self, number: float | int) -> int:
        """The lattice's number of a cell."""
        assert self.lattice is not None
        if self.cells.column.kind != "numeric":
            return self.cells.base + self.cells.unit * int(number)
        low, span = _halved(self.cells)
        scaled = (number / 2 - low) / span * PARTS if self.lattice == CUT else number * 10.0**self.lattice.places
        return min(max(round(scaled), self.lattice.base), self.lattice.last)

    def _number(self, text: str) -> float | int:
        """The cell of a text."""
        assert self.lattice is not None
        whole = self.lattice.read(text)
        if self.cells.column.kind != "numeric":
            return (whole - self.cells.base) // self.cells.unit
        low, span = _halved(self.cells)
        number = 2 * (low + span * (whole / PARTS)) if self.lattice == CUT else whole / 10.0**self.lattice.places
        return min(max(number, self.cells.low), self.cells.high)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"cells": self.cells.to_json(), "null": self.null, "lattice": self.lattice and asdict(self.lattice)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ColumnText":
        """The inverse of `to_json`."""
        return ColumnText(Cells.from_json(value["cells"]), value["null"], Lattice(**value["lattice"]) if value["lattice"] else None)


def _lattice(cells: Cells) -> Lattice:
    if cells.column.kind != "numeric":
        last = cells.base + cells.unit * cells.top
        dated = cells.column.kind == "datetime" and cells.base >= FIRST and last <= LAST
        return Lattice(cells.base, cells.unit, cells.top, -1 if dated else 0)
    places, span = cells.column.places, cells.high - cells.low
    if places is None:
        places = max(0, SIGNIFICANT - math.floor(math.log10(span))) if 0 < span < math.inf else 0
    ends = [value * 10.0**places if places <= DIGITS else math.inf for value in (cells.low, cells.high)]
    if max(map(abs, ends)) >= 10.0**DIGITS or (ends[0] % 1 and span <= 0):
        return CUT
    low, high = (round(ends[0]), round(ends[1])) if cells.column.places is not None else (math.ceil(ends[0]), math.floor(ends[1]))
    return Lattice(low, 1, max(high - low, 0), places)


def _halved(cells: Cells) -> tuple[float, float]:
    """Half of the lower bound and of the span: the span itself may be beyond float64."""
    span = cells.high / 2 - cells.low / 2
    return cells.low / 2, span if span > 0 else 1.0


def _quoted(text: str) -> str:
    """The text, or a JSON string of it where it could be taken for something else or for the end."""
    plain = text == text.strip() != "" and text not in (NULL, UNKNOWN) and not any(c in ',"' or ord(c) < 32 for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """What rows need of a tokenizer.

    Args:
        encode: text -> its tokens, without special ones.
        character: a character -> its token.
    """

    encode: Callable[[str], list[int]]
    character: Callable[[str], int]


@dataclass(frozen=True, eq=False)
class TableText:
    """Conditions, which the region gives, and columns.

    Args:
        conditions: (name, text per region) of each condition.
        columns: of the others.
        names: (conditions + columns) tokens of " name is".
        grammars: of every condition and column.
    """

    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    columns: tuple[ColumnText, ...]
    names: tuple[Tokens, ...]
    grammars: tuple[ValueGrammar, ...]

    @staticmethod
    def of(conditions: tuple[tuple[str, tuple[str, ...]], ...], columns: tuple[ColumnText, ...], tokenizer: Tokenizer) -> "TableText":
        """In a tokenizer's tokens.

        Raises:
            SettingError: it cannot spell them in one way only.
        """
        end = tokenizer.character(",")
        marks = {character: tokenizer.character(character) for character in CHARACTERS}
        if len({end, *marks.values()}) <= len(marks):
            raise SettingError(f"a tokenizer with a token for each of {CHARACTERS!r}", "one without", "take a byte-level one")

        def grammar(words: Sequence[str], lattice: Lattice | None) -> ValueGrammar:
            # A space before a number would be a token of its own; before a word it belongs to the word.
            spelled = {word: tuple(tokenizer.encode(word if lattice else f" {word}")) for word in words}
            return ValueGrammar.of(spelled, lattice, marks, end)

        named = [name for name, _ in conditions] + [column.cells.column.name for column in columns]
        numbers = [False] * len(conditions) + [column.lattice is not None for column in columns]
        names = (tuple(tokenizer.encode(f" {name} is" + " " * number)) for name, number in zip(named, numbers, strict=True))
        told = [grammar(sorted(set(texts)), None) for _, texts in conditions]
        return TableText(conditions, columns, tuple(names), (*told, *(grammar(c.words, c.lattice) for c in columns)))

    @property
    def longest(self) -> int:
        """Tokens of a row at most."""
        values = [max(map(len, grammar.words.values()), default=0) for grammar in self.grammars]
        ends = [[g.lattice.spell(end) for end in (g.lattice.base, g.lattice.last)] if g.lattice else [""] for g in self.grammars]
        return sum(len(n) + 1 + max(v, *map(len, e)) for n, v, e in zip(self.names, values, ends, strict=True))

    def texts(self, table: pa.Table, region: np.ndarray) -> list[list[str]]:
        """Per condition and column the text of each row."""
        told = [[texts[k] for k in region.tolist()] for _, texts in self.conditions]
        return [*told, *(column.texts(table[column.cells.column.name]) for column in self.columns)]

    def table(self, texts: Sequence[Sequence[str]], rows: int) -> pa.Table:
        """Canonical rows of the columns' texts."""
        values = {c.cells.column.name: c.values(t) for c, t in zip(self.columns, texts, strict=True)}
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(values) if values else pa.table({"": np.zeros(rows)}).select([])

    def row(self, texts: Sequence[str], order: Sequence[int]) -> tuple[list[int], list[bool]]:
        """Tokens of one row, and which of them are of values and their ends."""
        tokens: list[int] = []
        told: list[bool] = []
        for place in order:
            value = (*self.value(place, texts[place]), self.grammars[place].end)
            tokens += [*self.names[place], *value]
            told += [False] * len(self.names[place]) + [True] * len(value)
        return tokens, told

    def value(self, place: int, text: str) -> Tokens:
        """Tokens of a text of a condition or column; a category that is never drawn is spelled by none."""
        return () if text == UNKNOWN else self.grammars[place].tokens(text)

    def read(self, tokens: Sequence[int], order: Sequence[int]) -> list[str] | None:
        """The texts of a row in the order of its columns, or None where the tokens are no row's."""
        texts, place = [], 0
        for index in order:
            name, grammar = self.names[index], self.grammars[index]
            first = place + len(name)
            ends = (i + 1 for i in range(first, len(tokens)) if grammar.accepts(tuple(tokens[first : i + 1])))
            stop = next(ends, None)
            if stop is None or tuple(tokens[place:first]) != name:
                return None
            texts.append(grammar.text(tuple(tokens[first : stop - 1])))
            place = stop
        return texts if place == len(tokens) else None


def conditions_of(regions: Regions) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(name, text per region): the constants of the regions, and the region itself where those leave two alike."""
    columns = [[dict(item.constants)[name] for item in regions.items] for name in regions.constant_columns]
    texts = [tuple(NULL if value is None else _quoted(str(value)) for value in column) for column in columns]
    found = list(zip(regions.constant_columns, texts, strict=True))
    if len(set(zip(*texts, strict=True)) if texts else {()}) < len(regions):
        found.append(("region", tuple(map(str, range(len(regions))))))
    return tuple(found)

"""Row prose: a row's conditions and table columns in words and then its texts, in a language model's tokens; knows no network.

A row is " name is value," for what the region gives and for each table column (nn/table_text.py; Borisov et al. 2023), for each text that
may be null whether it is there, told as a column of its own, and then " name is" and the text as it was written, up to the tokenizer's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION
from codsa_ray.nn.grammar import Tokens
from codsa_ray.nn.lines import Lines, begun
from codsa_ray.nn.table_text import NULL, ColumnText, TableText, Tokenizer, conditions_of
from codsa_ray.regions import Regions
from codsa_ray.schema import Column

THERE = " there"
"""Of the column that says whether a text is no null: the text's name and this."""


@dataclass(frozen=True, eq=False)
class Prose:
    """Free text in a tokenizer's tokens.

    Args:
        words: a tokenizer of transformers' calling convention.
        size: tokens that the model knows.
    """

    words: Any
    size: int

    @property
    def end(self) -> int:
        """The token after every text.

        Raises:
            SettingError: there is none.
        """
        found = [self.words.eos_token_id, self.words.sep_token_id, self.words.bos_token_id]
        end = next((token for token in found if token is not None and token < self.size), None)
        if end is None:
            raise SettingError("a tokenizer with a token that ends texts", "one without", "give it an eos_token")
        return int(end)

    @property
    def special(self) -> frozenset[int]:
        """Tokens that no text is made of, the end among them."""
        added = getattr(self.words, "added_tokens_decoder", {})
        return frozenset(self.words.all_special_ids) | {token for token, added in added.items() if added.special} | {self.end}

    @property
    def free(self) -> np.ndarray:
        """Tokens that may come next in a text: all but special ones, and the end."""
        special = self.special - {self.end}
        return np.array([token for token in range(min(self.size, len(self.words))) if token not in special], dtype=np.int64)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, as it stands after a word; what only looks like a special token is left out."""
        if not texts:
            return []
        found = self.words([f" {text}" if text else "" for text in texts], add_special_tokens=False)["input_ids"]
        special = self.special
        return [[int(token) for token in own if token not in special] for own in found]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The inverse, as near as the tokenizer comes."""
        told = (self.words.decode(list(own), skip_special_tokens=True, clean_up_tokenization_spaces=False) for own in tokens)
        return [text.removeprefix(" ") for text in told]


@dataclass(frozen=True, eq=False)
class RowProse:
    """How rows are told.

    Args:
        text: conditions, table columns, and whether each text that may be null is there.
        texts: names of the text columns.
        nulls: (K, T) share of null texts in each region: 0 is never drawn, 1 always.
        void: (K, conditions + columns) bool columns that are null all over a region, which are not drawn.
        openings: per text column the tokens before its texts.
        prose: of texts.
        longest: tokens of one text at most.
    """

    text: TableText
    texts: tuple[str, ...]
    nulls: np.ndarray
    void: np.ndarray
    openings: tuple[Tokens, ...]
    prose: Prose
    longest: int

    @staticmethod
    def of(columns: tuple[Column, ...], table: pa.Table, regions: Regions, tokenizer: Tokenizer, prose: Prose, longest: int) -> "RowProse":
        """Learned from canonical rows with `_region`.

        Raises:
            SettingError: the tokenizer cannot spell them in one way only, or has no token that ends a text.
        """
        texts = tuple(column.name for column in columns if column.kind == "text")
        rest = tuple(column for column in columns if column.kind != "text")
        if taken := next((name for name in texts if name + THERE in table.column_names), None):
            raise SettingError(f"no column {taken + THERE!r} beside the text {taken!r}", "one", "rename it")
        flags = tuple(Column(name + THERE, "boolean", "bool") for name in texts if table[name].null_count)
        told = _flagged(table, tuple(flag.name for flag in flags))
        found = tuple(ColumnText.of(column, told[column.name]) for column in (*rest, *flags))
        text = TableText.of(conditions_of(regions), found, tokenizer)
        region = table[REGION].to_numpy().astype(np.int64)
        nulls = _null_shares(table, texts, region, len(regions))
        void = _null_shares(told, [column.name for column in (*rest, *flags)], region, len(regions)) == 1
        void = np.hstack([np.zeros((len(regions), len(text.conditions)), dtype=bool), void])
        return RowProse(text, texts, nulls, void, _openings(texts, tokenizer), prose, longest)

    @property
    def most(self) -> int:
        """Tokens of a row at most."""
        return self.text.longest + sum(len(opening) + self.longest + 1 for opening in self.openings)

    @property
    def flags(self) -> tuple[int, ...]:
        """Per text column the place in `text` of whether it is there, or -1 where it always is."""
        names = [column.cells.column.name for column in self.text.columns]
        return tuple(len(self.text.conditions) + names.index(name + THERE) if name + THERE in names else -1 for name in self.texts)

    def told(self, table: pa.Table, foreign: bool = False) -> Lines:
        """Of canonical rows with `_region`; of foreign ones, whose columns may say what these cannot, the texts alone are learned."""
        region, given = table[REGION].to_numpy(), len(self.text.conditions)
        flags = tuple(name + THERE for name, place in zip(self.texts, self.flags, strict=True) if place >= 0)
        columns = self.text.texts(_flagged(table, flags), region)
        rows = [self.text.row(own, range(len(columns))) for own in zip(*columns, strict=True)] if columns else [([], [])] * len(table)
        fixed = [len(self.text.row(own, range(given))[0]) for own in zip(*columns[:given], strict=True)] if given else [0] * len(table)
        fixed = [len(row) for row, _ in rows] if foreign else fixed
        before = Lines.of([row for row, _ in rows], [_after(told, first) for (_, told), first in zip(rows, fixed, strict=True)])
        return Lines.joined([before, *(part for place in range(len(self.texts)) for part in self._text(table, place))])

    def _text(self, table: pa.Table, place: int) -> tuple[Lines, Lines]:
        """(what stands before the texts, the texts); nothing where there is none."""
        texts, cut = begun(table[self.texts[place]], self.longest)
        words = self.prose.encode([text or "" for text in texts])
        opening = [() if text is None else self.openings[place] for text in texts]
        told = [None if text is None else own for text, own in zip(texts, words, strict=True)]
        before = Lines.of(opening, [[True] * len(own) for own in opening])
        return before, Lines.texts(told, cut, self.longest, self.prose.end, ())

    def table(self, told: Sequence[Sequence[str]], texts: Sequence[Sequence[Sequence[int] | None]]) -> pa.Table:
        """Canonical rows.

        Args:
            told: per condition and column the text of each row.
            texts: per text column and row its tokens, or None for null.
        """
        rows = len(texts[0]) if texts else len(told[-1])
        table = self.text.table(told[len(self.text.conditions) :], rows).drop_columns(
            [self.text.columns[place - len(self.text.conditions)].cells.column.name for place in self.flags if place >= 0]
        )
        for name, drawn in zip(self.texts, texts, strict=True):
            spelled = self.prose.decode([own or () for own in drawn])
            values = [None if own is None else text for own, text in zip(drawn, spelled, strict=True)]
            table = table.append_column(name, pa.array(values, pa.string()))
        return table

    def to_json(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        columns = [column.to_json() for column in self.text.columns]
        plain = {"conditions": self.text.conditions, "columns": columns, "texts": list(self.texts), "longest": self.longest}
        return plain, {"nulls": self.nulls, "void": self.void}

    @staticmethod
    def from_json(plain: dict[str, Any], arrays: dict[str, np.ndarray], tokenizer: Tokenizer, prose: Prose) -> "RowProse":
        """The inverse of `to_json`, in a tokenizer's tokens."""
        conditions = tuple((name, tuple(texts)) for name, texts in plain["conditions"])
        text = TableText.of(conditions, tuple(map(ColumnText.from_json, plain["columns"])), tokenizer)
        texts = tuple(plain["texts"])
        return RowProse(text, texts, arrays["nulls"], arrays["void"].astype(bool), _openings(texts, tokenizer), prose, plain["longest"])


def given(prose: RowProse, region: int, rows: int) -> dict[int, list[str]]:
    """Condition or column -> texts of what is the same in all rows of a region and not drawn."""
    found = {place: texts[region] for place, (_, texts) in enumerate(prose.text.conditions)}
    found |= {int(place): NULL for place in np.flatnonzero(prose.void[region])}
    for flag, share in zip(prose.flags, prose.nulls[region], strict=True):
        if flag >= 0 and share in (0, 1):
            found[flag] = "false" if share else "true"
    return {place: [text] * rows for place, text in found.items()}


def _openings(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tokens, ...]:
    return tuple(tuple(tokenizer.encode(f" {name} is")) for name in texts)


def _flagged(table: pa.Table, flags: Sequence[str]) -> pa.Table:
    for flag in flags:
        table = table.append_column(flag, pc.is_valid(table[flag.removesuffix(THERE)]))
    return table


def _null_shares(table: pa.Table, names: Sequence[str], region: np.ndarray, regions: int) -> np.ndarray:
    """(K, names) share of null rows of each region; 0 in one without rows."""
    rows = np.maximum(np.bincount(region, minlength=regions), 1)
    null = [np.bincount(region[np.asarray(table[name].is_null())], minlength=regions) / rows for name in names]
    return np.stack(null, axis=1) if null else np.zeros((regions, 0))


def _after(told: Sequence[bool], first: int) -> list[bool]:
    """Which tokens are not learned: those of names, and all of the first."""
    return [place < first or not on for place, on in enumerate(told)]

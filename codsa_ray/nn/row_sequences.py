"""Row sequences: a row's region, its table columns and its texts as one line of tokens, and back; knows no network.

A line is: a token for each factor of the region and one for the region, which are given; one for each table column that moves
(nn/table_tokens.py); then for each text its words and END, or NULL alone. Every place allows its own tokens and no others, so that whatever
is drawn is a row: categories exist, bounds are kept, a text ends after at most `longest` words.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import REGION
from codsa_ray.nn.lines import Lines, begun
from codsa_ray.nn.table_tokens import TableTokens
from codsa_ray.nn.text_words import TextWords
from codsa_ray.regions import Regions
from codsa_ray.schema import Column

END, NULL = 0, 1
OWN = 2


@dataclass(frozen=True, eq=False)
class RowSequences:
    """How rows are told.

    Args:
        tokens: of the columns that are no text.
        words: of all texts.
        texts: names of the text columns.
        factors: (K, F) int64 levels of each region's factors.
        void: (K, columns that move) int64 the null token where all of a region's rows are null, which is not drawn; else -1.
        nulls: (K, T) share of null texts in each region: 0 is never drawn, 1 always.
        longest: words of one text at most.
    """

    tokens: TableTokens
    words: TextWords
    texts: tuple[str, ...]
    factors: np.ndarray
    void: np.ndarray
    nulls: np.ndarray
    longest: int

    @staticmethod
    def of(
        columns: tuple[Column, ...],
        table: pa.Table,
        regions: Regions,
        bins: int,
        vocabulary: int,
        longest: int,
        others: pa.Table | None = None,
    ) -> "RowSequences":
        """Learned from canonical rows; words from the texts of others too."""
        texts = tuple(column.name for column in columns if column.kind == "text")
        rest = tuple(column for column in columns if column.kind != "text")
        read = [table, *([] if others is None else [others])]
        known = [text for rows in read for name in texts for text in begun(rows[name], longest)[0] if text is not None]
        factors = np.array([item.factors for item in regions.items], dtype=np.int64).reshape(len(regions), -1)
        region = table[REGION].to_numpy().astype(np.int64)
        many = np.maximum(np.bincount(region, minlength=len(regions)), 1)
        null = [np.bincount(region[np.asarray(table[name].is_null())], minlength=len(regions)) / many for name in texts]
        nulls = np.stack(null, axis=1) if texts else np.zeros((len(regions), 0))
        tokens = TableTokens.of(rest, table, bins)
        void = tokens.void(table, region, len(regions))
        return RowSequences(tokens, TextWords.learn(known, vocabulary), texts, factors, void, nulls, longest)

    @property
    def ends(self) -> np.ndarray:
        """Where the tokens of each factor, of regions, of each column that moves and of words begin, and the size of the vocabulary."""
        levels = [*(self.factors.max(axis=0) + 1 if self.factors.size else []), len(self.factors)]
        levels += [column.levels for column in self.tokens.moving]
        return np.cumsum([OWN, *levels, self.words.size])

    @property
    def given(self) -> int:
        """Tokens of the region."""
        return self.factors.shape[1] + 1

    @property
    def size(self) -> int:
        """Of the vocabulary."""
        return int(self.ends[-1])

    @property
    def most(self) -> int:
        """Tokens of a row at most."""
        return self.given + len(self.tokens.moving) + len(self.texts) * (self.longest + 1)

    def region(self, region: np.ndarray) -> np.ndarray:
        """(n, given) tokens of regions."""
        return np.hstack([self.factors[region], region[:, None]]) + self.ends[: self.given]

    def column(self, place: int) -> tuple[int, int]:
        """First and one past the last token of a column that moves."""
        start = int(self.ends[self.given + place])
        return start, start + self.tokens.moving[place].levels

    def told(self, table: pa.Table, foreign: bool = False) -> Lines:
        """Of canonical rows with `_region`; of foreign ones, whose columns may say what these cannot, the texts alone are learned."""
        region = table[REGION].to_numpy().astype(np.int64)
        columns = np.hstack([self.region(region), self.tokens.encode(table) + self.ends[self.given : -2]])
        return Lines.joined(
            [Lines.even(columns, columns.shape[1] if foreign else self.given), *(self._words(table[name]) for name in self.texts)]
        )

    def _words(self, values: pa.ChunkedArray) -> Lines:
        """Of each text its tokens, END among them."""
        first, (texts, cut) = int(self.ends[-2]), begun(values, self.longest)
        words = self.words.encode([text or "" for text in texts])
        told = [None if text is None else [first + word for word in own] for text, own in zip(texts, words, strict=True)]
        return Lines.texts(told, cut, self.longest, END, (NULL,))

    def table(self, columns: np.ndarray, texts: list[list[list[int] | None]], rng: np.random.Generator) -> pa.Table:
        """Canonical rows of drawn tokens.

        Args:
            columns: (n, columns that move) tokens.
            texts: per text column and row its words, or None for null.
            rng: of the places inside bins.
        """
        places = rng.random((len(columns), len(self.tokens.columns)))
        table = self.tokens.decode(columns - self.ends[self.given : -2], places)
        for name, drawn in zip(self.texts, texts, strict=True):
            spelled = self.words.decode([[word - int(self.ends[-2]) for word in words or ()] for words in drawn])
            values = [None if words is None else text for words, text in zip(drawn, spelled, strict=True)]
            table = table.append_column(name, pa.array(values, pa.string()))
        return table

    def to_json(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        plain, arrays = self.tokens.to_json()
        told = {"columns": plain, "words": self.words.to_json(), "texts": list(self.texts), "longest": self.longest}
        return told, {**arrays, "factors": self.factors, "void": self.void, "nulls": self.nulls}

    @staticmethod
    def from_json(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> "RowSequences":
        """The inverse of `to_json`."""
        tokens, words = TableTokens.from_json(plain["columns"], arrays), TextWords.from_json(plain["words"])
        return RowSequences(tokens, words, tuple(plain["texts"]), arrays["factors"], arrays["void"], arrays["nulls"], plain["longest"])

"""Lines: told rows as tokens one after another, and which of them are learned from; knows no column and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CHARACTERS = 64
"""Of a text's beginning that are read per token that may be told of it: what lies beyond costs no time to cut into tokens."""


def begun(values: pa.ChunkedArray, longest: int) -> tuple[list[str | None], list[bool]]:
    """(each text as far as `longest` tokens can reach, which of them were cut)."""
    most = CHARACTERS * longest
    cut = pc.greater(pc.fill_null(pc.utf8_length(values), 0), most).to_pylist()
    return pc.utf8_slice_codeunits(values, 0, most).to_pylist(), cut


@dataclass(frozen=True, eq=False)
class Lines:
    """Told rows.

    Args:
        tokens: (all,) int32.
        starts: (n + 1,) int64 where each row begins.
        open: (all,) bool tokens that are not learned: what is given, and an end that cut a text short.
    """

    tokens: np.ndarray
    starts: np.ndarray
    open: np.ndarray

    @staticmethod
    def even(tokens: np.ndarray, given: int) -> "Lines":
        """Of (n, length) tokens, the first `given` of each row open."""
        rows, length = tokens.shape
        open_ = np.tile(np.arange(length) < given, rows)
        return Lines(tokens.ravel().astype(np.int32), length * np.arange(rows + 1, dtype=np.int64), open_)

    @staticmethod
    def of(rows: Sequence[Sequence[int]], open_: Sequence[Sequence[bool]]) -> "Lines":
        """Of each row's tokens and marks."""
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        tokens, marks = (np.fromiter(chain.from_iterable(part), kind, int(starts[-1])) for part, kind in ((rows, np.int32), (open_, bool)))
        return Lines(tokens, starts, marks)

    @staticmethod
    def texts(words: Sequence[Sequence[int] | None], cut: Sequence[bool], longest: int, end: int, null: tuple[int, ...]) -> "Lines":
        """Of texts: at most `longest` words and `end`, which is not learned where the text was cut short; `null` where there is none.

        Args:
            words: of each text, as many as were read, or None.
            cut: which were not read to their end.
            longest: words of one text at most.
            end: token.
            null: tokens.
        """
        told = [null if own is None else [*own[:longest], end] for own in words]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in told], dtype=np.int64)])
        open_ = np.zeros(int(starts[-1]), dtype=bool)
        short = np.array([own is not None and (less or len(own) > longest) for own, less in zip(words, cut, strict=True)], dtype=bool)
        open_[starts[1:][short] - 1] = True
        return Lines(np.fromiter(chain.from_iterable(told), np.int32, int(starts[-1])), starts, open_)

    @staticmethod
    def joined(parts: Sequence["Lines"]) -> "Lines":
        """Rows whose tokens are those of each part's row, in the parts' order."""
        lengths = np.stack([np.diff(part.starts) for part in parts])
        starts = np.concatenate([[0], np.cumsum(lengths.sum(axis=0))])
        first = starts[:-1] + np.cumsum(lengths, axis=0) - lengths
        tokens, open_ = np.empty(int(starts[-1]), dtype=np.int32), np.empty(int(starts[-1]), dtype=bool)
        for part, own, begin in zip(parts, lengths, first, strict=True):
            places = np.arange(len(part.tokens)) + np.repeat(begin - part.starts[:-1], own)
            tokens[places], open_[places] = part.tokens, part.open
        return Lines(tokens, starts, open_)

    def rows(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows, longest) tokens, 0 where a row has ended, and (rows, longest) bool tokens that are learned."""
        lengths = self.starts[index + 1] - self.starts[index]
        places = np.arange(int(lengths.max()))
        inside = places < lengths[:, None]
        flat = np.where(inside, self.starts[index][:, None] + places, 0)
        return np.where(inside, self.tokens[flat], 0), inside & ~self.open[flat]

"""Line drawing: rows of a causal model token by token, each place from the tokens that it allows; knows no value.

All rows of a block are at the same column at the same time; a row whose text has ended waits until the longest has.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from torch import nn

from codsa_ray.nn.row_sequences import END, NULL, RowSequences
from codsa_ray.nn.text_drawing import Reading
from codsa_ray.nn.word_drawing import picks, words


@dataclass(frozen=True, eq=False)
class LineDrawing:
    """How rows are drawn.

    Args:
        model: a causal language model of transformers' calling convention.
        rows: what a row is.
        temperature: log-odds of words are divided by it; table columns are drawn as they are.
        cached: as in Reading.
    """

    model: nn.Module
    rows: RowSequences
    temperature: float = 1.0
    cached: bool = True

    def table(self, region: int, count: int, rng: np.random.Generator) -> pa.Table:
        """`count` canonical rows of a region."""
        return self.rows.table(*self.drawn(region, count, rng), rng)

    def drawn(self, region: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[list[list[int] | None]]]:
        """((count, columns that move) tokens, per text column and row its words or None) of a region."""
        reading = Reading(self.model, count, self.cached)
        begun = [tuple(map(int, self.rows.region(np.array([region]))[0]))] * count
        scores, columns = reading.feed(begun), np.zeros((count, len(self.rows.tokens.moving)), dtype=np.int64)
        for place in range(columns.shape[1]):
            first, past = self.rows.column(place)
            void = int(self.rows.void[region, place])
            told = columns[:, place] = np.full(count, first + void)
            if void < 0:
                chance, stand = rng.random(count, dtype=np.float32), self.rows.tokens.moving[place].stand
                told = first + picks(scores[:, first:past], 1.0, chance)
                columns[:, place] = first + picks(scores[:, first:past], 1.0, chance, stand)
            scores = reading.feed([(int(token),) for token in told])
        texts: list[list[list[int] | None]] = []
        for place in range(len(self.rows.texts)):
            allowed = partial(self._allowed, null=float(self.rows.nulls[region, place]))
            last = place + 1 == len(self.rows.texts)
            found = words(reading, scores, np.ones(count, dtype=bool), allowed, (END, NULL), self.temperature, rng, last)
            texts.append([None if end == NULL else own for own, end in zip(found.words, found.ends, strict=True)])
            scores = found.scores if last else reading.feed([(int(end),) for end in found.ends])
        return columns, texts

    def _allowed(self, step: int, null: float) -> np.ndarray:
        """Tokens that may come next in a text of `step` words, of a region with that share of nulls."""
        if step == self.rows.longest:
            return np.array([END])
        if step == 0 and null == 1:
            return np.array([NULL])
        own = [END, NULL] if null and step == 0 else [END]
        return np.concatenate([own, np.arange(self.rows.ends[-2], self.rows.ends[-1])])

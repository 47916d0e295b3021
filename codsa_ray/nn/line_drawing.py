"""Line drawing: rows of a causal model token by token, each place from the tokens that it allows; knows no value.

All rows of a block are at the same column at the same time; a row whose text has ended waits until the longest has.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.nn.row_sequences import END, NULL, RowSequences
from codsa_ray.nn.small_decoder import chosen
from codsa_ray.nn.text_drawing import Reading


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

    def drawn(self, region: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[list[list[int] | None]]]:
        """((count, columns that move) tokens, per text column and row its words or None) of a region."""
        reading = Reading(self.model, count, self.cached)
        begun = [tuple(map(int, self.rows.region(np.array([region]))[0]))] * count
        scores, columns = reading.feed(begun), np.zeros((count, len(self.rows.tokens.moving)), dtype=np.int64)
        for place in range(columns.shape[1]):
            first, past = self.rows.column(place)
            void = int(self.rows.void[region, place])
            columns[:, place] = first + (void if void >= 0 else self._picked(scores[:, first:past], 1.0, rng))
            scores = reading.feed([(int(token),) for token in columns[:, place]])
        texts = []
        for place in range(len(self.rows.texts)):
            drawn, scores = self._text(reading, scores, place, float(self.rows.nulls[region, place]), rng)
            texts.append(drawn)
        return columns, texts

    def _text(
        self, reading: Reading, scores: Tensor, place: int, null: float, rng: np.random.Generator
    ) -> tuple[list[list[int] | None], Tensor]:
        """(words of each row or None, log-odds after the end of all of them)."""
        words: list[list[int] | None] = [[] for _ in range(reading.rows)]
        going, last = np.ones(reading.rows, dtype=bool), [END] * reading.rows
        for step in range(self.rows.longest + 1):
            allowed = self._allowed(step, null)
            picked = allowed[self._picked(scores[:, allowed], self.temperature, rng)]
            for row in np.flatnonzero(going):
                own = words[row]
                if picked[row] in (END, NULL):
                    going[row], last[row] = False, int(picked[row])
                    words[row] = None if picked[row] == NULL else own
                elif own is not None:
                    own.append(int(picked[row]))
            if not going.any():
                break
            scores = reading.feed([(int(token),) if on else () for token, on in zip(picked, going, strict=True)])
        # The last text of a row ends it: nothing is read any more.
        return words, scores if place + 1 == len(self.rows.texts) else reading.feed([(token,) for token in last])

    def _allowed(self, step: int, null: float) -> np.ndarray:
        """Tokens that may come next in a text of `step` words, of a region with that share of nulls."""
        if step == self.rows.longest:
            return np.array([END])
        if step == 0 and null == 1:
            return np.array([NULL])
        own = [END, NULL] if null and step == 0 else [END]
        return np.concatenate([own, np.arange(self.rows.ends[-2], self.rows.ends[-1])])

    def _picked(self, scores: Tensor, temperature: float, rng: np.random.Generator) -> np.ndarray:
        chance = torch.from_numpy(rng.random(len(scores), dtype=np.float32)).to(scores.device)
        return np.asarray(chosen(scores.float() / temperature, chance).cpu().numpy())

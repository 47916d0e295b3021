"""Prose drawing: rows of a pretrained causal model, table columns by their grammar and then texts in its own words; knows no library."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from torch import nn

from codsa_ray.nn.grammar import Tokens
from codsa_ray.nn.row_prose import RowProse, given
from codsa_ray.nn.text_drawing import Reading, TextDrawing
from codsa_ray.nn.word_drawing import words

ROWS = {"cpu": 64, "cuda": 256}
"""Rows drawn together."""
Part = tuple[list[list[str]], list[list[list[int] | None]]]
"""Per condition and column texts, and per text column tokens or None, of some rows."""


@dataclass(frozen=True, eq=False)
class ProseDrawing:
    """How rows are drawn.

    Args:
        model: a causal language model of transformers' calling convention.
        rows: what a row is.
        temperature: log-odds of words of texts are divided by it; table columns are drawn as they are.
        cached: as in Reading.
    """

    model: nn.Module
    rows: RowProse
    temperature: float = 1.0
    cached: bool = True

    def table(self, region: int, count: int, rng: np.random.Generator) -> pa.Table:
        """`count` canonical rows of a region."""
        size = ROWS[next(self.model.parameters()).device.type]
        parts = [self._drawn(region, min(size, count - first), rng) for first in range(0, count, size)]
        told, texts = ([list(chain.from_iterable(columns)) for columns in zip(*side, strict=True)] for side in zip(*parts, strict=True))
        return self.rows.table(told, texts)

    def _drawn(self, region: int, count: int, rng: np.random.Generator) -> Part:
        reading, prose = Reading(self.model, count, self.cached), self.rows.prose
        drawing = TextDrawing(self.model, self.rows.text, cached=self.cached)
        told, before = drawing.into(reading, given(self.rows, region, count), range(len(self.rows.text.names)), rng)
        end, free = prose.end, prose.free
        texts: list[list[list[int] | None]] = []
        for place, flag in enumerate(self.rows.flags):
            there = np.array([flag < 0 or told[flag][row] == "true" for row in range(count)])
            if not there.any():
                texts.append([None] * count)
                continue
            opening: list[Tokens] = [(*begun, *self.rows.openings[place]) if on else () for begun, on in zip(before, there, strict=True)]
            found = words(
                reading,
                reading.level(opening),
                there,
                lambda step: np.array([end]) if step == self.rows.longest else free,
                (end,),
                self.temperature,
                rng,
                place + 1 == len(self.rows.texts),
            )
            texts.append([own if on else None for own, on in zip(found.words, there, strict=True)])
            before = [(end,) if on else begun for begun, on in zip(before, there, strict=True)]
        return told, texts

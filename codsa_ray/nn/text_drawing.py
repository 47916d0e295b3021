"""Text drawing: rows of a causal language model, whose every token the grammar allows; knows no library of models.

Rows of a run share the order of their columns. So the tokens between values are fed to all of them at once, a value is drawn token by
token until the longest has ended, and rows whose value is shorter wait behind a mask: the keys of what they were fed are never looked at.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.nn.grammar import Tokens, ValueGrammar
from codsa_ray.nn.small_decoder import chosen
from codsa_ray.nn.table_text import TableText


@dataclass(eq=False)
class Reading:
    """What a model has read of n rows.

    Args:
        model: a causal language model of transformers' calling convention.
        rows: n.
        cached: False reads everything anew at every step: as exact, slower, there to be compared with.
    """

    model: nn.Module
    rows: int
    cached: bool = True
    tokens: Tensor = field(init=False)
    kept: Tensor = field(init=False)
    past: Any = None

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        self.tokens = torch.zeros((self.rows, 0), dtype=torch.int64, device=device)
        self.kept = torch.zeros((self.rows, 0), dtype=torch.int64, device=device)

    def feed(self, tokens: Sequence[Tokens]) -> Tensor:
        """(n, vocabulary) log-odds after (n,) further tokens each; of rows given fewer than the most, they mean nothing."""
        longest, device = max(map(len, tokens)), self.tokens.device
        padded = torch.tensor([[*own, *[0] * (longest - len(own))] for own in tokens], device=device)
        lengths = torch.tensor([len(own) for own in tokens], device=device)
        kept = (torch.arange(longest, device=device) < lengths[:, None]).long()
        self.tokens, self.kept = torch.cat([self.tokens, padded], 1), torch.cat([self.kept, kept], 1)
        places = (self.kept.cumsum(1) - 1).clamp(min=0)
        new = padded.shape[1] if self.cached else self.tokens.shape[1]
        inputs: dict[str, Any] = {"input_ids": self.tokens[:, -new:], "attention_mask": self.kept, "use_cache": self.cached}
        if "position_ids" in inspect.signature(self.model.forward).parameters:
            inputs["position_ids"] = places[:, -new:]
        if self.cached and self.past is not None:
            inputs["past_key_values"] = self.past
        told = self.model(**inputs)
        self.past = told.past_key_values if self.cached else None
        return told.logits[:, -1].float()

    def only(self, rows: np.ndarray) -> None:
        """Reads on with these rows alone."""
        index = torch.from_numpy(rows).to(self.tokens.device)
        self.rows, self.tokens, self.kept = len(rows), self.tokens[index], self.kept[index]
        if self.past is not None:
            self.past.batch_select_indices(index)

    def level(self, tokens: Sequence[Tokens]) -> Tensor:
        """The same of rows that differ in how many they are given: those given any all have log-odds that mean something."""
        lengths = {len(own) for own in tokens if own}
        if len(lengths) > 1:
            # All but the last token first, so that the last ones stand together.
            self.feed([own[:-1] for own in tokens])
            tokens = [own[-1:] for own in tokens]
        return self.feed(tokens)


@dataclass(frozen=True, eq=False)
class TextDrawing:
    """How texts are drawn.

    Args:
        model: as in Reading.
        text: of the table.
        temperature: log-odds are divided by it.
        cached: as in Reading.
    """

    model: nn.Module
    text: TableText
    temperature: float = 1.0
    cached: bool = True

    def texts(self, rows: int, given: Mapping[int, Sequence[str]], order: Sequence[int], rng: np.random.Generator) -> list[list[str]]:
        """Per condition and column the (rows,) texts.

        Args:
            rows: n.
            given: condition or column -> (n,) texts that are not drawn; all conditions are among them.
            order: of conditions and columns.
            rng: of the choices.
        """
        return self.into(Reading(self.model, rows, self.cached), given, order, rng)[0]

    def into(
        self, reading: Reading, given: Mapping[int, Sequence[str]], order: Sequence[int], rng: np.random.Generator
    ) -> tuple[list[list[str]], list[Tokens]]:
        """(the same of rows that are being read, tokens of each row that it has not been fed yet)."""
        rows, found = reading.rows, [[""] * reading.rows for _ in self.text.names]
        before: list[Tokens] = [()] * rows
        for place in order:
            before = [(*begun, *self.text.names[place]) for begun in before]
            if place in given:
                values = [self.text.value(place, text) for text in given[place]]
                before = [(*begun, *value) for begun, value in zip(before, values, strict=True)]
                found[place] = list(given[place])
            else:
                values = self._values(reading, before, self.text.grammars[place], rng)
                before = [()] * rows
                found[place] = [self.text.grammars[place].text(value) for value in values]
            before = [(*begun, self.text.grammars[place].end) for begun in before]
        return found, before

    def _values(self, reading: Reading, before: list[Tokens], grammar: ValueGrammar, rng: np.random.Generator) -> list[Tokens]:
        """One value for each row, after the tokens that it has not been fed yet."""
        scores = reading.level(before)
        values: list[Tokens] = [()] * reading.rows
        open_ = np.ones(reading.rows, dtype=bool)
        while True:
            picked = self._picked(scores, [grammar.allowed(value) for value in values], rng.random(reading.rows, dtype=np.float32))
            for row in np.flatnonzero(open_):
                if picked[row] == grammar.end and grammar.whole(values[row]):
                    open_[row] = False
                else:
                    values[row] = (*values[row], picked[row])
            if not open_.any():
                return values
            scores = reading.feed([value[-1:] if on else () for value, on in zip(values, open_, strict=True)])

    def _picked(self, scores: Tensor, allowed: list[Tokens], chance: np.ndarray) -> list[int]:
        """One allowed token for each row."""
        most = max(map(len, allowed))
        index = torch.tensor([[*own, *[-1] * (most - len(own))] for own in allowed], device=scores.device)
        among = scores.gather(1, index.clamp(min=0)).masked_fill(index < 0, -torch.inf) / self.temperature
        place = chosen(among, torch.from_numpy(chance).to(scores.device))
        return [int(token) for token in index.gather(1, place[:, None])[:, 0].tolist()]

"""Rows as text: what a large language model is told of a row, its region's conditions first; knows no library of models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.nn.orders import Run
from codsa_ray.nn.row_loss import Costs
from codsa_ray.nn.table_text import UNKNOWN, ColumnText, TableText, Tokenizer, conditions_of
from codsa_ray.nn.text_drawing import TextDrawing
from codsa_ray.regions import Regions
from codsa_ray.schema import Column

ROWS = {"cpu": 64, "cuda": 512}
"""Rows drawn together."""


@dataclass(frozen=True, eq=False)
class RowsAsText:
    """Conditions and columns as texts.

    Args:
        text: of the table.
    """

    text: TableText

    @staticmethod
    def of(columns: tuple[Column, ...], table: pa.Table, regions: Regions, tokenizer: Tokenizer) -> "RowsAsText":
        """Learned from canonical rows."""
        found = tuple(ColumnText.of(column, table[column.name]) for column in columns)
        return RowsAsText(TableText.of(conditions_of(regions), found, tokenizer))

    @property
    def conditions(self) -> int:
        """How many of what is told the region gives."""
        return len(self.text.conditions)

    @property
    def ordered(self) -> tuple[bool, ...]:
        """Per condition and column whether interpolated rows have it."""
        return (*(False for _ in self.text.conditions), *(column.lattice is not None for column in self.text.columns))

    def told(self, table: pa.Table, region: np.ndarray) -> list[np.ndarray]:
        """Per condition and column the (n,) texts of canonical rows."""
        return [np.array(texts, dtype=object) for texts in self.text.texts(table, region)]

    def costs(self, told: list[np.ndarray]) -> Costs:
        """Mean over the tokens of values, and of their ends, of minus the log-probability of told rows; texts forget nothing."""

        def costs(module: nn.Module, rows: np.ndarray, order: Tensor, counted: Tensor, keep: Tensor | None) -> Tensor:
            device = next(module.parameters()).device
            shown = [[c for c in own if on[c] or c < self.conditions] for own, on in zip(order.tolist(), counted.tolist(), strict=True)]
            spelled = [self.text.row([column[row] for column in told], own) for row, own in zip(rows.tolist(), shown, strict=True)]
            longest = max(len(tokens) for tokens, _ in spelled)
            tokens = torch.tensor([own + [0] * (longest - len(own)) for own, _ in spelled], device=device)
            mask = torch.tensor([[1] * len(own) + [0] * (longest - len(own)) for own, _ in spelled], device=device)
            learned = torch.tensor([on + [False] * (longest - len(on)) for _, on in spelled], device=device)[:, 1:]
            scores = module(input_ids=tokens, attention_mask=mask).logits[:, :-1]
            each = functional.cross_entropy(scores.float().transpose(1, 2), tokens[:, 1:], reduction="none")
            return (each * learned).sum(1) / learned.sum(1).clamp(min=1)

        return costs

    def known(self, place: int, told: np.ndarray) -> np.ndarray:
        """(n,) bool which of a column's texts may be drawn."""
        return told != UNKNOWN

    def draw(
        self, network: nn.Module, region: int, run: Run, given: Mapping[int, np.ndarray], rng: np.random.Generator, temperature: float
    ) -> list[np.ndarray]:
        """Per condition and column the (run.rows,) texts of rows of a region."""
        drawing = TextDrawing(network, self.text, temperature)
        fixed = {place: [texts[region]] * run.rows for place, (_, texts) in enumerate(self.text.conditions)}
        fixed |= {place: value.tolist() for place, value in given.items()}
        size = ROWS[next(network.parameters()).device.type]
        found: list[list[str]] = [[] for _ in self.text.names]
        for first in range(0, run.rows, size):
            part = slice(first, min(first + size, run.rows))
            texts = drawing.texts(part.stop - first, {place: value[part] for place, value in fixed.items()}, run.order, rng)
            found = [before + own for before, own in zip(found, texts, strict=True)]
        return [np.array(texts, dtype=object) for texts in found]

    def table(self, told: list[np.ndarray], rows: int, rng: np.random.Generator) -> pa.Table:
        """(rows,) canonical rows of texts; nothing about them is left to chance."""
        return self.text.table([texts.tolist() for texts in told[self.conditions :]], rows)

    def to_json(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain data, no arrays) for `from_json`."""
        return {"conditions": self.text.conditions, "columns": [column.to_json() for column in self.text.columns]}, {}

    @staticmethod
    def from_json(plain: dict[str, Any], tokenizer: Tokenizer) -> "RowsAsText":
        """The inverse of `to_json`, in a tokenizer's tokens."""
        conditions = tuple((name, tuple(texts)) for name, texts in plain["conditions"])
        return RowsAsText(TableText.of(conditions, tuple(map(ColumnText.from_json, plain["columns"])), tokenizer))

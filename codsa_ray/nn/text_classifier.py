"""Text classifier: log-odds of a text's mean state and of the columns beside it, added; knows no loss, no tokenizer and no class.

Shapes: n rows, T tokens, W width of the trunk, D columns, P classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.nn.mass import Mass
from codsa_ray.nn.sentences import pooled

FORGET = 0.1
"""Chance that a token is not looked at while training."""


class TextClassifier(nn.Module):
    """A trunk's mean state (Reimers & Gurevych 2019) and columns, each by a linear layer.

    Args:
        trunk: of transformers' calling convention; None where rows have columns alone.
        width: W.
        columns: D.
        start: (P,) log-odds at first, whatever the row: no step is spent on the prior.
    """

    def __init__(self, trunk: Any, width: int, columns: int, start: Tensor) -> None:
        super().__init__()
        self.trunk, self.width = trunk, width
        self.leave = nn.Linear(width, len(start))
        nn.init.zeros_(self.leave.weight)
        self.leave.bias.data.copy_(start)
        self.beside = nn.Parameter(torch.zeros(len(start), columns))

    def forward(self, tokens: Tensor, there: Tensor, columns: Tensor) -> Tensor:
        """(n, P) from (n, T) tokens, (n, T) bool which of them are looked at, and (n, D) columns."""
        return self.leave(self._states(tokens, there, columns)) + columns @ self.beside.T

    def features(self, tokens: Tensor, there: Tensor, columns: Tensor) -> Tensor:
        """(n, W + D) what the last layers see of rows."""
        return torch.cat([self._states(tokens, there, columns), columns], dim=1)

    def _states(self, tokens: Tensor, there: Tensor, columns: Tensor) -> Tensor:
        if self.trunk is None or not bool(there.any()):
            return columns.new_zeros(len(columns), self.width)
        return pooled(self.trunk, tokens, there).float()


@dataclass(frozen=True, eq=False)
class TextRows:
    """Rows of a fit.

    Args:
        columns: (n, D) float32.
        tokens: (n, longest) int64, -1 where there is none.
        target: (n,) int64.
        weight: (n,) float32 of mean 1.
        offset: (n, P) float32.
    """

    columns: Tensor
    tokens: Tensor
    target: Tensor
    weight: Tensor
    offset: Tensor

    @staticmethod
    def apart(X: np.ndarray, longest: int) -> tuple[Tensor, Tensor]:
        """(columns, tokens) of encoded rows, whose last `longest` columns are one more than tokens; of narrower ones columns alone."""
        cut = X.shape[1] - longest if X.shape[1] >= longest else X.shape[1]
        tokens = np.array(X[:, cut:], dtype=np.int64) - 1
        return torch.from_numpy(np.array(X[:, :cut], dtype=np.float32)), torch.from_numpy(tokens)

    def take(self, places: Tensor) -> "TextRows":
        """The rows at these places."""
        return TextRows(self.columns[places], self.tokens[places], self.target[places], self.weight[places], self.offset[places])

    def sorted(self) -> "TextRows":
        """By target: batches drawn evenly over them hold each class's share."""
        return self.take(torch.argsort(self.target, stable=True))


Module = Callable[[Tensor, Tensor, Tensor], Tensor]


def scored(module: Module, columns: Tensor, tokens: Tensor, device: str, keep: Tensor | None = None) -> Tensor:
    """(n, P) of rows whose tokens stand first; `keep` (n, longest) is 0 where one is not looked at."""
    there = tokens >= 0
    most = max(1, int(there.any(0).sum()))
    looked = there if keep is None else there & keep
    return module(tokens[:, :most].clamp(min=0).to(device), looked[:, :most].to(device), columns.to(device))


@dataclass(frozen=True, eq=False)
class TextLoss:
    """Weighted log loss of a batch.

    Args:
        rows: to learn from, by target.
        batch: rows of a step.
        device: of the network.
    """

    rows: TextRows
    batch: int
    device: str

    def __call__(self, network: Any, generator: torch.Generator) -> Tensor:
        """Mean over a batch in which every class has its share; all its randomness is the generator's."""
        rows = self.rows.take(Mass.of(np.ones(len(self.rows.target))).draw(self.batch, generator))
        keep = torch.rand(rows.tokens.shape, generator=generator) >= FORGET
        return _costs(scored(network, rows.columns, rows.tokens, self.device, keep), rows, self.device).mean()

    @torch.no_grad()
    def score(self, network: Any) -> float:
        """Weighted mean over all rows, nothing being forgotten."""
        total = 0.0
        for places in torch.arange(len(self.rows.target)).split(self.batch):
            rows = self.rows.take(places)
            total += float(_costs(scored(network, rows.columns, rows.tokens, self.device), rows, self.device).sum())
        return total / float(self.rows.weight.sum())


def _costs(scores: Tensor, rows: TextRows, device: str) -> Tensor:
    costs = functional.cross_entropy(scores.float() + rows.offset.to(device), rows.target.to(device), reduction="none")
    return costs * rows.weight.to(device)

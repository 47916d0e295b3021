"""Line loss: what one step of training sees of lines of tokens; knows no column, no region and no network."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.contracts import Worker
from codsa_ray.nn.lines import Lines
from codsa_ray.nn.schedules import stratified

Reading = Callable[[Any, Tensor, Tensor | None], Tensor]
"""(module, (n, T) tokens, (n, T) bool what later tokens are told, or None for all) -> (n, T, vocabulary) log-odds."""


class Forgetful(nn.Module):
    """A causal model of transformers' calling convention whose words may be forgotten while it learns.

    Args:
        network: the model.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """(n, T, vocabulary) log-odds of (n, T) tokens; `keep` (n, T) is 0 where a token is not told to later ones."""
        told = self.network.get_input_embeddings()(tokens)
        if keep is not None:
            told = told * keep[..., None].to(told.dtype)
        return self.network(inputs_embeds=told, use_cache=False).logits


def forgetful(module: Any, tokens: Tensor, keep: Tensor | None) -> Tensor:
    """How a `Forgetful` is read."""
    return module(tokens, keep)


def plain(module: Any, tokens: Tensor, keep: Tensor | None) -> Tensor:
    """How a causal model of transformers' is read, which forgets nothing."""
    return module(input_ids=tokens, use_cache=False).logits


@dataclass(frozen=True, eq=False)
class LineLoss:
    """The training loss of one worker's share of a batch.

    Args:
        lines: told rows, sorted by region.
        mass: (n,) float64 cumulative share of each row in a batch.
        batch: rows of a step, all workers together.
        worker: whose share it is.
        read: how the module is called.
        drop: chance that a token is forgotten by those after it.
    """

    lines: Lines
    mass: Tensor
    batch: int
    worker: Worker
    read: Reading
    drop: float = 0.0

    def __call__(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over the learned tokens of the rows rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        rows = self._drawn(-(-self.batch // world) * world, generator)
        tokens, learned = self.lines.rows(rows)
        keep = torch.rand(tokens.shape, generator=generator) >= self.drop
        own = slice(rank, None, world)
        costs = self._costs(module, tokens[own], learned[own], keep[own] if self.drop else None)
        # A mean over all workers' tokens and not over each one's own, whose texts may be shorter.
        return costs.sum() * world / max(int(learned.sum()), 1)

    @torch.no_grad()
    def score(self, module: nn.Module, count: int, seed: int) -> float:
        """Mean cost of a learned token over `count` rows, the same at every check."""
        rows = self._drawn(count, torch.Generator().manual_seed(seed))
        total, learned = 0.0, 0
        for first in range(0, count, self.batch):
            tokens, mine = self.lines.rows(rows[first : first + self.batch])
            total += float(self._costs(module, tokens, mine, None).sum())
            learned += int(mine.sum())
        return total / max(learned, 1)

    def _drawn(self, count: int, generator: torch.Generator) -> np.ndarray:
        return np.asarray(torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1).numpy())

    def _costs(self, module: nn.Module, tokens: np.ndarray, learned: np.ndarray, keep: Tensor | None) -> Tensor:
        device = next(module.parameters()).device
        told, counted = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (tokens, learned))
        odds = self.read(module, told[:, :-1], None if keep is None else keep[:, :-1].to(device))
        costs = functional.cross_entropy(odds.float().flatten(0, 1), told[:, 1:].flatten(), reduction="none")
        return costs * counted[:, 1:].flatten()

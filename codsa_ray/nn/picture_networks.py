"""Picture networks: a denoiser of pictures that is told region and columns, around a model of diffusers; knows no loss.

Shapes: n pictures, F factors (the last one is the region itself), D dimensions of the columns beside the picture, W of a condition.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Condition(nn.Module):
    """Region and columns as one vector: a sum of embeddings, so that a rare region leans on its factors."""

    first: Tensor

    def __init__(self, levels: tuple[int, ...], columns: int, width: int, apart: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("first", torch.tensor([0, *levels]).cumsum(0)[:-1], persistent=False)
        self.table = nn.Embedding(sum(levels), width)
        self.beside = nn.Parameter(torch.zeros(columns, width))
        nn.init.zeros_(self.table.weight)
        # Apart at first, so that classes are told apart from the start (digits, 300 steps: 99 % of drawn pictures are of their class, 90 %
        # from nothing); a region's own vector is nothing at first where factors are told beside it.
        nn.init.normal_(self.table.weight[: sum(levels[:-1]) or None], std=apart)

    def forward(self, factors: Tensor, keep: Tensor, columns: Tensor) -> Tensor:
        """(n, W) from factors (n, F) int64, keep (n, F), 0 where a factor is not told, and columns (n, D), 0 where they are not."""
        weight = self.table.weight
        told = (self.table(factors + self.first) * keep[..., None].to(weight.dtype)).sum(1)
        return told + columns.to(weight.dtype) @ self.beside


class Beside(nn.Module):
    """In the place of a base's class embedding: the vector that it is called with, added to what the base took for no class."""

    own: Tensor

    def __init__(self, own: Tensor) -> None:
        super().__init__()
        self.register_buffer("own", own, persistent=False)

    def forward(self, vector: Tensor) -> Tensor:
        """(n, W) from (n, W)."""
        return vector + self.own


class ByVector(nn.Module):
    """A model that adds a condition to its time: UNet2DModel, DiTTransformer2DModel.

    Args:
        model: called with `class_labels` of (n, W).
        condition: makes them.
        patch: pixels of a square that the model sees as one place with as many more channels.
    """

    def __init__(self, model: nn.Module, condition: Condition, patch: int = 1) -> None:
        super().__init__()
        self.model, self.condition, self.patch = model, condition, patch

    def forward(self, noisy: Tensor, time: Tensor, factors: Tensor, keep: Tensor, columns: Tensor) -> Tensor:
        """What the model says, of the shape of noisy (n, C, P, Q); time (n,)."""
        rows = functional.pixel_unshuffle(noisy.to(_dtype(self.model)), self.patch)
        said = self.model(rows, time, class_labels=self.condition(factors, keep, columns), return_dict=False)[0]
        # A model that learned its variances says them after the rest.
        return functional.pixel_shuffle(said[:, : rows.shape[1]], self.patch)


class ByWords(nn.Module):
    """A model that reads tokens: UNet2DConditionModel, SD3Transformer2DModel.

    Args:
        model: called with `encoder_hidden_states`.
        condition: makes a vector that is learned and added to each token: at first the base is told its own reading of the text alone.
        words: (K + 1, L, W) tokens of each region's text, and of no text.
        pooled: (K + 1, V) what some models want beside them, or None.
    """

    words: Tensor
    pooled: Tensor | None

    def __init__(self, model: nn.Module, condition: Condition, words: Tensor, pooled: Tensor | None) -> None:
        super().__init__()
        self.model, self.condition = model, condition
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("pooled", pooled, persistent=False)

    def forward(self, noisy: Tensor, time: Tensor, factors: Tensor, keep: Tensor, columns: Tensor) -> Tensor:
        """What the model says, of the shape of noisy (n, C, P, Q); time (n,)."""
        dtype = _dtype(self.model)
        region = torch.where(keep.amax(1) > 0, factors[:, -1], len(self.words) - 1)
        mine = self.condition(factors, keep, columns)[:, None]
        inputs: dict[str, Any] = {"encoder_hidden_states": (self.words[region] + mine).to(dtype)}
        if self.pooled is not None:
            inputs["pooled_projections"] = self.pooled[region].to(dtype)
        said = self.model(noisy.to(dtype), timestep=time, **inputs, return_dict=False)[0]
        return said[:, : noisy.shape[1]]


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype

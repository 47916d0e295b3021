"""Networks: a residual MLP with additive conditioning; knows no loss and no column.

Shapes: n rows, D latent dimensions, W width, F factors (the last one is their product, the region itself).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FREQUENCIES = 32
"""Sine and cosine pairs that tell the noise level; c_noise = ln(sigma) / 4 spans about -1 to 1."""


class Conditions(nn.Module):
    """Noise level and factors as one vector: a sum of embeddings, so that a rare product leans on its factors."""

    pitch: Tensor
    first: Tensor

    def __init__(self, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("pitch", math.pi * torch.logspace(-2, 3, FREQUENCIES, base=2.0), persistent=False)
        self.register_buffer("first", torch.tensor([0, *levels]).cumsum(0)[:-1], persistent=False)
        self.noise = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.table = nn.Embedding(sum(levels), width)
        # At nothing, so that a region seen a few times is what its factors say and not a random direction.
        nn.init.zeros_(self.table.weight)

    def forward(self, level: Tensor, factors: Tensor, keep: Tensor) -> Tensor:
        """(n, W) from level (n, 1), factors (n, F) int64 and keep (n, F), 0 where a factor is dropped; any n may be 1."""
        angles = level * self.pitch
        waves = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.table.weight.dtype)
        told = self.table(factors + self.first) * keep[..., None].to(self.table.weight.dtype)
        return self.noise(waves) + told.sum(1)


class Block(nn.Module):
    """x + W2 silu(W1 norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, W) from (n, W)."""
        return rows + self.down(functional.silu(self.up(self.norm(rows))))


class ResidualMLP(nn.Module):
    """Noisy rows, noise level and factors to raw output.

    Cost per row: 2 D W + 2 W^2 per block multiplications; a condition shared by the whole batch is computed once and broadcast.

    Args:
        size: D.
        width: W.
        blocks: residual blocks.
        levels: how many levels each of the F factors has.
    """

    def __init__(self, size: int, width: int, blocks: int, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.conditions = Conditions(levels, width)
        self.enter = nn.Linear(size, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, size)
        # F = 0 at the start: the denoiser then begins as the best linear one (Karras et al. 2022, section 5).
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, rows: Tensor, level: Tensor, factors: Tensor, keep: Tensor) -> Tensor:
        """(n, D) float32 from rows (n, D), level (n or 1, 1), factors and keep (n or 1, F)."""
        hidden = self.enter(rows.to(self.enter.weight.dtype)) + self.conditions(level, factors, keep)
        return self.leave(self.norm(self.blocks(hidden))).float()

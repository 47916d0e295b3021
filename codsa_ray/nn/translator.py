"""Translator: a map of rows to rows and what it is trained by, a kernel distance of two samples and a triplet loss; knows no column.

Shapes: n and m rows, D dimensions.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

MARGIN, SPREAD = 1.0, 0.3
"""Of the triplet loss: what is always asked for, and how much of the anchors' mean distance is asked for besides."""
TINY = 1e-6
"""Of a bandwidth, where the two samples stand on one point."""


class Translator(nn.Module):
    """Encoder D -> 2 D -> 4 D -> 8 D -> 16 D -> 32 D and its mirror, each layer of it with what the encoder held there added before GELU.

    Cost per row: 1,400 D^2 multiplications while no layer reaches the bound on width, at most about 8 most^2 + 2 D most beyond.

    Args:
        size: D.
        most: bound on the width of a layer.
    """

    def __init__(self, size: int, most: int) -> None:
        super().__init__()
        widths = [size, *(max(1, min(size * 2**power, most)) for power in range(1, 6))]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b)) for a, b in pairs)
        self.up = nn.ModuleList(nn.Sequential(nn.Linear(b, a), nn.BatchNorm1d(a)) for a, b in reversed(pairs[1:]))
        self.leave = nn.Linear(widths[1], size)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, D) from (n, D)."""
        held = []
        for layer in self.down:
            rows = functional.gelu(layer(rows))
            held.append(rows)
        for layer, before in zip(self.up, reversed(held[:-1]), strict=True):
            rows = functional.gelu(layer(rows) + before)
        return self.leave(rows)


def discrepancy(one: Tensor, other: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of samples (n, D) and (m, D), the biased estimate (Gretton et al. 2012, equation 5).

    The kernel is exp(-d^2 / 2 h^2) with h the median distance across the two, a constant to the gradient.
    """
    across = squares(one, other)
    scale = 2 * across.detach().sqrt().median().clamp(min=TINY).square()
    return kernel(squares(one, one), scale) + kernel(squares(other, other), scale) - 2 * kernel(across, scale)


def kernel(squared: Tensor, scale: Tensor) -> Tensor:
    """Mean of exp(-d^2 / scale) over (n, m) squared distances."""
    return (-squared / scale).exp().mean()


def squares(one: Tensor, other: Tensor) -> Tensor:
    """(n, m) squared distances, with a finite gradient where two rows are the same."""
    norms = one.square().sum(1)[:, None] + other.square().sum(1)[None]
    return (norms - 2 * one @ other.T).clamp(min=0)


def triplet(image: Tensor, towards: Tensor, away: Tensor) -> Tensor:
    """Mean over image (n, D) of what it lacks to be nearer to some row of `towards` than to all of `away`, by a margin.

    Args:
        image: mapped rows.
        towards: (a, D), a >= 1, rows at the border of the region.
        away: (b, D), b >= 1, rows far from it.
    """
    apart = torch.pdist(towards).mean() if len(towards) > 1 else towards.new_zeros(())
    near = squares(image, towards).min(dim=1).values
    far = squares(image, away).min(dim=1).values
    return functional.relu((near + TINY).sqrt() - (far + TINY).sqrt() + MARGIN + SPREAD * apart).mean()

"""Picture classifiers: networks of a picture and of columns beside it; know no loss and no class.

Shapes: n rows, pictures (n, C, H, W), D columns, P outputs, W channels at the first grid.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.BatchNorm2d | nn.GroupNorm]

LAST = 8
"""The last grid has at most that many places a side."""
LARGE = 20
"""Longer sides are halved by the first layer: most of the cost is at the first grid."""


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016), each normed: over the batch (Ioffe & Szegedy 2015) unless another norm is given.

    Of classifiers on few rows those normed over groups, or not at all, were right less often.
    """

    def __init__(self, entering: int, leaving: int, stride: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(entering, leaving, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(leaving, leaving, 3, 1, 1, bias=False)
        self.before, self.after = norm(leaving), norm(leaving)
        same = entering == leaving and stride == 1
        self.short: nn.Module = nn.Identity() if same else nn.Conv2d(entering, leaving, 1, stride, bias=False)
        # At nothing: at first the block is its shortcut (Goyal et al. 2017).
        nn.init.zeros_(self.after.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, leaving, H / stride, W / stride)."""
        inner = functional.relu(self.before(self.first(pictures)))
        return functional.relu(self.short(pictures) + self.after(self.second(inner)))


class SmallTrunk(nn.Module):
    """A residual network for small pictures; gives the mean over the last grid.

    Args:
        channels: C.
        side: the longer of H and W.
        width: W; doubled at each halving.
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        stride = 2 if side > LARGE else 1
        grid, parts = -(-side // stride), []
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        parts.append(Residual(width, width, 1))
        while grid > LAST // 2:
            parts.append(Residual(width, 2 * width, 2))
            grid, width = -(-grid // 2), 2 * width
        self.blocks, self.width = nn.Sequential(*parts), width

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, width) from (n, C, H, W)."""
        return self.blocks(self.enter(pictures)).mean((2, 3))


class BaseTrunk(nn.Module):
    """A vision model of transformers; gives the mean of what it says last, over places or tokens."""

    def __init__(self, model: Any, width: int) -> None:
        super().__init__()
        self.model, self.width = model, width

    def train(self, mode: bool = True) -> Self:
        """Stays as it scores: its norms keep their statistics, and it drops nothing."""
        return super().train(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, width) from (n, 3, side, side)."""
        said = self.model(pixel_values=pictures).last_hidden_state
        return said.mean((2, 3)) if said.ndim == 4 else said.mean(1)


class PictureClassifier(nn.Module):
    """Scores of a picture, of columns, or of both.

    Args:
        trunk: of pictures; None where rows have columns alone.
        columns: D.
        hidden: units that pictures and columns meet in, where there are columns.
        start: (P,) scores at first, whatever the row: no step is spent on the prior.
        middle, spread: of pixel values, per channel.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, trunk: Any, columns: int, hidden: int, start: Tensor, middle: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.trunk, self.columns = trunk, columns
        entering = (trunk.width if trunk is not None else 0) + columns
        self.meet = nn.Linear(entering, hidden) if columns else None
        self.features = hidden if columns else entering
        self.leave = nn.Linear(self.features, len(start))
        nn.init.zeros_(self.leave.weight)
        self.leave.bias.data.copy_(start)
        self.register_buffer("middle", middle.float().view(1, -1, 1, 1))
        self.register_buffer("spread", spread.float().view(1, -1, 1, 1))

    def forward(self, pictures: Tensor | None, columns: Tensor, keep: Tensor | None = None) -> Tensor:
        """(n, P) from pictures (n, C, H, W) of values 0 to 255, columns (n, D) and dropout's factors (n, features)."""
        found = self.told(pictures, columns)
        return self.leave(found if keep is None else found * keep)

    def told(self, pictures: Tensor | None, columns: Tensor) -> Tensor:
        """(n, features) that scores are linear in."""
        parts = [] if self.trunk is None or pictures is None else [self.trunk((pictures - self.middle) / self.spread)]
        if self.meet is None:
            return parts[0]
        return functional.relu(self.meet(torch.cat([*parts, columns], dim=1)))

"""Augmenting: pictures changed at random in ways that leave their label, or that mix labels as they mix; knows no network and no label.

Shapes: n pictures (n, C, H, W). Each function's randomness is its generator.
"""

import torch
from torch import Tensor
from torch.nn import functional

NONE, SHIFT, FLIP = "none", "shift", "flip"
KINDS = (NONE, SHIFT, FLIP)
REACH = 8
"""A picture is moved by a side / REACH at most."""


def augmented(pictures: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Moved (SHIFT), moved and mirrored (FLIP), or as they are (NONE)."""
    if kind == NONE:
        return pictures
    moved = shifted(pictures, generator)
    return mirrored(moved, generator) if kind == FLIP else moved


def shifted(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each moved by whole pixels, down and right, edges repeated."""
    many, _, height, width = pictures.shape
    down, right = max(1, height // REACH), max(1, width // REACH)
    wide = functional.pad(pictures, (right, right, down, down), mode="replicate")
    top, left = (torch.randint(0, 2 * reach + 1, (many, 1), generator=generator) for reach in (down, right))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    picked = torch.arange(many)[:, None, None]
    return wide.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirrored(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each left for right with chance one half."""
    turned = torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5
    return torch.where(turned.to(pictures.device), pictures.flip(3), pictures)


def turned(pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each turned by quarters (by halves where it is no square), and (n,) int64 by how many: what a network can learn without labels."""
    ways = 4 if pictures.shape[2] == pictures.shape[3] else 2
    way = torch.randint(0, ways, (len(pictures),), generator=generator)
    views = torch.stack([torch.rot90(pictures, k * (4 // ways), (2, 3)) for k in range(ways)])
    return views[way.to(pictures.device), torch.arange(len(pictures), device=pictures.device)], way


def shares(many: int, alpha: float, generator: torch.Generator) -> Tensor:
    """(n,) float32 shares of mixup, Beta(alpha, alpha) and at least one half, so that a row is the one that it is mostly."""
    # A ratio of gammas, by Marsaglia's and Tsang's way inside torch, which takes a generator.
    gammas = torch._standard_gamma(torch.full((2, many), alpha, dtype=torch.float64), generator=generator)
    total = gammas.sum(0)
    share = gammas[0] / total
    return torch.maximum(share, 1 - share).float()

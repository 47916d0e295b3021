"""Schedules: noise levels and learning rates as functions of a step; knows no network."""

import math

import torch
from torch import Tensor


def karras(steps: int, low: float, high: float, rho: float = 7.0) -> Tensor:
    """Noise levels to sample at, from `high` down to `low` and then 0 (Karras et al. 2022, eq. 5).

    Args:
        steps: levels above 0, which is the number of network evaluations of a multistep solver.
        low, high: smallest and largest level above 0.
        rho: how strongly the levels crowd towards `low`.

    Returns:
        (steps + 1,) float64, decreasing.
    """
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def log_normal(places: Tensor, mean: float, spread: float) -> Tensor:
    """Noise levels to train at: ln sigma ~ N(mean, spread^2) (Karras et al. 2022, table 1), at the given quantiles.

    Args:
        places: (n,) in (0, 1); evenly spaced or stratified places cover the distribution with less noise than independent ones.
        mean, spread: of ln sigma.

    Returns:
        (n,) float32.
    """
    inside = places.double().clamp(1e-6, 1 - 1e-6)
    return torch.exp(mean + spread * torch.special.ndtri(inside)).float()


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """(count,) float64 in [0, 1), increasing, one uniform in each of `count` equal strata."""
    return (torch.arange(count, dtype=torch.float64) + torch.rand(count, dtype=torch.float64, generator=generator)) / count


def cosine(step: int, steps: int, warmup: int) -> float:
    """Share of the full learning rate at `step`: linear over `warmup` steps, then half a cosine down to 0 at `steps`."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    return rise * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(steps, 1))))

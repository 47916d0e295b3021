"""Solvers of the probability-flow ODE dx/dsigma = (x - D(x, sigma)) / sigma; knows no network and no schedule.

Each takes a denoiser, rows of noise of level sigmas[0], and decreasing levels that may end at 0; each gives the rows at the last level.
The starting noise is the only randomness, and it is an argument.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from codsa_ray.nn.precondition import Denoiser


def start(denoise: Denoiser, noise: Tensor, sigma: float) -> Tensor:
    """Rows of level sigma to solve from: unit noise (n, D) scaled, around the mean that the denoiser gives (one row evaluated).

    The usual start around 0 loses mean * spread / sigma, which a narrow region far from 0 feels unless sigma is in the tens; around its
    own mean a tenth of that range is enough, and the evaluations go where the rows are decided.
    """
    return torch.addcmul(denoise(torch.zeros_like(noise[:1]), noise.new_tensor([sigma])), noise, noise.new_tensor(sigma))


def dpm_2m(denoise: Denoiser, rows: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): order 2, one evaluation a step; the first step and one to 0 are of order 1.

    Args:
        denoise: expected clean rows at a noise level.
        rows: (n, D) at level sigmas[0].
        sigmas: (S + 1,) float64, decreasing.

    Returns:
        (n, D) at level sigmas[S], after S evaluations.
    """
    levels = sigmas.tolist()
    before, last = None, 0.0
    for now, then in pairwise(levels):
        clean = denoise(rows, rows.new_tensor([now]))
        if then == 0.0:
            return clean
        width = math.log(now / then)
        # Data prediction in half-log-SNR time: the linear part is solved exactly, D is extrapolated to the middle of the step.
        middle = clean if before is None else torch.lerp(before, clean, 1 + width / (2 * last))
        rows = torch.lerp(middle, rows, then / now)
        before, last = clean, width
    return rows


def heun(denoise: Denoiser, rows: Tensor, sigmas: Tensor) -> Tensor:
    """Heun's method without churn (Karras et al. 2022, algorithm 1): second order at two evaluations a step, one for a step to 0.

    Args and result as `dpm_2m`. The reference for it: at equal evaluations it is worse below about 25 of them.
    """
    levels = sigmas.tolist()
    for now, then in pairwise(levels):
        slope = (rows - denoise(rows, rows.new_tensor([now]))) / now
        ahead = rows + (then - now) * slope
        if then > 0.0:
            slope = (slope + (ahead - denoise(ahead, rows.new_tensor([then]))) / then) / 2
            ahead = rows + (then - now) * slope
        rows = ahead
    return rows

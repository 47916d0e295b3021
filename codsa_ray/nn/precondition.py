"""Preconditioning: what a network is asked for at each noise level, for rows of numbers and one-hot codes; knows no network.

Numbers follow EDM (Karras et al. 2022, table 1 and eq. 7) with sigma_data = 1, which quantile-normal latents have by construction.
Codes differ: the network gives logits and the denoiser is the expected code, D = softmax(logits) @ codebook, trained by cross-entropy:
the posterior mean of a one-hot code is a softmax. The last bias starts at ln prior, which lowers the held-out loss of short fits (adult,
200 steps, 3 seeds: .43 against .50). Adding the noisy code's own evidence, CODE x / (sigma^2 + 1), to the logits was tried and left out:
at full length it changed nothing on 4 fresh seeds (C2ST of the rare region -.011 +- .009, of the table -.002 +- .006).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from codsa_ray.nn.layout import Layout

CODE = 2.0**0.5
"""Length of a one-hot code: two codes are then 2 apart, as far as two typical draws of a unit normal are (1.4) and a little more."""

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(noisy (n, D), sigma (n,) or (1,)) -> expected clean rows (n, D)."""


@dataclass(frozen=True)
class Scales:
    """The four EDM coefficients at some noise levels, each (n, 1)."""

    skip: Tensor
    out: Tensor
    enter: Tensor
    level: Tensor

    @classmethod
    def at(cls, sigma: Tensor) -> Self:
        """Of sigma (n,), with sigma_data = 1 (Karras et al. 2022, table 1)."""
        sigma = sigma[:, None]
        total = 1 + sigma**2
        return cls(skip=1 / total, out=sigma * total.rsqrt(), enter=total.rsqrt(), level=sigma.log() / 4)


def denoised(raw: Tensor, noisy: Tensor, sigma: Tensor, layout: Layout) -> Tensor:
    """Expected clean rows from the network's raw output.

    Args:
        raw: (n, D) output F(c_in * noisy; c_noise), logits in the code dimensions.
        noisy: (n, D) rows with noise of level sigma.
        sigma: (n,) or (1,).
        layout: of the D dimensions.

    Returns:
        (n, D): c_skip * noisy + c_out * F for numbers, softmax(logits) @ codebook for codes.
    """
    scales, reals = Scales.at(sigma), layout.reals
    numbers = torch.addcmul(scales.skip * noisy[:, :reals], scales.out, raw[:, :reals])
    return torch.cat([numbers, CODE * layout.probabilities(raw)], dim=1)


def losses(raw: Tensor, clean: Tensor, noisy: Tensor, sigma: Tensor, layout: Layout, known: Tensor | None = None) -> Tensor:
    """Each row's training loss: squared error of F for numbers (EDM eq. 8 with its weight) and cross-entropy for codes, per part.

    Args:
        raw, noisy, sigma, layout: as in `denoised`.
        clean: (n, D) rows without noise.
        known: (n, D) 1 where `clean` is known and 0 where it is not, which costs nothing; None: known everywhere.

    Returns:
        (n,) sum over the parts that are known by the number of the layout's parts.
    """
    scales, reals = Scales.at(sigma), layout.reals
    known = torch.ones_like(clean[:1]) if known is None else known
    wanted = (clean[:, :reals] - scales.skip * noisy[:, :reals]) / scales.out
    squares = (raw[:, :reals] - wanted).square() * known[:, :reals]
    told = torch.cat([known[:, :0], *(run[..., 0] for run in layout.codes(known))], dim=1)
    crossed = layout.surprise(raw, clean[:, reals:] / CODE) * told
    return (squares.sum(1) + crossed.sum(1)) / layout.parts


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6) on denoised rows; 1 is the conditional denoiser itself."""
    if scale == 1.0:
        return conditional

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        return torch.lerp(unconditional(noisy, sigma), conditional(noisy, sigma), scale)

    return denoise


def log_priors(clean: Tensor, layout: Layout) -> Tensor:
    """(D,) ln share of each level among (n, D) clean rows, half a row added to each (Jeffreys); 0 for numbers."""
    counts = (clean > 0).float().sum(0) + 0.5
    counts[: layout.reals] = 1.0
    logs = counts.log()
    return torch.cat([logs[: layout.reals], *(run.log_softmax(-1).flatten() for run in layout.codes(logs[None]))])

"""Noising: how clean arrays are mixed with noise, what a network is then asked for, and how one draws by it; knows no network.

Sources: Karras et al. 2022 (EDM), Ho et al. 2020 (the chain of discrete levels), Salimans & Ho 2022 (v), Hang et al. 2023 (min-SNR),
Liu et al. 2023 and Esser et al. 2024 (straight lines, levels from a logistic normal, shift).

A base keeps the noising that it was trained with: only then does it know what it sees. Shapes: n arrays of any trailing shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from codsa_ray.nn.precondition import Scales
from codsa_ray.nn.schedules import karras, log_normal
from codsa_ray.nn.solvers import dpm_2m

Raw = Callable[[Tensor, Tensor], Tensor]
"""(noisy (n, ...), time (n,)) -> what the network says of it."""
PICTURE_MEAN, PICTURE_SPREAD = -0.5, 1.2
"""Of ln sigma in training: EDM's -1.2 and 1.2 for pictures, whose pixels it gives a deviation of .5 where ours have 1."""
SIGMA_LOW, SIGMA_HIGH = 0.02, 80.0
TIME = 250.0
"""What c_noise = ln(sigma) / 4 is multiplied by: networks of diffusers tell times of some hundreds apart."""
EPSILON, VELOCITY, SAMPLE = "epsilon", "v_prediction", "sample"


@dataclass(frozen=True)
class Asked:
    """One training step's question: (n, ...) noisy, (n,) time, (n, ...) what the network should say, (n,) weight of each."""

    noisy: Tensor
    time: Tensor
    wanted: Tensor
    weight: Tensor

    def costs(self, raw: Tensor) -> Tensor:
        """(n,) weighted mean squared error."""
        return self.weight * (raw.float() - self.wanted).square().flatten(1).mean(1)


class Noising(Protocol):
    """A way to mix with noise and back."""

    def asked(self, clean: Tensor, noise: Tensor, places: Tensor) -> Asked:
        """The question about clean and noise (n, ...), at the levels that places (n,) in (0, 1) are quantiles of."""

    def drawn(self, raw: Raw, noise: Tensor, evaluations: int) -> Tensor:
        """(n, ...) clean arrays from unit noise, which is the only randomness."""


@dataclass(frozen=True)
class Edm:
    """Any noise level, preconditioned for arrays of unit variance (EDM); its own weight makes all levels cost alike."""

    def asked(self, clean: Tensor, noise: Tensor, places: Tensor) -> Asked:
        """Levels are log-normal."""
        sigma = log_normal(places, PICTURE_MEAN, PICTURE_SPREAD).to(clean.device)
        scales, wide = Scales.at(sigma), (-1, *[1] * (clean.ndim - 1))
        skip, out, enter = (part.view(wide) for part in (scales.skip, scales.out, scales.enter))
        noisy = clean + sigma.view(wide) * noise
        return Asked(enter * noisy, TIME * scales.level[:, 0], (clean - skip * noisy) / out, torch.ones_like(sigma))

    def drawn(self, raw: Raw, noise: Tensor, evaluations: int) -> Tensor:
        """DPM-Solver++(2M) from around the mean that the network gives (nn/solvers.py says why); one evaluation more than stated."""

        def denoise(rows: Tensor, sigma: Tensor) -> Tensor:
            scales = Scales.at(sigma)
            said = raw(scales.enter * rows, (TIME * scales.level[:, 0]).expand(len(rows)))
            return torch.addcmul(scales.skip * rows, scales.out, said)

        middle = denoise(torch.zeros_like(noise), noise.new_tensor([SIGMA_HIGH]))
        return dpm_2m(denoise, middle + SIGMA_HIGH * noise, karras(evaluations, SIGMA_LOW, SIGMA_HIGH))


@dataclass(frozen=True, eq=False)
class Chain:
    """The discrete levels of a base: x_t = sqrt(a_t) x + sqrt(1 - a_t) noise.

    Args:
        kept: (T,) a_t, decreasing ("alphas_cumprod").
        asks: EPSILON, VELOCITY or SAMPLE: what the network says.
        bound: gamma of min-SNR weighting; infinity leaves the base's own weighting by what it asks.
        scheduler: of diffusers, deterministic, by which one draws.
    """

    kept: Tensor
    asks: str
    bound: float
    scheduler: Any

    def asked(self, clean: Tensor, noise: Tensor, places: Tensor) -> Asked:
        """Levels are even over the chain; weights are min(SNR, bound) in terms of the clean array (Hang et al. 2023, eq. 6)."""
        time = (places * len(self.kept)).long().clamp(max=len(self.kept) - 1)
        kept, wide = self.kept[time].to(clean.device, torch.float32), (-1, *[1] * (clean.ndim - 1))
        signal, rest = kept.sqrt().view(wide), (1 - kept).sqrt().view(wide)
        noisy = signal * clean + rest * noise
        wanted = {EPSILON: noise, VELOCITY: signal * noise - rest * clean, SAMPLE: clean}[self.asks]
        ratio = kept / (1 - kept).clamp(min=1e-8)
        # An error e in the clean array is SNR e of epsilon's and (SNR + 1) e of v's.
        share = {EPSILON: ratio, VELOCITY: ratio + 1, SAMPLE: torch.ones_like(ratio)}[self.asks]
        weight = ratio.clamp(max=self.bound) / share.clamp(min=1e-8) if self.bound != float("inf") else torch.ones_like(ratio)
        return Asked(noisy, time.to(clean.device), wanted, weight)

    def drawn(self, raw: Raw, noise: Tensor, evaluations: int) -> Tensor:
        """By the scheduler."""
        return _scheduled(self.scheduler, raw, noise, evaluations)


@dataclass(frozen=True, eq=False)
class Line:
    """The straight lines of a base: x_s = (1 - s) x + s noise, whose velocity noise - x the network says.

    Args:
        shift: levels move towards noise by it, as the base's do.
        times: what a level of 1 is told as.
        scheduler: of diffusers, deterministic, by which one draws.
    """

    shift: float
    times: int
    scheduler: Any

    def asked(self, clean: Tensor, noise: Tensor, places: Tensor) -> Asked:
        """Levels are logistic normal (Esser et al. 2024, eq. 19), then shifted."""
        even = torch.sigmoid(torch.special.ndtri(places.double().clamp(1e-6, 1 - 1e-6))).float().to(clean.device)
        level = self.shift * even / (1 + (self.shift - 1) * even)
        wide = level.view(-1, *[1] * (clean.ndim - 1))
        return Asked(torch.lerp(clean, noise, wide), self.times * level, noise - clean, torch.ones_like(level))

    def drawn(self, raw: Raw, noise: Tensor, evaluations: int) -> Tensor:
        """By the scheduler."""
        return _scheduled(self.scheduler, raw, noise, evaluations)


def _scheduled(scheduler: Any, raw: Raw, noise: Tensor, evaluations: int) -> Tensor:
    scheduler.set_timesteps(evaluations)
    rows = noise * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else noise
    for time in scheduler.timesteps:
        rows = scheduler.step(raw(rows, time.to(rows.device).expand(len(rows))), time, rows).prev_sample
    return rows

"""Noise is put on pictures and taken off as the papers say: a known law is drawn, the clean picture comes back, errors cost min-SNR."""

from typing import Any

import pytest
import torch

from codsa_ray.nn.noising import EPSILON, SAMPLE, VELOCITY, Chain, Edm, Line, Noising
from codsa_ray.nn.precondition import Scales

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning:diffusers.*")


def chain(asks: str, bound: float = 5.0) -> Chain:
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    scheduler: Any = DPMSolverMultistepScheduler(prediction_type=asks)
    kept: Any = DDPMScheduler()
    return Chain(kept.alphas_cumprod, asks, bound, scheduler)


def line() -> Line:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return Line(1.0, 1000, FlowMatchEulerDiscreteScheduler(shift=1.0))


NOISINGS: dict[str, Noising] = {"edm": Edm(), "line": line(), **{asks: chain(asks) for asks in (EPSILON, VELOCITY, SAMPLE)}}


@pytest.mark.parametrize("name", NOISINGS)
def test_a_network_that_knows_a_normal_law_draws_it(name: str) -> None:
    """Pixels ~ N(m, s^2): the best answer is linear in what is seen, and the drawn mean and deviation are m and s."""
    middle, spread, noising = 0.4, 0.6, NOISINGS[name]

    def expected(noisy: torch.Tensor, signal: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        gain = signal * spread**2 / (signal**2 * spread**2 + rest**2)
        return middle + gain * (noisy - signal * middle)

    def raw(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        wide = time.view(-1, 1, 1, 1).double()
        if isinstance(noising, Edm):
            sigma = torch.exp(wide / 62.5)
            scales = Scales.at(sigma.flatten())
            skip, out, enter = (part.view(-1, 1, 1, 1) for part in (scales.skip, scales.out, scales.enter))
            seen = noisy / enter
            return ((expected(seen, torch.ones_like(sigma), sigma) - skip * seen) / out).float()
        if isinstance(noising, Line):
            level = wide / 1000
            clean = expected(noisy, 1 - level, level)
            return ((noisy - clean) / level.clamp(min=1e-6)).float()
        kept = noising.kept[time.long()].view(-1, 1, 1, 1).double()  # type: ignore[attr-defined]
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        clean = expected(noisy, signal, rest)
        noise = (noisy - signal * clean) / rest
        return {EPSILON: noise, VELOCITY: signal * noise - rest * clean, SAMPLE: clean}[name].float()

    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = noising.drawn(raw, noise, 40)
    assert float(drawn.mean()) == pytest.approx(middle, abs=0.03)
    assert float(drawn.std()) == pytest.approx(spread, abs=0.05)


@pytest.mark.parametrize("name", NOISINGS)
def test_what_is_asked_for_gives_the_clean_picture_back(name: str) -> None:
    generator, noising = torch.Generator().manual_seed(1), NOISINGS[name]
    clean, noise = torch.randn(2, 16, 1, 4, 4, generator=generator)
    asked = noising.asked(clean, noise, torch.linspace(0.02, 0.9, 16))
    wide = asked.time.view(-1, 1, 1, 1)
    if isinstance(noising, Edm):
        scales = Scales.at(torch.exp(wide.flatten() / 62.5))
        skip, out, enter = (part.view(-1, 1, 1, 1) for part in (scales.skip, scales.out, scales.enter))
        found = skip * (asked.noisy / enter) + out * asked.wanted
    elif isinstance(noising, Line):
        found = asked.noisy - wide / 1000 * asked.wanted
    else:
        kept = noising.kept[asked.time].view(-1, 1, 1, 1)  # type: ignore[attr-defined]
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        found = {
            EPSILON: (asked.noisy - rest * asked.wanted) / signal,
            VELOCITY: signal * asked.noisy - rest * asked.wanted,
            SAMPLE: asked.wanted,
        }[name]
    assert torch.allclose(found, clean, atol=1e-3)


@pytest.mark.parametrize("asks", [EPSILON, VELOCITY, SAMPLE])
def test_an_error_of_the_picture_costs_min_snr_whatever_is_predicted(asks: str) -> None:
    """Hang et al. 2023, eq. 6: an error e in the clean picture costs min(SNR, 5) e^2."""
    noising = chain(asks)
    clean, noise = torch.randn(2, 12, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    asked = noising.asked(clean, noise, torch.linspace(0.05, 0.95, 12))
    kept = noising.kept[asked.time].view(-1, 1, 1, 1)
    error = 0.1
    # What a network says that sees the same and believes in a clean picture off by `error`.
    moved = {EPSILON: -(kept / (1 - kept)).sqrt() * error, VELOCITY: -error / (1 - kept).sqrt(), SAMPLE: torch.full_like(kept, error)}[asks]
    snr = (kept / (1 - kept)).flatten()
    assert torch.allclose(asked.costs(asked.wanted + moved), snr.clamp(max=5.0) * error**2, rtol=1e-3)

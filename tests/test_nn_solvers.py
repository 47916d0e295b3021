"""Schedules, preconditioning and solvers against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from codsa_ray.nn.layout import Layout
from codsa_ray.nn.precondition import CODE, Scales, denoised, guided, log_priors, losses
from codsa_ray.nn.schedules import cosine, karras, log_normal, stratified
from codsa_ray.nn.solvers import dpm_2m, heun, start

MEAN, SPREAD = 0.7, 0.5


def gaussian(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(MEAN, SPREAD^2)."""
    sigma = sigma[:, None]
    return (SPREAD**2 * noisy + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def exact(rows: Tensor, start: float, end: float) -> Tensor:
    """The probability-flow ODE of N(MEAN, SPREAD^2) solved by hand."""
    return MEAN + (rows - MEAN) * math.sqrt((SPREAD**2 + end**2) / (SPREAD**2 + start**2))


def error(solver: object, steps: int) -> float:
    sigmas = karras(steps, 0.05, 10.0)[:-1]
    rows = torch.linspace(-20, 20, 9, dtype=torch.float64)[:, None]
    return float((solver(gaussian, rows, sigmas) - exact(rows, 10.0, 0.05)).abs().max())  # type: ignore[operator]


@pytest.mark.parametrize("solver", [dpm_2m, heun])
def test_solvers_converge_at_second_order(solver: object) -> None:
    order = math.log2(error(solver, 129) / error(solver, 257))
    assert order == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("solver", [dpm_2m, heun])
def test_with_the_exact_denoiser_of_one_point_every_draw_is_that_point(solver: object) -> None:
    rows = solver(lambda noisy, sigma: torch.full_like(noisy, 3.0), 30 * torch.randn(5, 2), karras(10, 0.02, 30.0))  # type: ignore[operator]
    assert torch.allclose(rows, torch.full_like(rows, 3.0), atol=1e-4)


def test_ten_evaluations_draw_a_gaussian_with_its_mean_and_spread() -> None:
    noise = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    rows = dpm_2m(gaussian, start(gaussian, noise, 10.0), karras(10, 0.05, 10.0))
    assert float(rows.mean()) == pytest.approx(MEAN, abs=0.005)
    assert float(rows.std()) == pytest.approx(SPREAD, rel=0.05)


def test_a_solver_evaluates_the_denoiser_as_often_as_the_schedule_says() -> None:
    seen: list[float] = []

    def counting(noisy: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma))
        return gaussian(noisy, sigma)

    dpm_2m(counting, torch.zeros(1, 1), karras(10, 0.02, 30.0))
    assert len(seen) == 10
    assert (seen[0], seen[-1]) == pytest.approx((30.0, 0.02))


def test_zero_network_output_is_the_exact_denoiser_of_a_unit_normal() -> None:
    noisy, sigma = torch.randn(64, 3), torch.rand(64) * 5 + 0.01
    clean = denoised(torch.zeros(64, 3), noisy, sigma, Layout(3))
    assert torch.allclose(clean, noisy / (1 + sigma[:, None] ** 2), atol=1e-6)


def test_a_perfect_network_gives_the_code_itself_and_no_loss() -> None:
    layout, clean = Layout(0, ((2, 3),)), CODE * torch.eye(3)[[0, 2]].flatten()[None]
    raw, sigma = 50 * clean, torch.tensor([1.0])
    assert torch.allclose(denoised(raw, clean, sigma, layout), clean, atol=1e-5)
    assert float(losses(raw, clean, clean, sigma, layout)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("largest", [1.0, 50.0, 500.0])
@pytest.mark.parametrize("runs", [((1, 2),), ((3, 2), (1, 7), (2, 40)), ((60, 9),)])
def test_all_codes_at_once_have_each_code_s_own_softmax(runs: tuple[tuple[int, int], ...], largest: float) -> None:
    layout = Layout(2, runs)
    raw = largest * (2 * torch.rand(50, layout.width, generator=torch.Generator().manual_seed(0)) - 1)
    each = torch.cat([run.softmax(-1).flatten(1) for run in layout.codes(raw)], dim=1)
    assert torch.allclose(layout.probabilities(raw), each, rtol=1e-4, atol=1e-7)
    assert layout.probabilities(raw[:0]).shape == (0, layout.width - 2)


def test_a_layout_without_codes_has_no_probabilities() -> None:
    assert Layout(3).probabilities(torch.zeros(4, 3)).shape == (4, 0)


def test_preconditioned_input_has_unit_variance_at_every_level() -> None:
    generator = torch.Generator().manual_seed(0)
    for sigma in (0.02, 0.5, 30.0):
        noisy = torch.randn(100_000, 1, generator=generator) + sigma * torch.randn(100_000, 1, generator=generator)
        assert float((Scales.at(torch.tensor([sigma])).enter * noisy).std()) == pytest.approx(1.0, abs=0.02)


def test_the_loss_of_numbers_is_edm_s_weighted_error_of_the_denoiser() -> None:
    raw, clean, noisy, sigma = torch.randn(8, 4), torch.randn(8, 4), torch.randn(8, 4), torch.rand(8) + 0.1
    weight = (1 + sigma**2) / sigma**2
    wanted = weight * (denoised(raw, noisy, sigma, Layout(4)) - clean).square().mean(1)
    assert torch.allclose(losses(raw, clean, noisy, sigma, Layout(4)), wanted, rtol=1e-4)


def test_guidance_of_one_is_the_conditional_denoiser_and_two_goes_as_far_again() -> None:
    def one(noisy: Tensor, sigma: Tensor) -> Tensor:
        return noisy + 1

    def none(noisy: Tensor, sigma: Tensor) -> Tensor:
        return noisy

    assert guided(one, none, 1.0) is one
    assert torch.equal(guided(one, none, 2.0)(torch.zeros(1, 1), torch.ones(1)), torch.full((1, 1), 2.0))


def test_karras_levels_fall_from_high_to_low_and_end_at_zero() -> None:
    levels = karras(10, 0.02, 30.0)
    assert len(levels) == 11
    assert levels[[0, -2, -1]].tolist() == pytest.approx([30.0, 0.02, 0.0])
    assert bool((levels.diff() < 0).all())


def test_stratified_levels_follow_the_log_normal() -> None:
    logs = log_normal(stratified(4096, torch.Generator().manual_seed(0)), -0.8, 1.4).log()
    assert float(logs.mean()) == pytest.approx(-0.8, abs=0.005)
    assert float(logs.std()) == pytest.approx(1.4, abs=0.01)


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    rates = [cosine(step, 1000, 50) for step in range(1001)]
    assert rates[0] == pytest.approx(1 / 50, rel=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_codes_of_equal_levels_share_a_run_and_keep_their_order() -> None:
    layout = Layout(1, ((2, 2), (1, 3)))
    rows = torch.arange(8.0)[None]
    assert (layout.width, layout.parts) == (8, 4)
    assert [run.tolist() for run in layout.codes(rows)] == [[[[1, 2], [3, 4]]], [[[5, 6, 7]]]]


def test_log_priors_are_level_shares() -> None:
    clean = torch.zeros(100, 3)
    clean[:, 0] = torch.randn(100)
    clean[:25, 1], clean[25:, 2] = CODE, CODE
    assert log_priors(clean, Layout(1, ((1, 2),))).exp().tolist() == pytest.approx([1.0, 25.5 / 101, 75.5 / 101])

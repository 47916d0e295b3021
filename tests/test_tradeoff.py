"""The three terms of CoDSA's trade-off in closed form, and that the report's refits mean what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp

from codsa_ray.audit.groupwise import groupwise
from codsa_ray.audit.tradeoff import fit_variance, generation_bias, magnitude, mismatch
from codsa_ray.risk import estimate

HALF = np.array([0.5, 0.5])
logits = arrays(np.float64, (3, 5, 4), elements=st.floats(-8, 8))


# --- mismatch


def test_mismatch_is_the_divergence_of_the_mix_from_the_training_shares() -> None:
    assert mismatch(np.array([30.0, 30.0]), HALF) == pytest.approx(0.0)
    assert mismatch(np.array([90.0, 10.0]), HALF) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert mismatch(np.array([90.0, 10.0]), np.array([0.9, 0.1])) == pytest.approx(0.0)
    assert mismatch(np.array([5.0, 0.0]), np.array([1.0, 0.0])) == pytest.approx(0.0)
    assert mismatch(np.array([5.0, 0.0]), HALF) == float("inf")


@given(arrays(np.float64, (3, 6), elements=st.floats(0.01, 1)), arrays(np.float64, 3, elements=st.floats(0.05, 1)))
def test_an_uncorrected_model_loses_no_more_than_the_mismatch(rows: np.ndarray, weight: np.ndarray) -> None:
    """Each group is a label with its own law of x on six points; the best model of one mix is judged on another."""
    law, mix = rows / rows.sum(axis=1, keepdims=True), np.array([0.2, 0.5, 0.3])

    def posterior(shares: np.ndarray) -> np.ndarray:
        joint = law * shares[:, None]
        return np.asarray(joint / joint.sum(axis=0))

    joint = law * mix[:, None]
    loss = np.sum(joint * (np.log(posterior(mix)) - np.log(posterior(weight / weight.sum()))))
    assert -1e-12 <= loss <= mismatch(weight, mix) + 1e-12


# --- variance of the fit


@given(logits)
def test_the_variance_is_what_single_fits_lose_against_their_average_whatever_the_truth(scores: np.ndarray) -> None:
    scores = log_softmax(scores, axis=2)
    pooled = scores.mean(axis=0) - logsumexp(scores.mean(axis=0), axis=1, keepdims=True)
    for label in range(4):
        gap = -scores[:, :, label].mean(axis=0) + pooled[:, label]
        assert fit_variance(scores, "classification") * 2 / 3 == pytest.approx(gap, abs=1e-9)


def test_two_labels_have_the_variance_of_their_log_odds() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(1.0, 0.1, (2, 40_000))
    found = fit_variance(odds, "anomaly")
    p = 1 / (1 + np.exp(-1.0))
    assert found.mean() == pytest.approx(0.1**2 * p * (1 - p) / 2, rel=0.03)
    both = np.stack([np.zeros_like(odds), odds], axis=2)
    assert fit_variance(both, "classification") == pytest.approx(found)


@pytest.mark.parametrize("fits", [2, 5])
def test_few_fits_show_the_whole_variance(fits: int) -> None:
    rng = np.random.default_rng(fits)
    assert fit_variance(rng.normal(3.0, 2.0, (fits, 40_000)), "regression").mean() == pytest.approx(4.0, rel=0.03)
    noisy = log_softmax(0.2 * rng.standard_normal((fits, 40_000, 3)), axis=2)
    # To second order half the variance of logits, less that of their mean: (1/2) .04 (3 - 1) / 3.
    assert fit_variance(noisy, "classification").mean() == pytest.approx(0.5 * 0.04 * 2 / 3, rel=0.05)


def test_equal_fits_do_not_vary() -> None:
    scores = np.random.default_rng(1).standard_normal((1, 50, 3)).repeat(4, axis=0)
    assert fit_variance(scores, "classification") == pytest.approx(np.zeros(50), abs=1e-12)
    assert fit_variance(scores[:, :, 0], "regression") == pytest.approx(np.zeros(50))


# --- bias of the generator


def test_the_size_of_a_difference_has_its_noise_taken_off() -> None:
    rng = np.random.default_rng(2)
    for truth in (0.0, 0.5, 2.0):
        shift = rng.normal(truth, 0.3, 200_000)
        square = np.square(shift) - 0.3**2
        assert square.mean() == pytest.approx(truth**2, abs=0.01)
        assert np.allclose(magnitude(shift, np.full(200_000, 0.3)), np.sqrt(np.maximum(square, 0)))
    assert np.isnan(magnitude(np.array([np.nan]), np.array([1.0]))).all()


def test_rows_of_the_group_itself_have_no_bias_and_moved_ones_the_closed_form() -> None:
    """Squared loss of a constant model t: rows moved by d cost d^2 + 2 d (mean - t) more."""
    rng = np.random.default_rng(3)
    model, moved = 0.4, 0.7

    def off(rows: np.ndarray, held: np.ndarray) -> float:
        parts = [groupwise(np.square(x - model), np.zeros(len(x), dtype=int), None, 1) for x in (rows, held)]
        return float(magnitude(parts[0][0] - parts[1][0], np.hypot(parts[0][1], parts[1][1]))[0])

    held = rng.normal(1.0, 1.0, 20_000)
    assert off(rng.normal(1.0, 1.0, 20_000), held) < 0.05
    assert off(rng.normal(1.0 + moved, 1.0, 20_000), held) == pytest.approx(moved**2 + 2 * moved * (1.0 - model), rel=0.05)


def test_the_bias_grows_with_the_synthetic_share_of_each_group() -> None:
    sizes = np.array([0.3, np.nan])
    assert generation_bias(np.array([0.0, 0.0]), np.array([10.0, 90.0]), HALF, sizes) == 0.0
    assert generation_bias(np.array([80.0, 0.0]), np.array([90.0, 90.0]), HALF, sizes) == pytest.approx(0.5 * 80 / 90 * 0.3)
    assert generation_bias(np.array([5.0, 5.0]), np.array([5.0, 5.0]), HALF, np.array([0.3, 0.1])) == pytest.approx(0.2)
    assert generation_bias(np.array([0.0, 0.0]), np.array([0.0, 9.0]), HALF, np.array([0.3, 0.1])) == 0.0


# --- group by group


def test_group_means_mixed_are_the_balanced_estimate() -> None:
    rng = np.random.default_rng(4)
    group, unit, mix = rng.choice(3, 300), rng.choice(400, 300), np.array([0.2, 0.3, 0.5])
    losses = rng.gamma(1.0, 1.0 + group)
    for ids in (None, np.arange(300), unit * 3 + group):
        mean, se = groupwise(losses, group, ids, 3)
        whole = estimate(losses, group, mix, ids)
        assert mix @ mean == pytest.approx(whole.mean[0])
        assert np.sqrt(np.square(mix) @ np.square(se)) == pytest.approx(whole.se[0])


def test_a_group_without_rows_or_of_one_unit_says_so() -> None:
    mean, se = groupwise(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), np.array([7, 7, 8]), 3)
    assert mean[[0, 2]].tolist() == [2.0, 5.0]
    assert np.isnan(mean[1])
    assert np.isnan(se).all()

"""Reliability: a calibrated score lies on the diagonal, weights count, intervals hold what they promise."""

import numpy as np
import pytest
from scipy.stats import binomtest

from codsa_ray.audit.reliability import BINS, curve, error, reliability, wilson


def binary(p: np.ndarray) -> np.ndarray:
    return np.log(np.column_stack([1 - p, p]))


def test_scores_that_come_true_have_almost_no_error_and_doubled_logits_do() -> None:
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 20_000)
    p = 1 / (1 + np.exp(-logit))
    truth = (rng.random(len(p)) < p).astype(np.int64)
    found = reliability(binary(1 / (1 + np.exp(-2 * logit))), binary(p), truth, np.ones(len(p)))
    assert found["ece"]["after"] < 0.01
    assert found["ece"]["before"] > 0.05
    inside = [point["low"] <= point["p"] <= point["high"] for point in found["after"]]
    assert sum(inside) >= BINS - 1


def test_bins_hold_equal_weight_and_all_of_it() -> None:
    rng = np.random.default_rng(1)
    p, weight = rng.random(5_000), rng.exponential(size=5_000)
    points = curve(binary(p), (rng.random(5_000) < p).astype(np.int64), weight)
    assert len(points) == BINS
    assert np.isclose(sum(point["mass"] for point in points), 1)
    assert max(abs(point["mass"] - 1 / BINS) for point in points) < 0.01
    assert sum(point["n"] for point in points) == 5_000
    assert [point["p"] for point in points] == sorted(point["p"] for point in points)


def test_a_weight_of_two_is_a_row_twice() -> None:
    rng = np.random.default_rng(2)
    p, truth = rng.random(400), rng.integers(0, 2, 400)
    weight = rng.integers(1, 4, 400)
    once, often = (
        curve(binary(p), truth, weight.astype(float)),
        curve(binary(p.repeat(weight)), truth.repeat(weight), np.ones(weight.sum())),
    )
    for a, b in zip(once, often, strict=True):
        assert a["p"] == pytest.approx(b["p"])
        assert a["y"] == pytest.approx(b["y"])


def test_equal_predictions_stay_in_one_bin() -> None:
    truth = np.array([0, 1, 1, 1] * 50)
    points = curve(binary(np.full(200, 0.7)), truth, np.ones(200))
    assert len(points) == 1
    assert points[0]["y"] == pytest.approx(0.75)
    assert error(points) == pytest.approx(0.05)


def test_more_classes_are_pooled_one_against_the_rest() -> None:
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    points = curve(np.log(p), np.array([0, 2]), np.ones(2))
    assert [round(point["p"], 3) for point in points] == [0.1, 0.2, 0.3, 0.6, 0.7]
    assert [point["y"] for point in points] == [0, 0, 0, 1, 1]


def test_labels_unseen_in_training_are_left_out() -> None:
    p = np.array([0.2, 0.4, 0.9])
    assert curve(binary(p), np.array([0, 1, -1]), np.ones(3)) == curve(binary(p[:2]), np.array([0, 1]), np.ones(2))


@pytest.mark.parametrize(("hits", "rows"), [(0, 5), (3, 10), (50, 100), (100, 100)])
def test_the_interval_is_wilson_s(hits: int, rows: int) -> None:
    want = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits / rows, rows) == pytest.approx((want.low, want.high), abs=1e-6)


def test_no_row_gives_no_point() -> None:
    assert curve(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), np.zeros(0)) == []
    assert error([]) == 0.0

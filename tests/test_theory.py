"""Asymmetry, generator bias and the synthetic size: against closed forms, formulas written out, and at small scale by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from codsa_ray.errors import CandidateError
from codsa_ray.pilot import LOGISTIC, SQUARED
from codsa_ray.theory import (
    NARROW,
    WIDE,
    asymmetry,
    beyond_offset,
    combined,
    cross_fit,
    quality,
    symmetry,
    tg_candidates,
    theory_size,
)

BARE = replace(SQUARED, intercept=False)
HALVES = replace(SQUARED, intercept=False, targets=(-0.5, 0.5))
Sides = tuple[np.ndarray, np.ndarray]


def apart(n0: int, n1: int, d: int, seed: int, shift: float = 1.0) -> Sides:
    """N(0, I) and N(shift e1, I)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n0, d)), rng.standard_normal((n1, d)) + shift * np.eye(d)[0]


def with_ones(sides: Sides) -> Sides:
    return tuple(np.column_stack([X, np.ones(len(X))]) for X in sides)  # type: ignore[return-value]


def symmetric(n0: int, n1: int, d: int, seed: int) -> Sides:
    """Two skew sides whose squared losses about -1/2 and 1/2 have the same minimiser (VTSS, S8)."""
    rng = np.random.default_rng(seed)
    common, rare = (rng.uniform(-np.sqrt(3), np.sqrt(3), (n, d)) for n in (n0, n1))
    common[:, 0] = 2 * common[:, 0] - 1
    rare[:, 0] += (5 - np.sqrt(21)) / 2
    return common, rare


# The fit


def test_the_logistic_fit_is_the_minimum_of_its_risk() -> None:
    sides, model = with_ones(apart(60, 20, 3, 0)), replace(LOGISTIC, ridge=0.1)
    found = minimize(lambda theta: model.risk(theta, sides, (0.3, 0.7)), np.zeros(4), tol=1e-12)
    assert model.fit(*sides, (0.3, 0.7)) == pytest.approx(found.x, abs=1e-5)
    assert model.fit(*sides, (0.3, 0.7), found.x + 1) == pytest.approx(found.x, abs=1e-5)


def test_the_squared_fit_is_least_squares() -> None:
    common, rare = apart(40, 10, 3, 1)
    y = np.repeat([0.0, 1.0], [40, 10])
    by_hand = np.linalg.lstsq(np.concatenate([common, rare]), y, rcond=None)[0]
    assert replace(BARE, ridge=0.0).fit(common, rare, (0.8, 0.2)) == pytest.approx(by_hand)


def test_the_intercept_goes_without_penalty() -> None:
    sides = with_ones(apart(500, 100, 2, 2, 0.0))
    assert replace(LOGISTIC, ridge=1e6).fit(*sides, (0.8, 0.2)) == pytest.approx([0, 0, np.log(0.25)], abs=1e-4)


def test_separable_sides_have_a_finite_fit() -> None:
    theta = LOGISTIC.fit(*with_ones(apart(30, 30, 2, 3, 20.0)))
    assert np.isfinite(theta).all()


def test_a_singular_pilot_says_so() -> None:
    common, rare = apart(30, 10, 2, 4)
    with pytest.raises(CandidateError, match=r"singular|finite"):
        replace(BARE, ridge=0.0).fit(np.zeros((5, 2)), np.zeros((5, 2)))
    with pytest.raises(CandidateError):
        symmetry(replace(BARE, ridge=1e-300), np.zeros((5, 2)), np.zeros((5, 2)))
    assert np.isfinite(BARE.fit(np.column_stack([common, common]), np.column_stack([rare, rare]))).all()


# Asymmetry


def test_at_the_balanced_fit_the_sides_pull_equally() -> None:
    sides, model = with_ones(apart(80, 20, 2, 5)), replace(LOGISTIC, ridge=0.01)
    theta = model.fit(*sides)
    assert asymmetry(model, *sides) == pytest.approx(2 * model.gradients(theta, sides[0], 0).mean(0), abs=1e-8)


@given(seed=st.integers(0, 10**6), published=st.booleans())
def test_the_symmetry_test_does_not_depend_on_coordinates(seed: int, published: bool) -> None:
    rng = np.random.default_rng(seed)
    model = replace(HALVES, ridge=0.0)
    common, rare = symmetric(60, 20, 3, seed)
    turn = rng.standard_normal((3, 3)) + 3 * np.eye(3)
    plain, turned = (symmetry(model, common @ by, rare @ by, published) for by in (np.eye(3), turn))
    assert turned.statistic == pytest.approx(plain.statistic, rel=1e-5)


def test_the_published_statistic_is_the_papers() -> None:
    common, rare = symmetric(200, 40, 3, 6)
    model = replace(HALVES, ridge=0.0)
    H0, H1 = (2 * X.T @ X / len(X) for X in (common, rare))
    H, G = (H0 + H1) / 2, H0 - H1
    theta = np.linalg.solve(H0 + H1, rare.mean(0) - common.mean(0))
    s0, s1 = 2 * (common @ theta + 0.5)[:, None] * common, 2 * (rare @ theta - 0.5)[:, None] * rare
    A0, A1 = np.eye(3) - G @ np.linalg.inv(H) / 2, -np.eye(3) - G @ np.linalg.inv(H) / 2
    V = A0 @ np.cov(s0.T) @ A0.T / 200 + A1 @ np.cov(s1.T) @ A1.T / 40
    gap = s0.mean(0) - s1.mean(0)
    assert symmetry(model, common, rare, published=True).statistic == pytest.approx(gap @ np.linalg.solve(V, gap))


def test_our_symmetry_test_keeps_its_size_where_the_published_one_does_not() -> None:
    """400 replicates at p / n1 = .2; `make claims` runs 2,000 at six shapes."""
    pairs = [symmetric(250, 50, 10, seed) for seed in range(400)]
    published, ours = (np.mean([symmetry(HALVES, *pair, published=p).p_value <= 0.05 for pair in pairs]) for p in (True, False))
    assert published > 0.2
    assert 0.02 < ours < 0.09


def test_asymmetry_is_found() -> None:
    assert symmetry(BARE, *apart(400, 100, 2, 7)).p_value < 1e-6


def logistic_truth(n: int, d: int, seed: int, bend: float = 0.0) -> Sides:
    """Rows by label of a logistic model with slope 1 on the first feature and `bend` on its square."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = rng.random(n) < 1 / (1 + np.exp(2.5 - X[:, 0] - bend * X[:, 0] ** 2))
    return with_ones((X[~y], X[y]))


def test_a_true_logistic_model_needs_no_more_than_the_offset() -> None:
    found = [beyond_offset(LOGISTIC, *logistic_truth(600, 4, seed)).p_value for seed in range(60)]
    assert np.mean(np.array(found) <= 0.05) <= 0.1
    assert symmetry(LOGISTIC, *logistic_truth(600, 4, 0)).p_value < 0.001


def test_a_bent_truth_needs_more_than_the_offset() -> None:
    assert beyond_offset(LOGISTIC, *logistic_truth(4000, 2, 0, bend=0.6)).p_value < 0.01


# The generator's quality


def halves(sides: Sides, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.permutation(len(sides[0])) % folds, rng.permutation(len(sides[1])) % folds


def judged(n1: int, ratio: int, seed: int, mean: float = 1.0) -> tuple[float, float, float]:
    """(published score, our score, p-value) of a generator of N(mean e1, I)."""
    sides = apart(ratio * n1, n1, 2, seed)
    rng = np.random.default_rng([seed, 1])
    drawn = [rng.standard_normal(((ratio - 1) * n1, 2)) + np.array([mean, 0]) for _ in range(3)]
    found = quality(cross_fit(BARE, *sides, halves(sides, 3, seed)), drawn, rng)
    return found.published, found.score, found.test.p_value


def test_the_published_quality_is_the_papers() -> None:
    sides = apart(60, 20, 2, 8)
    folds, rng = halves(sides, 2, 0), np.random.default_rng(0)
    drawn = [rng.standard_normal((40, 2)) for _ in range(2)]
    bias, bend, s0, s1, ss = [], [], [], [], []
    for k in range(2):
        theta = BARE.fit(sides[0][folds[0] != k], sides[1][folds[1] != k])
        here = [X[f == k] for X, f in zip(sides, folds, strict=True)]
        s0.append(2 * (here[0] @ theta)[:, None] * here[0])
        s1.append(2 * (here[1] @ theta - 1)[:, None] * here[1])
        ss.append(2 * (drawn[k] @ theta - 1)[:, None] * drawn[k])
        bias.append(ss[-1].mean(0) - s1[-1].mean(0))
        bend.append(sum(X.T @ X / len(X) for X in here))
    delta, H = np.mean(bias, axis=0), np.mean(bend, axis=0)
    spread = [np.cov(np.concatenate(s).T) for s in (s0, s1, ss)]
    augmented = spread[0] / 2 + 20 / 120 * spread[1] + 40 / 120 * spread[2]
    score = 40**2 / 120 * delta @ np.linalg.solve(H, delta) / np.trace(np.linalg.solve(H, augmented))
    found = quality(cross_fit(BARE, *sides, folds), drawn, rng)
    assert found.published == pytest.approx(score, rel=1e-4)
    assert found.bias == pytest.approx(delta, rel=1e-4)


def test_a_perfect_generator_is_seldom_called_biased() -> None:
    """200 replicates at n0 = 20 n1; `make claims` runs 2,000 at five ratios."""
    published, score, p = np.array([judged(50, 20, seed) for seed in range(200)]).T
    assert np.mean(published > 10) > 0.3
    assert np.mean(p <= 0.05) <= 0.08
    assert abs(score.mean()) < 3 * score.std() / np.sqrt(200)


def test_a_biased_generator_is_found_with_few_and_many_held_out_rows() -> None:
    assert judged(400, 5, 0, mean=0.4)[2] < 0.05
    assert judged(1500, 3, 0, mean=0.4)[2] < 1e-6


def test_folds_that_hold_out_one_side_alone_are_left_out() -> None:
    sides = apart(40, 10, 2, 9)
    fold = np.arange(40) % 4, np.array([0, 0, 0, 1, 1, 1, 1, 2, -1, -1])
    fits = cross_fit(BARE, *sides, fold)
    assert fits.held == (0, 1, 2)
    assert len(fits.scores) == 8
    with pytest.raises(CandidateError, match="no fold"):
        cross_fit(BARE, *sides, (np.full(40, -1), fold[1]))


# The size


def bias_of(mean: float) -> np.ndarray:
    """g_psi of synthetic rows N(mean e1, I) at (1/3, 0), in closed form (VTSS, S1)."""
    return np.array([2 * ((mean**2 + 1) / 3 - mean) + 2 / 3, 0.0])


G_PHI = np.array([4 / 3, 0.0])


def test_the_theory_size_of_the_papers_examples() -> None:
    assert theory_size(G_PHI, bias_of(0.5), 20, 1) == pytest.approx(4 * 19)
    assert theory_size(G_PHI, bias_of(1.0), 20, 1) == pytest.approx(19)
    assert theory_size(G_PHI, bias_of(1 - 1 / np.sqrt(np.log(500))), 2, 1) == pytest.approx(2.28, abs=0.005)
    assert theory_size(G_PHI, bias_of(1 - 1 / np.sqrt(np.log(10))), 20, 1) is None
    assert theory_size(np.zeros(2), bias_of(0.5), 20, 1) == 19


def test_the_estimated_size_is_near_the_true_one() -> None:
    sides = apart(40_000, 20_000, 2, 10)
    drawn = [np.random.default_rng(k).standard_normal((20_000, 2)) + np.array([0.5, 0]) for k in range(2)]
    bias = quality(cross_fit(BARE, *sides, halves(sides, 2, 0)), drawn, np.random.default_rng(0)).bias
    size = theory_size(asymmetry(BARE, *sides), bias, 2, 1)
    assert size == pytest.approx(4, rel=0.15)


def test_several_groups_combine_to_the_papers_size_of_one() -> None:
    one = (G_PHI, bias_of(0.5), 10.0)
    assert combined([one]) == pytest.approx(4)
    assert combined([one, one]) == pytest.approx(4)
    perfect = (G_PHI, np.zeros(2), 30.0)
    both = combined([one, perfect])
    assert both is not None
    assert 1 < both < 4
    assert combined([(G_PHI, G_PHI, 1.0)]) is None


def test_the_published_grid_loses_an_optimum_that_ours_holds() -> None:
    gap = 100
    assert max(tg_candidates(gap, False, True, 400, published=True)) == 200
    assert tg_candidates(gap, True, True, 400, published=True) == (0, 5, 10, 15, 20)
    assert tg_candidates(gap, False, False, None, published=True) == tuple(round(100 * g) for g in NARROW)
    for symmetric_, biased in ((False, True), (False, False), (True, True)):
        assert 400 in tg_candidates(gap, symmetric_, biased, 400, ceiling=400)
    assert set(tg_candidates(gap, False, False, 400, ceiling=400)) >= {round(100 * g) for g in WIDE}


@given(optimum=st.one_of(st.none(), st.floats(0, 1e6)), symmetric_=st.booleans(), biased=st.booleans(), ceiling=st.integers(50, 500))
def test_our_grid_ends_at_the_ceiling(optimum: float | None, symmetric_: bool, biased: bool, ceiling: int) -> None:
    found = tg_candidates(100, symmetric_, biased, optimum, ceiling=ceiling)
    assert list(found) == sorted(set(found))
    assert 0 <= found[0] <= found[-1] <= ceiling
    if optimum is not None:
        assert min(round(optimum), ceiling) in found

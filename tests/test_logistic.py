"""Logistic regression against scikit-learn's and closed forms."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression

import codsa_ray.ridge as ridge
from codsa_ray.errors import CandidateError
from codsa_ray.learners.logistic import Logistic
from codsa_ray.ridge import Objective, newton


def rows(classes, n=300, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    return (rng.normal(size=(n, 4)) + 0.5 * y[:, None] * [1, -1, 0, 2]).astype(np.float32), y, rng.uniform(0.2, 3, n)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("wide", [1500, 0], ids=["whitened", "diagonal"])
def test_coefficients_are_those_of_scikit_learn(classes, penalty, wide, monkeypatch):
    """The same objective has the same minimum: C = 1 / (penalty W), for two classes 2 / (penalty W); by either preconditioner."""
    monkeypatch.setattr(ridge, "WIDE", wide)
    X, y, weight = rows(classes)
    fitted = Logistic(penalty).fit(X, y, weight, classes=classes, seed=0)
    strength = (2 if classes == 2 else 1) / (penalty * weight.sum())
    reference = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(X.astype(np.float64), y, sample_weight=weight)
    ours = fitted.coefficients - fitted.coefficients.mean(axis=1, keepdims=True)
    if classes == 2:
        assert np.allclose(ours[:, 1] - ours[:, 0], reference.coef_[0], atol=1e-4)
        assert np.allclose(np.diff(fitted.intercepts), reference.intercept_, atol=1e-4)
    else:
        assert np.allclose(ours.T, reference.coef_, atol=1e-4)
    assert np.allclose(np.exp(fitted.scores(X)), reference.predict_proba(X.astype(np.float64)), atol=1e-5)


def test_the_gradient_is_the_slope_of_the_objective():
    X, y, weight = rows(3, 40)
    rng = np.random.default_rng(1)
    design = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    objective = Objective(design @ basis, y, weight / weight.sum(), rng.normal(size=(40, 3)), 3, basis, 0.1)
    point = rng.normal(size=15)
    numeric = approx_fprime(point, lambda p: objective(p)[0], 1e-7)
    assert np.allclose(objective(point)[1], numeric, atol=1e-5)


def test_without_a_feature_the_scores_are_the_weighted_shares():
    _, y, weight = rows(3)
    scores = Logistic().fit(np.empty((len(y), 0), np.float32), y, weight, classes=3, seed=0).scores(np.empty((1, 0), np.float32))
    assert np.allclose(np.exp(scores[0]), np.bincount(y, weights=weight) / weight.sum(), atol=1e-6)


def test_an_offset_of_the_truth_leaves_nothing_to_learn():
    """When the offset already is the model, the coefficients vanish."""
    X, y, weight = rows(3)
    plain = Logistic(1e-9).fit(X, y, weight, classes=3, seed=0)
    again = Logistic(1e-9).fit(X, y, weight, classes=3, seed=0, offset=plain.scores(X))
    assert np.abs(again.coefficients).max() < 1e-3


def test_separable_rows_have_finite_coefficients():
    X = np.repeat(np.array([[-1.0], [1.0]], dtype=np.float32), 20, axis=0)
    fitted = Logistic(1e-5).fit(X, np.repeat([0, 1], 20), np.ones(40), classes=2, seed=0)
    assert np.isfinite(fitted.coefficients).all()
    assert np.exp(fitted.scores(X))[:20, 0].min() > 0.99


def test_a_fit_that_did_not_converge_says_so():
    X, y, weight = rows(3)
    with pytest.raises(CandidateError, match="did not converge in 1 steps"):
        Logistic(1e-6, steps=1).fit(X, y, weight, classes=3, seed=0)


def test_rows_that_are_not_numbers_are_a_reason():
    X, y, weight = rows(2)
    X[0, 0] = np.nan
    with pytest.raises(CandidateError):
        Logistic().fit(X, y, weight, classes=2, seed=0)


# --- rows of negative weight


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "offset"])
def test_newton_steps_end_where_those_of_scikit_learn_and_our_own_do(classes, shifted):
    """On positive weights there is one minimum, whatever the way to it."""
    X, y, weight = rows(classes)
    offset = np.random.default_rng(1).normal(size=(len(y), classes)) if shifted else None
    fitted = Logistic(1e-3).fit(X, y, weight, classes=classes, seed=0, offset=offset)
    design = np.column_stack([X, np.ones(len(X))]).astype(np.float64)
    solution = newton(design, y, weight, np.zeros((1, 1)) if offset is None else offset, classes, 1e-3)
    assert np.allclose(solution[:-1], fitted.coefficients, atol=1e-5)
    assert np.allclose(solution[-1] - solution[-1].mean(), fitted.intercepts - fitted.intercepts.mean(), atol=1e-5)


def test_rows_taken_off_again_leave_the_fit_as_it_was():
    """Any rows with weight w and again with weight -w: the same objective."""
    X, y, weight = rows(3)
    plain = Logistic().fit(X, y, weight, classes=3, seed=0)
    more, label = np.vstack([X, X[:90] + 1, X[:90] + 1]), np.concatenate([y, y[90:180], y[90:180]])
    signed = np.concatenate([weight, np.full(90, 0.7), np.full(90, -0.7)])
    again = Logistic().fit(more, label, signed, classes=3, seed=0)
    assert np.allclose(again.scores(X), plain.scores(X), atol=1e-5)


def test_negative_weights_in_closed_form():
    """One indicator and no penalty: each cell's chance is its net weight, (4 - 1) / (4 - 1 + 2) in the one and 1 / (1 + 3) in the other."""
    cell, label = np.array([0, 0, 0, 1, 1]), np.array([1, 1, 0, 1, 0])
    fitted = Logistic(0.0).fit(np.eye(2)[cell][:, :1], label, np.array([4.0, -1.0, 2.0, 1.0, 3.0]), classes=2, seed=0)
    assert np.exp(fitted.scores(np.array([[1.0], [0.0]])))[:, 1] == pytest.approx([0.6, 0.25], abs=1e-6)


def test_an_objective_that_is_not_convex_or_singular_is_a_reason():
    """More is taken off along a column than is there; two equal columns without a penalty; a class of less than nothing."""
    X, y, weight = rows(2)
    far, label = np.repeat([[30.0, 0, 0, 0]], 20, axis=0), np.arange(20) % 2
    bent = np.concatenate([weight, np.full(20, -1.0)])
    with pytest.raises(CandidateError, match="positive definite Hessian; got one with a direction that falls"):
        Logistic().fit(np.vstack([X, far]), np.concatenate([y, label]), bent, classes=2, seed=0)
    signed = np.concatenate([weight, [-0.1]])
    doubled = np.repeat(np.vstack([X, X[:1]])[:, :1], 2, axis=1)
    with pytest.raises(CandidateError, match="positive definite Hessian"):
        Logistic(0.0).fit(doubled, np.concatenate([y, y[:1]]), signed, classes=2, seed=0)
    with pytest.raises(CandidateError, match="classes of positive weight"):
        Logistic().fit(X, y, np.where(y == 1, -1.0, 1.0), classes=2, seed=0)

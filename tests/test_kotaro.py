"""The interpolant against its definition: widths, coefficients, leave-one-out values, copies, landmarks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from sklearn.neighbors import NearestNeighbors

import codsa_ray.learners.kotaro as kotaro
from codsa_ray.errors import CandidateError
from codsa_ray.learners.kotaro import Kotaro, centres, distinct, link, widths


def rows(n=60, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, 3)) + y[:, None], y, rng.uniform(0.5, 2, n)


def kernel(X, of, gamma):
    return np.exp(-gamma * np.square(X[:, None] - of).sum(axis=2))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_width_is_the_distance_to_the_nth_other_row(power, monkeypatch):
    """gamma = 1 / d^power, d as scikit-learn finds it, in blocks or not."""
    X, _, _ = rows()
    away = NearestNeighbors(n_neighbors=6).fit(X).kneighbors(X)[0][:, 5]
    assert widths(X, np.arange(60), 5, power) == pytest.approx(away**-power)
    monkeypatch.setattr(kotaro, "BLOCK", 7)
    assert widths(X, np.array([3, 50, 20, 9, 1, 2, 4, 5]), 5, power) == pytest.approx(away[[3, 50, 20, 9, 1, 2, 4, 5]] ** -power)


def test_dense_rows_have_narrow_bumps():
    X = np.vstack([np.random.default_rng(0).normal(size=(100, 2)), np.random.default_rng(1).normal(scale=5, size=(10, 2)) + 20])
    gamma = widths(X, np.arange(110), 5, 2.0)
    assert np.median(gamma[:100]) > 20 * np.median(gamma[100:])


def test_without_a_ridge_it_interpolates():
    """The paper's w = K^-1 y: f is the label at every training row, and w solves its system."""
    X, y, weight = rows()
    fitted = Kotaro(ridge=1e-10).fit(X, y, weight, classes=2, seed=0)
    assert fitted.margins(X)[:, 1] == pytest.approx(np.where(y == 1, 1.0, -1.0), abs=1e-4)
    K = kernel(fitted.bumps.centres, fitted.bumps.centres, fitted.bumps.gamma)
    labels = np.where(y[np.lexsort(X.T[::-1])] == 1, 1.0, -1.0)
    assert fitted.coefficients[:, 1] == pytest.approx(np.linalg.solve(K, labels), rel=1e-3, abs=1e-3)


def test_left_out_values_are_those_of_fits_without_the_row():
    """By brute force: the same bumps fitted to all rows but one, for every row, weights included."""
    X, y, weight = rows(30, classes=3)
    learner = Kotaro(ridge=0.1)
    place, share, mass = distinct(X, y, weight, 3)
    bumps = kotaro.Bumps(place, widths(place, np.arange(30), 5, 2.0))
    _, margins = learner._solve(bumps, place, 2 * share - 1, mass)
    K = kernel(place, place, bumps.gamma)
    for out in range(30):
        rest = np.arange(30) != out
        scaled = K[rest].T * mass[rest]
        w = np.linalg.solve(scaled @ K[rest] + 0.1 * np.eye(30), scaled @ (2 * share - 1)[rest])
        assert margins[out] == pytest.approx(K[out] @ w, abs=1e-8)


def test_copies_are_one_row_with_their_mean_label():
    X = np.array([[0.0], [1.0], [0.0], [0.0]])
    place, share, mass = distinct(X, np.array([0, 1, 1, 0]), np.array([1.0, 4.0, 1.0, 2.0]), 2)
    assert place.tolist() == [[0.0], [1.0]]
    assert share.tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert mass == pytest.approx([1.0, 1.0])


def test_rows_that_are_all_alike_or_two_are_no_accident():
    """Widths stay finite, and the score of rows nobody can tell apart is about the class shares."""
    X = np.zeros((40, 2))
    y = np.repeat([0, 1], [30, 10])
    scores = Kotaro().fit(X, y, np.ones(40), classes=2, seed=0).scores(X)
    assert np.isfinite(scores).all()
    X[0] = 1e-9
    assert np.isfinite(Kotaro().fit(X, y, np.ones(40), classes=2, seed=0).scores(X)).all()


def test_the_link_is_the_best_of_its_form():
    """Its log slope and biases have no gradient of Platt's softened log loss and the pull; values that lean against the label get
    a small slope, not one below 0."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    share, mass = np.eye(3)[y], rng.uniform(0.5, 2, 90)
    margins = rng.normal(size=(90, 3)) + share
    doubt = 1 / (mass @ share + 2)
    target = np.where(share == 1, 1 - doubt[y][:, None], doubt[y][:, None] / 2)

    def loss(theta):
        logs = log_softmax(np.exp(theta[0]) * margins + theta[1:], axis=1)
        return -np.average(np.sum(target * logs, axis=1), weights=mass) + theta[0] ** 2 / 180

    slope, bias = link(margins, share, mass)
    assert np.abs(approx_fprime(np.array([np.log(slope), *bias]), loss, 1e-7)).max() < 1e-5
    assert slope > 0.5
    assert 0 < link(-margins, share, mass)[0] < 0.1


def test_scores_are_sharp_where_labels_are_and_soft_where_they_are_noise():
    """The link learns from rows left out, so that an interpolant of noise is not sure of itself."""
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    noise, clear = rng.integers(0, 2, 300), (X[:, 0] > 0).astype(np.int64)
    blind = Kotaro().fit(X, noise, np.ones(300), classes=2, seed=0).scores(new)
    seeing = Kotaro().fit(X, clear, np.ones(300), classes=2, seed=0).scores(new)
    assert np.abs(np.exp(blind[:, 1]) - 0.5).mean() < 0.1
    assert -seeing[np.arange(300), (new[:, 0] > 0).astype(int)].mean() < 0.35


def test_landmarks_keep_every_rare_row_and_share_the_rest(monkeypatch):
    """20 landmarks of classes with 100, 50 and 3 rows: 9, 8 and 3; the seed chooses which."""
    share, mass = np.eye(3)[np.repeat([0, 1, 2], [100, 50, 3])], np.ones(153)
    chosen = centres(share, mass, 20, seed=0)
    assert np.bincount(share[chosen].argmax(axis=1)).tolist() == [9, 8, 3]
    assert {150, 151, 152} <= set(chosen.tolist())
    assert not np.array_equal(chosen, centres(share, mass, 20, seed=1))
    monkeypatch.setattr(kotaro, "EXACT", 100)
    X, y, weight = rows(400)
    fitted = replace(Kotaro(), landmarks=80).fit(X, y, weight, classes=2, seed=0)
    assert len(fitted.bumps.gamma) == 80
    losses = [
        -f.scores(X)[np.arange(400), y].mean() for f in (fitted, replace(Kotaro(), landmarks=400).fit(X, y, weight, classes=2, seed=0))
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_blocks_change_nothing(monkeypatch):
    X, y, weight = rows()
    whole = Kotaro().fit(X, y, weight, classes=2, seed=0).scores(X)
    monkeypatch.setattr(kotaro, "BLOCK", 7)
    assert Kotaro().fit(X, y, weight, classes=2, seed=0).scores(X) == pytest.approx(whole, abs=1e-8)


def test_rows_that_are_not_numbers_are_a_reason():
    X, y, weight = rows()
    X[3, 0] = np.inf
    with pytest.raises(CandidateError, match="1 of 60 encoded rows"):
        Kotaro().fit(X, y, weight, classes=2, seed=0)

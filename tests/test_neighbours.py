"""Neighbours: held against all distances sorted; memory and order do not depend on how the search is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from scipy.stats import mode

from codsa_ray import neighbours
from codsa_ray.neighbours import Space, apart, commonest, counted

SIGMAS = 5.0


def mixed(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=(n, 3)) * [1, 50, 0.01], rng.integers(0, 3, (n, 2))]), np.array(
        [True, True, True, False, False]
    )


def plain(X: np.ndarray, ordered: np.ndarray, cost: float) -> np.ndarray:
    scaled = X[:, ordered] / np.where(X[:, ordered].std(axis=0) > 0, X[:, ordered].std(axis=0), 1)
    codes = X[:, ~ordered]
    return np.sqrt(cdist(scaled, scaled, "sqeuclidean") + cost**2 * (codes[:, None] != codes[None]).sum(axis=2))


@given(arrays(np.float64, (12, 3), elements=st.integers(0, 2)), st.integers(1, 11))
@settings(max_examples=60, deadline=None)
def test_neighbours_are_the_nearest_others_and_equal_ones_come_by_position(X: np.ndarray, k: int) -> None:
    space, rows = Space.of(X, np.array([True, False, False])), np.arange(12)
    near, distance = space.nearest(rows, rows, k, 0.7)
    known = plain(X, np.array([True, False, False]), 0.7)
    np.fill_diagonal(known, np.inf)
    # Rounded for the order alone: sums of squares differ in the last place.
    assert np.array_equal(near, np.argsort(np.round(known, 9), axis=1, kind="stable")[:, :k])
    assert np.allclose(distance, np.take_along_axis(known, near, axis=1))


def test_a_search_among_some_rows_gives_positions_of_all() -> None:
    X, ordered = mixed(80)
    among, rows = np.arange(30, 80), np.arange(40, 50)
    known = plain(X, ordered, 1.0)
    np.fill_diagonal(known, np.inf)
    known[:, :30] = np.inf
    assert np.array_equal(Space.of(X, ordered).nearest(rows, among, 4, 1.0)[0], np.argsort(known[rows], axis=1, kind="stable")[:, :4])


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, ordered = mixed(300)
    space, rows = Space.of(X, ordered), np.arange(300)
    whole = space.nearest(rows, rows, 5, 1.0)
    monkeypatch.setattr(neighbours, "PAIRS", 1)
    assert all(np.array_equal(a, b) for a, b in zip(whole, space.nearest(rows, rows, 5, 1.0), strict=True))


def test_cells_find_neighbours_almost_as_near(monkeypatch: pytest.MonkeyPatch) -> None:
    X, ordered = mixed(4000)
    space, rows = Space.of(X, ordered), np.arange(4000)
    _, exact = space.nearest(rows, rows, 5, 1.0)
    monkeypatch.setattr(neighbours, "EXACT", 1000)
    monkeypatch.setattr(neighbours, "CELL", 500)
    near, distance = space.nearest(rows, rows, 5, 1.0)
    assert (near != rows[:, None]).all()
    assert all(len(set(row)) == 5 for row in near.tolist())
    assert (distance >= exact - 1e-12).all()
    assert distance.mean() < 1.15 * exact.mean()


def test_cells_of_equal_and_of_categorical_rows_are_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT", 100)
    monkeypatch.setattr(neighbours, "CELL", 50)
    rows = np.arange(400)
    for X in (np.zeros((400, 2)), np.random.default_rng(0).integers(0, 3, (400, 2)).astype(float)):
        for ordered in (np.array([True, True]), np.array([False, False])):
            near, _ = Space.of(X, ordered).nearest(rows, rows, 60, 1.0)
            assert (near != rows[:, None]).all()
            assert near.shape == (400, 60)


def test_values_near_the_end_of_floats_keep_finite_distances() -> None:
    X = np.column_stack([1e308 * np.linspace(-1, 1, 20), np.linspace(0, 1e-300, 20)])
    with np.errstate(all="raise", under="ignore"):
        near, distance = Space.of(X, np.array([True, True])).nearest(np.arange(20), np.arange(20), 2, 1.0)
    assert np.isfinite(distance).all()
    assert (np.abs(near - np.arange(20)[:, None]) <= 2).all()


def test_another_category_costs_the_median_deviation_of_the_rows() -> None:
    X, ordered = mixed(50)
    space = Space.of(X, ordered)
    assert space.cost(slice(0, 20)) == pytest.approx(np.median((X[:, :3] / X[:, :3].std(axis=0))[:20].std(axis=0)))
    assert Space.of(np.ones((5, 2)), np.array([True, False])).cost(slice(None)) == 1
    assert Space.of(np.ones((5, 1)), np.array([False])).cost(slice(None)) == 1


def test_the_commonest_known_code_wins_and_ties_are_even() -> None:
    rng = np.random.default_rng(0)
    codes, known = rng.integers(0, 3, (3000, 5)).astype(float), np.ones((3000, 5), dtype=bool)
    found, counts = commonest(codes, known, rng), np.stack([(codes == c).sum(axis=1) for c in range(3)], axis=1)
    clear = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert np.array_equal(found[clear], mode(codes[clear], axis=1).mode)
    even = commonest(np.tile([0.0, 0.0, 1.0, 1.0, 2.0], (10_000, 1)), np.ones((10_000, 5), dtype=bool), rng)
    assert set(even) == {0.0, 1.0}
    assert abs(even.mean() - 0.5) < SIGMAS * 0.5 / 100
    assert set(commonest(codes, np.arange(5) < np.ones((3000, 1)), rng) - codes[:, 0]) == {0.0}


def test_neighbours_count_for_those_that_they_stand_for_until_they_are_k() -> None:
    near, labels = np.array([[1, 2, 3, 4], [2, 3, 4, 0]]), np.array([0, 0, 1, 1, 0])
    assert counted(near, np.ones(5)).tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    weight = np.array([1, 1, 2.5, 2.5, 1])
    assert counted(near, weight).tolist() == [[1, 2.5, 0.5, 0], [2.5, 1.5, 0, 0]]
    assert apart(np.array([0, 1]), near, labels, weight).tolist() == [0.75, 1]
    assert apart(np.array([0, 1]), near, np.zeros(5), np.array([1.1, 1.3, 1.7, 1.9, 1.0])).tolist() == [0, 0]


@pytest.mark.parametrize(("kept", "k"), [(0.5, 10), (0.2, 15), (0.05, 5)])
def test_rows_around_are_judged_after_thinning_as_before(kept: float, k: int) -> None:
    """The share of common rows around a rare one, and how often it is all: nearer to the whole table's than without weights."""
    rng = np.random.default_rng(0)
    rare = np.arange(9000) >= 8700
    X, thin = rng.random((9000, 2)), rare | (rng.random(9000) < kept)

    def judged(X: np.ndarray, rare: np.ndarray, weight: np.ndarray) -> np.ndarray:
        space, rows = Space.of(X, np.ones(2, dtype=bool)), np.arange(len(X))
        outside = apart(np.flatnonzero(rare), space.nearest(rows, rows, k, 1.0)[0][rare], rare, weight)
        return np.array([outside.mean(), (outside == 1).mean()])

    whole = judged(X, rare, np.ones(9000))
    weighed, plain = (judged(X[thin], rare[thin], w) for w in (np.where(rare, 1, 1 / kept)[thin], np.ones(thin.sum())))
    assert (np.abs(weighed - whole) < 0.5 * np.abs(plain - whole)).all()

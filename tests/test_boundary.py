"""The plane is that of principal components, smoothing and contours have their closed forms, and what cannot be drawn says why."""

import json

import numpy as np
import pytest
from sklearn.decomposition import PCA

from codsa_ray.audit.boundary import MOST_POINTS, Plane, boundary, contour, smoothed


def rows_of(n: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 4)) @ rng.standard_normal((4, 4)) + [5, 0, -3, 100]


def test_the_plane_is_that_of_principal_components() -> None:
    X = rows_of()
    plane = Plane.of(X, np.ones(400))
    assert isinstance(plane, Plane)
    reference = PCA(2).fit((X - X.mean(0)) / X.std(0))
    assert plane.explained == pytest.approx(reference.explained_variance_ratio_)
    theirs = reference.transform((X - X.mean(0)) / X.std(0))
    for i in range(2):
        assert abs(np.corrcoef(plane.points[:, i], theirs[:, i])[0, 1]) == pytest.approx(1.0)
        assert plane.points[:, i].std() == pytest.approx(1.0)


def test_weights_are_copies_and_constant_columns_and_nulls_do_not_count() -> None:
    X = rows_of(60)
    weight = np.random.default_rng(1).integers(1, 4, 60).astype(float)
    one, other = Plane.of(X, weight), Plane.of(np.repeat(X, weight.astype(int), axis=0), np.ones(int(weight.sum())))
    assert isinstance(one, Plane)
    assert isinstance(other, Plane)
    assert np.repeat(one.points, weight.astype(int), axis=0) == pytest.approx(other.points)
    more = np.column_stack([X, np.full(60, 7.0), np.full(60, np.nan)])
    wider = Plane.of(more, weight)
    assert isinstance(wider, Plane)
    assert wider.points == pytest.approx(one.points)


@pytest.mark.parametrize(
    ("X", "reason"),
    [
        (np.zeros((50, 8, 8)), "rows are encoded as arrays of shape (8, 8), not as columns of numbers"),
        (np.zeros((50, 3)), "fewer than two encoded columns vary"),
        (np.zeros((50, 2_001)), "rows are encoded in 2,001 columns; at most 2,000 are looked at"),
    ],
)
def test_what_has_no_plane_says_why(X: np.ndarray, reason: str) -> None:
    chance = np.full(50, 0.5)
    assert boundary(X, chance, chance, chance > 0, np.ones(50), 0) == {"skipped": reason}


def test_a_constant_smooths_to_itself_and_a_far_corner_is_left_out() -> None:
    points = np.random.default_rng(0).standard_normal((500, 2))
    axes = [np.linspace(-6, 6, 25)] * 2
    field = smoothed(points, np.full(500, 0.3), np.random.default_rng(1).random(500), axes, 0.4)
    assert field[~np.isnan(field)] == pytest.approx(0.3)
    assert np.isnan(field[0, 0])
    assert not np.isnan(field[12, 12])


def test_smoothing_is_the_kernel_mean_by_hand() -> None:
    points, values, weight = np.array([[0.0, 0.0], [1.0, 0.5]]), np.array([0.2, 0.8]), np.array([1.0, 3.0])
    field = smoothed(points, values, weight, [np.array([0.3]), np.array([0.1])], 0.5)
    k = np.exp(-0.5 * np.sum((points - [0.3, 0.1]) ** 2, axis=1) / 0.25) * weight
    assert field[0, 0] == pytest.approx(k @ values / k.sum())


def test_the_contour_of_a_plane_is_its_line_and_of_a_cone_its_circle() -> None:
    x, y = np.linspace(-2, 2, 41), np.linspace(-1, 3, 33)
    found = contour(0.3 * x[:, None] - 0.2 * y[None, :] + 0.5, [x, y], 0.6)
    ends = found.reshape(-1, 2)
    assert 0.3 * ends[:, 0] - 0.2 * ends[:, 1] + 0.5 == pytest.approx(0.6)
    length = np.hypot(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]).sum()
    # It enters at the low edge of y, where x = -1/3, and leaves at the right, where y = 2.5.
    assert length == pytest.approx(np.hypot(2 + 1 / 3, 2.5 + 1))
    circle = contour(np.hypot(x[:, None], y[None, :] - 1), [x, y], 0.8)
    assert np.hypot(circle[:, 0], circle[:, 1] - 1) == pytest.approx(np.full(len(circle), 0.8), abs=5e-3)
    assert np.hypot(circle[:, 2] - circle[:, 0], circle[:, 3] - circle[:, 1]).sum() == pytest.approx(2 * np.pi * 0.8, rel=0.01)


@pytest.mark.parametrize("level", [0.4, 0.6])
@pytest.mark.parametrize("turned", [False, True])
def test_at_a_saddle_the_mean_decides_which_corners_are_joined(level: float, turned: bool) -> None:
    field = np.eye(2)[::-1] if turned else np.eye(2)  # the mean is .5
    found = contour(field, [np.array([0.0, 1.0])] * 2, level)
    assert len(found) == 2
    middles = (found[:, :2] + found[:, 2:]) / 2
    # Each piece cuts off the corner it lies nearest to: the low ones where the mean is above the level.
    cut = [field[round(x), round(y)] for x, y in middles]
    assert cut == [float(level > 0.5)] * 2


def test_unknown_corners_have_no_contour() -> None:
    field = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, np.nan]])
    assert len(contour(field, [np.arange(2.0), np.arange(3.0)], 0.5)) == 1


def test_the_boundary_lies_where_the_probability_is_a_half_and_is_plain_and_repeatable() -> None:
    rng = np.random.default_rng(5)
    z = rng.standard_normal((3000, 2))
    X = np.column_stack([z @ [[1.0, 0.2], [0.1, 0.5]], z[:, 0] + 0.01 * rng.standard_normal(3000)])
    plane = Plane.of(X, np.ones(3000))
    assert isinstance(plane, Plane)
    after = 1 / (1 + np.exp(-4 * (plane.points[:, 0] - 0.5)))
    before = np.full(3000, 0.1)
    found = boundary(X, before, after, rng.random(3000) < after, np.ones(3000), 0)
    assert json.loads(json.dumps(found)) == found
    assert found == boundary(X, before, after, rng.random(3000) < 2, np.ones(3000), 0) | {"points": found["points"]}
    assert [line["level"] for line in found["after"]] == [0.25, 0.5, 0.75]
    assert all(line["segments"] == [] for line in found["before"])
    half = np.array(found["after"][1]["segments"])
    inner = np.abs(half[:, 1]) < 1.5
    assert np.median(half[inner][:, 0]) == pytest.approx(0.5, abs=0.1)
    assert 0 < len(found["points"]) <= MOST_POINTS


def test_without_rows_no_point_is_shown() -> None:
    X, chance = rows_of(), np.linspace(0, 1, 400)
    assert boundary(X, chance, chance, chance > 0.5, np.ones(400), 0, rows=False)["points"] == []

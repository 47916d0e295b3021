"""Every allocator, found by walking the folder, keeps the laws of allocation; then each one's own law."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from codsa_ray.allocators.balanced import Balanced
from codsa_ray.allocators.proportional import Proportional
from codsa_ray.allocators.target_mix import TargetMix, project
from codsa_ray.plan import sainte_lague
from codsa_ray.plugins import identity, make, names, restore, settings_of
from codsa_ray.regions import Region, Regions

NAMES = names("allocators")


@st.composite
def partitions(draw: st.DrawFn) -> Regions:
    """One to five groups of one or two strata, each group with rows, any strictly positive mix."""
    strata = draw(st.lists(st.integers(1, 2), min_size=1, max_size=5))
    items = []
    for group, several in enumerate(strata):
        rows = draw(st.lists(st.integers(0, 400), min_size=several, max_size=several).filter(any))
        items += [Region(f"{group}/{stratum}", group, stratum, n) for stratum, n in enumerate(rows)]
    mix = np.array(draw(st.lists(st.floats(0.01, 1.0), min_size=len(strata), max_size=len(strata))))
    return Regions(tuple(items), tuple(map(float, mix / mix.sum())))


def tiny(name: str) -> Any:
    return type(make("allocators", name)).tiny()


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(found=partitions(), size=st.integers(0, 5000), row_weight=st.floats(0.05, 2.0))
def test_weights_are_a_point_of_the_simplex_that_plans_take(name: str, found: Regions, size: int, row_weight: float) -> None:
    weights = tiny(name).weights(found, size, row_weight)
    assert weights.shape == (len(found),)
    assert weights.dtype == np.float64
    assert weights.min() >= 0
    assert math.isclose(weights.sum(), 1, abs_tol=1e-9)
    assert sainte_lague(weights, size).sum() == size


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [[0, 0], [0, 7], [5, 5], [1, 10**7], [3]], ids=str)
def test_empty_equal_and_extreme_regions_have_weights(name: str, rows: list[int]) -> None:
    found = Regions(tuple(Region(f"r{k}", k, 0, n) for k, n in enumerate(rows)), (1 / len(rows),) * len(rows))
    for size in (0, 1, 10**6):
        weights = tiny(name).weights(found, size, 1.0)
        assert np.isfinite(weights).all()
        assert math.isclose(weights.sum(), 1, abs_tol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_plain_and_give_the_allocator_back(name: str) -> None:
    made = tiny(name)
    assert restore("allocators", name, settings_of(made)) == made
    assert identity(made).startswith(f"{name}-")


@settings(deadline=None)
@given(partitions())
def test_balanced_reaches_the_target_mix_when_the_size_is_the_gap(found: Regions) -> None:
    """Real plus synthetic rows of every group are within rounding of the mix."""
    size = round(found.gap)
    counts = sainte_lague(Balanced().weights(found, size, 1.0), size)
    full = found.group_counts + np.bincount(found.groups, weights=counts, minlength=len(found.mix))
    assert np.abs(full - np.array(found.mix) * full.sum()).max() <= len(found) + 1


def test_balanced_falls_back_on_the_mix_when_nothing_is_lacking() -> None:
    found = Regions(tuple(Region(f"r{k}", k // 2, k % 2, n) for k, n in enumerate((30, 10, 20, 20))), (0.5, 0.5))
    assert Balanced().weights(found, 100, 1.0) == pytest.approx([0.375, 0.125, 0.25, 0.25])
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = rng.integers(1, 10**6, 5)
        exact = Regions(tuple(Region(f"r{k}", k, 0, int(n)) for k, n in enumerate(counts)), tuple(map(float, counts / counts.sum())))
        assert Balanced().weights(exact, 100, 1.0) == pytest.approx(exact.mix)


@settings(deadline=None)
@given(partitions(), st.integers(1, 1000))
def test_proportional_leaves_the_mix_of_the_data_alone(found: Regions, size: int) -> None:
    assert Proportional().weights(found, size, 1.0) == pytest.approx(found.counts / found.counts.sum())


@given(partitions(), st.integers(1, 20_000), st.floats(0.05, 2.0))
@settings(max_examples=300, deadline=None)
def test_real_and_synthetic_rows_together_follow_the_target_mix(found: Regions, size: int, row_weight: float) -> None:
    """CoDSA's rule: wherever it needs no projection, the weight of the union is exactly q; a projection is noticed, and only then."""
    weights = TargetMix().weights(found, size, row_weight)
    union = found.counts + row_weight * size * weights
    feasible = (found.counts <= (found.counts.sum() + row_weight * size) * found.shares * (1 + 1e-12)).all()
    assert (TargetMix().notice(found, size, row_weight) is None) == feasible
    if feasible:
        assert union / union.sum() == pytest.approx(found.shares, abs=1e-9)


def test_target_mix_closed_form() -> None:
    """900:100 to a half each with 1000 rows: alpha = 1/2 + (1/2 - 9/10) = .1 and .9; with 500 rows it would be negative."""
    found = Regions((Region("many", 0, 0, 900), Region("few", 1, 0, 100)), (0.5, 0.5))
    assert TargetMix().weights(found, 1000, 1.0) == pytest.approx([0.1, 0.9])
    assert TargetMix().weights(found, 2000, 0.5) == pytest.approx([0.1, 0.9])
    assert TargetMix().notice(found, 1000, 1.0) is None
    assert TargetMix().notice(found, 800, 1.0) is None
    assert TargetMix().weights(found, 800, 1.0).tolist() == [0, 1]
    assert TargetMix().weights(found, 500, 1.0).tolist() == [0, 1]
    assert "'many'" in str(TargetMix().notice(found, 500, 1.0))


def test_target_mix_is_projected_not_clipped() -> None:
    """90 % : 9 % : 1 % with a tenth as many rows: the rule gives -5.3, 2.77, 3.57; the nearest allocation is 0, .1, .9."""
    found = Regions(tuple(Region(f"r{k}", k, 0, n) for k, n in enumerate((900, 90, 10))), (1 / 3,) * 3)
    assert TargetMix().weights(found, 100, 1.0) == pytest.approx([0, 0.1, 0.9])


def test_a_size_that_just_reaches_the_target_mix_needs_no_projection() -> None:
    """The gap itself: the fullest region gets nothing, up to a rounding error that is no notice."""
    rng = np.random.default_rng(0)
    for regions in (3, 5, 7, 9, 11) * 60:
        counts = rng.integers(1, 10**6, regions)
        found = Regions(tuple(Region(f"r{k}", k, 0, int(n)) for k, n in enumerate(counts)), (1 / regions,) * regions)
        assert TargetMix().notice(found, int(regions * counts.max() - counts.sum()), 1.0) is None


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_projection_is_the_nearest_point_of_the_simplex(point: list[float]) -> None:
    """Optimality conditions: kept coordinates moved by one common amount, dropped ones were below it."""
    x, nearest = np.array(point), project(np.array(point))
    assert math.isclose(nearest.sum(), 1, abs_tol=1e-12)
    kept = nearest > 0
    shift = (x - nearest)[kept]
    assert np.allclose(shift, shift[0])
    assert (x[~kept] <= shift[0] + 1e-9).all()


def test_projection_agrees_with_a_general_solver() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        x = rng.normal(size=4)
        start, one = np.full(4, 0.25), {"type": "eq", "fun": lambda p: p.sum() - 1}
        solved = minimize(lambda p, x=x: ((p - x) ** 2).sum(), start, bounds=[(0, 1)] * 4, constraints=one, tol=1e-12)
        assert project(x) == pytest.approx(solved.x, abs=1e-5)


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_projection_leaves_the_simplex_alone(weights: list[float]) -> None:
    point = np.array(weights) / sum(weights)
    assert project(point) == pytest.approx(point, abs=1e-12)

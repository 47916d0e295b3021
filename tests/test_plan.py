import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.errors import SettingError
from codsa_ray.plan import Part, Plan, sainte_lague, size_of

WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.integers(0, 5).map(float)), min_size=1, max_size=8).filter(any)


def slow(weights: list[float], size: int) -> list[int]:
    """One row after another to the highest quotient, in exact arithmetic."""
    exact, counts = [Fraction(w) for w in weights], [0] * len(weights)
    for _ in range(size):
        counts[max(range(len(weights)), key=lambda k: (exact[k] / (2 * counts[k] + 1), -k))] += 1
    return counts


@given(st.lists(st.integers(0, 64).map(float), min_size=1, max_size=8).filter(any), st.integers(0, 80))
@settings(max_examples=200, deadline=None)
def test_rows_go_to_the_highest_quotients(weights: list[float], size: int) -> None:
    """Against the definition in exact fractions, row by row; ties go to the earlier region."""
    assert sainte_lague(np.array(weights), size).tolist() == slow(weights, size)


@given(WEIGHTS, st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_counts_sum_exactly_and_keep_close_to_the_shares(weights: list[float], size: int) -> None:
    """Exact sum; a share of 0 gets nothing; equal weights differ by one row at most."""
    counts = sainte_lague(np.array(weights), size)
    assert counts.sum() == size
    assert counts.dtype == np.int64
    assert counts.min() >= 0
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)
    for i in range(len(weights)):
        for j in range(i):
            if weights[i] == weights[j]:
                assert 0 <= counts[j] - counts[i] <= 1


@given(WEIGHTS, st.lists(st.integers(0, 3000), min_size=2, max_size=6))
@settings(max_examples=200, deadline=None)
def test_plans_grow_monotonically(weights: list[float], sizes: list[int]) -> None:
    """No region loses a row when the size grows: a larger plan takes a longer prefix of every pool."""
    counts = [sainte_lague(np.array(weights), size) for size in sorted(sizes)]
    assert all((later >= earlier).all() for earlier, later in pairwise(counts))


@given(WEIGHTS, st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_one_more_row_changes_one_region(weights: list[float], size: int) -> None:
    change = sainte_lague(np.array(weights), size + 1) - sainte_lague(np.array(weights), size)
    assert sorted(change.tolist()) == [0] * (len(weights) - 1) + [1]


@given(WEIGHTS, st.integers(0, 2000), st.floats(0.01, 100.0))
@settings(max_examples=100, deadline=None)
def test_only_ratios_of_weights_matter(weights: list[float], size: int, scale: float) -> None:
    scaled = sainte_lague(np.array(weights) * 2.0 ** round(np.log2(scale)), size)
    assert scaled.tolist() == sainte_lague(np.array(weights), size).tolist()


def test_large_plans_are_fast_and_exact() -> None:
    """A thousand regions with weights over twelve orders of magnitude, a billion rows."""
    weights = 10.0 ** np.random.default_rng(0).uniform(-12, 0, 1000)
    counts = sainte_lague(weights, 10**9)
    assert counts.sum() == 10**9
    share = weights / weights.sum()
    assert np.abs(counts - share * 10**9).max() < 2


@pytest.mark.parametrize(
    ("weights", "size"), [([1.0], -1), ([0.0, 0.0], 3), ([-1.0, 2.0], 3), ([np.nan, 1.0], 3), ([np.inf, 1.0], 3), ([], 1)], ids=str
)
def test_weights_that_are_none_are_refused(weights: list[float], size: int) -> None:
    with pytest.raises(SettingError):
        sainte_lague(np.array(weights), size)


def test_nothing_is_shared_out_without_rows() -> None:
    assert sainte_lague(np.array([0.0, 1.0]), 0).tolist() == [0, 0]
    assert sainte_lague(np.zeros(0), 0).tolist() == []


COUNTS = st.lists(st.integers(0, 9), min_size=3, max_size=3).map(tuple)


@settings(deadline=None)
@given(st.lists(st.tuples(COUNTS, st.floats(0.01, 5)), max_size=4), st.integers(1, 9))
def test_plans_come_back_from_json_and_weigh_every_row(parts: list[tuple], draws: int) -> None:
    plan = Plan(tuple(Part(*part) for part in parts), draws)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.size == sum(sum(counts) for counts, _ in parts)
    weights = plan.row_weights()
    assert [len(each) for each in weights] == plan.counts.tolist()
    for k, each in enumerate(weights):
        assert each.tolist() == [weight for counts, weight in parts for _ in range(counts[k])]
        for start in range(len(each) + 1):
            assert plan.weights_of(k, start, len(each) - start).tolist() == each[start:].tolist()
            assert plan.weights_of(k, 0, start).tolist() == each[:start].tolist()


def test_weights_of_a_few_rows_of_a_huge_plan_are_a_few_numbers() -> None:
    plan = Plan((Part((10**13, 5), 0.2), Part((10**13, 5), 1.0)))
    assert plan.weights_of(0, 10**13 - 1, 3).tolist() == [0.2, 1.0, 1.0]


def test_size_is_relative_to_gap_and_rows() -> None:
    assert size_of(1.0, 0.0, 250.0, 1000) == 250
    assert size_of(0.5, 0.1, 250.0, 1000) == 225
    assert size_of(0.0, 0.0, 250.0, 1000) == 0

"""The split is exact within groups, the same however rows are cut, and never tears a unit apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.rows import FINAL
from codsa_ray.split import TEST_SHARE, Split, folds_for, ranked, split_exactly, split_units

GROUPS = st.lists(st.integers(0, 3), min_size=20, max_size=200)


@given(group=GROUPS, folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_every_group_gives_its_share_to_test_and_an_even_share_to_each_fold(group: list[int], folds: int, seed: int) -> None:
    g = np.array(group)
    fold = split_exactly(np.arange(len(g)), g, folds, seed, test=True)
    for k in np.unique(g):
        mine = fold[g == k]
        tested = int((mine == FINAL).sum())
        assert tested == max(round(len(mine) * TEST_SHARE), 1)
        held = np.bincount(mine[mine >= 0], minlength=folds)
        assert held.max() - held.min() <= 1


def test_a_row_keeps_its_fold_when_rows_come_in_another_order() -> None:
    g = np.random.default_rng(0).integers(0, 3, 300)
    positions = np.arange(300)
    order = np.random.default_rng(1).permutation(300)
    straight = split_exactly(positions, g, 5, 7, test=True)
    assert np.array_equal(straight[order], split_exactly(positions[order], g[order], 5, 7, test=True))


def test_one_fold_means_one_hold_out_of_a_fifth() -> None:
    g = np.zeros(1000, dtype=int)
    fold = split_exactly(np.arange(1000), g, 1, 0, test=False)
    assert (fold == 0).sum() == 200
    assert (fold == 1).sum() == 800


@given(seed=st.integers(0, 20))
def test_a_unit_is_never_split_and_its_deviation_is_the_one_reported(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 40, 400).astype(np.uint64)
    g = (rng.random(400) < 0.2).astype(int)
    fold, deviation = split_units(np.arange(400), g, units, 4, seed, test=True)
    assert all(len(np.unique(fold[units == u])) == 1 for u in np.unique(units))
    shares = {FINAL: TEST_SHARE, **dict.fromkeys(range(4), (1 - TEST_SHARE) / 4)}
    worst = max(abs((fold[g == k] == f).sum() / (g == k).sum() - share) for k in (0, 1) for f, share in shares.items())
    assert np.isclose(worst, deviation)


def test_the_plain_hash_gives_each_part_its_share() -> None:
    fold = Split(0, 3, test=True).of(np.arange(100_000))
    shares = np.bincount(fold + 1) / 100_000
    assert np.allclose(shares, [0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3], atol=0.006)


def test_of_too_many_rows_those_of_the_smallest_groups_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codsa_ray.split.EXACT_ROWS", 100)
    assert ranked(np.array([90, 5, 60, 30])).tolist() == [False, True, True, True]
    assert not ranked(np.array([101])).any()


def test_rows_that_are_not_ranked_go_by_the_hash_and_the_others_by_rank() -> None:
    positions = np.arange(5_000)
    rare = positions[::100]
    exact = split_exactly(rare, np.zeros(len(rare), dtype=int), 4, 0, test=True)
    fold = Split(0, 4, True, rare, exact).of(positions)
    assert np.array_equal(fold[::100], exact)
    assert np.array_equal(np.bincount(fold[::100] + 1), [10, 10, 10, 10, 10])
    others = positions % 100 > 0
    assert np.array_equal(fold[others], Split(0, 4, True).of(positions)[others])


def test_folds_are_lowered_for_a_small_group_and_it_is_said() -> None:
    notices: list[str] = []
    assert folds_for(1000, 6, None, notices) == 3
    assert "lowered to 3" in notices[0]
    assert folds_for(100_000, 500, None, []) == 3
    assert folds_for(1_000_000, 500, None, []) == 1
    assert folds_for(1000, 500, 4, []) == 4

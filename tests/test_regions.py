import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.regions import Region, Regions


@st.composite
def partitions(draw: st.DrawFn) -> Regions:
    """Groups of one to three strata, some empty, with any target mix."""
    strata = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    items = [Region(f"{g}/{s}", g, s, draw(st.integers(0, 500))) for g, several in enumerate(strata) for s in range(several)]
    mix = np.array(draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1.0)), min_size=len(strata), max_size=len(strata)).filter(any)))
    return Regions(tuple(items), tuple(map(float, mix / mix.sum())))


def regions(rows: list[int], mix: list[float]) -> Regions:
    return Regions(tuple(Region(f"r{k}", k, 0, n) for k, n in enumerate(rows)), tuple(mix))


@settings(deadline=None)
@given(partitions())
def test_adding_the_deficits_gives_the_target_mix(found: Regions) -> None:
    """Real rows plus deficits are in proportion to the mix, over every group that is wanted and held."""
    counts, mix = found.group_counts, np.array(found.mix)
    assert (found.deficits >= 0).all()
    assert np.isclose(found.gap, found.deficits.sum())
    held = (mix > 0) & (counts > 0)
    if held.any():
        full = counts + np.bincount(found.groups, weights=found.deficits, minlength=len(mix))
        ratio = full[held] / mix[held]
        assert np.allclose(ratio, ratio[0])
    assert (found.deficits[mix[found.groups] == 0] == 0).all()


@settings(deadline=None)
@given(partitions())
def test_the_fullest_group_lacks_nothing_and_strata_keep_their_proportion(found: Regions) -> None:
    deficits, counts = found.deficits, found.counts
    for group in range(len(found.mix)):
        mine = (found.groups == group) & (counts > 0)
        if mine.any():
            per_row = deficits[mine] / counts[mine]
            assert np.allclose(per_row, per_row[0])
    wanted = np.array(found.mix) > 0
    if (found.group_counts[wanted] > 0).any():
        fullest = np.argmax(np.where(wanted, found.group_counts / np.where(wanted, found.mix, 1), -1))
        assert deficits[found.groups == fullest].max() <= 1e-9 * max(found.gap, 1)


@settings(deadline=None)
@given(partitions())
def test_shares_are_the_mix_split_by_rows(found: Regions) -> None:
    shares = found.shares
    assert (shares >= 0).all()
    assert np.isclose(shares.sum(), 1)
    assert np.allclose(np.bincount(found.groups, weights=shares, minlength=len(found.mix)), found.mix)


def test_closed_form_of_gap() -> None:
    """One hundred of a and ten of b: uniform balance adds ninety of b; at 1:3 it adds 290."""
    assert regions([100, 10], [0.5, 0.5]).deficits.tolist() == [0, 90]
    assert regions([100, 10], [0.25, 0.75]).deficits == pytest.approx([0, 290])
    assert regions([10, 10, 10], [1 / 3] * 3).gap == pytest.approx(0, abs=1e-9)


def test_deficits_are_never_below_zero_by_rounding() -> None:
    """sainte_lague takes no negative weight, however small."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        mix = rng.dirichlet(np.ones(7))
        assert regions(rng.integers(1, 10**6, 7).tolist(), mix.tolist()).deficits.min() >= 0


def test_empty_groups_have_no_rows_to_learn_from_and_no_deficit() -> None:
    found = regions([100, 0, 10], [1 / 3] * 3)
    assert found.deficits == pytest.approx([0, 0, 90])
    assert found.shares == pytest.approx([1 / 3] * 3)


@settings(deadline=None)
@given(partitions())
def test_counts_add_up(found: Regions) -> None:
    assert found.group_counts.sum() == found.counts.sum()
    assert len(found) == len(found.counts) == len(found.groups)


def test_json_gives_regions_back_with_typed_constants() -> None:
    constants = (("flag", True), ("n", 3), ("x", 2.5), ("s", "a"), ("none", None))
    items = tuple(Region(f"g{k}", k, 0, 5, constants, (k, 0)) for k in range(2))
    found = Regions(items, (0.5, 0.5), (2, 1))
    again = Regions.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.constant_columns == ("flag", "n", "x", "s", "none")
    assert [type(value) for _, value in again.items[0].constants] == [bool, int, float, str, type(None)]


def test_labels_are_the_target_s_where_regions_fix_it_and_else_groups() -> None:
    """Cells and strata of one class share its label."""
    cells = [(label, stratum) for label in ("no", "yes") for stratum in (0, 1)]
    fixed = Regions(tuple(Region("", g // 2, s, 1, (("label", label),)) for g, (label, s) in enumerate(cells)), (0.5, 0.5))
    assert fixed.labels("label").tolist() == [0, 0, 1, 1]
    assert fixed.labels("wage").tolist() == [0, 0, 1, 1]
    assert regions([1, 1, 1], [0.2, 0.3, 0.5]).labels("wage").tolist() == [0, 1, 2]


def test_a_region_is_conditioned_on_its_factors_and_last_on_itself() -> None:
    found = Regions(tuple(Region("", 0, 0, 1, (), factors) for factors in ((0, 2), (1, 0), (1, 2))), (1.0,), (2, 3))
    levels, many = found.conditions
    assert levels.tolist() == [[0, 2, 0], [1, 0, 1], [1, 2, 2]]
    assert many == [2, 3, 3]
    assert regions([1, 1], [0.5, 0.5]).conditions[0].tolist() == [[0], [1]]

"""Allocators that measure regions: closed forms, what each measure means, and that it comes from fold-training rows alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.allocators.balanced import Balanced
from codsa_ray.allocators.density import Density
from codsa_ray.allocators.entropy import Entropy
from codsa_ray.allocators.hardness import Hardness
from codsa_ray.errors import PluginError, SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.landmarks import Landmarks
from codsa_ray.partition import measured, partition
from codsa_ray.pipeline import Report
from codsa_ray.plugins import make, names
from codsa_ray.regions import Region, Regions
from codsa_ray.rows import Rows

import runs
from tables import mixed_table, schema_of

MEASURING = [name for name in names("allocators") if hasattr(make("allocators", name), "measure")]
NEUTRAL = (Density(power=0), Entropy(gamma=0), Hardness(power=0))


def fit_data(x: np.ndarray, label: np.ndarray, region: np.ndarray, groups: list[int], task: str = "classification") -> FitData:
    """Rows of a number or more in given regions; `groups` is the group of each region."""
    columns = {f"x{j}": column for j, column in enumerate(np.atleast_2d(x.T))}
    table = pa.table(columns | {"label": pa.array(label if task == "regression" else label.astype(str))})
    counts = np.bincount(region, minlength=len(groups))
    strata = [sum(g == group for g in groups[:k]) for k, group in enumerate(groups)]
    items = tuple(Region(f"r{k}", group, strata[k], int(counts[k])) for k, group in enumerate(groups))
    many = max(groups) + 1
    regions = Regions(items, (1 / many,) * many)
    return FitData.of(table.append_column(REGION, pa.array(region.astype(np.int32))), schema_of(table, "label", task), regions, seed=0)


def weighed(allocator: Any, data: FitData) -> tuple[Regions, np.ndarray]:
    regions = measured(data.regions, data, allocator)
    return regions, allocator.weights(regions, 100, 1.0)


def test_the_issue_s_allocators_measure() -> None:
    assert {"density", "entropy", "hardness"} <= set(MEASURING)


@pytest.mark.parametrize("name", MEASURING)
def test_a_measure_is_one_number_per_region_and_the_same_in_any_order_of_rows(name: str) -> None:
    table, schema, regions = mixed_table(400)
    allocator = type(make("allocators", name)).tiny()
    found = measured(regions, FitData.of(table, schema, regions, seed=0), allocator)
    assert len(found.measure) == len(regions)
    assert min(found.measure) >= 0
    mixed = table.take(pa.array(np.random.default_rng(0).permutation(len(table))))
    again = measured(regions, FitData.of(mixed, schema, regions, seed=0), allocator)
    assert again.measure == pytest.approx(found.measure, rel=0.02)
    assert found.to_json() == regions.to_json()
    assert Regions.from_json(found.to_json()) == regions


@pytest.mark.parametrize("name", MEASURING)
def test_empty_and_tiny_regions_are_measured(name: str) -> None:
    rng = np.random.default_rng(0)
    region = np.repeat([0, 2, 3], [40, 1, 2])
    data = fit_data(rng.normal(size=(43, 2)), (region > 0).astype(int), region, [0, 0, 1, 1])
    _, weights = weighed(type(make("allocators", name)).tiny(), data)
    assert np.isfinite(weights).all()
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("allocator", NEUTRAL, ids=lambda allocator: type(allocator).__name__)
def test_an_exponent_of_0_is_balanced(allocator: Any) -> None:
    table, schema, regions = mixed_table(400)
    _, weights = weighed(allocator, FitData.of(table, schema, regions, seed=0))
    assert weights == pytest.approx(Balanced().weights(regions, 100, 1.0))


def test_weights_are_deficit_times_measure() -> None:
    """900 : 60 + 40: the deficits of the second group are 480 and 320; a measure of 1 and 3 makes them 480 : 960."""
    items = (Region("many", 0, 0, 900), Region("few/0", 1, 0, 60), Region("few/1", 1, 1, 40))
    found = Regions(items, (0.5, 0.5), measure=(7.0, 1.0, 3.0))
    assert found.lacking == pytest.approx([0, 1 / 3, 2 / 3])
    assert replace(found, measure=()).lacking == pytest.approx([0, 0.6, 0.4])
    assert replace(found, measure=(5.0, 0.0, 0.0)).lacking == pytest.approx([0, 0.6, 0.4])
    even = Regions((Region("a", 0, 0, 50), Region("b", 1, 0, 50)), (0.5, 0.5), measure=(1.0, 3.0))
    assert even.lacking == pytest.approx([0.25, 0.75])


def test_density_gives_twice_as_much_to_rows_twice_as_far_apart() -> None:
    """Two strata of the rare group on a grid, steps of 1 and 2; numbers beside the median so that the encoding scales both alike."""
    a, b = np.arange(100) * 0.01, 1.5 + np.arange(100) * 0.02
    x = np.concatenate([a, b, np.linspace(0, 4, 600)])
    region = np.repeat([1, 2, 0], [100, 100, 600])
    data = fit_data(x, (region > 0).astype(int), region, [0, 1, 1])
    landmarks = Landmarks.among(data, 5000)
    steps = [np.diff(np.sort(landmarks.points[landmarks.region == k][:, 0])).mean() for k in (1, 2)]
    regions, weights = weighed(Density(k=2), data)
    assert regions.measure[2] / regions.measure[1] == pytest.approx(steps[1] / steps[0], rel=0.05)
    assert weights[2] / weights[1] == pytest.approx(steps[1] / steps[0], rel=0.05)
    assert weighed(Density(k=2, power=2), data)[1][2] == pytest.approx(steps[1] ** 2 / (steps[0] ** 2 + steps[1] ** 2), rel=0.05)


@pytest.mark.parametrize("columns", [1, 2, 4, 8])
def test_density_is_that_of_all_rows_when_a_region_is_thinned(columns: int) -> None:
    """3,000 rows and 50 that are kept whole, on a line, in a plane, in four dimensions, and in a plane that lies in eight."""
    rng = np.random.default_rng(0)
    region = np.repeat([0, 1], [3000, 50])
    x = rng.uniform(size=(3050, min(columns, 4)))
    x = x[:, :2] @ rng.normal(size=(2, columns)) if columns == 8 else x
    data = fit_data(x, region, region, [0, 1])
    whole, thinned = (np.divide(*Density(cap=cap).measure(data)) for cap in (5000, 300))
    assert whole < 0.9
    assert thinned == pytest.approx(whole, rel=0.15)


def test_a_region_of_copies_gets_rows_all_the_same() -> None:
    rng = np.random.default_rng(0)
    region = np.repeat([0, 1, 2], [100, 20, 20])
    data = fit_data(np.where(region == 1, 5.0, rng.normal(size=140)), region, region, [0, 1, 2])
    _, weights = weighed(Density(), data)
    assert weights[0] == 0
    assert 0.02 < weights[1] < weights[2]


def test_entropy_is_leo_s_share_of_seeds_within_a_group() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 2))
    label = (x[:, 0] > 1.0).astype(int)
    region = np.where(label == 0, 0, 1 + (x[:, 1] > 0))
    data = fit_data(x, label, region, [0, 1, 1])
    landmarks = Landmarks.among(data, 5000)
    seeds = (1 + landmarks.entropy(landmarks.points, 15)) ** 2.5
    _, weights = weighed(Entropy(gamma=2.5), data)
    assert weights[1] == pytest.approx(seeds[landmarks.region == 1].sum() / seeds[landmarks.region > 0].sum())


def test_hardness_is_the_loss_of_a_pilot_that_has_not_seen_the_row() -> None:
    """In one stratum the label follows x, in the other it is a coin: about ln 2 there, little here."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 2))
    coin = x[:, 1] > 0
    label = np.where(coin, rng.random(2000) < 0.5, x[:, 0] > 0).astype(int)
    x = np.column_stack([np.where(coin, 0.0, 4 * x[:, 0]), x[:, 1]])
    data = fit_data(x, label, 2 * label + coin, [0, 0, 1, 1])
    regions, weights = weighed(Hardness(), data)
    assert regions.measure[1] == pytest.approx(np.log(2), abs=0.1)
    assert regions.measure[3] == pytest.approx(np.log(2), abs=0.1)
    assert max(regions.measure[0], regions.measure[2]) < 0.3
    assert weights.sum() == pytest.approx(1)


def test_hardness_of_a_regression_is_its_squared_error() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(900, 1))
    noisy = np.arange(900) % 3 == 0
    data = fit_data(x, 2 * x[:, 0] + np.where(noisy, 3.0, 0.1) * rng.normal(size=900), noisy.astype(int), [0, 1], "regression")
    regions, _ = weighed(Hardness(), data)
    assert regions.measure[1] == pytest.approx(9, rel=0.25)
    assert regions.measure[0] < 0.2


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("strata", ["sparse", "entropy", "clusters"])
def test_rules_and_measures_of_a_fold_come_from_its_training_rows_alone(
    name: str, strata: str, finished: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []
    blocks = Rows.blocks
    monkeypatch.setattr(Rows, "blocks", lambda self, fold, held_out: asked.append((fold, held_out)) or blocks(self, fold, held_out))
    allocator = type(make("allocators", name)).tiny()
    part = partition(runs.rows_of(finished), type(make("strata", strata)).tiny(), 0, (1.0, 0.5), allocator)
    assert set(asked) == {(0, False)}
    assert len(part.regions.measure) == len(part.regions) == 2 * part.rule.strata
    assert part.of_learner(0.5).regions.measure == part.of_generator(0.5).regions.measure == part.regions.measure


def test_other_numbers_than_one_per_region_are_a_broken_contract() -> None:
    table, schema, regions = mixed_table(200)

    class Wrong(Balanced):
        def measure(self, data: FitData) -> np.ndarray:
            return np.array([1.0, np.nan])

    with pytest.raises(PluginError, match="finite measure"):
        measured(regions, FitData.of(table, schema, regions, seed=0), Wrong())
    with pytest.raises(SettingError):
        Hardness(folds=1)

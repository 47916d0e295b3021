"""Every stratum rule, found by walking the folder, cuts groups alike in any process and any order of rows."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.plugins import identity, make, names, restore, settings_of
from codsa_ray.regions import Region, Regions

from tables import mixed_table

NAMES = names("strata")


def tiny(name: str) -> Any:
    return type(make("strata", name)).tiny()


def fit_data(n: int = 400, seed: int = 0) -> tuple[FitData, np.ndarray]:
    """Fold-training rows with one region per group, and their groups."""
    table, schema, regions = mixed_table(n, seed)
    group = regions.groups[table[REGION].to_numpy()].astype(np.int64)
    whole = tuple(Region(str(g), g, 0, int(rows)) for g, rows in enumerate(regions.group_counts))
    table = table.drop_columns([REGION]).append_column(REGION, pa.array(group.astype(np.int32)))
    return FitData.of(table, schema, Regions(whole, regions.mix), seed=0), group


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_in_exactly_one_stratum(name: str) -> None:
    data, group = fit_data()
    rule = tiny(name).fit(data)
    strata = rule.assign(data.table(), group)
    assert strata.shape == group.shape
    assert strata.dtype == np.int32
    assert rule.strata >= 1
    assert ((strata >= 0) & (strata < rule.strata)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_rule_and_not_its_vector_crosses_to_other_rows(name: str) -> None:
    """Rows are assigned one by one as they are all together, in any order, seen before or not; none at all is fine."""
    data, _ = fit_data()
    rule = tiny(name).fit(data)
    table, _, regions = mixed_table(150, seed=1)
    group = regions.groups[table[REGION].to_numpy()].astype(np.int64)
    table = table.drop_columns([REGION, ROW])
    whole = rule.assign(table, group)
    order = np.random.default_rng(0).permutation(len(table))
    assert rule.assign(table.take(order), group[order]).tolist() == whole[order].tolist()
    assert rule.assign(table.slice(7, 1), group[7:8]).tolist() == whole[7:8].tolist()
    assert rule.assign(table.slice(0, 0), group[:0]).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_saved_pickled_and_refitted_rules_are_the_same(name: str, tmp_path: Path) -> None:
    data, group = fit_data()
    settings = tiny(name)
    rule = settings.fit(data)
    rule.save(Folder(str(tmp_path)).make())
    wanted = rule.assign(data.table(), group).tolist()
    for again in (settings.load(Folder(str(tmp_path))), pickle.loads(pickle.dumps(rule)), settings.fit(fit_data()[0])):
        assert again.strata == rule.strata
        assert again.assign(data.table(), group).tolist() == wanted


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_plain_and_give_the_rule_back(name: str) -> None:
    made = tiny(name)
    assert restore("strata", name, settings_of(made)) == made
    assert identity(made).startswith(f"{name}-")


def test_whole_groups_are_one_stratum() -> None:
    data, group = fit_data()
    rule = make("strata", "whole").fit(data)
    assert rule.strata == 1
    assert not rule.assign(data.table(), group).any()

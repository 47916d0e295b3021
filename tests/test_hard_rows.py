"""Rows that are hard on neighbours and networks: few, constant, null, wide, huge, equal; each generator draws valid ones."""

import importlib
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.draw import draw_block
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.generators.gk_smote import GkSmote
from codsa_ray.generators.interpolation import KINDS, Interpolation
from codsa_ray.generators.leo_cvae import LeoCvae
from codsa_ray.generators.majority_map import MajorityMap
from codsa_ray.generators.smogn import Smogn

from tables import LocalWorker, with_regions

GENERATORS = {
    "bootstrap": Bootstrap(jitter=0.1, cap=1500, block=64),
    "smogn": Smogn(cap=1500, block=64),
    **{kind: Interpolation(kind, cap=1500, block=64) for kind in KINDS},
    "gk_smote": GkSmote(cap=1500, block=64),
    "leo_cvae": LeoCvae(steps=10, width=16, code=4, cap=1500, block=64),
    "majority_map": MajorityMap(steps=5, batch=32, width=16, cap=1500, block=64),
}
NORMAL = np.random.default_rng(0).normal


def labels(common: int, rare: int) -> pa.Array:
    return pa.array(["common"] * common + ["rare"] * rare)


def few(rare: int) -> pa.Table:
    return pa.table({"a": NORMAL(size=40 + rare), "b": NORMAL(size=40 + rare), "label": labels(40, rare)})


def huge() -> pa.Table:
    """Values near the ends of float64 and int64, in both regions."""
    a = np.where(np.arange(60) % 7 == 0, 1.7e308, NORMAL(size=60)) * np.where(np.arange(60) % 2, 1, -1)
    whole = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 60, endpoint=True)
    whole[[0, 59]] = -(2**63), 2**63 - 1
    return pa.table({"a": a, "whole": whole, "label": labels(40, 20)})


def holes() -> pa.Table:
    a = pa.array([None if i >= 40 else float(i) for i in range(60)], pa.float64())
    b = pa.array([None if i >= 40 else f"v{i % 3}" for i in range(60)], pa.string())
    return pa.table({"a": a, "b": b, "none": pa.nulls(60, pa.float64()), "never": pa.nulls(60, pa.string()), "label": labels(40, 20)})


def wide() -> pa.Table:
    return pa.table({**{f"x{i}": column for i, column in enumerate(NORMAL(size=(1000, 50)))}, "label": labels(40, 10)})


TABLES = {
    "a region of 1 row": lambda: few(1),
    "a region of 2 rows": lambda: few(2),
    "a region of 5 rows": lambda: few(5),
    "3 rows": lambda: pa.table({"a": [1.0, 2.0, 3.0], "label": labels(2, 1)}),
    "a column constant in a region": lambda: pa.table({"a": [1.0] * 40 + [2.0] * 20, "b": NORMAL(size=60), "label": labels(40, 20)}),
    "a column null all over a region, and everywhere": holes,
    "10,000 categories": lambda: pa.table({"c": [f"c{i % 10_000}" for i in range(10_200)], "label": labels(10_150, 50)}),
    "1,000 columns": wide,
    "ends of floats and integers": huge,
    "duplicates": lambda: pa.table({"a": [1.0] * 30 + [2.0] * 30, "b": ["x"] * 60, "label": labels(40, 20)}),
    "collinear columns": lambda: pa.table({"a": np.arange(60.0), "b": 2 * np.arange(60.0) + 1, "label": labels(40, 20)}),
    "no drawn column": lambda: pa.table({"label": labels(40, 20)}),
}


def drawn(generator: Any, path: object, table: pa.Table) -> list[pa.Table]:
    found, schema, regions = with_regions(table, "label", ("label",))
    worker = LocalWorker(Folder(str(path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        generator.fit(FitData.of(found, schema, regions, 1), worker)
        fitted = generator.load(worker.folder)
        blocks = [fitted.block(region, 3) for region in range(len(regions))]
    assert all(len(block) == generator.needs.block for block in blocks)
    rows = [draw_block(fitted, schema, regions, region, 3)[0] for region in range(len(regions))]
    for block in rows:
        schema.check(block)
        assert len(block) == generator.needs.block
    return rows


def cases(tables: Iterable[str]) -> list[Any]:
    """Names of tables; the widest takes seconds for each generator, and is among the slow ones."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "1,000 columns" else name for name in tables]


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("table", cases(TABLES))
def test_hard_rows_are_drawn(name: str, table: str, tmp_path: object) -> None:
    rows = drawn(GENERATORS[name], tmp_path, TABLES[table]())
    if table == "a column constant in a region":
        assert [set(block["a"].to_pylist()) for block in rows] == [{1.0}, {2.0}]
    if table.startswith("a column null"):
        assert rows[1]["a"].null_count == rows[1]["b"].null_count == rows[0]["none"].null_count == 64
        assert rows[0]["a"].null_count == rows[0]["b"].null_count == 0
    if table == "a region of 1 row":
        assert len(set(rows[1]["a"].to_pylist())) == 1


@pytest.mark.parametrize("name", ["interpolation", "gk_smote"])
def test_more_neighbours_than_rows_are_lowered(name: str, tmp_path: object) -> None:
    module = importlib.import_module(f"codsa_ray.generators.{name}")
    settings = getattr(module, name.title().replace("_", ""))(k=500, block=64)
    drawn(settings, tmp_path, few(20))


def test_more_neighbours_than_rows_are_lowered_in_networks_too(tmp_path: object) -> None:
    drawn(LeoCvae(neighbours=500, steps=5, block=64), tmp_path, few(20))
    drawn(MajorityMap(k=500, steps=5, block=64), tmp_path, few(20))

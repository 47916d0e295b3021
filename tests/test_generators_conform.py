"""Laws that every generator keeps; the generators are those found in the folder, none left out."""

import dataclasses
import importlib
import json
import pkgutil
import random
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import codsa_ray.generators
from codsa_ray.draw import draw_block
from codsa_ray.errors import CodsaError, SchemaError
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

from tables import BIG, ODD, LocalWorker, digest, mixed_table, pictured, schema_of, with_regions

NAMES = [module.name for module in pkgutil.iter_modules(codsa_ray.generators.__path__)]
SIGMAS = 5.0

pytestmark = pytest.mark.parametrize("name", NAMES)


def class_of(name: str) -> Any:
    module = importlib.import_module(f"codsa_ray.generators.{name}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))


def fit(name: str, table: pa.Table, schema: Schema, regions: Regions, seed: int = 1) -> Folder:
    worker = LocalWorker(Folder(mkdtemp(prefix=f"{name}-")))
    class_of(name).tiny().fit(FitData.of(table, schema, regions, seed), worker)
    return worker.folder


@cache
def sample(name: str, rows: int = 600) -> tuple[pa.Table, Schema, Regions]:
    """Every kind of column that the generator takes; pictures among them where it draws some."""
    table, schema, regions = mixed_table(rows)
    if "image" in class_of(name).tiny().needs.kinds:
        return with_regions(pictured(without(table)), "label", ("label", "sex"))
    return table, schema, regions


@cache
def fitted_folder(name: str) -> Folder:
    return fit(name, *sample(name))


@cache
def fitted(name: str) -> Any:
    return class_of(name).tiny().load(fitted_folder(name))


def without(table: pa.Table, *names: str) -> pa.Table:
    return table.drop([n for n in (*names, REGION, ROW) if n in table.column_names])


def blanked(table: pa.Table, column: str, where: np.ndarray) -> pa.Table:
    values = pa.array([None if blank else value for value, blank in zip(table[column].to_pylist(), where, strict=True)], table[column].type)
    return table.set_column(table.column_names.index(column), column, values)


def draws(generator: Any, region: int, blocks: int = 4) -> pa.Table:
    return pa.concat_tables([generator.block(region, seed) for seed in range(blocks)])


def test_settings_are_frozen_and_survive_json(name: str) -> None:
    settings = class_of(name).tiny()
    plain = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert type(settings)(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}) == settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.anything = 1


def test_a_block_has_exactly_the_rows_that_needs_states_and_the_columns_that_regions_do_not_fix(name: str) -> None:
    _, schema, regions = sample(name)
    for region in range(len(regions)):
        rows = fitted(name).block(region, 3)
        assert len(rows) == class_of(name).tiny().needs.block
        assert set(rows.column_names) == {c.name for c in schema.columns} - {"label", "sex"}


def test_drawn_blocks_pass_the_schema_and_carry_the_region_s_constants(name: str) -> None:
    table, schema, regions = sample(name)
    for region, item in enumerate(regions.items):
        rows, redrawn = draw_block(fitted(name), schema, regions, region, 5)
        schema.check(rows)
        assert len(rows) == class_of(name).tiny().needs.block
        assert rows.schema.names == [c.name for c in schema.columns]
        assert rows.schema.types == table.select(rows.schema.names).schema.types
        assert redrawn.total() >= 0
        for column, value in item.constants:
            assert set(rows[column].to_pylist()) == {value}


def test_another_process_and_another_folder_draw_the_same_bytes(name: str, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(fitted_folder(name).local(), home)
    code = (
        "import sys; sys.path[:0] = sys.argv[3:]\n"
        "import importlib; from tables import Folder, digest\n"
        "module = importlib.import_module('codsa_ray.generators.' + sys.argv[1])\n"
        "generator = getattr(module, sys.argv[1].title().replace('_', '')).tiny().load(Folder(sys.argv[2]))\n"
        "print(*(digest(generator.block(region, 11)) for region in (2, 0)))\n"
    )
    root = Path(__file__).parent
    command = [sys.executable, "-c", code, name, str(home), str(root), str(root.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": ""}).stdout.split()
    assert told == [digest(fitted(name).block(region, 11)) for region in (2, 0)]


def test_seeds_and_regions_make_the_rows(name: str) -> None:
    assert digest(fitted(name).block(1, 11)) == digest(fitted(name).block(1, 11))
    assert digest(fitted(name).block(1, 11)) != digest(fitted(name).block(1, 12))
    assert digest(fitted(name).block(1, 11)) != digest(fitted(name).block(3, 11))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_region_of_a_few_rows_is_drawn_or_refused_in_one_line(name: str, rows: int) -> None:
    table = sample(name)[0]
    spare = np.flatnonzero(table[REGION].to_numpy() == 2)[rows:]
    table, schema, regions = with_regions(
        without(table.filter(pa.array(~np.isin(np.arange(len(table)), spare)))), "label", ("label", "sex")
    )
    assert regions.counts[2] == rows
    refused = ""
    try:
        generator = class_of(name).tiny().load(fit(name, table, schema, regions))
        schema.check(draw_block(generator, schema, regions, 2, 5)[0])
    except SchemaError:
        raise
    except CodsaError as error:
        refused = str(error)
    assert "\n" not in refused


def test_a_column_that_is_null_all_over_a_region_stays_so_there_alone(name: str) -> None:
    table = sample(name)[0]
    region = table[REGION].to_numpy()
    table = blanked(blanked(table, "wage", region == 3), "job", region == 0)
    table, schema, regions = with_regions(without(table), "label", ("label", "sex"))
    generator = class_of(name).tiny().load(fit(name, table, schema, regions))
    assert generator.block(3, 1)["wage"].null_count >= 0.95 * len(generator.block(3, 1))
    assert generator.block(0, 1)["job"].null_count >= 0.95 * len(generator.block(0, 1))
    assert generator.block(1, 1)["wage"].null_count <= 0.5 * len(generator.block(1, 1))


def test_a_column_without_any_value_is_drawn_as_null(name: str) -> None:
    table = sample(name)[0]
    for column in ("wage", "job", "member", "since", "big"):
        table = blanked(table, column, np.ones(len(table), dtype=bool))
    table, schema, regions = with_regions(without(table), "label", ("label", "sex"))
    rows, _ = draw_block(class_of(name).tiny().load(fit(name, table, schema, regions)), schema, regions, 1, 5)
    for column in ("wage", "job", "member", "since", "big"):
        assert rows[column].null_count == len(rows)
        assert rows[column].type == table[column].type


def test_a_constant_column_stays_constant(name: str) -> None:
    assert set(draws(fitted(name), 1)["flat"].to_pylist()) == {7.0}


def test_integers_beyond_two_to_the_53_are_exact(name: str) -> None:
    drawn = draws(fitted(name), 1)["big"].to_pylist()
    assert all(BIG <= value <= BIG + 6 for value in drawn)
    assert any(value % 2 for value in drawn), "a float64 in between leaves even numbers only"


def test_zones_and_bounds_of_datetimes_are_kept(name: str) -> None:
    drawn = draws(fitted(name), 1)["since"].drop_null()
    assert drawn.type == pa.timestamp("us", "UTC")
    low, high = sample(name)[1]["since"].low, sample(name)[1]["since"].high
    stamps = drawn.cast(pa.int64()).to_numpy()
    assert low <= stamps.min() <= stamps.max() <= high


def test_nulls_are_as_frequent_as_in_the_region(name: str) -> None:
    table, schema, regions = sample(name)
    for region, rows in enumerate(regions.counts):
        drawn, real = draws(fitted(name), region), table.filter(pa.array(table[REGION].to_numpy() == region))
        for column in drawn.column_names:
            share = (real[column].null_count + 1) / (rows + 2) if schema[column].nulls else 0.0
            bound = SIGMAS * np.sqrt(share * (1 - share) * (1 / rows + 1 / len(drawn)))
            assert abs(drawn[column].null_count / len(drawn) - share) <= bound, (column, region)


def test_hard_column_names_come_back(name: str) -> None:
    assert fitted(name).block(0, 1)[ODD].null_count == 0


def test_categories_beyond_the_cap_are_never_drawn(name: str) -> None:
    table, schema, regions = sample(name)
    job = dataclasses.replace(schema["job"], categories=schema["job"].categories[:3], other=True)
    schema = dataclasses.replace(schema, columns=tuple(job if c.name == "job" else c for c in schema.columns))
    generator = class_of(name).tiny().load(fit(name, table, schema, regions))
    rows, _ = draw_block(generator, schema, regions, 1, 5)
    assert set(rows["job"].drop_null().to_pylist()) == set(job.categories)


def test_a_numeric_target_is_drawn_like_any_column(name: str) -> None:
    table, schema, regions = with_regions(without(sample(name)[0]), ODD, ("sex",), "regression")
    rows, _ = draw_block(class_of(name).tiny().load(fit(name, table, schema, regions)), schema, regions, 0, 5)
    schema.check(rows)
    assert len(set(rows[ODD].to_pylist())) > 20


@pytest.mark.parametrize("kinds", [("categorical", "boolean"), ("numeric",), ("integer", "datetime")])
def test_tables_of_one_kind_of_column_are_drawn(name: str, kinds: tuple[str, ...]) -> None:
    table = without(sample(name)[0])
    schema = schema_of(table, "label")
    table = table.select([c.name for c in schema.columns if c.kind in (*kinds, "image") or c.name in ("label", "sex")])
    table, schema, regions = with_regions(table, "label", ("label", "sex"))
    generator = class_of(name).tiny().load(fit(name, table, schema, regions))
    for region in range(len(regions)):
        rows, _ = draw_block(generator, schema, regions, region, 5)
        schema.check(rows)


def test_fit_writes_nothing_that_needs_unpickling(name: str) -> None:
    files = [path for path in Path(fitted_folder(name).local()).rglob("*") if path.is_file()]
    assert files
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".parquet"}


def test_global_random_states_are_left_alone(name: str) -> None:
    def states() -> list[str]:
        return [repr(random.getstate()), repr(np.random.get_state(legacy=False)), torch.get_rng_state().numpy().tobytes().hex()]

    before = states()
    class_of(name).tiny().load(fit(name, *sample(name, 200))).block(0, 1)
    assert states() == before

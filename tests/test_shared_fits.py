"""Shared fits: generators that differ in how they draw alone learn once, whichever of them does, and draw each in its own way."""

from dataclasses import fields, replace
from pathlib import Path
from tempfile import mkdtemp

import pyarrow.parquet as pq
import pytest

from codsa_ray.contracts import Generator
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import ImageDiffusion
from codsa_ray.generators.language_model import LanguageModel
from codsa_ray.generators.latent_diffusion import LatentDiffusion
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.pipeline import run
from codsa_ray.plugins import as_fitted

import runs
from tables import LocalWorker, mixed_table

OTHER = {"guidance": 2.5, "evaluations": 7, "temperature": 0.6, "block": 96, "compiled": True}


@pytest.mark.parametrize("kind", [ImageDiffusion, LanguageModel, LatentDiffusion, TabularDiffusion, TextLm])
def test_what_only_drawing_asks_for_is_no_part_of_a_fit(kind: type[Generator]) -> None:
    plain = kind()
    assert plain.needs.drawing
    assert set(plain.needs.drawing) <= {field.name for field in fields(kind)}  # type: ignore[arg-type]
    assert as_fitted(replace(plain, **{name: OTHER[name] for name in plain.needs.drawing})) == plain  # type: ignore[type-var]
    assert as_fitted(replace(plain, rows=77)) == replace(plain, rows=77)  # type: ignore[type-var]


def test_a_base_s_own_pictures_take_evaluations_and_so_does_their_fit() -> None:
    assert "evaluations" in ImageDiffusion().needs.drawing
    assert "evaluations" not in ImageDiffusion(base="x", preserve=4).needs.drawing


@pytest.mark.parametrize("kind", [TabularDiffusion, LanguageModel])
def test_fits_that_differ_in_it_are_the_same_bytes(kind: type[Generator]) -> None:
    table, schema, regions = mixed_table(80)
    tiny = replace(kind.tiny(), steps=5)  # type: ignore[type-var]
    found = []
    for settings in (tiny, replace(tiny, **{name: OTHER[name] for name in tiny.needs.drawing})):
        folder = Folder(mkdtemp(prefix="shared-"))
        as_fitted(settings).fit(FitData.of(table, schema, regions, 1), LocalWorker(folder))
        found.append({name: folder.read_bytes(name) for name in folder.all_sizes()})
    assert found[0] == found[1]


def test_a_run_fits_once_for_all_that_draw_from_it(here: None, tmp_path: Path) -> None:
    learned = "tabular_diffusion:steps=20,width=16,batch=32"
    generators = (f"{learned},evaluations=3", f"{learned},evaluations=5", f"{learned},evaluations=5,block=64")
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=generators, draws=1, trials=3)
    run(job)
    made = tmp_path / "run" / "fit"
    assert len([path for path in made.iterdir() if path.is_dir()]) == 1
    assert len(list(made.glob("*/*/manifest.json"))) == 3, "two folds and all rows"
    pools = [pq.read_table(path).drop_columns(["_region"]) for path in sorted(tmp_path.glob("run/pools/*/*.parquet"))]
    assert len({str(pool.slice(0, 5).to_pydict()) for pool in pools}) == len(pools)

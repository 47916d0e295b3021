"""`default` and `auto` stand for plug-ins that take DATA's columns and do the task, a diffusion where continuous columns dominate."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.contracts import TABLE_KINDS
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.job import Job
from codsa_ray.pipeline import run, run_until
from codsa_ray.plugins import make, name_of
from codsa_ray.portfolio import AUTO, DEFAULT, GENERATORS

import runs
from tables import LocalWorker, with_regions


def named(job: Job, kinds: frozenset[str] = TABLE_KINDS) -> list[str]:
    return [name_of(generator) for generator in job.made(kinds).generator]


def test_auto_stands_for_the_portfolio_beside_what_is_named() -> None:
    portfolio = ["sequential_trees", "tabular_diffusion", "interpolation", "bootstrap"]
    assert named(Job("x.csv", "y", generator=("auto",))) == portfolio
    assert named(Job("x.csv", "y", generator=("bootstrap:jitter=0.1", "auto"))) == ["bootstrap", *portfolio]
    assert named(Job("x.csv", "y", generator=("sequential_trees", "auto"))) == portfolio
    assert named(Job("x.csv", "y")) == list(GENERATORS[DEFAULT]["table"])


def test_of_the_portfolio_those_that_do_the_task_are_taken() -> None:
    for task in ("classification", "regression", "anomaly"):
        wanted = [text.partition(":")[0] for text in GENERATORS[AUTO]["table"] if task in make("generators", text).needs.tasks]
        assert named(Job("x.csv", "y", task=task, generator=("auto",))) == wanted


@pytest.mark.parametrize("beside", [(), ("text",), ("image",), ("image", "text")])
@pytest.mark.parametrize("name", [DEFAULT, AUTO])
def test_what_stands_for_a_name_takes_every_kind_of_column(name: str, beside: tuple[str, ...]) -> None:
    kinds = TABLE_KINDS | set(beside)
    made = Job("x.parquet", "y", generator=(name,)).made(kinds)
    assert made.generator
    for plugin in (made.learner, *made.generator):
        assert kinds <= plugin.needs.kinds


@pytest.mark.parametrize(
    ("task", "beside", "wanted"),
    [
        ("classification", (), "boosted"),
        ("classification", ("text",), "tfidf"),
        ("classification", ("image",), "convnet"),
        ("classification", ("image", "text"), "joint"),
        ("regression", ("image",), "convnet"),
        ("regression", ("text",), "boosted"),
        ("anomaly", (), "autoencoder"),
    ],
)
def test_the_default_learner_goes_by_kinds_and_task(task: str, beside: tuple[str, ...], wanted: str) -> None:
    """Where none takes the kinds and does the task, the one named is refused with the column's name (test_infer)."""
    assert name_of(Job("x.parquet", "y", task=task).made(TABLE_KINDS | set(beside)).learner) == wanted


def test_a_run_over_texts_chooses_plugins_that_read_them_and_keeps_their_names(here: None, tmp_path: Path) -> None:
    texts = [f"the {word} of number {i} was told at length, for the {i % 7}th time" for i, word in enumerate(["cat", "dog"] * 40)]
    data = runs.written(tmp_path, pa.table({"said": texts, "y": ["a", "b"] * 40}))
    run_until(Job(data=data, target="y", out=str(tmp_path / "run"), folds=2), "read")
    kept = Folder(str(tmp_path / "run")).read_json("job.json")
    assert kept["learner"]["name"] == "tfidf"
    assert [generator["name"] for generator in kept["generator"]] == ["text_lm"]


@pytest.mark.parametrize("plugin", [{"generator": ("image_diffusion:base=/nowhere/at/all",)}, {"learner": "convnet:base=/nowhere/at/all"}])
def test_a_base_that_is_not_there_is_told_before_anything_is_read(plugin: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nowhere"):
        run(Job(data=str(tmp_path / "no.parquet"), target="y", out=str(tmp_path / "run"), **plugin))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("numbers", "fitted"), [(1, False), (2, True), (3, True)])
def test_a_diffusion_is_fitted_where_half_of_the_columns_are_continuous(numbers: int, fitted: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"n{i}": rng.normal(size=60) for i in range(numbers)} | {f"c{i}": rng.choice(["u", "v"], 60) for i in range(4 - numbers)}
    data = FitData.of(*with_regions(pa.table({**columns, "label": ["a", "b"] * 30}), "label", ("label",)), seed=1)
    settings, worker = replace(TabularDiffusion.tiny(), steps=2, continuous=0.5), LocalWorker(Folder(str(tmp_path)))
    if fitted:
        settings.fit(data, worker)
    else:
        with pytest.raises(SettingError, match="wanted at least 50% continuous columns; got 1 of 4"):
            settings.fit(data, worker)


def test_a_run_goes_on_without_the_diffusion_and_says_why(here: None, tmp_path: Path) -> None:
    table = runs.patients().select(["ward", "smokes", "sex", "age", "state"])
    settings: dict[str, Any] = {
        "generator": ("auto",),
        "learner": "logistic",
        "trials": 4,
        "draws": 1,
        "folds": 2,
        "repeats": 1,
        "workers": 2,
    }
    report = run(Job(data=runs.written(tmp_path, table), target="state", out=str(tmp_path / "run"), **settings))
    out = [notice for notice in report.facts["notices"] if "tabular_diffusion" in notice]
    assert len(out) == 1
    assert "is out: SettingError: wanted at least 50% continuous columns; got 1 of 4" in out[0]
    tried = {candidate["name"].split()[0] for candidate in report.facts["candidates"]}
    assert {"sequential_trees", "interpolation", "bootstrap"} <= tried

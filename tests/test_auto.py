"""`auto` stands for the portfolio: generators that do the task, a diffusion where continuous columns dominate, by the search's choice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.job import AUTO, GENERATORS, Job
from codsa_ray.pipeline import run
from codsa_ray.plugins import make, name_of

import runs
from tables import LocalWorker, with_regions


def named(job: Job) -> list[str]:
    return [name_of(generator) for generator in job.made().generator]


def test_auto_stands_for_the_portfolio_beside_what_is_named() -> None:
    portfolio = ["sequential_trees", "tabular_diffusion", "interpolation", "bootstrap"]
    assert named(Job("x.csv", "y", generator=("auto",))) == portfolio
    assert named(Job("x.csv", "y", generator=("bootstrap:jitter=0.1", "auto"))) == ["bootstrap", *portfolio]
    assert named(Job("x.csv", "y", generator=("sequential_trees", "auto"))) == portfolio
    assert named(Job("x.csv", "y")) == list(GENERATORS)


def test_of_the_portfolio_those_that_do_the_task_are_taken() -> None:
    for task in ("classification", "regression", "anomaly"):
        wanted = [text.partition(":")[0] for text in AUTO if task in make("generators", text).needs.tasks]
        learner = "autoencoder" if task == "anomaly" else "boosted"
        assert named(Job("x.csv", "y", task=task, generator=("auto",), learner=learner)) == wanted


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

"""Regression through the whole pass with real parts: target bins, generators that keep to them, losses in the target's own units."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.datasets import load_diabetes

from codsa_ray.cli import job_of, parser
from codsa_ray.contracts import silent
from codsa_ray.errors import SchemaError, SettingError
from codsa_ray.folder import Folder
from codsa_ray.generators.sequential_trees import SequentialTrees
from codsa_ray.generators.smogn import Smogn
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.job import Job
from codsa_ray.learners.boosted import Boosted
from codsa_ray.pipeline import Report, prepare, run
from codsa_ray.risk import Pinball
from codsa_ray.rows import FINAL

import runs

GENERATORS = (SequentialTrees(block=256), replace(TabularDiffusion.tiny(), steps=60), Smogn(block=256))


def progression() -> pa.Table:
    """scikit-learn's diabetes data: ten numbers and the progression of the disease a year later, 25 to 346."""
    X, y = load_diabetes(return_X_y=True)
    return pa.table({**{f"x{i}": np.round(column, 4) for i, column in enumerate(X.T)}, "progression": y})


def job(place: Path, table: pa.Table | None = None, **settings: Any) -> Job:
    data = runs.written(place, progression() if table is None else table)
    quick = {"trials": 3, "draws": 2, "folds": 2, "force": True, "workers": 2, "bins": 3, "task": "regression"}
    return Job(**{"data": data, "target": "progression", "out": str(place / "run"), **quick, **settings})


@pytest.fixture(scope="module")
def report(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        return run(job(tmp_path_factory.mktemp("regression"), generator=GENERATORS, learner=Boosted(rounds=40)))


def test_bins_hold_equally_many_rows_and_are_stratified(ray: None, tmp_path: Path) -> None:
    rows, _, partitions = prepare(job(tmp_path, bins=4, folds=3).made(), Folder(str(tmp_path / "run")), silent)
    counts = np.array(rows.counts)
    assert counts.sum(axis=0) == pytest.approx(442 / 4, abs=3)
    assert np.ptp(counts[:3], axis=0).max() <= 1
    assert rows.groups.items[0].name == f"progression < {rows.groups.grouping.edges[0]!r}"
    values = rows.training(FINAL, partitions[FINAL].regions, partitions[FINAL].rule).table()["progression"].to_numpy()
    assert len(set(np.searchsorted(rows.groups.grouping.edges, values, side="right"))) == 4


def test_bins_of_many_rows_are_those_of_a_sample(ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codsa_ray.stages.read.BINNED_ROWS", 150)
    rows, _, _ = prepare(job(tmp_path).made(), Folder(str(tmp_path / "run")), silent)
    every = np.quantile(progression()["progression"].to_numpy(), [1 / 3, 2 / 3], method="higher")
    assert rows.groups.grouping.edges != tuple(every)
    assert np.array(rows.counts).sum(axis=0) == pytest.approx(442 / 3, rel=0.3)


def test_bins_are_crossed_with_conditions(ray: None, tmp_path: Path) -> None:
    rows, _, _ = prepare(job(tmp_path, bins=2, region=("x2 < 0",)).made(), Folder(str(tmp_path / "run")), silent)
    names = [group.name for group in rows.groups.items]
    assert len(names) == 4
    assert sum(name.endswith(", x2 < 0") for name in names) == sum(name.endswith(", rest") for name in names) == 2


def test_a_target_that_is_no_finite_number_is_set_aside(ray: None, tmp_path: Path) -> None:
    table = progression()
    y = table["progression"].to_numpy().copy()
    y[:5] = [np.inf, -np.inf, np.nan, np.nan, np.inf]
    _, facts, _ = prepare(job(tmp_path, table.set_column(10, "progression", pa.array(y))).made(), Folder(str(tmp_path / "run")), silent)
    assert facts["set_aside"] == 5


def test_drawn_targets_lie_in_their_bin_and_the_scores_are_in_squared_units(report: Report) -> None:
    real, drawn = runs.augmented(report)
    assert not [c["name"] for c in report.facts["candidates"] if c["failed"]]
    edges = runs.rows_of(report).groups.grouping.edges
    for table in (real, drawn):
        bins = np.searchsorted(edges, table["progression"].to_numpy(), side="right")
        names = np.array([f"< {edges[0]!r}", f"in [{edges[0]!r}, {edges[1]!r})", f">= {edges[1]!r}"])[bins]
        assert table["_region"].to_pylist() == [f"progression {name}" for name in names]
    spread = float(np.var(progression()["progression"].to_numpy()))
    for candidate in report.facts["candidates"]:
        assert candidate["form"] == "raw"
        assert 0.25 * spread < candidate["loss"] < 1.5 * spread
    assert {c["generator"] for c in report.facts["candidates"]} == {"", "sequential_trees", "tabular_diffusion", "smogn"}


@pytest.mark.parametrize("name", ["sequential_trees", "tabular_diffusion", "smogn"])
def test_every_generator_fills_every_bin_with_its_own_targets(report: Report, name: str) -> None:
    rows = runs.rows_of(report)
    edges = rows.groups.grouping.edges
    files = [file for file in Path(report.folder, "pools").rglob("*.parquet") if file.parent.name.startswith(name)]
    table = pa.concat_tables([pa.parquet.read_table(file, columns=["progression", "_region"]) for file in files])
    assert (np.searchsorted(edges, table["progression"].to_numpy(), side="right") == table["_region"].to_numpy()).all()
    for k in range(3):
        inside = table.filter(pc.equal(table["_region"], k))["progression"].to_numpy()
        real = progression()["progression"].to_numpy()
        own = real[np.searchsorted(edges, real, side="right") == k]
        assert len(inside) == 0 or abs(inside.mean() - own.mean()) < own.std()


def test_nothing_on_the_page_speaks_of_probabilities(report: Report) -> None:
    text = re.sub(r"<(script|style).*?</\1>", "", Path(report.path).read_text(), flags=re.DOTALL).lower()
    stored = json.loads(Path(report.folder, "report.json").read_text())
    assert not [word for word in ("calibrat", "offset", "log loss", "probabilit", "auroc") if word in text]
    assert "calibrat" not in json.dumps([stored["verdict"], stored["candidates"], stored["notices"]])
    correction = json.loads(Path(report.folder, "correction.json").read_text())
    assert (correction["offset"], correction["calibrated"]) == (None, False)
    assert "log-probabilities" not in correction["train"]


def test_another_loss_judges_the_stored_scores_anew(report: Report, here: None, tmp_path: Path) -> None:
    stored = json.loads(Path(report.folder, "job.json").read_text())
    given = Job(data=stored["data"], target="progression", trials=3, draws=2, folds=2, force=True, workers=2, bins=3, task="regression")
    changed = replace(given, generator=GENERATORS, learner=Boosted(rounds=40), loss="absolute")
    again = runs.again(report, changed, tmp_path / "again")
    before, after = ({c["name"]: c["loss"] for c in r.facts["candidates"]} for r in (report, again))
    assert {stage["name"] for stage in again.facts["stages"] if stage["reused"]} >= {"read", "fit", "synthesize"}
    assert all(after[name] < np.sqrt(before[name]) for name in after.keys() & before.keys())
    assert "none" in after


def test_the_command_line_takes_loss_bins_and_shares() -> None:
    words = [
        "augment",
        "data",
        "--target",
        "y",
        "--task",
        "regression",
        "--loss",
        "pinball:0.9",
        "--bins",
        "3",
        "--share",
        "1",
        "--share",
        ".5",
    ]
    made = job_of(parser().parse_args(words))
    assert (made.loss, made.bins, made.share) == ("pinball:0.9", 3, (1.0, 0.5))


@pytest.mark.parametrize("settings", [{"bins": 1}, {"bins": 3, "task": "classification"}, {"loss": "huber"}])
def test_settings_that_a_task_does_not_have_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Job(**{"data": "d", "target": "y", "task": "regression", **settings})


def test_bins_of_words_are_refused(ray: None, tmp_path: Path) -> None:
    words = pa.table({"x": np.arange(40.0), "progression": [str(i) + "a" for i in range(40)]})
    with pytest.raises(SchemaError, match="--bins"):
        prepare(job(tmp_path, words).made(), Folder(str(tmp_path / "run")), silent)


def test_trees_of_a_quantile_beat_those_of_the_mean_by_its_pinball_loss() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1200, 3))
    y = X[:, 0] + (1 + np.abs(X[:, 1])) * rng.exponential(size=1200)
    train, test = slice(0, 600), slice(600, None)
    loss = {}
    for quantile in (0.0, 0.9):
        found = Boosted(quantile=quantile, least=20, rounds=80).fit(X[train], y[train], np.ones(600), classes=0, seed=0)
        loss[quantile] = Pinball(0.9).losses(found.scores(X[test]), y[test]).mean()
    assert loss[0.9] < 0.8 * loss[0.0]
    with pytest.raises(SettingError, match="quantile"):
        Boosted(quantile=1.0)

"""Trees from disk: they are those of rows in memory, with the weights and the correction of the run they belong to."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codsa_ray import Model, stages
from codsa_ray.cli import main
from codsa_ray.encode import Ordinal
from codsa_ray.folder import Folder
from codsa_ray.infer import infer
from codsa_ray.learners.boosted import Boosted
from codsa_ray.pipeline import Report, run
from codsa_ray.stages.boost import Fit, Pages, Totals
from codsa_ray.summary import Summary
from codsa_ray.training import train_run

import runs

LEARNER = Boosted(depth=3, rounds=30)


def written(place: Path, files: int, n: int = 900) -> tuple[Pages, pa.Table]:
    """Rows as `apply` writes them, cut into files; the last third is of draw 1."""
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(2, n))
    kind = np.array(["a", "b", "c"])[np.digitize(x + rng.normal(size=n), (0.3, 1.0))]
    where = np.array(["north", "south"])[(z > 0).astype(int)]
    table = pa.table({"x": pa.array(x, mask=rng.random(n) < 0.1), "where": where, "z": z, "kind": kind})
    schema = infer(Summary.of(table, np.arange(n)), "kind", task="classification")
    marked = table.append_column("_weight", pa.array(rng.uniform(0.2, 3.0, n) * (rng.random(n) < 0.95)))
    marked = marked.append_column("_draw", pa.array(np.where(np.arange(n) < 2 * n // 3, -1, 1), pa.int32()))
    for index, start in enumerate(range(0, n, n // files)):
        pq.write_table(marked.slice(start, n // files), place / f"{index}.parquet")
    encoder = Ordinal.learn(schema.canonical(table)[0], schema)
    return Pages(Folder(str(place)), tuple(f"{index}.parquet" for index in range(files)), schema, encoder), marked


def in_memory(pages: Pages, table: pa.Table, keep: np.ndarray) -> np.ndarray:
    """Scores of all rows by trees that were fitted on an array."""
    canonical, _ = pages.schema.canonical(table)
    X, y, weight = pages.encoder.encode(canonical), pages.schema.truth(table), table["_weight"].to_numpy()
    keep = keep & (weight > 0)
    return LEARNER.fit(X[keep], y[keep], weight[keep], classes=3, seed=0).scores(X)


@pytest.mark.parametrize(("files", "off"), [(1, 1e-5), (6, 0.05)])
def test_trees_from_disk_are_those_of_rows_in_memory(tmp_path: Path, files: int, off: float) -> None:
    pages, table = written(tmp_path, files)
    pages = replace(pages, draw=1)
    fit = _one(pages)
    X = pages.encoder.encode(pages.schema.canonical(table)[0])
    wanted = in_memory(pages, table, np.ones(len(table), dtype=bool))
    # Quantiles of several pages are merged sketches: cuts may move a little.
    assert np.mean(np.abs(np.exp(fit.scores(X)) - np.exp(wanted))) < off


def _one(pages: Pages):  # type: ignore[no-untyped-def]
    return Fit(LEARNER, pages, 0).train(Totals.of(pages, 1), 1, pages.folder)


def test_a_draw_sees_real_rows_and_its_own_alone(tmp_path: Path) -> None:
    pages, table = written(tmp_path, 1)
    real = table["_draw"].to_numpy() == -1
    X = pages.encoder.encode(pages.schema.canonical(table)[0])
    assert np.allclose(_one(pages).scores(X), in_memory(pages, table, real), atol=1e-4)


def test_files_without_a_row_of_the_fit_are_given_to_no_worker(tmp_path: Path) -> None:
    pages, _ = written(tmp_path, 3)
    assert Totals.of(pages, 1).files == ("0.parquet", "1.parquet")
    assert Totals.of(replace(pages, draw=1), 1).files == pages.files


def test_a_bag_counts_rows_by_poisson_numbers_that_its_seed_fixes(tmp_path: Path) -> None:
    pages, table = written(tmp_path, 1)
    pages = replace(pages, draw=1)
    weights = [replace(pages, bag=bag).page("0.parquet")[2] for bag in (0, 0, 1)]
    assert np.array_equal(weights[0], weights[1])
    assert len(weights[0]) != len(weights[2]) or not np.array_equal(weights[0], weights[2])
    total = table["_weight"].to_numpy().sum()
    found = [replace(pages, bag=bag).page("0.parquet")[2].sum() / total for bag in range(60)]
    assert np.mean(found) == pytest.approx(1, abs=4 * np.std(found) / np.sqrt(60))


def test_an_encoding_comes_back_from_json(tmp_path: Path) -> None:
    pages, table = written(tmp_path, 1)
    canonical, _ = pages.schema.canonical(table)
    again = Ordinal.from_json(json.loads(json.dumps(pages.encoder.to_json())))
    assert np.array_equal(again.encode(canonical), pages.encoder.encode(canonical), equal_nan=True)


# --- of a run


@pytest.fixture(scope="module")
def report(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    place = tmp_path_factory.mktemp("trained")
    data = runs.written(place, runs.patients())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.fit, "_run", runs.fits_here)
        patch.setattr(stages.search, "_tune", runs.tries_here)
        yield run(runs.job(data, place / "run", learner="boosted:depth=2,rounds=30", group=("sex",), workers=1))


def test_the_model_of_a_run_does_on_the_test_rows_what_the_report_says(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", report.folder]) == 0
    assert "balanced loss" in capsys.readouterr().out
    found = train_run(report.folder)
    losses = {candidate["name"]: candidate["test_loss"] for candidate in report.facts["candidates"]}
    said = next(loss for name, loss in losses.items() if name.startswith(found["candidate"]) and "calibration" in name)
    assert found["fits"] == 2 if "draws" in found["candidate"] else 1
    assert json.loads((Path(report.folder) / "correction.json").read_text())["by_cell"]
    assert found["test_loss"] == pytest.approx(said, abs=0.02)


def test_a_model_scores_rows_without_their_target(report: Report) -> None:
    train_run(report.folder)
    model = Model.load(f"{report.folder}/model")
    table = runs.patients(50, seed=1)
    p = model.predict_proba(table.drop_columns(["state"]))
    assert p.shape == (50, 2)
    assert np.allclose(p.sum(axis=1), 1)
    assert np.array_equal(p, model.predict_proba(table))
    assert set(model.predict(table)) <= {"sick", "well"}


def test_a_model_is_trained_again_for_another_correction_and_scores_rows_without_what_was_hidden(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients(160))
    few: dict[str, Any] = {"learner": "boosted:depth=2,rounds=5", "hide": ("ward",), "trials": 1, "draws": 1, "workers": 1}
    folder = run(runs.job(data, tmp_path / "run", generator=("bootstrap",), **few)).folder
    first = train_run(folder)["test_loss"]
    rows = runs.patients(20, seed=1)
    p = Model.load(f"{folder}/model").predict_proba(rows.drop_columns(["ward", "state"]))
    assert np.array_equal(p, Model.load(f"{folder}/model").predict_proba(rows))
    stored = json.loads((Path(folder) / "correction.json").read_text())
    stored |= {"calibrated": True, "slope": [0.1, 0.1], "bias": [0.0, 0.0]}
    (Path(folder) / "correction.json").write_text(json.dumps(stored))
    assert train_run(folder)["test_loss"] != first


def test_a_run_of_another_learner_and_a_folder_without_a_model_are_refused(
    finished: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", finished.folder]) == 2
    assert "wanted the learner boosted" in capsys.readouterr().err
    with pytest.raises(Exception, match=r"without model\.json"):
        Model.load(str(tmp_path))


@pytest.mark.slow
def test_workers_share_a_fit_through_ray_train(ray: None, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    pages, table = written(tmp_path / "rows", 6)
    pages = replace(pages, draw=1)
    (tmp_path / "store").mkdir()
    fit = Fit(LEARNER, pages, 0).train(Totals.of(pages, 2), 2, Folder(str(tmp_path / "store")))
    X = pages.encoder.encode(pages.schema.canonical(table)[0])
    wanted = in_memory(pages, table, np.ones(len(table), dtype=bool))
    assert np.mean(np.abs(np.exp(fit.scores(X)) - np.exp(wanted))) < 0.05
    assert Folder(str(tmp_path / "store")).names() == []

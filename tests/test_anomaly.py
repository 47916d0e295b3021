"""Anomaly detection, end to end: usual rows of two places, of which one is rare, train an autoencoder; drawn ones join them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.job import Job
from codsa_ray.learners.autoencoder import Autoencoder
from codsa_ray.partition import drawn_mix
from codsa_ray.pipeline import Report, run

import gallery
import runs


def planes(usual: int = 160, rare: int = 40, odd: int = 40, seed: int = 0) -> pa.Table:
    """Usual rows lie on a plane of their place's own in six columns, anomalies in all six."""
    rng = np.random.default_rng(seed)
    parts = []
    for index, (place, many) in enumerate((("here", usual), ("there", rare))):
        turn = np.linalg.qr(np.random.default_rng(index).normal(size=(6, 6)))[0]
        flat = rng.normal(size=(many, 6)) * [2, 2, 0.1, 0.1, 0.1, 0.1]
        strange = rng.normal(size=(odd // 2, 6)) * 1.2
        X = np.vstack([flat @ turn, strange]) + index
        labels = np.repeat(["normal", "anomaly"], [many, odd // 2])
        parts.append(pa.table({**{f"x{i}": column for i, column in enumerate(X.T)}, "place": [place] * len(X), "state": labels}))
    return pa.concat_tables(parts)


@pytest.fixture(scope="module")
def report(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    place = tmp_path_factory.mktemp("planes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        learner = Autoencoder(code=2, steps=300, rate=3e-3)
        settings = {"task": "anomaly", "group": ("place",), "hide": ("place",), "learner": learner, "generator": ("bootstrap:jitter=0.1",)}
        return run(runs.job(runs.written(place, planes()), place / "run", trials=1, draws=1, **settings))


def test_only_usual_rows_are_drawn_until_the_places_have_the_same_number(report: Report) -> None:
    real, drawn = runs.augmented(report)
    assert set(drawn["state"].to_pylist()) == {"normal"}
    assert set(drawn["place"].to_pylist()) == {"there"}
    mine = {place: np.sum((np.array(real["place"]) == place) & (np.array(real["state"]) == "normal")) for place in ("here", "there")}
    assert len(drawn) == mine["here"] - mine["there"]


def test_the_report_ranks_anomalies_by_their_odds(report: Report) -> None:
    (way, *_) = report.facts["metrics"]["test"]["ways"]
    assert way["values"]["AUROC"]["value"] > 0.8
    assert [group["name"] for group in report.facts["groups"]] == [
        f"state={state}, place={place}" for state in ("anomaly", "normal") for place in ("here", "there")
    ]


def test_the_verdict_weighs_anomalies_as_the_target_mix_does(report: Report, tmp_path: Path) -> None:
    rows = runs.rows_of(report)
    assert rows.groups.mix == (0.25,) * 4
    assert drawn_mix(rows.groups, rows.schema(-1)) == (0.0, 0.0, 0.5, 0.5)


def test_anomalies_among_pictures_go_through_the_whole_pass(here: None, tmp_path: Path) -> None:
    """Sevens among ones."""
    data = runs.written(tmp_path, gallery.digits(120, 30).select(["picture", "digit"]))
    given = {
        "task": "anomaly",
        "schema": {"picture": {"kind": "image"}},
        "generator": ("bootstrap",),
        "learner": Autoencoder(steps=150, hidden=32),
        "folds": 1,
        "repeats": 1,
    }
    report = run(Job(data, "digit", out=str(tmp_path / "run"), trials=1, draws=1, workers=2, **given))
    (way, *_) = report.facts["metrics"]["test"]["ways"]
    assert way["values"]["AUROC"]["value"] > 0.7

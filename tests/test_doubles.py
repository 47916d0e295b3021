"""The types are proven before they are needed: pictures, regression, anomaly and a source set go through the whole pass."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from codsa_ray.errors import InputError, SettingError
from codsa_ray.job import Job
from codsa_ray.judge import NEVER_SHIPPED
from codsa_ray.picture import decoded, encoded
from codsa_ray.pipeline import Report, run
from codsa_ray.report.page import render

import runs
from doubles import Distance, Halves, NoisyCopies, RawPixels, Ridge

QUICK: dict[str, Any] = {"trials": 2, "draws": 2, "folds": 2, "force": True, "workers": 2}


def whole(report: Report) -> tuple[pa.Table, pa.Table]:
    """What every pass ends with: a verdict, its rows, a report that is JSON, and the page of it; returns (real, drawn)."""
    assert report.verdict.kind in ("augment", "bag", "reweight", "correct", "leave")
    assert report.verdict.best is not None
    stored = json.loads(Path(report.folder, "report.json").read_text())
    assert not [c["name"] for c in stored["candidates"] if c["failed"]]
    assert not [notice for notice in stored["notices"] if "is out" in notice or "failed" in notice]
    assert all(c["test_loss"] is not None for c in stored["candidates"] if c["kind"] not in ("synthetic", NEVER_SHIPPED))
    assert stored["curve"]["generators"][0]["points"]
    assert Path(report.path).read_text() == render(stored)
    real, drawn = runs.augmented(report)
    plan = stored["verdict"]["plan"]
    assert len(drawn) == plan["rows"] * plan["draws"] > 0
    assert len(real) == stored["data"]["train"]
    schema = runs.schema_of(report)
    schema.check(schema.canonical(drawn)[0])
    return real, drawn


# Pictures


def pictures(n: int = 160) -> pa.Table:
    """4 x 4 grey pictures as PNG files: bright at the left ("left", one in eight) or at the right."""
    rng = np.random.default_rng(0)
    left = np.arange(n) % 8 == 0
    gray = rng.normal(90, 40, (n, 4, 4)) + 60 * np.where(left[:, None, None], [1, 0.5, 0, 0], [0, 0, 0.5, 1])
    files = [encoded(picture[:, :, None]) for picture in np.clip(gray, 0, 255).astype(np.uint8)]
    return pa.table({"scan": pa.array(files, pa.binary()), "age": rng.normal(50, 10, n), "side": np.where(left, "left", "right")})


def test_pictures_go_through_the_whole_pass(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, pictures())
    job = Job(data=data, target="side", out=str(tmp_path / "run"), generator=(NoisyCopies(),), learner=RawPixels(), **QUICK)
    report = run(job)
    real, drawn = whole(report)
    assert real.schema.field("scan").type == pa.binary()
    assert {decoded(scan).shape for scan in drawn["scan"].to_pylist()} == {(4, 4, 1)}
    assert not set(drawn["scan"].to_pylist()) & set(pictures()["scan"].to_pylist())
    assert report.facts["schema"][0]["kind"] == "image"
    assert report.verdict.loss < np.log(2) / 2


def test_pictures_are_refused_by_a_learner_that_cannot_read_them(ray: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, pictures())
    with pytest.raises(Exception, match="column 'scan' of kind image"):
        run(Job(data=data, target="side", out=str(tmp_path / "run"), generator=(NoisyCopies(),), learner="logistic", **QUICK))


# Regression


def wages(n: int = 200) -> pa.Table:
    """A wage that is a line in two columns, with another slope for the few under 25."""
    rng = np.random.default_rng(1)
    age, skill = np.round(rng.uniform(18, 65, n), 1), rng.normal(size=n)
    young = age < 25
    wage = 10 + 0.2 * age + np.where(young, -2.0, 3.0) * skill + rng.normal(0, 0.3, n)
    return pa.table({"age": age, "skill": skill, "young": young.astype(float), "young skill": young * skill, "wage": wage})


def test_regression_goes_through_the_whole_pass(here: None, tmp_path: Path) -> None:
    settings = {"task": "regression", "region": ("age < 25",), "generator": (NoisyCopies(0.02),), "learner": Ridge(), **QUICK}
    report = run(Job(data=runs.written(tmp_path, wages()), target="wage", out=str(tmp_path / "run"), **settings))
    _, drawn = whole(report)
    assert set(drawn["_region"].to_pylist()) <= {"age < 25", "rest"}
    assert ((drawn["age"].to_numpy() < 25) == (drawn["_region"].to_numpy() == "age < 25")).all()
    assert not set(drawn["wage"].to_pylist()) & set(wages()["wage"].to_pylist())
    assert {c["form"] for c in report.facts["candidates"]} == {"raw"}
    best = next(c for c in report.facts["candidates"] if c["name"] == "none")
    assert 0.05 < best["loss"] < 0.5
    correction = json.loads((tmp_path / "run" / "correction.json").read_text())
    assert (correction["offset"], correction["calibrated"], correction["slope"]) == (None, False, [1.0])


def test_regression_without_regions_has_one_group(here: None, tmp_path: Path) -> None:
    settings = {"task": "regression", "generator": (NoisyCopies(0.02),), "learner": Ridge(), **QUICK}
    report = run(Job(data=runs.written(tmp_path, wages()), target="wage", out=str(tmp_path / "run"), **settings))
    whole(report)
    assert [group["name"] for group in report.facts["groups"]] == ["all"]


def test_a_classifier_is_refused_for_a_regression(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="plug-ins that do regression; got logistic"):
        run(Job(data=runs.written(tmp_path, wages()), target="wage", out=str(tmp_path / "run"), task="regression", learner="logistic"))


# Anomaly


def payments(n: int = 200) -> pa.Table:
    """Usual payments near the middle, one in ten far from it in both columns."""
    rng = np.random.default_rng(2)
    odd = np.arange(n) % 10 == 0
    far = np.where(odd[:, None], 3.0, 1.0)
    found = rng.normal(0, far, (n, 2))
    return pa.table({"amount": found[:, 0], "hour": found[:, 1], "fraud": np.where(odd, "yes", "no")})


def test_anomaly_goes_through_the_whole_pass(here: None, tmp_path: Path) -> None:
    settings = {"task": "anomaly", "generator": (NoisyCopies(),), "learner": Distance(), **QUICK}
    report = run(Job(data=runs.written(tmp_path, payments()), target="fraud", out=str(tmp_path / "run"), **settings))
    _, drawn = whole(report)
    # The detector learns from usual rows alone: others would teach it nothing.
    assert set(drawn["fraud"].to_pylist()) == {"no"}
    losses = {c["name"]: c["loss"] for c in report.facts["candidates"]}
    assert losses["none + offset and calibration"] < min(losses["none"], np.log(2))
    correction = json.loads((tmp_path / "run" / "correction.json").read_text())
    form = next(c["form"] for c in report.facts["candidates"] if c["name"] == correction.get("candidate", report.facts["verdict"]["best"]))
    assert correction["task"] == "anomaly"
    assert correction["offset"] is None
    assert correction["calibrated"] == (form == "calibrated")


# Learned strata


def test_learned_strata_go_through_the_whole_pass(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    settings = {"generator": (NoisyCopies(),), "learner": "logistic", "strata": Halves("marker"), **QUICK}
    report = run(Job(data=data, target="state", out=str(tmp_path / "run"), **settings))
    real, drawn = whole(report)
    names = {f"state={state} / stratum {half}" for state in ("sick", "well") for half in (0, 1)}
    assert set(real["_region"].to_pylist()) == names
    assert set(drawn["_region"].to_pylist()) == {name for name in names if "sick" in name}
    for table in (real, drawn):
        for region in ("state=sick", "state=well"):
            halves = [table.filter(pc.equal(table["_region"], f"{region} / stratum {half}")) for half in (0, 1)]
            values = [half["marker"].fill_null(0.0).to_numpy() for half in halves]
            assert not len(values[0]) or values[0].max() <= values[1].min()
    assert [group["name"] for group in report.facts["groups"]] == ["state=sick", "state=well"]


# A source data set


def test_a_source_set_reaches_the_generator_by_column_name(here: None, tmp_path: Path) -> None:
    """The source has its columns in another order, one of its own, one missing, and a label of its own."""
    source = runs.patients(90, seed=5).drop_columns(["smokes"]).append_column("extra", pa.array(np.arange(90)))
    source = source.select(source.column_names[::-1])
    state = np.where(np.arange(90) < 10, "unknown", source["state"].to_numpy(zero_copy_only=False))
    source = source.set_column(source.column_names.index("state"), "state", pa.array(state))
    source = source.set_column(source.column_names.index("marker"), "marker", pa.array(np.arange(90) + 1e6))
    data, related = runs.written(tmp_path, runs.patients()), runs.written(tmp_path, source, "source.parquet")
    overrides = {"marker": {"low": -10.0, "high": 2e6}}
    settings = {"generator": (NoisyCopies(0.0, related=True),), "learner": "logistic", "source": related, "schema": overrides, **QUICK}
    job = Job(data=data, target="state", out=str(tmp_path / "run"), **settings)
    report = run(job)
    real, drawn = runs.augmented(report)
    borrowed = drawn.filter(pc.greater(drawn["marker"], 1e5))
    assert len(borrowed) == pytest.approx(len(drawn) / 2, rel=0.2)
    assert borrowed["smokes"].null_count == len(borrowed)
    known = {marker: label for marker, label in zip((np.arange(90) + 1e6).tolist(), state.tolist(), strict=True) if label != "unknown"}
    assert all(known[m] == s for m, s in zip(borrowed["marker"].to_pylist(), borrowed["state"].to_pylist(), strict=True))
    assert pc.max(real["marker"]).as_py() < 1e5
    assert "the source was not used: none of the generators learns from one" not in report.facts["notices"]

    # The same path with other rows in it is another source.
    before = runs.times(tmp_path / "run" / "read")
    pq.write_table(source.slice(10), related)
    again = run(job)
    assert runs.times(tmp_path / "run" / "read") == before
    assert {stage["name"] for stage in again.facts["stages"] if stage["reused"]} == {"read"}


def test_a_source_without_a_column_in_common_is_refused(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    other = runs.written(tmp_path, pa.table({"state": ["sick", "well"], "colour": ["red", "blue"]}), "other.parquet")
    with pytest.raises(InputError, match="a source that shares feature columns by name"):
        run(runs.job(data, tmp_path / "run", source=other))

"""What a job asks for is in force from end to end: units, groups, merges, a target mix, a test set of its own, the correction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from codsa_ray.cli import job_of, parser
from codsa_ray.correct import Correction, Offset
from codsa_ray.errors import GroupError, InputError
from codsa_ray.learners.logistic import Logistic
from codsa_ray.pipeline import Report, run

import runs


def test_units_stay_together(here: None, tmp_path: Path) -> None:
    table = runs.patients().append_column("clinic", pa.array(np.arange(240) // 6))
    report = run(runs.job(runs.written(tmp_path, table), tmp_path / "run", unit="clinic", trials=1))
    homes: dict[int, set[int]] = {}
    for part in runs.rows_of(report).parts:
        rows, split = (pq.read_table(Path(report.folder, "read", kind, part)) for kind in ("rows", "split"))
        for clinic, fold in zip(rows["clinic"].to_pylist(), split["_fold"].to_pylist(), strict=True):
            homes.setdefault(clinic, set()).add(fold)
    assert len(homes) == 40
    assert all(len(folds) == 1 for folds in homes.values())
    assert any("stay together" in notice for notice in report.facts["notices"])


def test_too_few_units_for_the_folds_is_said(ray: None, tmp_path: Path) -> None:
    table = runs.patients().append_column("clinic", pa.array(np.arange(240) % 3))
    with pytest.raises(GroupError, match="units of 'clinic' for 6 parts; got 3"):
        run(runs.job(runs.written(tmp_path, table), tmp_path / "run", unit="clinic", folds=5))


@pytest.fixture(scope="module")
def tested(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run with groups, a merge, a target mix and a test set of its own, which holds a label and a sex nobody has trained on."""
    place = tmp_path_factory.mktemp("tested")
    test = runs.patients(80, seed=1)
    odd = test.slice(0, 3).set_column(10, "state", pa.array(["dead"] * 3))
    more = test.slice(3, 2).set_column(8, "sex", pa.array(["X"] * 2))
    nobody = test.slice(5, 4).set_column(10, "state", pa.nulls(4, pa.string()))
    settings: dict[str, Any] = {
        "test": runs.written(place, pa.concat_tables([test, odd, more, nobody]), "test.parquet"),
        "group": ("sex",),
        "merge": ("state:cured=well",),
        "target_mix": {"state=sick, sex=F": 1, "state=sick, sex=M": 1, "state=well, sex=F": 1, "state=well, sex=M": 5},
        "trials": 1,
        "generator": ("bootstrap:jitter=0.1",),
    }
    table = runs.patients()
    cured = np.where(np.arange(len(table)) % 7 == 0, "cured", table["state"].to_numpy(zero_copy_only=False))
    table = table.set_column(10, "state", pa.array(np.where(table["state"].to_numpy(zero_copy_only=False) == "sick", "sick", cured)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        return run(runs.job(runs.written(place, table), place / "run", **settings))


def test_a_test_set_of_its_own_leaves_all_of_data_to_train_on(tested: Report) -> None:
    real, _ = runs.augmented(tested)
    assert tested.facts["data"]["train"] == len(real) == len(runs.patients())
    assert tested.facts["data"]["test"] == 80


def test_test_rows_of_groups_nobody_trained_on_are_counted_and_left_out(tested: Report) -> None:
    assert "5 of 85 test rows are in no group of the training rows and were left out" in tested.facts["notices"]
    assert "4 rows without a value of 'state' were set aside" in tested.facts["notices"]
    assert {group["name"] for group in tested.facts["groups"]} == {f"state={s}, sex={x}" for s in ("sick", "well") for x in "FM"}


def test_merged_values_are_gone_from_what_is_written(tested: Report) -> None:
    real, drawn = runs.augmented(tested)
    assert set(real["state"].to_pylist()) == set(drawn["state"].to_pylist()) == {"sick", "well"}


def test_the_target_mix_is_the_one_in_force_everywhere(tested: Report) -> None:
    mix = {group["name"]: group["mix"] for group in tested.facts["groups"]}
    assert mix == {"state=sick, sex=F": 1 / 8, "state=sick, sex=M": 1 / 8, "state=well, sex=F": 1 / 8, "state=well, sex=M": 5 / 8}
    correction = json.loads((Path(tested.folder) / "correction.json").read_text())
    assert dict(zip(correction["cells"], correction["offset"]["mix"], strict=True)) == mix


def test_correction_weights_are_the_weights_in_the_written_rows(tested: Report) -> None:
    correction = json.loads((Path(tested.folder) / "correction.json").read_text())
    real, drawn = runs.augmented(tested)
    one_draw = pa.concat_tables([real, drawn.filter(pc.equal(drawn["_draw"], 0))])
    summed = one_draw.group_by("_region").aggregate([("_weight", "sum")])
    weights = dict(zip(summed["_region"].to_pylist(), summed["_weight_sum"].to_pylist(), strict=True))
    assert correction["by_cell"]
    assert dict(zip(correction["cells"], correction["offset"]["weight"], strict=True)) == pytest.approx(weights)


def test_correction_json_as_documented_is_the_offset_of_the_written_weights(finished: Report) -> None:
    """A model trained on augmented/ with its _weight, corrected by the three documented lines, and by hand from the weights."""
    schema, (real, drawn) = runs.schema_of(finished), runs.augmented(finished)
    train = schema.canonical(pa.concat_tables([real, drawn.filter(pc.equal(drawn["_draw"], 0))]))[0]
    weight = np.concatenate([real["_weight"].to_numpy(), drawn.filter(pc.equal(drawn["_draw"], 0))["_weight"].to_numpy()])
    encoder = Logistic().encoder(train, schema)
    y = schema.truth(train)
    model = Logistic().fit(encoder.encode(train), y, weight, classes=2, seed=0)
    log_p = model.scores(encoder.encode(schema.canonical(runs.patients(50, seed=2))[0]))

    c = json.loads((Path(finished.folder) / "correction.json").read_text())
    z = log_p + c["class_terms"]
    z -= np.log(np.exp(z).sum(1, keepdims=True))
    z = z * c["slope"] + c["bias"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)

    assert np.log(p) == pytest.approx(Correction.from_json(c).apply(log_p), abs=1e-9)
    totals = np.bincount(y, weights=weight)
    assert c["class_terms"] == pytest.approx(np.log(0.5 / totals))
    by_hand = Offset.of(totals, np.array([0.5, 0.5]), np.array([0, 1]), 2).apply(log_p)
    assert Correction.from_json({**c, "calibrated": False}).apply(log_p) == pytest.approx(by_hand)
    assert np.abs(by_hand - log_p).max() > 0.05


def test_a_missing_column_or_an_empty_test_set_is_said(ray: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    lacking = runs.written(tmp_path, runs.patients().drop_columns(["age"]), "lacking.parquet")
    with pytest.raises(InputError, match=r"'age' in .*patients\.parquet, not in .*lacking\.parquet"):
        run(runs.job(data, tmp_path / "a", test=lacking))
    dead = runs.patients().set_column(10, "state", pa.array(["dead"] * 240))
    with pytest.raises(InputError, match="test rows in the groups of the training rows"):
        run(runs.job(data, tmp_path / "b", test=runs.written(tmp_path, dead, "dead.parquet")))


def test_the_command_line_says_what_the_job_says(tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    assert job_of(parser().parse_args(runs.options(data, "run"))) == runs.job(data, "run")
    (tmp_path / "mix.json").write_text('{"state=sick": 3, "state=well": 1}')
    (tmp_path / "schema.json").write_text('{"age": {"low": 0, "high": 120}, "constraints": ["age < 121"]}')
    more = ["--target-mix", str(tmp_path / "mix.json"), "--schema", str(tmp_path / "schema.json"), "--merge", "ward:south=north"]
    more += ["--unit", "id", "--test", "t", "--source", "s", "--hide", "sex", "--keep", "id", "--region", "age > 60", "--no-rows"]
    found = job_of(parser().parse_args([*runs.options(data, "run"), *more]))
    assert found == runs.job(
        data, "run", target_mix={"state=sick": 3, "state=well": 1}, merge=("ward:south=north",), unit="id", test="t", source="s",
        schema={"age": {"low": 0, "high": 120}, "constraints": ["age < 121"]},
        hide=("sex",), keep=("id",), region=("age > 60",), rows=False,
    )  # fmt: skip

"""The whole pass, end to end, on small real runs: what it writes, what it may see, and that the same seed gives the same bytes."""

import json
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_wine

from codsa_ray.cli import job_of, main, parser
from codsa_ray.contracts import Generator
from codsa_ray.correct import Correction, Offset
from codsa_ray.errors import FolderError, GroupError, InputError, SchemaError, SettingError
from codsa_ray.estimate import dry_run
from codsa_ray.folder import Folder
from codsa_ray.learners.logistic import Logistic
from codsa_ray.manifest import REHEARSAL, claimed, rehearsal, scratch, scratch_here
from codsa_ray.more import synthesize_more
from codsa_ray.picture import encoded
from codsa_ray.pipeline import Report, rewrite_report, run, run_until
from codsa_ray.plugins import identity
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import seed_of

import runs
from doubles import Broken, Moody, Watchful, Watching, tales

MARKS = ["_synthetic", "_region", "_weight", "_draw"]


def plan_of(report: Report) -> dict[str, Any]:
    return report.facts["verdict"]["plan"]


# What is written


def test_augmented_has_datas_columns_in_order_and_type_then_the_marks(finished: Report) -> None:
    data = runs.patients().schema
    for file in Path(finished.augmented).iterdir():
        schema = pq.read_schema(file).remove_metadata()
        assert schema.names == [*data.names, *MARKS]
        assert [schema.field(name).type for name in data.names] == data.types
        assert [str(schema.field(name).type) for name in MARKS] == ["bool", "string", "double", "int32"]


def test_real_rows_are_the_training_rows_as_they_came(finished: Report) -> None:
    real, _ = runs.augmented(finished)
    data, facts = runs.patients(), finished.facts["data"]
    ids = set(real["id"].to_pylist())
    assert len(ids) == len(real) == facts["train"] == len(data) - facts["test"]
    kept = data.filter(pc.is_in(data["id"], value_set=pa.array(sorted(ids))))
    assert real.drop_columns(MARKS).combine_chunks().to_pylist() == kept.to_pylist()
    assert set(real["_draw"].to_pylist()) == {-1}
    assert set(real["_weight"].to_pylist()) == {1.0}


def test_drawn_rows_are_exactly_the_plan_in_every_draw(finished: Report) -> None:
    plan, (_, drawn) = plan_of(finished), runs.augmented(finished)
    assert len(drawn) == plan["rows"] * plan["draws"] > 0
    for draw in range(plan["draws"]):
        mine = drawn.filter(pc.equal(drawn["_draw"], draw))
        found = {pair["values"]: pair["counts"] for pair in mine["_region"].combine_chunks().value_counts().to_pylist()}
        assert found == plan["regions"]
    assert set(drawn["_weight"].to_pylist()) == {plan["row_weight"]}


def test_drawn_rows_keep_the_schema_and_lie_in_their_region(finished: Report) -> None:
    schema, (_, drawn) = runs.schema_of(finished), runs.augmented(finished)
    schema.check(schema.canonical(drawn)[0])
    assert drawn["id"].null_count == len(drawn)
    assert [f"state={state}" for state in drawn["state"].to_pylist()] == drawn["_region"].to_pylist()


def test_real_rows_carry_the_region_they_lie_in(finished: Report) -> None:
    real, _ = runs.augmented(finished)
    assert [f"state={state}" for state in real["state"].to_pylist()] == real["_region"].to_pylist()


def test_report_json_is_json_for_a_browser_and_holds_the_verdict(finished: Report) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    for name in ("report.json", "verdict.json", "correction.json", "job.json"):
        json.loads((Path(finished.folder) / name).read_text(), parse_constant=refuse)
    stored = json.loads((Path(finished.folder) / "report.json").read_text())
    assert stored == json.loads(json.dumps(finished.facts))
    assert stored["verdict"]["kind"] == finished.verdict.kind
    assert all(candidate["failed"] is None for candidate in stored["candidates"])
    page = Path(finished.path).read_text()
    assert finished.verdict.sentences()[0].split(":")[0] in page


# The same seed


@pytest.fixture(scope="session")
def elsewhere(finished: Report, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The finished run's job again in another folder, on three workers."""
    return run(runs.job(finished.facts["job"]["data"], tmp_path_factory.mktemp("elsewhere") / "run", workers=3))


def test_same_seed_gives_the_same_bytes_on_any_number_of_workers(finished: Report, elsewhere: Report) -> None:
    for folder in ("augmented", "pools"):
        assert runs.contents(f"{finished.folder}/{folder}") == runs.contents(f"{elsewhere.folder}/{folder}")
    for name in ("verdict.json", "correction.json"):
        assert (Path(finished.folder) / name).read_bytes() == (Path(elsewhere.folder) / name).read_bytes()


@pytest.mark.parametrize("folder", ["search", "judge"])
def test_same_seed_gives_the_same_scores_on_any_number_of_workers(finished: Report, elsewhere: Report, folder: str) -> None:
    one, other = ({p.name: pq.read_table(p) for p in Path(r.folder, folder).rglob("*.parquet")} for r in (finished, elsewhere))
    assert one.keys() == other.keys()
    assert all(one[name].equals(other[name]) for name in one)


def test_another_seed_splits_and_draws_other_rows(finished: Report, here: None, tmp_path: Path) -> None:
    other = run(runs.job(finished.facts["job"]["data"], tmp_path / "run", seed=1, trials=1))
    (real, drawn), (mine, theirs) = runs.augmented(finished), runs.augmented(other)
    assert real["id"] != mine["id"]
    assert not set(drawn["marker"].drop_null().to_pylist()) & set(theirs["marker"].drop_null().to_pylist()) - set(
        runs.patients()["marker"].drop_null().to_pylist()
    )


def test_rows_spread_over_ray_data_are_the_rows_of_one_process(
    finished: Report, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same table in five files, every part read, drawn and written by actors."""
    for module, limit in (("read", "FEW_PARTS"), ("synthesize", "FEW_ROWS"), ("apply", "FEW_ROWS")):
        monkeypatch.setattr(f"codsa_ray.stages.{module}.{limit}", 0)
    (tmp_path / "data").mkdir()
    table, cuts = runs.patients(), [0, 11, 60, 61, 200, 240]
    for index, (start, stop) in enumerate(pairwise(cuts)):
        runs.written(tmp_path / "data", table.slice(start, stop - start), f"{index}.parquet")
    report = run(runs.job(str(tmp_path / "data"), tmp_path / "run"))
    assert runs.rows_of(report).to_json() == runs.rows_of(finished).to_json() | {"parts": [f"{i:06d}.parquet" for i in range(5)]}
    for mine, others in zip(runs.augmented(report), runs.augmented(finished), strict=True):
        assert mine.to_pylist() == others.to_pylist()
    assert report.verdict == finished.verdict


# Any table


def wines() -> pa.Table:
    """Real, three classes, the first made rare."""
    found = load_wine()
    kept = np.flatnonzero((found.target > 0) | (np.arange(len(found.target)) % 4 == 0))
    columns = {name: found.data[kept, index] for index, name in enumerate(found.feature_names[:4])}
    return pa.table({**columns, "kind": found.target[kept]})


def test_three_classes(here: None, tmp_path: Path) -> None:
    report = run(runs.job(runs.written(tmp_path, wines()), tmp_path / "run", target="kind", trials=1, generator=("sequential_trees",)))
    real, drawn = runs.augmented(report)
    assert real.schema.field("kind").type == wines().schema.field("kind").type
    assert set(drawn["kind"].to_pylist()) <= {0, 1, 2}
    assert len(json.loads((tmp_path / "run" / "correction.json").read_text())["class_terms"]) == 3
    assert report.verdict.loss < np.log(3) / 2


def odd_types(n: int = 120) -> pa.Table:
    """Every less common arrow type, nulls in all, names that need quoting, a constant, a column without a value, doubled rows."""
    rng = np.random.default_rng(3)
    whole, gone = rng.integers(0, 50, n), rng.random(n) < 0.1

    def nulled(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.array(values, mask=gone).cast(kind)

    table = pa.table({
        "u64": nulled(whole.astype(np.uint64), pa.uint64()),
        "big": nulled(whole + 2**53 + 1, pa.int64()),
        "f16": nulled(whole.astype(np.float16), pa.float16()),
        "d64": nulled(whole * 86_400_000, pa.int64()).cast(pa.date64()),
        "t32": nulled(whole.astype(np.int32), pa.int32()).cast(pa.time32("s")),
        "t64": nulled(whole * 1000, pa.int64()).cast(pa.time64("us")),
        "span": nulled(whole, pa.int64()).cast(pa.duration("s")),
        "ns": nulled(whole * 10**15, pa.int64()).cast(pa.timestamp("ns")),
        "large": nulled(whole % 4, pa.int64()).cast(pa.string()).cast(pa.large_string()),
        "view": nulled(whole % 3, pa.int64()).cast(pa.string()).cast(pa.string_view()),
        "coded": nulled(whole % 5, pa.int64()).cast(pa.string()).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "d256": nulled(whole, pa.int64()).cast(pa.decimal256(40, 3)),
        "inf": pa.array(np.where(whole == 0, np.inf, np.where(whole == 1, np.nan, whole / 7))),
        "flat": pa.array([7] * n, pa.int16()),
        "void": pa.nulls(n, pa.float32()),
        "nothing": pa.nulls(n),
        'say "hi", größe <b>': nulled(whole / 3, pa.float64()),
        "the 'label' = x": pa.array(np.where(rng.random(n) < 0.25, "ja, gern", 'nein "danke"')),
    })  # fmt: skip
    return pa.concat_tables([table, table.slice(0, 20)]).combine_chunks()


def test_odd_types_and_names_come_back_as_they_were(here: None, tmp_path: Path) -> None:
    path = runs.written(tmp_path, odd_types())
    # As the file has it: parquet keeps no 64-bit days, no seconds of the day; and of a view, the type without it.
    data = pq.read_table(path)
    data = data.set_column(data.column_names.index("view"), "view", data["view"].cast(pa.string()))
    job = runs.job(path, tmp_path / "run", target="the 'label' = x", trials=2, region=('"f16" >= 25',))
    report = run(job)
    real, drawn = runs.augmented(report)
    assert real.drop_columns(MARKS).schema.remove_metadata() == data.schema == drawn.drop_columns(MARKS).schema.remove_metadata()
    rows = runs.rows_of(report)
    positions = sorted(row for row in parts_of(rows)[FINAL][0])
    assert repr(real.drop_columns(MARKS).to_pylist()) == repr(data.take(positions).to_pylist())
    schema = rows.schema(FINAL)
    schema.check(schema.canonical(drawn)[0])
    assert len(drawn) == plan_of(report)["rows"] * plan_of(report)["draws"] > 0
    assert drawn["void"].null_count == drawn["nothing"].null_count == len(drawn)
    assert 0 < drawn["u64"].null_count < len(drawn) / 2
    assert min(drawn["big"].drop_null().to_pylist()) > 2**53


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text_files_go_through_the_whole_pass(here: None, tmp_path: Path, ending: str) -> None:
    table = runs.patients().select(["id", "age", "marker", "born", "smokes", "sex", "state"])
    frame = table.to_pandas()
    path = tmp_path / f"patients.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.astype({"born": str}).to_json(path, orient="records", lines=True)
    report = run(runs.job(str(path), tmp_path / "run", trials=1))
    real, drawn = runs.augmented(report)
    assert [str(real.schema.field(name).type) for name in ("age", "marker", "smokes", "state")] == ["int64", "double", "bool", "string"]
    kept = table.filter(pc.is_in(table["id"], value_set=real["id"].combine_chunks()))
    for name in ("id", "age", "smokes", "state"):
        assert real[name].to_pylist() == kept[name].to_pylist()
    assert real["marker"].to_pylist() == pytest.approx(kept["marker"].to_pylist())
    assert len(drawn) == plan_of(report)["rows"] * plan_of(report)["draws"] > 0


# What each part may see (law 3)


@pytest.fixture(scope="module")
def watched(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, int]:
    """A run whose generator and learner tell which rows they saw, and how often the test rows were read."""
    place, reads = tmp_path_factory.mktemp("watched"), []
    held_out = Rows.held_out

    def counted(rows: Rows, fold: int, *keep: Any) -> pa.Table:
        reads.append(fold)
        return held_out(rows, fold, *keep)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        patch.setattr(Rows, "held_out", counted)
        settings = {"generator": (Watching(str(place / "tales")),), "learner": Watchful(str(place / "tales"))}
        report = run(runs.job(runs.written(place, runs.patients()), place / "run", **settings))
    return report, place / "tales", reads.count(FINAL)


def parts_of(rows: Rows) -> dict[int, tuple[set[int], set[int]]]:
    """Fold -> (training rows, held-out rows)."""
    return {
        fold: tuple({row for block in rows.blocks(fold, held) for row in block["_row"].to_pylist()} for held in (False, True))  # type: ignore[misc]
        for fold in (*range(rows.folds), FINAL)
    }


def test_generators_see_the_training_rows_of_their_fold_and_no_other(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    rows = runs.rows_of(report)
    by_seed = {seed_of(rows.seed, "fit", fold): train for fold, (train, _) in parts_of(rows).items()}
    seen = tales(place, "fit")
    assert len(seen) == rows.folds + 1
    for seed, found in seen:
        assert found == by_seed[seed]


def test_encoders_learn_from_training_rows_of_one_fold(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    trains = [train for train, _ in parts_of(runs.rows_of(report)).values()]
    seen = tales(place, "encoder")
    # The theory's evidence learns one fold's encoding once more, in the driver.
    assert len(trains) <= len(seen) <= len(trains) + 1
    assert all(found in trains for _, found in seen)


def test_learners_fit_training_rows_and_are_scored_on_the_held_out_ones(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    rows = runs.rows_of(report)
    fits = {seed_of(rows.seed, "learner", fold, index): part for fold, part in parts_of(rows).items() for index in range(2)}
    fitted, scored = tales(place, "learner"), tales(place, "scores")
    assert {seed for seed, _ in fitted} == {seed for seed, _ in scored} == fits.keys()
    assert any(-1 in found for _, found in fitted)
    for seed, found in fitted:
        assert found - {-1} <= fits[seed][0]
    # Drawn rows (-1) are scored for the generation bias in the report, real ones only where they were held out.
    for seed, found in scored:
        assert found - {-1} in (set(), fits[seed][1])


def test_the_parts_of_a_split_are_apart_and_whole(watched: tuple[Report, Path, int]) -> None:
    rows = runs.rows_of(watched[0])
    parts = parts_of(rows)
    assert all(not train & held for train, held in parts.values())
    assert set.union(*(held for _, held in parts.values())) == set(range(len(runs.patients())))


def test_the_test_rows_are_read_once(watched: tuple[Report, Path, int]) -> None:
    assert watched[2] == 1


def test_rows_that_are_drawn_again_are_told_with_the_reason_and_once_more_from_what_is_stored(here: None, tmp_path: Path) -> None:
    stated = {"constraints": ["age > 40 OR dose < 25"]}
    keeping: dict[str, Any] = {"generator": ("sequential_trees",), "trials": 1, "schema": stated}
    rng = np.random.default_rng(0)
    table = runs.patients()
    young = np.asarray(table["age"]) <= 40
    dose = np.where(young, rng.integers(0, 25, len(table)), rng.integers(0, 50, len(table))).astype(float)
    table = table.set_column(table.column_names.index("dose"), "dose", pa.array(dose))
    report = run(runs.job(runs.written(tmp_path, table), tmp_path / "run", **keeping))
    (told,) = report.facts["redrawn"]
    assert told["reasons"]["the constraint age > 40 OR dose < 25"] > 0
    files = list((tmp_path / "run" / "pools").glob("*/*.parquet"))
    assert sum(told["reasons"].values()) == sum(int(pq.read_schema(file).metadata[b"redrawn"]) for file in files)
    assert told["rows"] == sum(pq.read_metadata(file).num_rows for file in files)
    total = f"generator {told['generator']}: {sum(told['reasons'].values()):,} rows were drawn again beside the {told['rows']:,} "
    assert sum(notice.startswith(total) for notice in report.facts["notices"]) == 1
    assert rewrite_report(str(tmp_path / "run")).facts["redrawn"] == [told]


# What goes wrong in one place does not stop the run


@pytest.mark.parametrize("at", ["fit", "load", "short", "columns"])
def test_a_generator_that_fails_is_listed_and_the_others_go_on(here: None, tmp_path: Path, at: str) -> None:
    both: tuple[str | Generator, ...] = ("bootstrap", Broken(at))
    report = run(runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=both, trials=1))
    listed = [notice for notice in report.facts["notices"] if notice.startswith(f"generator {identity(Broken(at))} is out: ")]
    assert len(listed) == 1
    assert "\n" not in listed[0]
    assert {c["generator"] for c in report.facts["candidates"]} == {"", "bootstrap"}
    assert plan_of(report)["rows"] > 0


def test_without_any_generator_left_the_verdict_does_without(here: None, tmp_path: Path) -> None:
    report = run(runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=(Broken("fit"),)))
    assert report.verdict.kind != "augment"
    assert report.verdict.best is None
    real, drawn = runs.augmented(report)
    assert (len(real), len(drawn)) == (report.facts["data"]["train"], 0)


def test_a_learner_that_fails_on_some_candidates_is_listed_and_the_others_are_judged(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    report = run(runs.job(data, tmp_path / "run", learner=Moody(), generator=("bootstrap",), trials=2))
    failed = {c["name"]: c["failed"] for c in report.facts["candidates"] if c["failed"]}
    assert "are not finite" in failed["class weights full"]
    assert "do not sum to 1" in failed["undersampled 1 x smallest, bag of 2"]
    assert "TypeError: too many rows" in failed["bootstrap gamma 1, row weight 1"]
    assert all(f"candidate {name} failed: {reason}" in report.facts["notices"] for name, reason in failed.items())
    judged = {c["name"] for c in report.facts["candidates"] if not c["failed"]}
    assert {"none", "none + offset", "none + offset and calibration"} <= judged


def test_where_every_candidate_fails_the_run_ends_with_one_line(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("codsa_ray.cli.job_of", lambda _: runs.job(data, tmp_path / "run", learner=Moody(always=True), trials=1))
    data = runs.written(tmp_path, runs.patients())
    assert main(["augment", data, "--target", "state"]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("codsa: internal error: every candidate failed: CandidateError: ")
    assert "not today" in last
    assert len(last) < 300


# Options end to end


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


# Stages alone, dry runs, more rows, the page again


def test_until_stops_where_it_is_told_and_the_same_command_goes_on(finished: Report, here: None, tmp_path: Path) -> None:
    job = runs.job(finished.facts["job"]["data"], tmp_path / "run")
    made = {"read": "read", "fit": "fit", "synthesize": "pools", "search": "search"}
    for index, stage in enumerate(made):
        assert run_until(job, stage) is None
        assert {name for name in made.values() if (tmp_path / "run" / name).exists()} == set(list(made.values())[: index + 1])
    assert runs.contents(run(job).augmented) == runs.contents(finished.augmented)
    with pytest.raises(SettingError, match="a stage: read, fit, synthesize, search, report"):
        run_until(job, "sleep")


def test_dry_run_prints_what_would_be_done_and_writes_nothing(ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = runs.written(tmp_path, runs.patients())
    assert main([*runs.options(data, tmp_path / "run"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for line in ("state", "weight kg", "state=sick", "ceiling", "class weights full", "undersampled 3 x smallest", "cost", "rows to draw"):
        assert line in shown
    assert [path.name for path in tmp_path.iterdir()] == ["patients.parquet"]


def test_a_dry_run_on_a_cluster_keeps_its_rows_where_all_nodes_reach_them_and_clears_them_away(ray: None, tmp_path: Path) -> None:
    import ray as library

    seen: set[Path] = set()
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", address=library.get_runtime_context().gcs_address)
    dry_run(job, lambda *_: seen.update((tmp_path / "run").glob(f"{REHEARSAL}*/read")))
    assert len(seen) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["patients.parquet"]


def test_what_a_killed_dry_run_left_stands_in_no_run_s_way(tmp_path: Path) -> None:
    rehearsal(Folder(str(tmp_path))).write_bytes("read/rows", b"")
    with claimed(Folder(str(tmp_path))):
        pass


def test_a_cache_on_another_machine_takes_the_place_of_those_of_runs_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same run folder; what is another's stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = Folder(str(tmp_path / "run"))
    with scratch(out) as place:
        name = Path(place).name
    elsewhere = tmp_path / "elsewhere"
    for left in (name[:-1], "codsa-another-run", "theirs"):
        (elsewhere / left).mkdir(parents=True)
    for _ in range(2):
        scratch_here(elsewhere / name)
        (elsewhere / name / "pool.npy").touch()
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted((name, "codsa-another-run", "theirs"))
    assert (elsewhere / name / "pool.npy").exists()


def test_more_rows_of_a_region_are_as_many_as_asked_and_not_the_runs(finished: Report, tmp_path: Path) -> None:
    said = synthesize_more(finished.folder, "state=sick", 37, str(tmp_path / "more"))
    assert said == f"37 rows of state=sick in {tmp_path / 'more'}"
    more = pq.read_table(tmp_path / "more")
    assert [path.suffix for path in (tmp_path / "more").iterdir()] == [".parquet"]
    assert len(more) == 37
    assert more.schema.remove_metadata() == runs.patients().schema
    assert set(more["state"].to_pylist()) == {"sick"}
    pools = [pq.read_table(path).select(["marker", "dose"]).to_pylist() for path in Path(finished.folder, "pools").rglob("*.parquet")]
    drawn = {tuple(row.values()) for pool in pools for row in pool}
    mine = {tuple(row.values()) for row in runs.schema_of(finished).canonical(more)[0].select(["marker", "dose"]).to_pylist()}
    assert not {row for row in mine if None not in row} & drawn


def test_more_rows_come_from_the_generator_of_the_rows_that_were_written(finished: Report, tmp_path: Path) -> None:
    shipped = json.loads((Path(finished.folder) / "apply" / "manifest.json").read_text())["generator"].rpartition("-")[0]
    one, other = (name.partition(":")[0] for name in runs.GENERATORS)
    synthesize_more(finished.folder, "state=well", 5, str(tmp_path / "default"))
    for name in (one, other):
        synthesize_more(finished.folder, "state=well", 5, str(tmp_path / name), generator=name)
        assert (pq.read_table(tmp_path / name) == pq.read_table(tmp_path / "default")) == (name == shipped)


def test_more_rows_of_what_the_run_does_not_have_are_refused(finished: Report, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="state=sick, state=well"):
        synthesize_more(finished.folder, "state=ill", 5, str(tmp_path / "a"))
    with pytest.raises(SettingError, match="one of the run's generators: bootstrap, sequential_trees"):
        synthesize_more(finished.folder, "state=sick", 5, str(tmp_path / "b"), generator="interpolation")
    with pytest.raises(FolderError, match="a run folder"):
        synthesize_more(str(tmp_path), "state=sick", 5, str(tmp_path / "c"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    with pytest.raises(FolderError, match=r"mine\.txt"):
        synthesize_more(finished.folder, "state=sick", 5, str(tmp_path / "full"))


def test_report_writes_the_page_again_from_what_is_stored(finished: Report, here: None, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    for name in ("report.html", "correction.json"):
        (tmp_path / "run" / name).unlink()
    again = rewrite_report(str(tmp_path / "run"))
    assert again.verdict == finished.verdict
    assert finished.verdict.sentences()[0].partition(":")[0] in Path(again.path).read_text()
    assert Path(tmp_path, "run", "correction.json").read_bytes() == Path(finished.folder, "correction.json").read_bytes()
    passing = ("created", "stages", "job")
    assert {k: v for k, v in again.facts.items() if k not in passing} == {k: v for k, v in finished.facts.items() if k not in passing}
    assert all(stage["reused"] for stage in again.facts["stages"] if stage["name"] not in ("decide", "report"))


def test_a_plug_in_that_cannot_take_a_column_is_refused_even_when_the_rows_are_kept(here: None, tmp_path: Path) -> None:
    table = runs.patients().append_column("scan", pa.array([encoded(np.zeros((2, 2, 1), np.uint8))] * 240))
    job = runs.job(runs.written(tmp_path, table), tmp_path / "run")
    for _ in range(2):
        with pytest.raises(SchemaError, match="column 'scan' of kind image"):
            run(job)

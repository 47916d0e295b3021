"""The whole pass, end to end, on small real runs: what it writes, what it may see, and that the same seed gives the same bytes."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from codsa_ray.cli import main
from codsa_ray.contracts import Generator
from codsa_ray.pipeline import Report, rewrite_report, run
from codsa_ray.plugins import identity
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import seed_of

import runs
from failing import Broken, Moody
from telltales import Watchful, Watching, tales

# What is written


def test_augmented_has_datas_columns_in_order_and_type_then_the_marks(finished: Report) -> None:
    data = runs.patients().schema
    for file in Path(finished.augmented).iterdir():
        schema = pq.read_schema(file).remove_metadata()
        assert schema.names == [*data.names, *runs.MARKS]
        assert [schema.field(name).type for name in data.names] == data.types
        assert [str(schema.field(name).type) for name in runs.MARKS] == ["bool", "string", "double", "int32"]


def test_real_rows_are_the_training_rows_as_they_came(finished: Report) -> None:
    real, _ = runs.augmented(finished)
    data, facts = runs.patients(), finished.facts["data"]
    ids = set(real["id"].to_pylist())
    assert len(ids) == len(real) == facts["train"] == len(data) - facts["test"]
    kept = data.filter(pc.is_in(data["id"], value_set=pa.array(sorted(ids))))
    assert real.drop_columns(runs.MARKS).combine_chunks().to_pylist() == kept.to_pylist()
    assert set(real["_draw"].to_pylist()) == {-1}
    assert set(real["_weight"].to_pylist()) == {1.0}


def test_drawn_rows_are_exactly_the_plan_in_every_draw(finished: Report) -> None:
    plan, (_, drawn) = runs.plan_of(finished), runs.augmented(finished)
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


def test_generators_see_the_training_rows_of_their_fold_and_no_other(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    rows = runs.rows_of(report)
    by_seed = {seed_of(rows.seed, "fit", fold): train for fold, (train, _) in runs.parts_of(rows).items()}
    seen = tales(place, "fit")
    assert len(seen) == rows.folds + 1
    for seed, found in seen:
        assert found == by_seed[seed]


def test_encoders_learn_from_training_rows_of_one_fold(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    trains = [train for train, _ in runs.parts_of(runs.rows_of(report)).values()]
    seen = tales(place, "encoder")
    # The theory's evidence learns one fold's encoding once more, in the driver.
    assert len(trains) <= len(seen) <= len(trains) + 1
    assert all(found in trains for _, found in seen)


def test_learners_fit_training_rows_and_are_scored_on_the_held_out_ones(watched: tuple[Report, Path, int]) -> None:
    report, place, _ = watched
    rows = runs.rows_of(report)
    fits = {seed_of(rows.seed, "learner", fold, index): part for fold, part in runs.parts_of(rows).items() for index in range(2)}
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
    parts = runs.parts_of(rows)
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
    assert runs.plan_of(report)["rows"] > 0


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

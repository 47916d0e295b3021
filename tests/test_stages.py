"""Stages alone, dry runs, more rows and the page again do their part of a pass and leave what is there as it was."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codsa_ray.cli import main
from codsa_ray.errors import DamagedError, FolderError, SchemaError, SettingError
from codsa_ray.estimate import dry_run
from codsa_ray.folder import Folder
from codsa_ray.manifest import MANIFEST, REHEARSAL, claimed, rehearsal, scratch, scratch_here
from codsa_ray.more import synthesize_more
from codsa_ray.picture import encoded
from codsa_ray.pipeline import Report, rewrite_report, run, run_until

import runs


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


def test_every_stage_has_its_line_and_final_drawing_is_not_counted_as_writing(finished: Report) -> None:
    lines = {stage["name"]: stage for stage in finished.facts["stages"]}
    assert list(lines) == ["read", "fit", "synthesize", "search", "decide", "draw", "apply", "judge"], (
        "the report's own ends after it is written"
    )
    rows = {path: pq.read_metadata(path).num_rows for path in Path(finished.folder, "pools").glob("*/*.parquet")}
    final = sum(many for path, many in rows.items() if "-final-" in path.parent.name)
    assert lines["draw"]["rows_out"] == final > 0
    assert lines["synthesize"]["rows_out"] == sum(rows.values()) - final > 0


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


@pytest.mark.parametrize("mark", [None, b"{", b"{}"])
def test_more_rows_of_a_fit_whose_mark_is_lost_or_cannot_be_read_are_refused(finished: Report, tmp_path: Path, mark: bytes | None) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    for file in (tmp_path / "run" / "fit").glob(f"*/final-*/{MANIFEST}"):
        file.write_bytes(mark) if mark else file.unlink()
    with pytest.raises(DamagedError, match="got one without its mark; run again"):
        synthesize_more(str(tmp_path / "run"), "state=sick", 5, str(tmp_path / "more"))


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

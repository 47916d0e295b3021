"""A run says how far it is, to another terminal and in its log; it stops when its hours are over and goes on with the same command."""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from codsa_ray import heartbeat
from codsa_ray.cli import main
from codsa_ray.contracts import silent
from codsa_ray.errors import FolderError, OutOfTime, SettingError
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import PROGRESS, Heartbeat, beating
from codsa_ray.job import Job
from codsa_ray.manifest import MARK
from codsa_ray.pipeline import Report, run, run_until
from codsa_ray.status import status

import runs


@pytest.fixture
def out(tmp_path: Path) -> Folder:
    folder = Folder(str(tmp_path / "run"))
    folder.write_json(MARK, {"format": 1})
    return folder


def stored(out: Folder) -> dict[str, Any]:
    found: dict[str, Any] = out.read_json(PROGRESS)
    return found


def test_what_it_is_told_it_passes_on_writes_down_and_extrapolates(out: Folder) -> None:
    heard: list[tuple[Any, ...]] = []
    beat = Heartbeat(out, lambda *told: heard.append(told))
    for done in (10, 20, 40):
        time.sleep(0.01)
        beat("search", done, 100, f"best {done}")
    beat("search", 0, 0, "search   done")
    beat.write("running")
    assert heard == [*(("search", done, 100, f"best {done}") for done in (10, 20, 40)), ("search", 0, 0, "search   done")]
    at = stored(out)["at"]
    assert (at["done"], at["total"], at["note"], stored(out)["stages"]) == (40, 100, "best 40", ["search   done"])
    assert at["left"] == pytest.approx((100 - 40) / at["rate"])


def test_a_stage_that_begins_with_kept_work_is_not_credited_with_its_speed(out: Folder) -> None:
    beat = Heartbeat(out, silent)
    beat("fit", 900, 1000)
    assert beat.at["rate"] is None
    time.sleep(0.05)
    beat("fit", 901, 1000)
    assert 0 < beat.at["rate"] <= 1 / 0.05


def test_it_writes_once_a_second_however_often_it_is_told(out: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []
    monkeypatch.setattr(Folder, "write_bytes", lambda folder, name, data: writes.append(name))
    beat = Heartbeat(out, silent)
    for done in range(500):
        beat("synthesize", done, 500)
    assert len(writes) == 1


def test_a_run_whose_stage_says_nothing_for_long_still_says_that_it_is_there(out: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "ALIVE", 0.02)
    with beating(out, silent) as beat:
        beat("fit", 0, 3)
        first = stored(out)["time"]
        until = time.monotonic() + 10
        while stored(out)["time"] == first and time.monotonic() < until:
            time.sleep(0.01)
        assert stored(out)["time"] > first
        assert stored(out)["at"]["stage"] == "fit"
    ended = stored(out)
    time.sleep(0.06)
    assert stored(out) == ended
    assert ended["state"] == "ended"


def test_a_word_that_cannot_be_written_ends_no_run(out: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(folder: Folder, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    caplog.set_level(logging.INFO, "codsa_ray")
    monkeypatch.setattr(Folder, "write_bytes", full)
    with beating(out, silent) as beat:
        beat("fit", 1, 3)
    assert sum(json.loads(record.message)["event"] == "unheard" for record in caplog.records) >= 2


def test_hours_that_are_over_end_the_run_with_a_word_of_how_to_go_on(out: Folder) -> None:
    with pytest.raises(OutOfTime, match=r"--max-hours .* during fit; the same command goes on"), beating(out, silent, 1e-9) as beat:
        beat("fit", 1, 3)
    assert stored(out)["state"] == "stopped"
    assert OutOfTime.exit_code == 3
    with beating(out, silent, 1e-9) as beat:
        beat("report", 0, 0, "report   done")
    assert stored(out)["state"] == "ended", "what has nothing left to do is not stopped"
    with pytest.raises(SettingError):
        Job("data.csv", "y", max_hours=-1)


def test_what_others_raise_is_named_but_not_quoted(out: Folder) -> None:
    with pytest.raises(OSError, match="canary"), beating(out, silent):
        raise OSError("canary: s3://KEY:SECRET@bucket")
    assert stored(out)["reason"] == "OSError"
    assert b"SECRET" not in out.read_bytes(PROGRESS)


def test_status_tells_running_stopped_killed_and_ended_apart(out: Folder) -> None:
    assert any("nothing told yet" in line for line in status(out.address))
    beat = Heartbeat(out, silent)
    beat("fit", 1, 4, "trees fold 0")
    beat.write("running")
    assert any(line.startswith("state      running") for line in status(out.address))
    assert any("fit 1/4" in line and "trees fold 0" in line for line in status(out.address))
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    out.write_json(PROGRESS, {**stored(out), "process": gone.pid})
    assert any(line.startswith("state      killed") and "goes on from there" in line for line in status(out.address))
    out.write_json(PROGRESS, {**stored(out), "process": os.getpid(), "time": time.time() - 3600})
    assert any(line.startswith("state      killed") for line in status(out.address)), "another process has its number now"
    out.write_json(PROGRESS, {**stored(out), "host": "elsewhere"})
    assert any(line.startswith("state      killed") for line in status(out.address))
    beat.write("stopped", "wanted a; got b; do c")
    assert any(line.startswith("state      stopped") and "wanted a; got b; do c" in line for line in status(out.address))
    beat.write("ended")
    assert any(line.startswith("state      ended") for line in status(out.address))


def test_status_of_what_is_no_run_is_a_one_line_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FolderError):
        status(str(tmp_path))
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("codsa: error: wanted a run folder")


def test_status_of_a_finished_run_gives_its_verdict(finished: Report) -> None:
    told = status(finished.folder)
    assert told[1] == f"asked      {finished.facts['job']['data']}, target state"
    assert set(finished.facts["verdict"]["sentences"]) <= set(told)
    assert sum(line.strip().startswith("fit ") for line in told) == 1


def test_every_log_line_is_json_with_a_time_and_an_event(out: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="codsa_ray"):
        beat = Heartbeat(out, silent)
        beat("fit", 1, 4, 'größe "quoted"')
        beat("fit", 0, 0, "fit     4 rows")
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["event"], line["note"]) for line in lines] == [("progress", 'größe "quoted"'), ("stage", "fit 4 rows")]
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_every_shard_that_is_drawn_is_named_with_its_rows_and_seconds(here: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "codsa_ray")
    run_until(runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=runs.GENERATORS[:1]), "synthesize")
    told = [json.loads(record.message) for record in caplog.records if record.name == "codsa_ray"]
    shards = {(line["pool"], line["shard"]): line for line in told if line["event"] == "shard"}
    files = {(path.parent.name, path.name): path for path in (tmp_path / "run" / "pools").rglob("*.parquet")}
    assert files.keys() == shards.keys()
    assert all(line["rows"] == pq.read_metadata(files[key]).num_rows and line["seconds"] >= 0 for key, line in shards.items())


def test_time_that_is_up_during_the_search_is_no_defect_and_the_run_goes_on_to_the_same_bytes(finished: Report, tmp_path: Path) -> None:
    job = runs.job(finished.facts["job"]["data"], tmp_path / "run")
    seen: list[str] = []

    def up(stage: str, done: int, total: int, note: str = "") -> None:
        seen.append(stage)
        if stage == "search" and total:
            raise OutOfTime("time is up")

    with pytest.raises(OutOfTime):
        run(job, up)
    assert seen.count("search") <= 2, "what the two workers were at may end, nothing else begins"
    assert stored(Folder(job.out))["state"] == "stopped"
    assert runs.contents(run(job).augmented) == runs.contents(finished.augmented)

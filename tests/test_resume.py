"""A run that was killed goes on and writes the same bytes; a changed setting does again what depends on it and nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest

from codsa_ray.cli import main
from codsa_ray.folder import Folder
from codsa_ray.manifest import MANIFEST
from codsa_ray.pipeline import Report, run
from codsa_ray.seeds import fingerprint

import runs

ROOT = Path(__file__).parent.parent
PATIENCE = 240.0
# Ray's own two agents wait a minute for the cluster's control store to come back before they give up.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
SOON, LATE = 30.0, 150.0


class Killed(BaseException):
    """Stands for a SIGKILL: nothing in the package catches it."""


# Killed


def mortal(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """After so many whole writes, the next one stops in the middle and takes the process with it."""
    left, write = [writes], Folder.write_bytes

    def torn(folder: Folder, name: str, data: bytes) -> None:
        if left[0] == 0:
            Path(folder.local()).mkdir(parents=True, exist_ok=True)
            (Path(folder.local()) / ".tmp-torn").write_bytes(data[: len(data) // 2])
            raise Killed
        left[0] -= 1
        write(folder, name, data)

    monkeypatch.setattr(Folder, "write_bytes", torn)


def test_a_run_that_dies_again_and_again_ends_with_the_same_bytes(finished: Report, here: None, tmp_path: Path) -> None:
    """Every eleventh write is torn in the middle, whatever stage it is in, until the run has come to its end."""
    job, deaths, report = runs.job(finished.facts["job"]["data"], tmp_path / "run"), 0, None
    while report is None:
        with pytest.MonkeyPatch.context() as patch:
            mortal(patch, 10)
            try:
                report = run(job)
            except Killed:
                deaths += 1
        assert deaths < 50, "no attempt gets further than the one before"
    assert deaths > 5
    assert runs.contents(report.augmented) == runs.contents(finished.augmented)
    for name in ("verdict.json", "correction.json"):
        assert (tmp_path / "run" / name).read_bytes() == (Path(finished.folder) / name).read_bytes()


def test_a_half_written_result_of_other_settings_is_never_taken_for_whole(finished: Report, here: None, tmp_path: Path) -> None:
    """Run A ends, run B is killed while it writes over A's rows, A is asked for again: its mark must not vouch for B's half."""
    first = runs.again(finished, runs.job(finished.facts["job"]["data"], ""), tmp_path / "run")
    for changed in ({"force": False}, {"seed": 1}):
        with pytest.MonkeyPatch.context() as patch:
            write = Folder.write_bytes

            def dies(folder: Folder, name: str, data: bytes, write: Any = write) -> None:
                if folder.address.endswith(("augmented", "read/rows")):
                    raise Killed
                write(folder, name, data)

            patch.setattr(Folder, "write_bytes", dies)
            with pytest.raises(Killed):
                run(replace(runs.job(finished.facts["job"]["data"], first.folder), **changed))
        again = run(runs.job(finished.facts["job"]["data"], first.folder))
        assert runs.contents(again.augmented) == runs.contents(finished.augmented)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "codsa_ray.cli", *arguments]
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], group: bool) -> list[psutil.Process]:
    """SIGKILL once `reached`; all that the process had started must end by itself, its agents (returned) later."""
    until = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, f"ended with {process.returncode} before it could be killed"
        assert time.monotonic() < until, "never got there"
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    agents = [child for child in children if child.is_running() and child.name() in AGENTS]
    alive = running_after([child for child in children if child not in agents], SOON)
    assert not alive, f"left running: {alive}"
    return agents


def running_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which still run after `seconds`; one that ended and whose parent has not asked how yet (a zombie) does not run."""

    def runs_on(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in psutil.wait_procs(processes, timeout=seconds)[1] if runs_on(process)]


def found(folder: Path, pattern: str, least: int = 1) -> Callable[[], bool]:
    return lambda: sum(1 for _ in folder.glob(pattern)) >= least


def killed_and_resumed(finished: Report, out: Path, moments: list[tuple[str, int, bool]]) -> None:
    """The finished run's command line, killed at each moment in turn, then left to end in this process."""
    command = runs.options(finished.facts["job"]["data"], out)
    for pattern, least, group in moments:
        kill_when(start(command), found(out, pattern, least), group)
        assert not (out / "report.html").exists()
    assert main(command) == 0
    assert runs.contents(out / "augmented") == runs.contents(finished.augmented)


@pytest.mark.slow
def test_killed_while_fitting_and_while_searching_then_goes_on(finished: Report, tmp_path: Path) -> None:
    killed_and_resumed(finished, tmp_path / "run", [("fit/*/*/manifest.json", 1, False), ("search/*/*.parquet", 4, True)])
    left = Path(tempfile.gettempdir()).glob(f"codsa-{fingerprint(str(tmp_path / 'run'))}-*")
    assert not list(left), "the cache of the killed runs is still there"


@pytest.mark.slow
def test_nothing_of_a_killed_run_keeps_running(finished: Report, tmp_path: Path) -> None:
    process = start(runs.options(finished.facts["job"]["data"], tmp_path / "run"))
    agents = kill_when(process, found(tmp_path / "run", "search/*/*.parquet"), group=False)
    assert len(agents) == len(AGENTS)
    assert not running_after(agents, LATE)


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "least"), [
    ("codsa.json", 1), ("read/rows/*", 1), ("read/manifest.json", 1), ("fit/*/*/manifest.json", 5), ("pools/*/*.parquet", 1),
    ("pools/*/*.parquet", 6), ("search/*/*.parquet", 12), ("verdict.json", 1), ("augmented", 1), ("apply/manifest.json", 1),
    ("judge/*/*.parquet", 3),
])  # fmt: skip
def test_killed_anywhere_then_goes_on(finished: Report, tmp_path: Path, pattern: str, least: int) -> None:
    killed_and_resumed(finished, tmp_path / "run", [(pattern, least, least % 2 == 0)])


@pytest.mark.slow
def test_a_checkpointed_fit_killed_in_the_middle_goes_on(finished: Report, tmp_path: Path) -> None:
    """tabular_diffusion with a checkpoint every few steps, killed after its first."""
    settings = "tabular_diffusion:steps=300,checkpoint=20,width=32,blocks=1"
    data = finished.facts["job"]["data"]
    command = ["augment", data, "--target", "state", "--generator", settings, "--learner", "logistic", "--trials", "1", "--draws", "1"]
    command += ["--folds", "2", "--workers", "2", "--force", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    kill_when(start([*command, str(tmp_path / "run")]), found(tmp_path / "run", "fit/*/*/checkpoint/last.json"), group=False)
    assert main([*command, str(tmp_path / "run")]) == 0
    assert runs.contents(tmp_path / "run" / "augmented") == runs.contents(tmp_path / "whole" / "augmented")


# Changed


def changed(finished: Report, place: Path, folders: tuple[str, ...], **settings: Any) -> tuple[Report, set[str]]:
    """Runs a changed job on a copy of the finished folder; returns the folders of which some file was written anew."""
    out = place / "run"
    report = runs.again(finished, runs.job(finished.facts["job"]["data"], "", **settings), out)
    before, after = runs.times(finished.folder), runs.times(out)
    return report, {name.partition("/")[0] for name, at in before.items() if after.get(name) != at} & set(folders)


def test_the_same_command_does_nothing_again(finished: Report, here: None, tmp_path: Path) -> None:
    report, redone = changed(finished, tmp_path, ("read", "pools", "search", "augmented", "apply", "judge"))
    assert not redone
    assert all(stage["reused"] for stage in report.facts["stages"] if stage["name"] not in ("decide", "report"))


def test_more_trials_keep_what_is_there_and_try_the_new_ones(finished: Report, here: None, tmp_path: Path) -> None:
    report, redone = changed(finished, tmp_path, ("read", "pools", "search"), trials=6)
    assert not redone
    assert len(report.facts["candidates"]) > len(finished.facts["candidates"])
    assert {c["name"] for c in report.facts["candidates"]} > {c["name"] for c in finished.facts["candidates"]}


def test_another_learner_keeps_generators_and_pools(finished: Report, here: None, tmp_path: Path) -> None:
    report, redone = changed(finished, tmp_path, ("read", "pools"), learner="logistic:penalty=0.5")
    assert not redone
    fresh = {stage["name"] for stage in report.facts["stages"] if not stage["reused"]}
    assert {"search", "judge"} <= fresh
    assert not {"read", "fit", "synthesize"} & fresh


def test_another_generator_keeps_the_fits_and_pools_of_the_first(finished: Report, here: None, tmp_path: Path) -> None:
    report, redone = changed(finished, tmp_path, ("read", "pools"), generator=("bootstrap:jitter=0.1", "bootstrap"))
    assert not redone
    assert not {stage["name"] for stage in report.facts["stages"] if stage["reused"]} & {"fit", "synthesize", "search"}


@pytest.mark.parametrize("settings", [{"group": ("sex",)}, {"seed": 3}, {"keep": ("id",)}, {"folds": 3}])
def test_what_the_rows_depend_on_reads_again(finished: Report, here: None, tmp_path: Path, settings: dict[str, Any]) -> None:
    report, redone = changed(finished, tmp_path, ("read",), **settings, trials=0)
    assert redone == {"read"}
    assert not any(stage["reused"] for stage in report.facts["stages"] if stage["name"] == "read")


def test_touched_but_identical_data_is_not_read_again(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients())
    job = runs.job(data, tmp_path / "run", generator=("bootstrap",), trials=1)
    run(job)
    before = runs.times(tmp_path / "run" / "read")
    os.utime(data, (1, 1))
    assert all(stage["reused"] for stage in run(job).facts["stages"] if stage["name"] in ("read", "fit", "search", "apply"))
    assert runs.times(tmp_path / "run" / "read") == before


def test_one_changed_value_changes_what_is_written(here: None, tmp_path: Path) -> None:
    """Two rows of one group and one fold swap a value: no count, bound or category tells."""
    table = runs.patients()
    job = runs.job(runs.written(tmp_path, table), tmp_path / "run", trials=0, force=False)
    real, _ = runs.augmented(run(job))
    well = real.filter(pa.array([state == "well" for state in real["state"].to_pylist()]))["id"].to_pylist()
    index = [table["id"].to_pylist().index(name) for name in well[:2]]
    values = np.array(table["dose"].to_pylist())
    assert values[index[0]] != values[index[1]]
    values[index] = values[index[::-1]]
    runs.written(tmp_path, table.set_column(3, "dose", pa.array(values.tolist(), pa.decimal128(7, 2))))
    again, _ = runs.augmented(run(job))
    assert dict(zip(again["id"].to_pylist(), again["dose"].to_pylist(), strict=True)) == {
        name: dose for name, dose in zip(table["id"].to_pylist(), values.tolist(), strict=True) if name in set(real["id"].to_pylist())
    }


def test_a_run_names_what_it_rests_on_last(finished: Report) -> None:
    """Every manifest is younger than all else in its folder."""
    manifests = [path for path in Path(finished.folder).rglob(MANIFEST) if path.parent.name != "apply"]
    assert len(manifests) == 1 + 2 * 3
    for manifest in manifests:
        assert all(path.stat().st_mtime_ns <= manifest.stat().st_mtime_ns for path in manifest.parent.rglob("*") if path.is_file())
    applied = Path(finished.folder, "apply", MANIFEST).stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= applied for path in Path(finished.augmented).iterdir())

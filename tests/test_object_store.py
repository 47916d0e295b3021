"""Runs, data and folders on an S3 server: the bytes of a local run, after kills, throttling and dropped connections; no secret anywhere."""

import gzip
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from test_folder import (
    test_a_missing_file_says_what_to_do,
    test_equal_values_are_equal_bytes,
    test_presence_names_and_deletion,
    test_what_is_written_is_read,
)

from codsa_ray import folder as folder_module
from codsa_ray.cli import main
from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder
from codsa_ray.formats import fragments, load, probe
from codsa_ray.pipeline import Report

import runs
from store import Faults, Store, endpoint, made, proxy, store
from store_runs import PATIENCE, ROOT, SECRETS, passed, patients_on, quick

# Claims of every folder, made here of one on the store; and fixtures.
__all__ = [
    "endpoint",
    "store",
    "test_a_missing_file_says_what_to_do",
    "test_equal_values_are_equal_bytes",
    "test_presence_names_and_deletion",
    "test_what_is_written_is_read",
]


@pytest.fixture
def folder(store: Store) -> Folder:
    return Folder(f"{store.address}/run")


# Objects


def test_a_small_file_is_one_put(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a file is then nowhere: neither under its name nor as a part of an upload that never ends."""
    faults = Faults(0.0)
    asked: list[str] = []
    faults.only = lambda method, path: bool(asked.append(method))
    with proxy(store.endpoint, faults) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        Folder(f"{store.address}/run").write_json("a.json", [1])
    assert asked == ["PUT"]


def test_readers_see_all_of_an_object_or_none(folder: Folder) -> None:
    """While one thread rewrites an object over and over in other lengths, no read is torn."""
    stop = threading.Event()
    folder.write_bytes("a", b"0" * 1000)

    def write() -> None:
        chance = random.Random(0)
        while not stop.is_set():
            folder.write_bytes("a", str(chance.randrange(10)).encode() * chance.randrange(1, 5000))
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(80):
            assert len(set(folder.read_bytes("a"))) == 1
    finally:
        stop.set()
        writer.join()


def test_an_object_that_is_never_as_large_as_the_store_says_is_read_so_often_and_no_more(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_bytes("a", b"whole")
    monkeypatch.setattr(folder_module, "open_file", lambda *_: pa.BufferReader(b"cut"))
    with pytest.raises(FolderError, match="as large as its store says"):
        folder.read_bytes("a")


def test_a_signal_in_the_middle_of_a_write_leaves_no_torn_object(folder: Folder) -> None:
    """Ctrl-C and a stopped job raise in the main thread at any moment."""

    def raises(*_: object) -> None:
        raise KeyboardInterrupt

    chance, kept, data = random.Random(0), signal.signal(signal.SIGALRM, raises), b"x" * 100_000
    try:
        for number in range(80):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.02))
                folder.write_bytes(f"{number}", data)
                time.sleep(1)
            except KeyboardInterrupt:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
    sizes = folder.sizes()
    assert sizes
    assert set(sizes.values()) == {len(data)}


def test_data_are_read_as_from_disk(store: Store, tmp_path: Path) -> None:
    """Files, folders and globs of parquet, csv and compressed csv, by the same names and in the same order."""
    tables = [runs.patients(n, seed).drop_columns(["dose", "ward", "seen"]) for n, seed in ((30, 0), (7, 1))]
    for index, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{index} ü.parquet", row_group_size=10)
        pacsv.write_csv(table, tmp_path / f"{index}.csv")
        (tmp_path / f"{index}.csv.gz").write_bytes(gzip.compress((tmp_path / f"{index}.csv").read_bytes()))
    for path in tmp_path.iterdir():
        store.put(f"data/{path.suffix}/{path.name}", path.read_bytes())
        (tmp_path / "data" / path.suffix).mkdir(parents=True, exist_ok=True)
        shutil.move(path, tmp_path / "data" / path.suffix / path.name)
    for place in ("data/.parquet", "data/.parquet/0*", "data/.csv/*.csv", "data/.gz/1.csv.gz"):
        here, there = (list(fragments(f"{base}/{place}")) for base in (tmp_path, store.address))
        assert [Path(one.path).name for one in here] == [Path(one.path).name for one in there]
        types = probe(here[0]).types
        assert [probe(one).types for one in there] == [probe(one).types for one in here]
        for one, other in zip(here, there, strict=True):
            assert pa.concat_tables(load(one, types)).equals(pa.concat_tables(load(other, types)))


# Whole passes


def test_a_run_on_a_store_writes_what_a_local_one_writes(store: Store, here: None, tmp_path: Path) -> None:
    """Data, run folder and output; and the same command again finds all of it finished."""
    assert main(quick(runs.written(tmp_path, runs.patients()), tmp_path / "run")) == 0
    command = quick(patients_on(store), f"{store.address}/runs/1")
    assert main(command) == 0
    written = store.contents("runs/1")
    for name in [*runs.contents(tmp_path / "run/augmented"), "../verdict.json", "../correction.json"]:
        path = Path(os.path.normpath(f"augmented/{name}"))
        assert written[str(path)] == (tmp_path / "run" / path).read_bytes()
    assert {name for name in written if name.startswith("augmented/")} == {
        f"augmented/{name}" for name in runs.contents(tmp_path / "run/augmented")
    }
    assert main(command) == 0
    stages = Folder(f"{store.address}/runs/1").read_json("report.json")["stages"]
    assert all(stage["reused"] for stage in stages if stage["name"] not in ("decide", "report"))


@pytest.mark.slow
def test_a_pass_between_throttled_and_dropped_requests_writes_the_same_and_no_secret(finished: Report, endpoint: str, logs: Path) -> None:
    """A tenth of all requests fails, some after they were done; then secrets are sought in all that was said, written and logged."""
    store, faults = made(endpoint), Faults(0.1)
    command = runs.options(patients_on(store), f"{store.address}/run")
    with proxy(endpoint, faults) as place:
        ran = passed(store.behind(place), command, logs)
    assert ran.code == 0, ran.said
    assert min(faults.counts.values()) > 20, faults.counts
    written = store.contents("run")
    kept = {name.removeprefix("augmented/"): data for name, data in written.items() if name.startswith("augmented/")}
    assert kept == runs.contents(finished.augmented)
    logged = {str(path): path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    assert any("raylet" in path for path in logged)
    assert any(b"s3://" in data for data in written.values())
    for secret in SECRETS:
        assert secret not in ran.said
        assert [name for name, data in {**written, **logged}.items() if secret.encode() in data] == []


@pytest.mark.slow
def test_a_driver_killed_while_it_fits_and_while_it_searches_goes_on(finished: Report, store: Store) -> None:
    """kill -9; the next one waits for the dead one's lease to run out."""
    words, command = [sys.executable, "-m", "codsa_ray.cli"], runs.options(patients_on(store), f"{store.address}/run")
    environment = {**os.environ, **store.environment, "RAY_AUTH_MODE": "disabled"}
    for pattern, least in ((r"fit/.*/manifest\.json", 1), (r"search/.*\.parquet", 4)):
        process = subprocess.Popen([*words, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while sum(bool(re.fullmatch(pattern, name)) for name in store.names("run")) < least:
            assert process.poll() is None, f"ended with {process.returncode} before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert "report.html" not in store.names("run")
    done = subprocess.run([*words, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert store.contents("run/augmented") == runs.contents(finished.augmented)


@pytest.mark.slow
def test_of_two_drivers_on_one_folder_one_ends_and_says_who_is_there(finished: Report, store: Store) -> None:
    """Begun at the same time by the same command."""
    command = [sys.executable, "-m", "codsa_ray.cli", *runs.options(patients_on(store), f"{store.address}/run")]
    environment = {**os.environ, **store.environment}
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate(timeout=PATIENCE)[1] for one in both]
    assert sorted(one.returncode for one in both) == [0, 2], said
    ended, other = (0, 1) if both[0].returncode == 2 else (1, 0)
    assert said[ended].strip().splitlines() == [said[ended].strip()]
    assert f"used by process {both[other].pid} on " in said[ended]
    assert store.contents("run/augmented") == runs.contents(finished.augmented)

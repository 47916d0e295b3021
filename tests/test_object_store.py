"""Runs, data and folders on an S3 server: the bytes of a local run, after kills, throttling and dropped connections; no secret anywhere."""

import gzip
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
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

from codsa_ray import filesystem
from codsa_ray import folder as folder_module
from codsa_ray.cli import main
from codsa_ray.errors import FolderError, SettingError
from codsa_ray.folder import Folder
from codsa_ray.formats import fragments, load, probe
from codsa_ray.job import Job
from codsa_ray.pipeline import Report

import runs
from store import KEYS, Faults, Store, endpoint, free_port, made, proxy, server, store

# Claims of every folder, made here of one on the store; and fixtures.
__all__ = [
    "endpoint",
    "store",
    "test_a_missing_file_says_what_to_do",
    "test_equal_values_are_equal_bytes",
    "test_presence_names_and_deletion",
    "test_what_is_written_is_read",
]
ROOT = Path(__file__).parent.parent
PATIENCE = 400.0
LATE = ("search", "augmented", "judge")
SECRETS = [*KEYS.values(), KEYS["AWS_SECRET_ACCESS_KEY"].replace("/", "%2F").replace("+", "%2B")]


@pytest.fixture
def folder(store: Store) -> Folder:
    return Folder(f"{store.address}/run")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up after a second where a run takes half a minute: for claims on what is said then."""
    monkeypatch.setattr(filesystem, "RETRIES", 4)
    monkeypatch.setattr(filesystem, "SILENCE", 1.0)


def quick(data: str, out: Path | str) -> list[str]:
    """The command line of a whole pass with little to do."""
    numbers = ["--trials", "1", "--draws", "1", "--folds", "2", "--repeats", "1", "--workers", "2"]
    plugins = ["--generator", "bootstrap", "--learner", "logistic"]
    return ["augment", data, "--target", "state", "--out", str(out), *plugins, *numbers, "--force"]


def patients_on(store: Store) -> str:
    """runs.patients() as an object; its address."""
    sink = pa.BufferOutputStream()
    pq.write_table(runs.patients(), sink)
    return store.put("data/patients.parquet", sink.getvalue().to_pybytes())


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


@dataclass(frozen=True)
class Ran:
    """How a process ended and what it said."""

    code: int
    said: str


def passed(store: Store, command: list[str], logs: Path) -> Ran:
    """The command in a process that uses the store."""
    words = [sys.executable, "-m", "codsa_ray.cli", *command]
    environment = {**os.environ, **store.environment, "RAY_TMPDIR": str(logs), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return Ran(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def logs() -> Iterator[Path]:
    """A folder for Ray's own logs; its sockets need a short path."""
    place = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


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


# Stores that fail


def refused(capsys: pytest.CaptureFixture[str], data: str, out: str) -> str:
    """The last line of a command that must end with 2."""
    code = main(quick(data, out))
    said = capsys.readouterr().err
    line = said.strip().splitlines()[-1]
    assert code == 2, said
    assert said.count("codsa: ") == line.count("codsa: error: wanted ") == 1, said
    assert "Traceback" not in said
    assert not [secret for secret in SECRETS if secret in said]
    return line


@pytest.mark.parametrize("kind", ["throttle", "drop", "stall"])
def test_a_store_that_always_fails_ends_the_run_in_one_line(
    store: Store, here: None, hasty: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    with proxy(store.endpoint, Faults(1.0, (kind,))) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        assert "a file within reach; got s3://" in refused(capsys, patients_on(store), f"{store.address}/run")


@pytest.mark.parametrize("part", ["read/", "fit/", "pools/", *(pytest.param(f"{part}/", marks=pytest.mark.slow) for part in LATE)])
def test_a_store_that_fails_from_some_moment_on_ends_the_run_in_one_line(
    store: Store, here: None, hasty: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    """No stage takes it for a generator's or a learner's failure."""
    faults = Faults(1.0, ("throttle",), only=lambda method, path: method == "PUT" and f"/run/{part}" in path)
    with proxy(store.endpoint, faults) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        line = refused(capsys, patients_on(store), f"{store.address}/run")
    assert f"/run/{part.rstrip('/')}" in line
    assert "SLOW_DOWN" in line


def test_an_endpoint_that_is_down_is_one_line(
    store: Store, hasty: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert "AWS_ENDPOINT_URL" in refused(capsys, f"{store.address}/data", f"{store.address}/run")
    assert "AWS_ENDPOINT_URL" in refused(capsys, f"{store.address}/data", str(tmp_path / "run"))


def test_a_bucket_that_is_not_there_is_one_line(store: Store, here: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "a bucket that is there; got s3://nowhere/run" in refused(capsys, patients_on(store), "s3://nowhere/run")
    assert "nothing at s3://nowhere/data" in refused(capsys, "s3://nowhere/data", str(tmp_path / "run"))


def test_a_run_inside_its_own_data_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "an --out outside DATA" in refused(capsys, f"{store.address}/data/", f"{store.address}/data/run")


def test_keys_that_may_not_are_one_line(
    monkeypatch: pytest.MonkeyPatch, here: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A server that knows no such key, after the bucket was made."""
    with server(INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:
        store = made(strict)
        store.use(monkeypatch)
        data = runs.written(tmp_path, runs.patients())
        assert "credentials that may; got s3://" in refused(capsys, data, f"{store.address}/run")
        assert "credentials that may; got s3://" in refused(capsys, f"{store.address}/data", str(tmp_path / "run"))


@pytest.mark.slow
def test_patience_with_a_store_has_an_end(store: Store, logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package's own retries and times."""
    data = patients_on(store)
    for kind, most in (("throttle", 60), ("stall", 200)):
        with proxy(store.endpoint, Faults(1.0, (kind,))) as place:
            started = time.monotonic()
            ran = passed(store.behind(place), quick(data, f"{store.address}/run"), logs)
        assert ran.code == 2, ran.said
        assert len(ran.said.strip().splitlines()) == 1
        assert time.monotonic() - started < most


@pytest.mark.slow
@pytest.mark.parametrize("part", ["fit", "search", "judge"])
def test_a_store_that_fails_workers_alone_ends_the_run_in_one_line(endpoint: str, logs: Path, part: str) -> None:
    """Out of Ray's and Tune's wrapping."""
    store = made(endpoint)
    command = quick(patients_on(store), f"{store.address}/run")
    faults = Faults(1.0, ("throttle",), only=lambda method, path: method == "PUT" and f"/run/{part}/" in path)
    with proxy(endpoint, faults) as place:
        ran = passed(store.behind(place), command, logs)
    assert ran.code == 2, ran.said
    assert ran.said.strip().splitlines()[-1].startswith("codsa: error: wanted a file within reach; got s3://")
    assert "Traceback" not in ran.said
    assert not [secret for secret in SECRETS if secret in ran.said]


# Requests that fail now and then


def test_every_kind_of_request_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of any length: pyarrow does not try again what is refused in more bytes than it asked for."""
    faults = Faults(0.3)
    with proxy(store.endpoint, faults) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        folder = Folder(f"{store.address}/run")
        for number in range(12):
            folder.write_json(f"{number}.json", number)
            assert folder.read_json(f"{number}.json") == number
            folder.write_table(f"{number}.parquet", pa.table({"x": [number]}))
            assert folder.read_table(f"{number}.parquet")["x"].to_pylist() == [number]
        assert len(folder.names()) == len(folder.sizes()) == 24
        folder.delete("0.json")
        assert not folder.exists("0.json")
        folder.delete()
        assert folder.names() == []
    assert min(faults.counts.values()) > 5, faults.counts


def test_what_opens_a_store_keeps_its_retries_on_the_way_to_another_process(store: Store) -> None:
    """pyarrow's own would leave them behind: as many refusals as it takes itself are too few here."""
    folder = Folder(f"{store.address}/run")
    folder.write_bytes("a", b"whole")
    faults = Faults(1.0, ("throttle",))
    left = iter(range(6))
    faults.only = lambda method, path: next(left, None) is not None
    with proxy(store.endpoint, faults) as place, pytest.MonkeyPatch.context() as patch:
        store.behind(place).use(patch)
        opened, path = filesystem.filesystem_of(f"{folder.address}/a")
        carried = pickle.loads(pickle.dumps(opened))
        assert carried is opened, "made once a process"
        assert carried.open_input_file(path).read() == b"whole"
    assert faults.counts["throttle"] == 6


SPREAD = """
import sys
from pathlib import Path
from codsa_ray.folder import Folder
from codsa_ray.pipeline import prepare, silent
from codsa_ray.rows import FINAL
from codsa_ray.stages.cluster import connect
from codsa_ray.stages.fit import FitJob
from codsa_ray.stages.train import train_fit
import runs
from test_ray_train import Watched
place, store = Path(sys.argv[1]), sys.argv[2]
connect(None, 2)
job = runs.job(runs.written(place, runs.patients()), place / "run").made()
rows, _, partitions = prepare(job, Folder(job.out), silent)
fit = FitJob(Watched(str(place)), FINAL, Folder(store + "/fit/watched"), {})
assert train_fit(fit, rows, partitions[FINAL], None, job, workers=2) is None
assert fit.manifest.read() is not None
"""


@pytest.mark.slow
def test_a_spread_fit_keeps_its_checkpoints_on_the_store_between_throttled_requests(endpoint: str, logs: Path, tmp_path: Path) -> None:
    store, asked = made(endpoint), []
    faults = Faults(0.3, ("throttle",), only=lambda method, path: asked.append((method, path)) or True)  # type: ignore[func-returns-value]
    with proxy(endpoint, faults) as place:
        tests = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
        environment = {**os.environ, **store.behind(place).environment, "RAY_TMPDIR": str(logs), "RAY_AUTH_MODE": "disabled"}
        words = [sys.executable, "-c", SPREAD, str(tmp_path), store.address]
        ended = subprocess.run(
            words, cwd=ROOT, env={**environment, "PYTHONPATH": tests}, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert any(method == "PUT" and re.search("watched/train/.*checkpoint_.*safetensors", path) for method, path in asked)
    assert faults.counts["throttle"]
    assert not any("/train/" in name for name in store.names()), "they are gone once it is fitted"


# Secrets


@pytest.mark.parametrize("field", ["data", "test", "source", "out"])
@pytest.mark.parametrize("userinfo", ["KEY:CANARY%2Fsecret", "CANARY"])
def test_credentials_in_an_address_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, userinfo: str
) -> None:
    given = {"data": "data.parquet", "out": str(tmp_path / "run"), field: f"s3://{userinfo}@bucket/x"}
    with pytest.raises(SettingError, match="set AWS_ACCESS_KEY_ID") as raised:
        Job(target="state", **given)
    assert "CANARY" not in str(raised.value)
    words = [word for name, value in given.items() if name not in ("data",) for word in (f"--{name}", value)]
    assert main(["augment", given["data"], "--target", "state", *words]) == 2
    said = capsys.readouterr()
    assert "s3://***@bucket/x" in said.err
    assert "CANARY" not in said.out + said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["client_secret", "sas_token", "account_key", "sig", "secret_key"])
@pytest.mark.parametrize("place", ["abfss://files@account.dfs.core.windows.net/x", "gs://bucket/x", "s3://bucket/x"])
def test_a_secret_behind_an_address_is_refused_whatever_the_store(place: str, name: str) -> None:
    with pytest.raises(SettingError, match=name) as raised:
        Job(data=f"{place}?scheme=https&{name}=CANARY", target="y")
    assert "CANARY" not in str(raised.value)


def test_a_word_behind_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingError, match="no setting behind gs://bucket/x") as raised:
        Job(data="gs://bucket/x?CANARY", target="y")
    assert "CANARY" not in str(raised.value)


def test_a_line_that_repeats_what_was_typed_leaves_the_credentials_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["augment", "a.parquet", "s3://KEY:CANARY@bucket/x", "--target", "state"]) == 2
    assert "s3://***@bucket/x" in (said := capsys.readouterr().err)
    assert "CANARY" not in said


def test_an_address_says_no_more_than_where(store: Store) -> None:
    """What stands behind the ? is known by name or refused, and never shown."""
    host = store.endpoint.removeprefix("http://")
    folder = Folder(f"{store.address}/run?endpoint_override={host}&scheme=http&region=eu-central-1")
    (folder / "a").write_json("b.json", 1)
    assert Folder(f"{store.address}/run").read_json("a/b.json") == 1
    assert (folder / "a").shown == f"{store.address}/run/a"
    with pytest.raises(SettingError, match="secret_key") as raised:
        Folder(f"{store.address}/run?secret_key=CANARY").exists()
    assert "CANARY" not in str(raised.value)
    with pytest.raises(FolderError, match=r"s3://\*\*\*@bucket"):
        raise FolderError(*filesystem.told(OSError("AWS Error"), filesystem.shown("s3://K:S@bucket"), "s3://K:S@bucket"))

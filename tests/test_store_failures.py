"""A store that fails ends a run in one line that names no secret; requests that fail now and then are tried again."""

import os
import pickle
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from codsa_ray import filesystem
from codsa_ray.cli import main
from codsa_ray.folder import Folder

import runs
from store import Faults, Store, endpoint, free_port, made, proxy, server, store
from store_runs import PATIENCE, ROOT, SECRETS, passed, patients_on, quick

__all__ = ["endpoint", "store"]  # fixtures

LATE = ("search", "augmented", "judge")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up after a second where a run takes half a minute: for claims on what is said then."""
    monkeypatch.setattr(filesystem, "RETRIES", 4)
    monkeypatch.setattr(filesystem, "SILENCE", 1.0)


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
fit = FitJob(Watched(str(place)), FINAL, Folder(store + "/fit/watched"), "watched")
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

"""A block that ends its worker each time: it is named, all others are kept, and the same command goes on once it is mended."""

import os
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Self

import pyarrow as pa
import pytest

from codsa_ray.contracts import FittedGenerator, Needs, Worker
from codsa_ray.errors import InternalError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.job import Job
from codsa_ray.pipeline import run, run_until
from codsa_ray.plugins import identity
from codsa_ray.seeds import seed_of
from codsa_ray.stages import synthesize

import clusters
import runs

FOLD, DRAW, REGION = 1, 0, 0


@dataclass(frozen=True)
class Poisoned:
    """Bootstrap, but for one block: it does what the file `how` says while that is there."""

    how: str
    block: int = 64

    @property
    def needs(self) -> Needs:
        return Needs(block=self.block)

    def fit(self, data: FitData, worker: Worker) -> None:
        Bootstrap(block=self.block).fit(data, worker)

    def load(self, folder: Folder) -> "FittedPoisoned":
        return FittedPoisoned(self, Bootstrap(block=self.block).load(folder))

    @classmethod
    def tiny(cls) -> Self:
        return cls("nowhere")


@dataclass(frozen=True)
class FittedPoisoned:
    settings: Poisoned
    inner: FittedGenerator

    def block(self, region: int, seed: int) -> pa.Table:
        block = seed_of(0, "draw", identity(self.settings), 1.0, FOLD, DRAW, REGION, 0)
        how = Path(self.settings.how)
        if seed == seed_of(block, 0) and how.exists():
            with open(how.with_suffix(".tries"), "a") as tries:
                tries.write(".")
            if how.read_text() == "dies":
                os._exit(17)
            if how.read_text() == "leaves":
                raise SystemExit(3)
            raise OSError(28, "No space left on device")
        return self.inner.block(region, seed)


@pytest.mark.cluster
@pytest.mark.parametrize(("how", "tries", "said"), [
    ("dies", 9, r"a worker died 9 times of block 0 of region 0 in shard 0000-00000000-\w+.parquet of pool poisoned-\w+-1-0-\w+;"),
    ("leaves", 1, "a worker failed: SystemExit: 3"),
    ("fills the disk", 1, "a worker failed: OSError: .*No space left on device"),
])  # fmt: skip
def test_a_poison_block_is_named_and_the_rest_is_kept(
    ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, tries: int, said: str
) -> None:
    # Small draws are made in the driver, which cannot outlive them.
    monkeypatch.setattr(synthesize, "FEW_ROWS", 0)
    flag, data = tmp_path / "how", runs.written(tmp_path, runs.patients())
    job = runs.job(data, tmp_path / "run", generator=(Poisoned(str(flag)),))
    flag.write_text(how)
    with pytest.raises(InternalError, match=said) as raised:
        run_until(job, "synthesize")
    assert "\n" not in str(raised.value)
    assert len(flag.with_suffix(".tries").read_text()) == tries
    before = runs.times(tmp_path / "run" / "pools")
    shards = [name for name in before if name.endswith(".parquet")]
    if how == "dies":
        assert len(shards) == 2 * 2 - 1
    flag.unlink()
    report = run(job)
    after = runs.times(tmp_path / "run" / "pools")
    assert all(after[name] == before[name] for name in shards if how == "dies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesize, "FEW_ROWS", 10**9)
        other = run(runs.job(data, tmp_path / "other", generator=(Poisoned(str(flag)),)))
    assert runs.contents(report.augmented) == runs.contents(other.augmented)


@pytest.mark.cluster
def test_of_few_rows_the_next_run_names_the_block_that_the_driver_died_of(tmp_path: Path) -> None:
    """Few rows are drawn in the driver, which cannot say what it died of."""
    flag, data = tmp_path / "how", runs.written(tmp_path, runs.patients())
    flag.write_text("dies")
    job = runs.job(data, tmp_path / "run", generator=(Poisoned(str(flag)),))
    for code in (17, 0):
        driver = get_context("spawn").Process(target=synthesized, args=(job,))
        driver.start()
        driver.join()
        assert driver.exitcode == code
        assert (tmp_path / "run" / "pools" / synthesize.HERE).exists()
    assert "died 9 times of block 0 of region 0" in (tmp_path / "said").read_text()
    flag.unlink()
    run(job)
    assert not (tmp_path / "run" / "pools" / synthesize.HERE).exists()


def synthesized(job: Job) -> None:
    """In a process of its own: says beside the run what ended it."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    try:
        run_until(job, "synthesize")
    except InternalError as error:
        Path(job.out).with_name("said").write_text(str(error))


LOW_ON_MEMORY = """
import time
from types import SimpleNamespace
import ray
from codsa_ray.errors import InternalError
from codsa_ray.stages.cluster import RETRIES, connect
from codsa_ray.stages.fit import _got
connect(None, 1)
try:
    _got(ray.remote(max_retries=RETRIES)(lambda: time.sleep(600)).remote(), SimpleNamespace(name="trees/0"))
except InternalError as error:
    print(error)
"""


@pytest.mark.cluster
def test_a_fit_that_no_node_has_the_memory_for_ends_with_a_word_of_it() -> None:
    """A node that takes itself for full ends each of its tries; left to itself, Ray begins another for ever."""
    full = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100", "RAY_task_oom_retry_delay_base_ms": "10"}
    command = [sys.executable, "-c", LOW_ON_MEMORY]
    ended = subprocess.run(command, env=clusters.environment(**full), capture_output=True, text=True, timeout=clusters.PATIENCE)
    assert "fit trees/0 was ended again and again because its node ran low on memory" in ended.stdout

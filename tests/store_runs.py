"""Commands of whole passes on the store that tests share, and a process that runs them; knows no fault."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import runs
from store import KEYS, Store

ROOT = Path(__file__).parent.parent
PATIENCE = 400.0
SECRETS = [*KEYS.values(), KEYS["AWS_SECRET_ACCESS_KEY"].replace("/", "%2F").replace("+", "%2B")]


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

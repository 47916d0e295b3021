"""`make chaos`: a tiny job under faults at random moments of every stage, given again until it ends; writes docs/reliability.md.

Each fault is kept in runs/chaos, so that the next call goes on with the following one. CODSA_MINUTES bounds a call (60).
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer

import codsa_ray
from benchmarks import faults
from benchmarks.faults import DRAWS, PLACE, STAGES, Fault, command, poisoned
from benchmarks.reliability import write_page

WRITTEN = ("verdict.json", "correction.json")
KINDS = (
    *("driver", "worker", "node", "full disk", "driver", "worker", "damaged file", "node"),
    *("driver", "two drivers", "worker", "moved clock", "driver", "slow worker", "node", "poison block"),
)
FAULTS = 6 * len(KINDS)
TIMED = 4
"""After so many faults the undisturbed run is timed again: the machine may do other work."""


def table() -> pa.Table:
    """Breast cancer, 240 benign rows to 40 malignant, eight columns."""
    found = load_breast_cancer(as_frame=True).frame
    rare, common = found[found.target == 0].head(40), found[found.target == 1].head(240)
    rows = np.random.default_rng(0).permutation(280)
    chosen = [*found.columns[:8], "target"]
    import pandas as pd

    return pa.Table.from_pandas(pd.concat([rare, common])[chosen].iloc[rows], preserve_index=False)


def run_poisoned(out: str) -> int:
    """What `poisoned` runs; a defect ends with 1 and its one line."""
    from benchmarks.poisoned import Poisoned
    from codsa_ray.errors import CodsaError
    from codsa_ray.job import Job
    from codsa_ray.pipeline import run

    flag = str((PLACE / "poison").absolute())
    settings: dict[str, Any] = {"draws": 3 * DRAWS, "trials": 2, "folds": 2, "repeats": 1, "workers": 2, "learner": "logistic"}
    try:
        run(Job(str(PLACE / "data.parquet"), "target", out=out, generator=(Poisoned(flag),), force=True, **settings))
    except CodsaError as error:
        print(f"codsa: {error}", file=sys.stderr)
        return error.exit_code
    return 0


@dataclass(frozen=True)
class Whole:
    """An undisturbed run.

    Args:
        out: its folder. seconds: of each time it was made. spans: seconds of each stage.
        code: of the package that made it: another one's runs may rightly differ.
    """

    out: str
    seconds: list[float]
    spans: dict[str, float]
    code: str = ""


def code() -> str:
    """Of the package's files."""
    files = sorted(Path(codsa_ray.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def whole(name: str, words: Callable[[Path], list[str]], times: int) -> Whole:
    """The undisturbed run, made once with this code and kept."""
    kept = PLACE / f"{name}.json"
    if kept.exists() and (found := Whole(**json.loads(kept.read_text()))).code == code():
        return found
    seconds, spans = [], {}
    for _ in range(times):
        out = PLACE / name
        shutil.rmtree(out, ignore_errors=True)
        started, at = time.perf_counter(), {}
        process = faults.start(words(out))
        while process.poll() is None:
            at |= {stage: time.perf_counter() - started for stage in STAGES if stage not in at and faults.begun(out, stage)}
            time.sleep(0.02)
        seconds.append(time.perf_counter() - started)
        assert process.returncode == 0, process.stderr.read() if process.stderr else ""
        ends = [*list(at.values())[1:], seconds[-1]]
        spans = {stage: end - at[stage] for stage, end in zip(at, ends, strict=True)}
    found = Whole(str(out), seconds, spans, code())
    kept.write_text(json.dumps(asdict(found), indent=1))
    return found


def compare(fault: Fault, out: Path, reference: Whole) -> None:
    """Rows and files against the undisturbed run's."""
    theirs = Path(reference.out)
    names = {file.name for folder in (out, theirs) for file in folder.glob("augmented/*")}
    for name in [*(f"augmented/{name}" for name in sorted(names)), *WRITTEN]:
        if not (out / name).exists() or (out / name).read_bytes() != (theirs / name).read_bytes():
            fault.differ.append(name)
    if fault.differ:
        mine, wanted = rows(out), rows(theirs)
        fault.lost, fault.doubled = sum((wanted - mine).values()), sum((mine - wanted).values())


def rows(out: Path) -> Counter[str]:
    """Every row of `augmented/`, how often."""
    files = sorted(out.glob("augmented/*.parquet"))
    return Counter(repr(row) for file in files for row in pq.read_table(file).to_pylist())


def timed() -> float:
    """Seconds of an undisturbed run."""
    with folder() as out:
        attempt = faults.ended(faults.start(command(out)), time.perf_counter())
    assert attempt.code == 0, attempt.said
    return attempt.seconds


@contextmanager
def folder() -> Iterator[Path]:
    """A new run folder that goes with the block."""
    place = tempfile.mkdtemp(prefix="run-", dir=PLACE)
    try:
        yield Path(place) / "run"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def suffer(number: int, plain: Whole, poison: Whole) -> Fault:
    """One fault, from its seed to its record."""
    kind, dice = KINDS[number % len(KINDS)], random.Random(number)
    stage = dice.choice(list(STAGES))
    fault = Fault(number, kind, stage)
    reference = poison if kind == "poison block" else plain
    with folder() as out:
        span = plain.spans[stage]
        if kind == "node":
            faults.on_a_node(fault, out, span, dice)
        elif kind == "poison block":
            fault.stage = "synthesize"
            faults.with_poison(fault, out, dice)
        elif kind == "full disk":
            fault.stage = ""
            faults.on_a_full_disk(fault, out, dice, sum(file.stat().st_size for file in Path(plain.out).rglob("*") if file.is_file()))
        elif kind == "damaged file":
            fault.stage = ""
            faults.with_damage(fault, out, dice, Path(plain.out))
        else:
            faults.disturbed(fault, out, span, dice, faults.DONE_TO_A_RUN[kind])
        if kind != "node":
            faults.again(fault, poisoned(out) if kind == "poison block" else command(out))
        compare(fault, out, reference)
    faults.reap()
    return fault


def main() -> None:
    """Goes on with the faults that are not kept yet, and writes the page after each."""
    PLACE.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * float(os.environ.get("CODSA_MINUTES", "60"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not (PLACE / "data.parquet").exists():
        pq.write_table(table(), PLACE / "data.parquet")
    plain, poison = whole("plain", command, 2), whole("poisoned", poisoned, 1)
    near = 0.0
    for number in range(FAULTS):
        kept = PLACE / f"fault-{number:03d}.json"
        if kept.exists():
            continue
        if time.monotonic() > until:
            break
        if number % TIMED == 0 or not near:
            near = timed()
        fault = suffer(number, plain, poison)
        fault.whole, cost = near, sum(attempt.seconds for attempt in fault.attempts) - near
        kept.write_text(json.dumps(asdict(fault), indent=1))
        codes = " ".join(str(attempt.code) for attempt in fault.attempts)
        print(f"{number:3d} {fault.kind:12} {fault.stage or '-':10} codes {codes:10} {cost:+6.1f} s  {fault.what}", flush=True)
        write_page(PLACE)


if __name__ == "__main__":
    sys.exit(run_poisoned(sys.argv[2]) if sys.argv[1:2] == ["poisoned"] else main())

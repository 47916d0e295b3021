"""The page of `make chaos`: what the faults that were kept add up to; does no fault."""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import machine

PAGE = Path("docs/reliability.md")
DONE = {
    "driver": "`kill -9` of the driver",
    "worker": "`kill -9` of one of Ray's workers",
    "node": "`kill -9` of a raylet and its workers, one of three nodes",
    "full disk": "the run folder on a file system that is full at a random byte",
    "damaged file": "a shard, a record or a file of `augmented/` cut short, with one bit altered, or lost",
    "two drivers": "a second driver on the same folder",
    "moved clock": "`kill -9`, then all times that are stored moved by up to ten years",
    "slow worker": "a worker stopped for 2 to 8 seconds",
    "poison block": "a block that ends its worker each time it is drawn, mended after the run has said so",
}
TEXT = """
## What holds it together

- Every file is written under another name, flushed to the disk and renamed. What a killed run left half-written is swept by the next one
  that holds the folder's lock; no other file is.
- A stage's manifest is written last. A pool keeps a record of every shard that was drawn, its rows, size and checksum: a shard without one
  is drawn again, and one with a record is compared with it when it is read. A shard whose size is wrong is drawn again; one
  whose bytes alone are wrong ends the run with a line that names it, and the next run draws it. `apply/manifest.json` does the same for
  `augmented/`, which is compared whenever the command is given again.
- Every page of every parquet file has a checksum of its own. Rows and scores that are damaged end the run; they are no candidate's failure.
- What lies there in the end is compared with the plan, rows and files, or the run ends with code 1.
- A block depends on its seed and on nothing else. Drawn twice, it is the same bytes.
- Retries are finite: a fit, a shard or a trial that ends its worker is tried three times, a shard then three times more on a worker of its
  own; then the run ends with a line that names fit or shard, and keeps the others. Small draws (up to 20,000 rows) are made in the driver,
  which such a block takes along.

## What is not tested

By these faults: the fit of a network, which the job has none of, and fits spread over workers; GPUs; object stores, since its folder is on
a local disk; regression, texts and pictures. By nothing: machines that lose their memory, networks that split, clocks that run backwards
inside a process. The three nodes are three raylets of one machine.
"""
JOB = "a tiny job (bootstrap with jitter, the learner logistic, 2 folds, 2 trials, 10 draws, a local disk)"
FEWEST = 3  # timings: the median of fewer says nothing
# The moment came after the run's end, or found no worker: that is no fault.
MISSED = ("the run had ended", "no worker to")
COLUMNS = ("faults", "ended with 0", "rows lost", "rows doubled", "runs that differ", "median commands", "median seconds lost")


def counted(faults: list[dict[str, Any]]) -> list[str]:
    """The cells of COLUMNS."""
    ended = sum(fault["attempts"][-1]["code"] == 0 for fault in faults)
    lost, doubled = (sum(fault[key] for fault in faults) for key in ("lost", "doubled"))
    commands = np.median([len(fault["attempts"]) for fault in faults])
    costs = [sum(attempt["seconds"] for attempt in fault["attempts"]) - fault["whole"] for fault in faults if fault.get("whole")]
    cost = f"{np.median(costs):.0f} ({len(costs)})" if len(costs) >= FEWEST else "-"
    return [*map(str, (len(faults), ended, lost, doubled, sum(bool(f["differ"]) for f in faults))), f"{commands:g}", cost]


def bound(faults: list[dict[str, Any]]) -> str:
    """What so many faults can say of the chance that one does harm."""
    harmed = sum(bool(f["lost"] or f["doubled"] or f["differ"] or f["attempts"][-1]["code"]) for f in faults)
    if harmed or not faults:
        return f"{harmed} of {len(faults)} faults did harm."
    most = 1 - 0.05 ** (1 / len(faults))
    return (
        f"None of {len(faults)} faults lost, doubled or changed a row, or kept the run from its end: were they a sample of such faults, "
        f"at most {most:.1%} of these would do harm, with 95 % confidence."
    )


def grid(first: str, groups: Iterable[tuple[str, list[dict[str, Any]]]]) -> str:
    """A table, one line a group."""
    lines = [f"| {first} | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(counted(faults))} |" for name, faults in groups)])


def by(faults: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for fault in faults:
        found[fault[key]].append(fault)
    return found


def write_page(place: Path) -> None:
    """Counts what lies in `place` and writes PAGE."""
    kept = [json.loads(file.read_text()) for file in sorted(place.glob("fault-*.json"))]
    faults = [fault for fault in kept if not fault["what"].startswith(MISSED)]
    kinds, moments = by(faults, "kind"), [{**fault, "stage": fault["stage"] or fault["before"]} for fault in faults if fault["before"]]
    order = ("read", "fit", "synthesize", "search", "apply", "judge")
    stages = {stage: found for stage in order if (found := by(moments, "stage").get(stage))}
    wholes = [fault["whole"] for fault in faults if fault.get("whole")] or [0.0]
    runs = sum(len(fault["attempts"]) for fault in faults)
    kills = sum(len(kinds.get(kind, ())) for kind in ("driver", "worker", "node", "moved clock"))
    page = f"""# Reliability

`make chaos` on {date.today()}, {machine()}: {len(faults)} faults ({kills} of them kills) in {runs} runs of {JOB}, at
seeded random moments of every stage. After each fault the same command was given until it ended with code 0, and what it wrote was
compared, byte for byte, with what an undisturbed run writes: `augmented/`, `verdict.json`, `correction.json`. Faults are kept from
one call of the target to the next: not all ran on the same state of the code, and each is compared with an undisturbed run of its own.

{grid("fault", [(DONE[kind], kinds[kind]) for kind in DONE if kind in kinds])}
| **all** | {" | ".join(counted(faults))} |

{bound(faults)}

Seconds lost are those of all commands less those of the undisturbed run that was timed last before (in brackets: how many faults had
one; a dash: fewer than {FEWEST}, which say nothing); it takes {np.median(wholes):.0f} seconds, most of them Ray's start, which every
further command pays again. The machine did other work meanwhile, so they are rough.

## By stage

Where the fault was aimed at: a random moment after the stage had begun (damaged files and poison are no moments, and are not counted
here; a full disk is counted where the run found it).

{grid("stage", stages.items())}
"""
    PAGE.write_text(page + TEXT)

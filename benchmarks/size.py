"""`make bench-scale`: adult's columns, .1 to 10 million rows in and 1 to 100 million out; writes docs/benchmarks/scale.md.

Reads adult.parquet from the folder that CODSA_DATA names; its rows are drawn again and again, with another weight each, to make the larger
inputs. Every size runs in a process of its own: read, one final fit of sequential_trees, synthesize, apply; no search, which looks at a
bounded sample whatever the size. Resumes: `python -m benchmarks.size [--minutes M]`; a plan that would take longer than M minutes is
extrapolated from the one before and marked so.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import data_folder
from benchmarks.main import Peak
from benchmarks.results import machine

RUNS = Path("runs/scale")
PAGE = Path("docs/benchmarks/scale.md")
PART = 1_000_000
SIZES = ((100_000, 1_000_000), (1_000_000, 10_000_000), (10_000_000, 100_000_000))
SEED = 0
COLUMNS = (
    *("rows in", "rows drawn", "workers", "read rows/s", "synthesize rows/s", "apply rows/s", "fit s"),
    *("driver MiB", "of it grown", "workers MiB", "augmented MiB"),
)


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    rows_in: int
    rows_out: int
    workers: int

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return RUNS / f"{self.rows_in}-{self.rows_out}-{self.workers}.json"


def table_of(rows: int) -> Path:
    """A folder of parquet files with that many rows."""
    place = RUNS / f"adult-{rows}"
    if not (place / "_done").exists():
        place.mkdir(parents=True, exist_ok=True)
        adult = pd.read_parquet(data_folder() / "adult.parquet").drop(columns=["split"], errors="ignore")
        rng = np.random.default_rng(SEED)
        for part, start in enumerate(range(0, rows, PART)):
            drawn = adult.iloc[rng.integers(0, len(adult), min(PART, rows - start))].reset_index(drop=True)
            drawn["fnlwgt"] = (drawn["fnlwgt"] * rng.uniform(0.9, 1.1, len(drawn))).astype(np.int64)
            pq.write_table(pa.Table.from_pandas(drawn, preserve_index=False), place / f"{part:04d}.parquet")
        (place / "_done").touch()
    return place


def measure(cell: Cell) -> dict[str, Any]:
    """Seconds of each stage and the driver's memory; in this process."""
    from codsa_ray import Job
    from codsa_ray.bench import Bench
    from codsa_ray.candidates import Candidate
    from codsa_ray.contracts import silent
    from codsa_ray.folder import Folder
    from codsa_ray.pipeline import prepare, settled
    from codsa_ray.plugins import identity
    from codsa_ray.pools import pool_of
    from codsa_ray.rows import FINAL
    from codsa_ray.stages.apply import apply
    from codsa_ray.stages.fit import fit_all, fit_jobs
    from codsa_ray.stages.synthesize import synthesize

    place = RUNS / "out"
    shutil.rmtree(place, ignore_errors=True)
    out = Folder(str(place)).absolute
    job = Job(str(table_of(cell.rows_in)), "income", generator=("sequential_trees",), out=str(place), workers=cell.workers, folds=1)
    job = settled(job.made())
    peak = Peak(psutil.Process())
    threading.Thread(target=peak.watch, daemon=True).start()
    found: dict[str, Any] = {"begin": psutil.Process().memory_full_info().pss / 2**20}
    clock = time.perf_counter()

    def tick(name: str) -> None:
        nonlocal clock
        found[name], clock = time.perf_counter() - clock, time.perf_counter()

    rows, facts, partitions = prepare(job, out, silent)
    tick("read")
    fits = [fit for fit in fit_jobs(job, rows, partitions, out, facts["fingerprint"]) if fit.fold == FINAL]
    fit_all(job, rows, partitions, fits, None, silent)
    tick("fit")
    allocator: Any = job.allocator
    regions = partitions[FINAL].regions
    candidate = Candidate("synthetic", generator=identity(fits[0].generator), gamma=cell.rows_out / regions.gap)
    plan = candidate.plan(regions, allocator)
    pool = pool_of(out / "pools", fits[0].generator, fits[0].fit, FINAL, 0, SEED, plan.counts)
    drawn = synthesize(rows, partitions, [(pool, fits[0])], cell.workers, 0, silent)
    tick("synthesize")
    learner: Any = job.learner
    bench = Bench(rows, partitions, {}, learner, allocator, "")
    facts = apply(bench, (pool,), plan, candidate, out, {}, cell.workers, silent)
    tick("apply")
    peak.ended = True
    found |= {"drawn": drawn.rows, "written": facts["rows_out"], "driver": peak.driver, "workers": peak.workers}
    found["bytes"] = sum(f.stat().st_size for f in (place / "augmented").glob("*.parquet"))
    assert facts["synthetic"] == plan.size
    if cell.workers == 1:
        found["bare"] = bare(fits[0], rows, partitions, pool)
    shutil.rmtree(place, ignore_errors=True)
    return found


def bare(fit: Any, rows: Any, partitions: Any, pool: Any) -> dict[str, float]:
    """The same shards by a plain loop in this process: sampler, then parquet; the first ones, for at most half a minute."""
    from codsa_ray.pool import Shard
    from codsa_ray.stages.synthesize import Drawer, ShardTask

    drawer, place = Drawer(rows, partitions), RUNS / "bare.parquet"
    tasks = [ShardTask(Shard(pool.key, shard.segments), fit, pool.folder) for shard in pool.shards]
    drawer._draw(tasks[0])
    spent = counted = 0.0
    for task in tasks:
        started = time.perf_counter()
        table = pa.concat_tables(drawer._draw(task)[0])
        pq.write_table(table, place, compression="zstd")
        spent, counted = spent + time.perf_counter() - started, counted + len(table)
        if spent > 30:
            break
    place.unlink()
    return {"rows": counted, "seconds": spent}


def run(cell: Cell, minutes: float) -> None:
    """Measures one cell in a process of its own, unless it is there; extrapolates what would take too long."""
    if cell.path.exists():
        return
    before = [c for c in cells() if c.workers == cell.workers and c.path.exists() and c.rows_out < cell.rows_out]
    if before:
        last = json.loads(before[-1].path.read_text())
        grown = cell.rows_out / before[-1].rows_out
        expected = {key: last[key] * grown for key in ("synthesize", "apply")}
        if sum(expected.values()) > 60 * minutes:
            cell = replace(cell, rows_out=int(cell.rows_out * 60 * minutes / sum(expected.values())))
    subprocess.run([sys.executable, "-m", "benchmarks.size", "--cell", json.dumps([cell.rows_in, cell.rows_out, cell.workers])], check=True)


def cells() -> list[Cell]:
    """Every size with both cores, and the middle one with one worker."""
    return [Cell(*SIZES[1], 1), *(Cell(*size, 2) for size in SIZES)]


def line(cell: Cell, found: dict[str, Any]) -> str:
    """One row of the page."""
    rates = [cell.rows_in / found["read"], found["drawn"] / found["synthesize"], found["written"] / found["apply"]]
    shown = " | ".join(f"{rate:,.0f}" for rate in rates)
    return (
        f"| {cell.rows_in:,} | {found['drawn']:,} | {cell.workers} | {shown} | {found['fit']:.1f} | {found['driver']:,.0f} "
        f"| {found['driver'] - found['begin']:,.0f} | {found['workers']:,.0f} | {found['bytes'] / 2**20:,.0f} |"
    )


def page() -> str:
    """What was measured."""
    kept = {path: json.loads(path.read_text()) for path in RUNS.glob("*-*-*.json")}
    measured = sorted(
        ((Cell(*map(int, path.stem.split("-"))), found) for path, found in kept.items()),
        key=lambda pair: (pair[0].workers, pair[0].rows_in),
    )
    lines = [
        "# Sizes",
        "",
        f"`make bench-scale` on {date.today()}, {machine()}. adult's columns; each line a process of its own: read, one final fit of "
        "sequential_trees, synthesize, apply. Rows a second are of the whole stage, actors' start included; memory is the largest "
        "proportional set size.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(line(cell, found) for cell, found in measured),
    ]
    return "\n".join([*lines, "", *sentences(measured)]) + "\n"


def sentences(measured: list[tuple[Cell, dict[str, Any]]]) -> list[str]:
    """The three comparisons that were asked for."""
    two = [(cell, found) for cell, found in measured if cell.workers == 2]
    rates = [found["drawn"] / found["synthesize"] for _, found in two]
    grown = [found["driver"] for _, found in two]
    further = [
        (found["drawn"] - before["drawn"]) / (found["synthesize"] - before["synthesize"]) for (_, before), (_, found) in pairwise(two)
    ]
    lines = [
        f"- From the smallest to the largest: synthesize goes from {rates[0]:,.0f} to {rates[-1]:,.0f} rows/s, the driver's memory from "
        f"{grown[0]:,.0f} to {grown[-1]:,.0f} MiB (wanted: under 200 MiB more).",
        "- Actors start for seconds, whatever the size. Beyond that, from one size to the next: "
        f"{', '.join(f'{rate:,.0f}' for rate in further)} further rows/s (wanted: within 10 % of each other).",
    ]
    for cell, found in measured:
        if cell.workers == 1:
            bare_rate = found["bare"]["rows"] / found["bare"]["seconds"]
            one = found["drawn"] / found["synthesize"]
            other = next((f["drawn"] / f["synthesize"] for c, f in two if c.rows_in == cell.rows_in), None)
            start = two[0][1]["synthesize"] - two[0][1]["drawn"] / further[0]
            writing = (found["synthesize"] - start) * bare_rate / found["drawn"] - 1
            lines.append(
                f"- One worker draws and writes {one:,.0f} rows/s; a plain loop of sampler and parquet {bare_rate:,.0f}: "
                f"{bare_rate / one - 1:.0%} more time with the actors' start, {writing:.0%} beyond it (wanted: at most 15 %). "
                f"The start, {start:.1f} s, is what the smallest size took beyond the rate of further rows."
            )
            if other:
                lines.append(
                    f"- Two workers: {other / one:.2f} times one (wanted: 1.5; the driver and Ray's own processes share the two cores)."
                )
    return lines


def main() -> None:
    """Measures what is not there and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--cell")
    options.add_argument("--minutes", type=float, default=20.0)
    given = options.parse_args()
    RUNS.mkdir(parents=True, exist_ok=True)
    if given.cell:
        cell = Cell(*json.loads(given.cell))
        found = measure(cell) | {"children": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime}
        cell.path.write_text(json.dumps(found))
        print(line(cell, found), flush=True)
        return
    for cell in cells():
        run(cell, given.minutes)
    PAGE.write_text(page())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

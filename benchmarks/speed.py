"""`make bench-speed`: rows of adult drawn per second, a thousand pictures and texts, 60 short trials; writes docs/benchmarks/speed.md.

Reads adult.parquet from the folder that CODSA_DATA names. Each run is kept beside those before it, because a machine has good days and
bad ones: the page has the median of all, and their range. `--page` only writes the page.
"""

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import thousand
from benchmarks.data import data_folder
from benchmarks.results import Results
from codsa_ray import Job, pipeline
from codsa_ray.draw import draw_block
from codsa_ray.folder import Folder
from codsa_ray.partition import partition
from codsa_ray.plugins import make
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.strata.whole import Whole

RESULTS = Results("speed")
PAGE = Path("docs/benchmarks/speed.md")
CORES = 2
SECONDS = 10.0
TRIALS = 60
REACH = {"tabular_diffusion": 60_000, "sequential_trees": 400_000}
BELOW = 60  # seconds of a thousand pictures or texts, and of a search


def fitted(place: str, name: str) -> float:
    """Fits one generator on all training rows of the run in `place`; returns seconds."""
    rows, data = _data(place)
    del rows
    started = time.perf_counter()
    make("generators", name).fit(data, LocalWorker(Folder(f"{place}/{name}")))
    return time.perf_counter() - started


def _data(place: str) -> tuple[Rows, Any]:
    out = Folder(f"{place}/run")
    rows = Rows.from_json(out / "read", (out / "read").read_json("manifest.json")["rows_json"])
    part = partition(rows, Whole(), FINAL)
    return rows, rows.training(FINAL, part.regions, part.rule)


def draw(work: tuple[str, str, int]) -> float:
    """Decoded and checked rows per second of one process, after a first block to warm up."""
    place, name, first = work
    rows, data = _data(place)
    generator = make("generators", name).load(Folder(f"{place}/{name}"))
    schema = rows.schema(FINAL)
    draw_block(generator, schema, data.regions, 0, first)
    drawn, started, seed = 0, time.perf_counter(), first
    while time.perf_counter() - started < SECONDS:
        seed += 1
        drawn += len(draw_block(generator, schema, data.regions, seed % len(data.regions), seed)[0])
    return drawn / (time.perf_counter() - started)


def many_trials(place: str) -> tuple[float, float, int]:
    """(wall seconds of the search, core seconds of its fits, trials) on 3,000 rows of adult, every trial under a second."""
    stages: dict[str, float] = {}

    def watch(stage: str, done: int, total: int, note: str = "") -> None:
        if total == 0:
            stages[stage] = float(note.split(" s")[0].split()[-1])

    job = Job(
        f"{place}/small.parquet", "income", out=f"{place}/trials", generator=("bootstrap",), learner="logistic", trials=TRIALS, draws=1
    )
    report = pipeline.run(replace(job, folds=2), watch)
    seconds = {c["name"].partition(" + ")[0]: c["seconds"] for c in report.facts["candidates"]}
    return stages["search"], sum(seconds.values()), len(seconds)


def measure() -> dict[str, Any]:
    """One run: of each generator its fit and rows per second, what a thousand pictures and texts take, and a search."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        table = pd.read_parquet(data_folder() / "adult.parquet").drop(columns=["split"])
        table.to_parquet(f"{place}/adult.parquet")
        table.sample(3_000, random_state=0).to_parquet(f"{place}/small.parquet")
        pipeline.run_until(Job(f"{place}/adult.parquet", "income", out=f"{place}/run"), "read")
        for name in REACH:
            found[name] = {"fit": fitted(place, name), "one": sum(drawn(place, name, 1)), "two": sum(drawn(place, name, CORES))}
        wall, cores, trials = many_trials(place)
    return {**found, "thousand": thousand.measured(), "search": {"wall": wall, "cores": cores, "trials": trials}}


def drawn(place: str, name: str, processes: int) -> list[float]:
    """Rows per second of each of so many processes side by side."""
    # Forked copies of a process that has used torch's threads hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(draw, [(place, name, 10_000 * processes * (1 + k)) for k in range(processes)]))


def shown(part: str, key: str, form: str = "{:,.0f}") -> str:
    """Median of all runs, with their range."""
    found = np.array([run[part][key] for run in RESULTS.named("run")], dtype=float)
    text = form.format(np.median(found))
    return text if len(found) == 1 else f"{text} ({form.format(found.min())} to {form.format(found.max())})"


def page() -> str:
    """The whole page."""
    runs = RESULTS.named("run")
    rows = [
        f"| {name} | {shown(name, 'fit', '{:.1f}')} | {shown(name, 'one')} | {shown(name, 'two')} | {reach:,} |"
        for name, reach in REACH.items()
    ]
    pictures = [f"| {what} | {shown('thousand', what)} | {BELOW} |" for what in runs[-1]["thousand"]]
    lines = [
        "# Speed",
        "",
        f"`make bench-speed` on {RESULTS.when()}. {len(runs)} run(s): medians, and from least to most.",
        "",
        "Rows of adult (48,842 rows, 14 columns and the label), decoded and checked against the schema, default settings:",
        "",
        "| generator | fit s, one core | rows/s, one process | rows/s, two processes | wanted |",
        "|---|---|---|---|---|",
        *rows,
        "",
        "Pictures and texts at the default sizes of the networks:",
        "",
        "| drawn by one process | s | wanted, below |",
        "|---|---|---|",
        *pictures,
        "",
        f"A search of {runs[-1]['search']['trials']} trials of a sub-second trial: {shown('search', 'wall', '{:.1f}')} s wall on {CORES} "
        f"workers, of which the fits themselves took {shown('search', 'cores', '{:.1f}')} core seconds (wanted: under {BELOW} s).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--page", action="store_true")
    if not options.parse_args().page:
        RESULTS.keep(f"run, {len(RESULTS.named('run'))}", measure())
    PAGE.write_text(page())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

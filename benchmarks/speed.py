"""`make bench-speed`: rows of adult drawn per second, a thousand pictures and texts, 60 short trials; writes docs/benchmarks/speed.md.

Reads adult.parquet from the folder that CODSA_DATA names.
"""

import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import thousand
from benchmarks.results import machine
from codsa_ray import Job, pipeline
from codsa_ray.draw import draw_block
from codsa_ray.folder import Folder
from codsa_ray.partition import partition
from codsa_ray.plugins import make
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.strata.whole import Whole

PAGE = Path("docs/benchmarks/speed.md")
CORES = 2
SECONDS = 10.0
TRIALS = 60
REACH = {"tabular_diffusion": 60_000, "sequential_trees": 400_000}


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


def main() -> None:
    """Measures and writes the page."""
    import pandas as pd

    source = Path(os.environ["CODSA_DATA"]) / "adult.parquet"
    lines = ["| generator | fit s, one core | rows/s, one process | rows/s, two processes | wanted |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        table = pd.read_parquet(source).drop(columns=["split"])
        table.to_parquet(f"{place}/adult.parquet")
        table.sample(3_000, random_state=0).to_parquet(f"{place}/small.parquet")
        pipeline.run_until(Job(f"{place}/adult.parquet", "income", out=f"{place}/run"), "read")
        for name, reach in REACH.items():
            lines.append(_line(place, name, reach))
        wall, cores, trials = many_trials(place)
    drawn = thousand.lines()
    page = [
        "# Speed",
        "",
        f"`make bench-speed` on {date.today()}, {machine()}.",
        "",
        "Rows of adult (48,842 rows, 14 columns and the label), decoded and checked against the schema, default settings:",
        "",
        *lines,
        "",
        "Pictures and texts at the default sizes of the networks:",
        "",
        *drawn,
        "",
        f"A search of {trials} trials of a sub-second trial: {wall:.1f} s wall on {CORES} workers, of which the fits themselves took "
        f"{cores:.1f} core seconds (wanted: under 60 s).",
    ]
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(page) + "\n")
    print("\n".join(page))


def _line(place: str, name: str, reach: int) -> str:
    def run(works: list[tuple[str, str, int]]) -> list[float]:
        # Forked copies of a process that has used torch's threads hang.
        with ProcessPoolExecutor(len(works), mp_context=get_context("spawn")) as pool:
            return list(pool.map(draw, works))

    seconds = fitted(place, name)
    one = run([(place, name, 0)])[0]
    two = sum(run([(place, name, 10_000), (place, name, 20_000)]))
    return f"| {name} | {seconds:.1f} | {one:,.0f} | {two:,.0f} | {reach:,} |"


if __name__ == "__main__":
    main()

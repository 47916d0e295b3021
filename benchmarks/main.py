"""`make bench-main`: the whole pass on six real tables with an outer split of its own; writes docs/benchmarks/main.md.

Reads the tables from the folder that CODSA_DATA names. Resumes: a finished run is kept, its numbers are read back.
"""

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.data import data_folder
from benchmarks.results import machine

RUNS = Path("runs") / "bench-main"
PAGE = Path("docs/benchmarks/main.md")
TEST_SHARE = 0.25
SEED = 1
INTERVAL = 0.2


@dataclass(frozen=True)
class Case:
    """One table and the options beyond its defaults."""

    name: str
    file: str
    target: str
    options: tuple[str, ...] = ()
    drop: tuple[str, ...] = ("split",)


CASES = (
    Case("adult", "adult", "income"),
    Case("adult by sex", "adult", "income", ("--group", "sex")),
    Case("bank_marketing", "bank_marketing", "y"),
    Case("mammography", "mammography", "class"),
    Case("nursery", "nursery", "class", ("--merge", "class:recommend=very_recom")),
    Case("hypothyroid_4class", "hypothyroid_4class", "Class", ("--merge", "Class:secondary_hypothyroid=primary_hypothyroid")),
)


def outer_split(case: Case, place: Path) -> tuple[Path, Path]:
    """Writes (train, test), stratified by label, by a split that the run itself knows nothing of."""
    train, test = place / "train.parquet", place / "test.parquet"
    if not test.exists():
        place.mkdir(parents=True, exist_ok=True)
        table = pd.read_parquet(data_folder() / f"{case.file}.parquet")
        table = table.drop(columns=[c for c in case.drop if c in table.columns])
        table = table[table[case.target].notna()]
        order = np.random.default_rng(SEED).permutation(len(table))
        table = table.iloc[order]
        rank = table.groupby(case.target, observed=True).cumcount()
        size = table.groupby(case.target, observed=True)[case.target].transform("size")
        tested = rank < (size * TEST_SHARE).round()
        table[~tested].to_parquet(train, index=False)
        table[tested].to_parquet(test, index=False)
    return train, test


@dataclass
class Peak:
    """Most memory (proportional set size, MiB) of a process and of its descendants, sampled."""

    process: psutil.Process
    driver: float = 0.0
    workers: float = 0.0
    ended: bool = False

    def watch(self) -> None:
        """Samples until `ended`."""
        while not self.ended:
            try:
                self.driver = max(self.driver, _pss(self.process))
                self.workers = max(self.workers, sum(_pss(child) for child in self.process.children(recursive=True)))
            except psutil.NoSuchProcess:
                return
            time.sleep(INTERVAL)


def _pss(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def run(case: Case) -> dict[str, Any]:
    """One pass in a process of its own; the report with wall seconds and peak memory beside it."""
    place = RUNS / case.name.replace(" ", "-")
    measured = place / "measured.json"
    if measured.exists():
        return {**json.loads((place / "run/report.json").read_text()), **json.loads(measured.read_text())}
    train, test = outer_split(case, place)
    command = [sys.executable, "-m", "codsa_ray.cli", "augment", str(train), "--test", str(test), "--target", case.target]
    started = time.perf_counter()
    running = subprocess.Popen([*command, *case.options, "--out", str(place / "run"), "--seed", str(SEED)])
    peak = Peak(psutil.Process(running.pid))
    watcher = threading.Thread(target=peak.watch, daemon=True)
    watcher.start()
    code = running.wait()
    peak.ended = True
    watcher.join()
    if code:
        raise SystemExit(f"{case.name}: exit code {code}")
    report = json.loads((place / "run/report.json").read_text())
    found = {"wall": time.perf_counter() - started, "driver": peak.driver, "workers": peak.workers, "stages": report["stages"]}
    measured.write_text(json.dumps(found))
    return {**report, **found}


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """One line a case."""
    stages = [stage["name"] for stage in next(iter(results.values()))["stages"]]
    lines = [
        f"| table | rows | groups | wall s | {' | '.join(stages)} | search: fits' own core s | driver MiB | workers MiB |",
        "|---" * (7 + len(stages)) + "|",
    ]
    for name, r in results.items():
        seconds = " | ".join(f"{stage['seconds']:.1f}" for stage in r["stages"])
        fits = sum(c["seconds"] for c in {c["name"].partition(" + ")[0]: c for c in r["candidates"]}.values())
        lines.append(
            f"| {name} | {r['data']['rows']:,} | {len(r['groups'])} | {r['wall']:.0f} | {seconds} | {fits:.0f} "
            f"| {r['driver']:.0f} | {r['workers']:.0f} |"
        )
    return lines


def verdicts(results: dict[str, dict[str, Any]]) -> list[str]:
    """The verdict's test loss beside the best candidate's without synthesis, both by the outer test rows."""
    lines = [
        "| table | verdict | chosen | its test loss | best without synthesis on test | its test loss | paired difference | se | no worse |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        by_name = {c["name"]: c for c in r["candidates"]}
        chosen = by_name[r["verdict"]["chosen"]]
        best = min((c for c in r["candidates"] if c["level"] != "augment" and c["test_loss"] is not None), key=lambda c: c["test_loss"])
        held = "yes" if -best["test_gap"] <= max(best["test_gap_se"], best["test_se"]) else "NO"
        lines.append(
            f"| {name} | {r['verdict']['kind']} | {chosen['name']} | {chosen['test_loss']:.4f} | {best['name']} "
            f"| {best['test_loss']:.4f} | {-best['test_gap']:+.4f} | {best['test_gap_se']:.4f} | {held} |"
        )
    return lines


def details(name: str, r: dict[str, Any]) -> list[str]:
    """Every candidate without synthesis, the verdict's and the best synthetic one."""
    lines = [
        "",
        f"### {name}",
        "",
        *r["verdict"]["sentences"],
        "",
        "| candidate | out-of-fold loss | se | test loss | se |",
        "|---|---|---|---|---|",
    ]
    for c in sorted((c for c in r["candidates"] if c["test_loss"] is not None), key=lambda c: c["test_loss"]):
        lines.append(f"| {c['name']} | {c['loss']:.4f} | {c['se']:.4f} | {c['test_loss']:.4f} | {c['test_se']:.4f} |")
    return lines


def main() -> None:
    """Runs the cases and writes the page."""
    data_folder()  # named, before anything runs
    results = {case.name: run(case) for case in CASES}
    lines = [
        "# The whole pass on six real tables",
        "",
        f"`make bench-main` on {date.today()}, {machine()}. Defaults throughout; an outer split ({TEST_SHARE:.0%} test, by label) that the "
        "run does not make itself. Losses are balanced log losses over the groups, lower is better; a constant guess has log(classes).",
        "",
        "## Seconds and memory",
        "",
        *table(results),
        "",
        "Stage columns are wall seconds, upper bounds where the machine had other work. "
        "Memory is the largest proportional set size seen: of the driver, and of Ray and its workers.",
        "",
        "## Verdicts on the outer test rows",
        "",
        *verdicts(results),
        "",
        "`no worse`: the verdict's test loss is within one standard error (of the paired difference, or of the best loss) of the best "
        "candidate without synthesis, which is chosen with hindsight on the test rows themselves.",
    ]
    for name, r in results.items():
        lines += details(name, r)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text("\n".join(lines) + "\n")
    print("\n".join(lines[: 14 + len(results) * 2]))


if __name__ == "__main__":
    main()

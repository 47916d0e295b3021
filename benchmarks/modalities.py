"""`make bench-modalities`: whole passes on texts and pictures, every way beside the others; writes docs/benchmarks/modalities.md.

`python -m benchmarks.modalities [--half NAME]... [--set NAME]... [--learner NAME]... [--seeds N] [--minutes M] [--page]` measures what is
not there, each cell in a process of its own; `--page` only writes the page. CODSA_DATA names the folder of the data.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import ended
from benchmarks.modality import WAYS, Half, half_of
from benchmarks.results import Results

PLACE = Path("runs/modalities")  # of the run folders
RESULTS = Results("modalities")
PAGE = Path("docs/benchmarks/modalities.md")
HALVES = ("texts", "pictures", "rows")
LIMIT = 3600  # seconds of one cell


def measured(half: str, name: str, learner: str, seed: int) -> None:
    """Measures one cell unless it is there; one that fails is named, and the others go on."""
    cell, part = f"{name}, {learner}, {seed}", PLACE / "cell.json"
    if cell in RESULTS.read():
        return
    command = [sys.executable, "-m", "benchmarks.modality", half, name, learner, str(seed), str(PLACE), str(part)]
    started = time.monotonic()
    try:
        wrong = ended(command, LIMIT)
    except TimeoutError as error:
        print(f"{cell}: {error}", flush=True)
        return
    if not wrong:
        RESULTS.keep(cell, json.loads(part.read_text()))
    print(f"{cell}: {time.monotonic() - started:.0f} s {wrong}".rstrip(), flush=True)


def line(way: str, learner: str, cells: list[dict[str, Any]]) -> str:
    """One way on one set: means over seeds; the error is of one seed's test rows, or over seeds where there are several."""
    found = [cell["ways"][way] for cell in cells if way in cell["ways"]]
    if not found:
        return ""
    loss, worst = (np.array([one[key] for one in found]) for key in ("loss", "worst"))
    error = float(loss.std(ddof=1) / np.sqrt(len(loss))) if len(loss) > 1 else found[0]["se"]
    names = "; ".join(dict.fromkeys(one["candidate"] for one in found))
    groups = "; ".join(dict.fromkeys(one["group"] for one in found))
    return f"| {learner} | {way} | {loss.mean():.3f} +- {error:.3f} | {worst.mean():.3f} | {groups} | {names} |"


def verdict(learner: str, cells: list[dict[str, Any]]) -> str:
    """What was decided, in words."""
    kinds = ", ".join(f"{cell['verdict']['kind']} ({cell['verdict']['chosen']})" for cell in cells)
    gains = [cell["verdict"]["gain"] for cell in cells if cell["verdict"]["gain"]]
    told = "; ".join(f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" for gain in gains)
    return f"{learner}: {kinds}. Gain of the best with synthesis, out of fold: {told or 'none could be scored'}."


def section(half: Half, name: str) -> list[str]:
    """One set's lines, or nothing where nothing was measured."""
    learners = dict.fromkeys(cell.split(", ")[1] for cell in RESULTS.read() if cell.split(", ")[0] == name)
    cells = {learner: RESULTS.named(name, learner) for learner in sorted(learners, reverse=True)}
    if not cells:
        return []
    one = next(iter(cells.values()))[0]
    smallest = min(one["groups"], key=lambda group: one["groups"][group])
    seconds = max(cell["seconds"] for found in cells.values() for cell in found)
    lines = [
        "",
        f"### {name}",
        "",
        f"{half.sets[name].note}. {one['rows']:,} training rows ({one['groups'][smallest]} of {smallest}), {one['test']:,} test rows, "
        f"{len(next(iter(cells.values())))} seed(s); at most {seconds:.0f} s a pass.",
        "",
        "| learner | way | balanced test loss | worst group's | which | candidate |",
        "|---|---|---|---|---|---|",
        *filter(None, (line(way, learner, found) for learner, found in cells.items() for way in WAYS)),
        "",
        *(verdict(learner, found) for learner, found in cells.items()),
    ]
    return [*lines, *quality(half, next(iter(cells.values())))]


def quality(half: Half, cells: list[dict[str, Any]]) -> list[str]:
    """What drawn rows are like, means over seeds."""
    heads, values = [], []
    for key, measures in half.quality.items():
        for measure, (title, form) in measures.items():
            known = [value for cell in cells if (value := cell["quality"].get(key, {}).get(measure)) is not None]
            heads.append(title)
            values.append(form.format(np.mean(known)) if known else "-")
    return ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", f"| {' | '.join(values)} |"]


def page() -> str:
    """The whole page."""
    lines = [
        "# Texts, pictures, and rows that hold both",
        "",
        f"`make bench-modalities` on {RESULTS.when()}. Whole passes on small samples, with test rows that no choice sees. "
        "Losses are balanced log losses over the groups, lower is better; a constant guess has log(classes). Of weights, bags and "
        "synthesis, what is best out of fold is shown. Seconds are upper bounds where the machine had other work.",
    ]
    for name in HALVES:
        half = half_of(name)
        lines += ["", f"## {half.title}", "", half.note]
        sections = {each: section(half, each) for each in half.sets}
        lines += [line for found in sections.values() for line in found]
        waiting = [each for each, found in sections.items() if not found]
        if waiting:
            lines += ["", f"Not measured yet: {', '.join(waiting)} (`python -m benchmarks.modalities --half {name}`)."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--half", action="append", choices=HALVES)
    options.add_argument("--set", action="append")
    options.add_argument("--learner", action="append")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--page", action="store_true")
    given = options.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * given.minutes
    for seed in range(0 if given.page else given.seeds):
        for name in given.half or HALVES:
            half = half_of(name)
            for each in given.set or half.sets:
                for learner in given.learner or half.learners():
                    if each in half.sets and time.monotonic() < ends:
                        measured(name, each, learner, seed)
    PAGE.write_text(page())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

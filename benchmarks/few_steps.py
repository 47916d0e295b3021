"""tabular_diffusion in fewer evaluations, as it is and distilled, beside its ten; writes docs/benchmarks/few-steps.md.

`CODSA_DATA=... python -m benchmarks.few_steps [--seeds N] [--minutes M]` measures what is not there, each table and seed after
the other, about a minute of CPU each; `--seeds 0` only writes the page.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.distilled import solver, student
from benchmarks.generated import Halves, likeness
from benchmarks.repeated import mean
from benchmarks.results import Results
from benchmarks.training import EARLIER
from codsa_ray.contracts import FittedGenerator
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import FittedTabularDiffusion
from codsa_ray.local import Drawn
from codsa_ray.stages.fit import LocalWorker

RESULTS = Results("few_steps")
PAGE = Path("docs/benchmarks/few-steps.md")
SETS = ("adult", "mammography", "default_credit_card")
BEST = "as it is, 10"
FASTER = 1.5
LIKENESS = ("c2st", "rare_c2st", "distance", "correlation")
TITLES = (
    "way, evaluations | C2ST | more than 10's | C2ST, rare | more than 10's | KS/TV | pair error | rows per CPU s | times 10's | to learn"
)


def plain(fitted: FittedTabularDiffusion, evaluations: int) -> FittedTabularDiffusion:
    """The same fit at that setting."""
    return replace(fitted, settings=replace(fitted.settings, evaluations=evaluations))


WAYS: dict[str, Callable[[FittedTabularDiffusion], FittedGenerator]] = {
    **{f"as it is, {n}": partial(plain, evaluations=n) for n in (2, 3, 4, 6, 10, 25)},
    **{f"solver, {n}": partial(solver, evaluations=n, seed=0) for n in (4, 6)},
    **{f"student, {n}": partial(student, evaluations=n, seed=0) for n in (1, 4)},
}


def measure(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Each way's likeness, rows per CPU second and CPU seconds that it had to learn, from one fit."""
    halves, found = Halves.of(name, seed), {}
    counts = halves.data.regions.counts.astype(np.int64)
    with tempfile.TemporaryDirectory() as place:
        started = time.process_time()
        EARLIER.fit(halves.data, LocalWorker(Folder(place)))
        fit = time.process_time() - started
        fitted = EARLIER.load(Folder(place))
    for way, make in WAYS.items():
        started = time.process_time()
        drawn = Drawn(make(fitted), halves.data, seed)
        learned = time.process_time()
        rows = drawn.take(counts)
        rate = sum(len(block) for held in drawn.blocks.values() for block in held) / (time.process_time() - learned)
        found[way] = {**likeness(halves, rows, seed), "rate": rate, "learning": learned - started, "fit": fit}
        print(name, seed, way, {key: round(value, 3) for key, value in found[way].items()}, flush=True)
    return found


def line(way: str, cells: list[dict[str, Any]]) -> str:
    """Means over seeds; of the two-sample tests what is more than at ten evaluations of the same fit, with its standard error."""
    shown = [way]
    for key in LIKENESS:
        values = np.array([cell[way][key] for cell in cells])
        shown.append(f"{values.mean():.3f}")
        if "c2st" in key:
            more, error = mean(values - np.array([cell[BEST][key] for cell in cells]))
            shown.append("-" if way == BEST else f"{more:+.3f}" + f" ± {error:.3f}" * (len(cells) > 1))
    rates = np.array([(cell[way]["rate"], cell[BEST]["rate"]) for cell in cells])
    learning = np.mean([cell[way]["learning"] for cell in cells])
    shown += [f"{rates[:, 0].mean():,.0f}", f"{rates[:, 0].mean() / rates[:, 1].mean():.2f}", f"{learning:.0f}" if learning > 1 else "-"]
    return f"| {' | '.join(shown)} |"


def holds(way: str, cells: list[dict[str, Any]]) -> bool:
    """Whether both two-sample tests rise by no more than their standard error over seeds while rows per second rise by half."""
    rises = [mean(np.array([cell[way][key] - cell[BEST][key] for cell in cells])) for key in ("c2st", "rare_c2st")]
    faster = np.mean([cell[way]["rate"] for cell in cells]) / np.mean([cell[BEST]["rate"] for cell in cells])
    return bool(all(rise <= error for rise, error in rises) and faster >= FASTER)


def section(name: str, cells: list[dict[str, Any]]) -> list[str]:
    """One table's lines."""
    fit, rules = np.mean([cell[BEST]["fit"] for cell in cells]), "|---" * (TITLES.count("|") + 1) + "|"
    head = f"{len(cells)} seed(s); the fit itself takes {fit:.0f} CPU seconds, what a way learns from it those of the last column."
    return ["", f"## {name}", "", head, "", f"| {TITLES} |", rules, *(line(way, cells) for way in WAYS)]


def page() -> str:
    """The whole page."""
    found = {name: cells for name in SETS if (cells := RESULTS.named(name))}
    fine = [way for way in WAYS if all(holds(way, cells) for cells in found.values())]
    lines = [
        "# Fewer evaluations of tabular_diffusion\n",
        f"`python -m benchmarks.few_steps` on {RESULTS.when()}, other work beside it; one thread, CPU seconds. Tables are cut "
        "and measured as in [generators.md](generators.md); .5 is the best C2ST. Each seed has a cut and a fit of its own, and all ways "
        "draw from that fit and from the same noise.",
        "",
        "- as it is: the setting `evaluations`.",
        "- solver: noise levels and extrapolations of that many evaluations learned from the fit's own draws; the network stays.",
        "- student: the network trained on to jump as far as several of the fit's evaluations (progressive distillation in one stage; with "
        "1 evaluation from noise to row). Sources and settings: benchmarks/distilled.py. Consistency training was not tried.\n",
        "A way would do for ten evaluations if on every table both two-sample tests rose by no more than their standard error over seeds "
        f"while rows per second rose {FASTER} times. **Ways that do: {'; '.join(fine) or 'none'}.**",
    ]
    for name, cells in found.items():
        lines += section(name, cells)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--minutes", type=float, default=1e9)
    given = options.parse_args()
    torch.set_num_threads(1)
    ends = time.monotonic() + 60 * given.minutes
    for seed, name in ((seed, name) for seed in range(given.seeds) for name in SETS):
        cell = f"{name}, {seed}"
        if cell not in RESULTS.read() and time.monotonic() < ends:
            RESULTS.keep(cell, measure(name, seed))
    PAGE.write_text(page())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

"""How fast and how long should tabular_diffusion train? On cuts that chose neither; writes docs/benchmarks/training.md.

`CODSA_DATA=... python -m benchmarks.training [--seeds N] [--set NAME]... [--way NAME]...` measures what is not there, a quarter of a
minute to a minute of CPU a cell; `--seeds 0` only writes the page.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.generated import Halves, likeness
from benchmarks.repeated import mean
from benchmarks.results import Results
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.local import Drawn
from codsa_ray.stages.fit import LocalWorker

RESULTS = Results("training")
PAGE = Path("docs/benchmarks/training.md")
SETS = ("adult", "bank_marketing", "default_credit_card", "mammography", "digits", "creditcard_fraud_sample")
EARLIER = TabularDiffusion(rate=2e-3, steps=1200)
"""The defaults at which most claims and benchmarks were measured: they name them."""
TRIED = ((2e-3, 1200), (4e-3, 1200), (8e-3, 1200), (4e-3, 2400), (4e-3, 4800))
FIRST = 21
TESTS = {"c2st": "C2ST", "rare_c2st": "C2ST, rare"}


def named(settings: TabularDiffusion) -> str:
    """Those settings' way, one of WAYS or not."""
    return f"rate {settings.rate:g}, {settings.steps} steps"


WAYS = {named(way): way for way in (replace(EARLIER, rate=rate, steps=steps) for rate, steps in TRIED)}


def default() -> str:
    """The way that is the package's."""
    return named(TabularDiffusion())


def measure(name: str, way: str, seed: int) -> dict[str, Any]:
    """Likeness of as many rows of each class as were learned from, and CPU seconds of the fit."""
    halves, settings = Halves.of(name, seed), WAYS[way]
    with tempfile.TemporaryDirectory() as place:
        started = time.process_time()
        settings.fit(halves.data, LocalWorker(Folder(place)))
        fit = time.process_time() - started
        rows = Drawn(settings.load(Folder(place)), halves.data, seed).take(halves.data.regions.counts.astype(np.int64))
    return {**likeness(halves, rows, seed), "fit": fit}


def values(name: str, way: str, key: str) -> np.ndarray:
    """That measure by seed."""
    return np.array([cell[key] for cell in RESULTS.named(name, way) if key in cell], dtype=float)


def beside(way: str, names: Sequence[str], key: str) -> str:
    """How much more than at the default, seed by seed: mean over tables, with its standard error over them."""
    more, error = mean(np.array([np.mean(values(name, way, key) - values(name, default(), key)) for name in names]))
    return f"{more:+.3f} ± {error:.3f}"


def page() -> str:
    """The whole page."""
    found = {name: [len(RESULTS.named(name, way)) for way in WAYS] for name in SETS}
    seeds = max(min(many) for many in found.values())
    names = [name for name, many in found.items() if set(many) == {seeds}]
    lines = [
        "# How fast and how long tabular_diffusion trains",
        "",
        f"`python -m benchmarks.training` on {RESULTS.when()}, other work beside it. Tables are cut and measured as in "
        f"[generators.md](generators.md); means of {seeds} cuts (seeds {FIRST} to {FIRST + seeds - 1}) that chose none of these. "
        f"The default is {default()}.",
        "",
        "Lower is better, .5 the best. More than at the default: the difference of two ways on the same cut, mean over tables with its "
        "standard error over them.",
    ]
    for key, title in TESTS.items():
        lines += ["", f"## {title}", "", f"| | {' | '.join(names)} | more than at the default |", "|---" * (len(names) + 2) + "|"]
        for way in WAYS:
            shown = [f"{values(name, way, key).mean():.3f}" for name in names]
            lines.append(f"| {way} | {' | '.join(shown)} | {'-' if way == default() else beside(way, names, key)} |")
    return "\n".join([*lines, *_seconds(names)]) + "\n"


def _seconds(names: Sequence[str]) -> list[str]:
    lines = ["", "## CPU seconds of a fit", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for way in WAYS:
        found = [values(name, way, "fit") for name in names]
        if all(map(len, found)):
            lines.append(f"| {way} | {' | '.join(f'{one.mean():.0f}' for one in found)} |")
    return lines


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--set", action="append", choices=SETS)
    options.add_argument("--way", action="append", choices=tuple(WAYS))
    given = options.parse_args()
    for seed in range(FIRST, FIRST + given.seeds):
        for name in given.set or SETS:
            for way in given.way or WAYS:
                if (cell := f"{name}, {way}, {seed}") not in RESULTS.read():
                    RESULTS.keep(cell, measure(name, way, seed))
                    print(cell, flush=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()

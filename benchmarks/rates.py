"""At what rate does tabular_diffusion learn best? Three rates, on cuts that chose none of them; writes docs/benchmarks/rates.md.

`CODSA_DATA=... python -m benchmarks.rates [--seeds N] [--set NAME]...` measures what is not there, half a minute of CPU a cell;
`--seeds 0` only writes the page.
"""

import argparse
import tempfile
from collections.abc import Sequence
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

RESULTS = Results("rates")
PAGE = Path("docs/benchmarks/rates.md")
SETS = ("adult", "bank_marketing", "default_credit_card", "mammography", "digits", "creditcard_fraud_sample")
EARLIER = 2e-3
"""The default until it was doubled: claims and benchmarks that were measured at it name it."""
DEFAULT = TabularDiffusion().rate
RATES = (EARLIER, 4e-3, 8e-3)
FIRST = 21
TESTS = {"c2st": "C2ST", "rare_c2st": "C2ST, rare"}


def measure(name: str, rate: float, seed: int) -> dict[str, Any]:
    """Likeness of as many rows of each class as were learned from."""
    halves = Halves.of(name, seed)
    with tempfile.TemporaryDirectory() as place:
        settings = TabularDiffusion(rate=rate)
        settings.fit(halves.data, LocalWorker(Folder(place)))
        rows = Drawn(settings.load(Folder(place)), halves.data, seed).take(halves.data.regions.counts.astype(np.int64))
    return likeness(halves, rows, seed)


def values(name: str, rate: float, key: str) -> np.ndarray:
    """That measure by seed."""
    return np.array([cell[key] for cell in RESULTS.named(name, str(rate))], dtype=float)


def line(name: str, key: str) -> str:
    """Means over seeds."""
    shown = [f"{values(name, rate, key).mean():.3f}" for rate in RATES]
    return f"| {name} | {' | '.join(shown)} |"


def beside(rate: float, names: Sequence[str], key: str) -> str:
    """How much more than at the default, seed by seed: mean over tables, with its standard error over them."""
    more, error = mean(np.array([np.mean(values(name, rate, key) - values(name, DEFAULT, key)) for name in names]))
    return f"{more:+.3f} ± {error:.3f}"


def page() -> str:
    """The whole page."""
    found = {name: {len(RESULTS.named(name, str(rate))) for rate in RATES} for name in SETS}
    seeds = max(min(many) for many in found.values())
    names = [name for name, many in found.items() if many == {seeds}]
    lines = [
        "# The rate of tabular_diffusion",
        "",
        f"`python -m benchmarks.rates` on {RESULTS.when()}. Tables are cut and measured as in [generators.md](generators.md); means of "
        f"{seeds} cuts (seeds {FIRST} to {FIRST + seeds - 1}) that chose no rate. All else has its default, "
        f"and {DEFAULT:g} is the default rate.",
        "",
        "More than at the default: the difference of two rates on the same cut, mean over tables with its standard error over them.",
    ]
    for key, name in TESTS.items():
        more = ["-" if rate == DEFAULT else beside(rate, names, key) for rate in RATES]
        lines += ["", f"## {name}", "", f"| table | {' | '.join(f'{rate:g}' for rate in RATES)} |", "|---" * (len(RATES) + 1) + "|"]
        lines += [*(line(one, key) for one in names), f"| more than at the default | {' | '.join(more)} |"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--set", action="append", choices=SETS)
    given = options.parse_args()
    for seed in range(FIRST, FIRST + given.seeds):
        for name in given.set or SETS:
            for rate in RATES:
                if (cell := f"{name}, {rate}, {seed}") not in RESULTS.read():
                    RESULTS.keep(cell, measure(name, rate, seed))
                    print(cell, flush=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()

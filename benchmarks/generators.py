"""`make bench-generators`: every generator, and rivals, on the same halves of nine tables; writes docs/benchmarks/generators.md.

`python -m benchmarks.generators [--seeds N] [--workers N] [--minutes M] [--set NAME]... [--generator NAME]...` measures what is not there,
cheap ones first, each in a process of its own; `--page` only writes the page. CODSA_DATA names the tables' folder, CODSA_RIVALS the
Python of an environment that `make rivals` makes; without it rivals are left out.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.child import ended
from benchmarks.generated import RIVAL, SETS
from benchmarks.results import Results

RESULTS = Results("generators")
PAGE = Path("docs/benchmarks/generators.md")
OURS = (
    *("bootstrap", "interpolation", "gk_smote", "sequential_trees", "tabular_diffusion"),
    *("leo_cvae", "majority_map", "language_model"),
)
GENERAL = ("sequential_trees", "tabular_diffusion", "language_model")
RIVALS = tuple(RIVAL + name for name in ("smote", "copula", "tvae", "ctgan", "forest", "great"))
# GReaT draws a few rows a second: two tables of few columns, one seed (and 500 rows: FEWER in benchmarks/generated.py).
ONLY = {RIVAL + "great": ("mammography", "nursery")}
LIMIT = 1800  # seconds of one cell
COLUMNS = {
    "fit": ("fit CPU s", "{:.1f}"),
    "rate": ("rows per CPU s", "{:,.0f}"),
    "peak": ("peak MiB", "{:,.0f}"),
    "c2st": ("C2ST", "{:.3f}"),
    "rare_c2st": ("C2ST, rare", "{:.3f}"),
    "distance": ("KS/TV", "{:.3f}"),
    "correlation": ("pair error", "{:.3f}"),
    "tstr": ("TSTR AUC", "{:.3f}"),
    "dcr": ("DCR", "{:.2f}"),
    "copies": ("copies", "{:.3f}"),
}


def run(name: str, generator: str, seed: int, ends: float) -> None:
    """Measures one cell unless it is there or time is up."""
    cell = f"{name}, {generator}, {seed}"
    if cell in RESULTS.read() or time.monotonic() > ends:
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "cell.json"
        command = [sys.executable, "-m", "benchmarks.generated", name, generator, str(seed), str(path)]
        try:
            wrong = ended(command, LIMIT)
        except TimeoutError as error:
            RESULTS.keep(cell, {"failed": str(error)})
            return
        if wrong:
            print(f"{cell}: {wrong}", flush=True)
            return
        RESULTS.keep(cell, json.loads(path.read_text()))
    print(f"{cell}: {time.monotonic() - started:.0f} s", flush=True)


def line(generator: str, cells: list[dict[str, Any]]) -> str:
    """Means over seeds, with the range of the two-sample tests' mean."""
    failed = next((cell["failed"] for cell in cells if "failed" in cell), None)
    if failed:
        return f"| {generator} | {len(cells)} | {failed.replace('|', '/')[:120]} |" + " |" * (len(COLUMNS) - 1)
    shown = []
    for key, (_, form) in COLUMNS.items():
        values = np.array([cell[key] for cell in cells if cell[key] is not None], dtype=float)
        text = form.format(values.mean()) if len(values) else "-"
        if "c2st" in key and len(values) > 1:
            text += f" +- {values.std(ddof=1) / np.sqrt(len(values)):.3f}"
        shown.append(text)
    return f"| {generator} | {len(cells)} | {' | '.join(shown)} |"


def section(name: str) -> list[str]:
    """One table's lines, or nothing where nothing was measured."""
    found = {generator: RESULTS.named(name, generator) for generator in (*OURS, *RIVALS)}
    found = {generator: cells for generator, cells in found.items() if cells}
    whole = [cell for cells in found.values() for cell in cells if "failed" not in cell]
    if not whole:
        return []
    one = whole[0]
    copies, trained = (np.mean([cell[key] for cell in whole if cell[key] is not None]) for key in ("copies_held", "trtr"))
    return [
        "",
        f"## {name}",
        "",
        f"{one['rows']:,} rows, {one['columns']} columns, {one['smallest']} rows in the smallest class; among held-out real rows "
        f"{copies:.3f} are copies; trained on real rows the AUC is {trained:.3f}.",
        "",
        f"| generator | seeds | {' | '.join(title for title, _ in COLUMNS.values())} |",
        "|---" * (len(COLUMNS) + 2) + "|",
        *(line(generator, cells) for generator, cells in found.items()),
    ]


def beside_rivals() -> list[str]:
    """Of each table the two-sample AUC in the smallest class of our general generators, of the likest of ours, and of the likest rival.

    bootstrap draws copies, and is no rival of anyone.
    """

    def rare(name: str, generator: str) -> float | None:
        found = [cell["rare_c2st"] for cell in RESULTS.named(name, generator) if cell.get("rare_c2st")]
        return float(np.mean(found)) if found else None

    def likest(name: str, generators: tuple[str, ...]) -> str:
        found = {generator: value for generator in generators if (value := rare(name, generator)) is not None}
        best = min(found, key=found.__getitem__, default="")
        return f"{found[best]:.3f} ({best})" if best else "-"

    lines = [f"| table | {' | '.join(GENERAL)} | likest of ours | likest rival |", "|---" * (len(GENERAL) + 3) + "|"]
    for name in SETS:
        if (rival := likest(name, RIVALS)) != "-":
            general = " | ".join("-" if (value := rare(name, one)) is None else f"{value:.3f}" for one in GENERAL)
            lines.append(f"| {name} | {general} | {likest(name, OURS[1:])} | {rival} |")
    return ["## In the smallest class, beside rivals", "", "C2ST, rare: lower is better.", "", *lines]


def page() -> str:
    """The whole page."""
    lines = [
        "# Generators side by side",
        "",
        f"`make bench-generators` on {RESULTS.when()}. "
        "Each table is cut in two by label, at most 12,000 rows a half: one half is "
        "learned from, as many rows of each class are drawn, and compared with the other half.",
        "",
        "- C2ST: AUC of boosted trees that tell drawn from held-out rows, .5 is perfect; rare: in the smallest class alone, from 50 rows.",
        "- KS/TV: mean distance of the columns; pair error: mean difference of Cramer's V over pairs of columns.",
        "- TSTR: AUC on held-out rows of boosted trees trained on drawn rows. DCR: median distance to the nearest row learned from, over "
        "that of held-out rows; 1 is as far as fresh rows, 0 copies. Copies: share of drawn rows equal to one learned from (nursery has "
        "each combination of its columns once: there no held-out row can be a copy, and half the rows of a perfect model are).",
        "- CPU seconds are of all threads (not of the processes that ForestDiffusion starts), "
        "upper bounds where the machine had other work; "
        "peak is of the whole process, about 260 MiB of it libraries. `rival:` ones run in an "
        "environment of their own with the settings of benchmarks/rivals.py (GReaT: a small GPT-2 of random weights that learns from "
        "500 rows and draws as many); what a rival could not do is in its line.",
    ]
    lines += ["", *beside_rivals()]
    for name in SETS:
        lines += section(name)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes the page."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--set", action="append", choices=tuple(SETS))
    options.add_argument("--generator", action="append", choices=(*OURS, *RIVALS))
    options.add_argument("--page", action="store_true")
    given = options.parse_args()
    ends = time.monotonic() + 60 * given.minutes
    generators = given.generator or (*OURS, *(RIVALS if "CODSA_RIVALS" in os.environ else ()))
    if not given.page:
        with ThreadPoolExecutor(given.workers) as pool:
            for seed in range(given.seeds):
                for generator in generators:
                    for name in given.set or SETS:
                        if name in ONLY.get(generator, SETS) and seed < (1 if generator in ONLY else given.seeds):
                            pool.submit(run, name, generator, seed, ends)
    PAGE.write_text(page())
    print(PAGE.read_text())


if __name__ == "__main__":
    main()

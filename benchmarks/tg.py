"""What TG-VTSS as published would try on each cell of `make bench-decisions`: sizes by its tests and its theory; trains no learner.

`python -m benchmarks.tg [--most ROWS] [--splits N]` keeps runs/decisions/tg/NAME.json; `benchmarks.verdicts` reads them.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from benchmarks.cells import GRID, GRID_BY, Cell, prepared
from benchmarks.measured import PLACE
from benchmarks.tables import CASES
from codsa_ray import Job
from codsa_ray.evidence import gather
from codsa_ray.theory import LEVEL, TOLERATED, tg_candidates

KEPT = PLACE / "tg"
UNIT = 10_000  # a gap of so many rows: sizes over the gap to four places


def sizes(cell: Cell, place: str) -> list[float]:
    """Sizes over the gap, of SMOTE for the group that lacks most against the largest of another label; [0] where nothing lacks."""
    train, test = cell.case.split(cell.split, cell.most)
    train.to_parquet(f"{place}/train.parquet", index=False)
    test.to_parquet(f"{place}/test.parquet", index=False)
    given = {"generator": (GRID_BY,), "learner": "logistic", "draws": 1, "seed": cell.split, **cell.case.options}
    bench = prepared(Job(f"{place}/train.parquet", cell.case.target, out=f"{place}/run", workers=1, **given).made(), place)
    name = next(key[0] for key in bench.pools)
    found = gather(bench, [name])
    judged = [(contrast, bias) for contrast in found.contrasts for bias in contrast.biases]
    if not judged:
        return [0.0, 1.0]  # the tests need more rows than there are: nothing or balance
    contrast, bias = judged[0]
    optimum = None if bias.gamma is None else bias.gamma * UNIT
    asked = tg_candidates(UNIT, contrast.symmetry > LEVEL, bias.published > TOLERATED, optimum, published=True)
    return sorted({size / UNIT for size in asked})


def on_grid(asked: list[float]) -> set[float]:
    """The nearest measured sizes; a size beyond the grid counts as its end."""
    return {min((0.0, *GRID), key=lambda size: abs(size - gamma)) for gamma in asked}


def read(name: str) -> list[float] | None:
    """What was kept for a split of a table (`TABLE-SPLIT-MOST`), or None."""
    path = KEPT / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    """Measures what is not there."""
    options = argparse.ArgumentParser()
    options.add_argument("--most", type=int, default=1200)
    options.add_argument("--splits", type=int, default=5)
    given = options.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    for split in range(given.splits):
        for case in CASES:
            cell = Cell(case, split, "tg", given.most)
            path = KEPT / f"{cell.name.replace('-tg-', '-')}.json"
            if not path.exists():
                _keep(cell, path)


def _keep(cell: Cell, path: Path) -> None:
    place = tempfile.mkdtemp(prefix="tg-")
    try:
        found = sizes(cell, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    path.write_text(json.dumps(found))
    print(path.stem, found, flush=True)


if __name__ == "__main__":
    main()

"""`make bench-decisions`: measures the cells (table x split x learner) side by side; measured ones are kept.

`python -m benchmarks.decisions [--most ROWS] [--splits N] [--workers N] [--learner NAME]... [--minutes M]` measures what is not there,
for at most M minutes, tables by turns: what is there is judged by `benchmarks.verdicts`. Reads the folder that CODSA_DATA names.
"""

import argparse
import os
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from benchmarks.measured import PLACE
from benchmarks.tables import CASES

LEARNERS = ("logistic", "boosted", "mlp")
# A cell of networks takes minutes: twelve tables of different origins.
ONLY = {
    "mlp": (
        *("haberman", "pima_diabetes", "german_credit", "ecoli", "glass", "new_thyroid", "mammography", "yeast", "wisconsin", "phoneme"),
        *("compas_two_years", "telco_churn"),
    )
}


def run(index: int, split: int, learner: str, most: int) -> str:
    """Measures one cell unless it is there; returns a line."""
    from benchmarks.cells import Cell, measure

    cell = Cell(CASES[index], split, learner, most)
    path = PLACE / f"{cell.name}.npz"
    if path.exists():
        return ""
    started = time.perf_counter()
    try:
        measured = measure(cell)
    except (Exception, SystemExit) as error:  # a cell that cannot be measured is named, and the others go on
        last = traceback.extract_tb(error.__traceback__)[-1]
        (PLACE / f"{cell.name}.failed").write_text(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})\n")
        return f"FAILED {cell.name}: {type(error).__name__}: {str(error)[:200]}"
    measured.write(path)
    return f"{cell.name}: {len(measured.entries)} entries, {measured.facts['train']} rows, {time.perf_counter() - started:.1f} s"


def main() -> None:
    """Splits in the outer loop: whenever it is stopped, every table has about as many."""
    options = argparse.ArgumentParser()
    options.add_argument("--most", type=int, default=1200)
    options.add_argument("--splits", type=int, default=5)
    options.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options.add_argument("--minutes", type=float, default=1e9)
    options.add_argument("--learner", action="append")
    given = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    PLACE.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * given.minutes
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn"), max_tasks_per_child=20) as pool:
        waiting = [
            (index, split, learner)
            for split in range(given.splits)
            for learner in given.learner or LEARNERS
            for index, case in enumerate(CASES)
            if case.name in ONLY.get(learner, (case.name,))
        ]
        running: set[Future[str]] = set()
        while waiting or running:
            while waiting and len(running) < given.workers and time.monotonic() < ends:
                index, split, learner = waiting.pop(0)
                running.add(pool.submit(run, index, split, learner, given.most))
            if not running:
                return
            done = next(as_completed(running))
            running.discard(done)
            if line := done.result():
                print(line, flush=True)


if __name__ == "__main__":
    main()

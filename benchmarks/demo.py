"""`make demo`: the whole pass on real handwritten digits, two of them rare inside one class.

The label says whether a digit is drawn with a closed loop (0, 6, 8, 9) or without one. Among the looped digits the 8 and
among the others the 3 are thinned to a few rows: a shortage inside the classes, which no re-weighting of classes can
mend and where drawn rows have something to win. The digit itself is known for training rows (it makes the groups) but is
hidden from the learner, as a hidden subclass is.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

from codsa_ray.cli import main

LOOPED = (0, 6, 8, 9)
RARE = (3, 8)
RARE_TRAIN, RARE_TEST = 10, 120
SEED = 0


def digits(rare: int = RARE_TRAIN) -> tuple[pa.Table, pa.Table]:
    """(train, test): 8 x 8 pictures as columns pixel_R_C, the hidden digit, and the label; rare digits thinned in train alone."""
    found = load_digits()
    rng = np.random.default_rng(SEED)
    train, test = [], []
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(found.target == digit))
        tested = RARE_TEST if digit in RARE else 60
        kept = rare if digit in RARE else len(rows) - tested
        test.append(rows[:tested])
        train.append(rows[tested : tested + kept])

    def table(rows: np.ndarray) -> pa.Table:
        columns = {name: found.data[rows, i].astype(np.int16) for i, name in enumerate(found.feature_names)}
        label = np.where(np.isin(found.target[rows], LOOPED), "looped", "open")
        return pa.table({**columns, "digit": found.target[rows].astype(np.int16), "label": label})

    return table(np.sort(np.concatenate(train))), table(np.sort(np.concatenate(test)))


def run(out: Path) -> int:
    """Writes the tables and runs the pass; returns the exit code."""
    out.mkdir(parents=True, exist_ok=True)
    for name, table in zip(("train", "test"), digits(), strict=True):
        pq.write_table(table, out / f"{name}.parquet")
    return main(
        [
            "augment",
            str(out / "train.parquet"),
            "--test",
            str(out / "test.parquet"),
            "--target",
            "label",
            "--group",
            "digit",
            "--hide",
            "digit",
            "--out",
            str(out / "run"),
            "--seed",
            str(SEED),
            *sys.argv[1:],
        ]
    )


if __name__ == "__main__":
    sys.exit(run(Path("runs") / "demo" if Path("Makefile").exists() else Path(tempfile.mkdtemp()) / "demo"))

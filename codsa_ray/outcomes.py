"""Outcomes: out-of-fold scores of every candidate as they are stored, row by row; knows no learner."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.candidates import Candidate
from codsa_ray.correct import cross_fitted
from codsa_ray.errors import InternalError
from codsa_ray.fitdata import ROW
from codsa_ray.folder import Folder
from codsa_ray.risk import balanced, task_of
from codsa_ray.rows import FOLD, GROUP, UNIT
from codsa_ray.trial import Scores

FACTS = b"facts"
TRUTH = "truth.parquet"


@dataclass(frozen=True)
class Truth:
    """The scored rows, the same for every candidate.

    Args:
        row, fold, group: (n,) ints. unit: (n,) or None. truth: (n,) class ids or values.
    """

    row: np.ndarray
    fold: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Outcome:
    """One candidate's scores, or why there are none.

    Args:
        raw, offset: (n, C) float32 log-probabilities, or (n,) for other tasks; empty when failed.
        seconds: of its fits.
        failed: the reason, or None.
    """

    candidate: Candidate
    raw: np.ndarray
    offset: np.ndarray
    seconds: float
    failed: str | None = None


def _column(scores: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(scores, dtype=np.float32).ravel())
    return flat if scores.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, scores.shape[1])


def _array(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy())
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), array.type.list_size)


def write_truth(folder: Folder, by_fold: dict[int, Scores]) -> None:
    """Writes the scored rows; whoever comes first, all write the same bytes."""
    if folder.exists(TRUTH):
        return
    folds = sorted(by_fold)
    columns: dict[str, Any] = {
        ROW: np.concatenate([by_fold[f].row for f in folds]),
        FOLD: np.concatenate([np.full(len(by_fold[f].row), f, dtype=np.int8) for f in folds]),
        "truth": np.concatenate([by_fold[f].truth for f in folds]),
        GROUP: np.concatenate([by_fold[f].group for f in folds]),
    }
    units = [by_fold[f].unit for f in folds]
    if units[0] is not None:
        columns[UNIT] = np.concatenate([unit for unit in units if unit is not None])
    folder.write_table(TRUTH, pa.table(columns))


def read_truth(folder: Folder) -> Truth:
    """What `write_truth` wrote."""
    table = folder.read_table(TRUTH)
    unit = table[UNIT].to_numpy() if UNIT in table.column_names else None
    return Truth(table[ROW].to_numpy(), table[FOLD].to_numpy(), table["truth"].to_numpy(), table[GROUP].to_numpy(), unit)


def write_outcome(folder: Folder, candidate: Candidate, by_fold: dict[int, Scores], seconds: float, failed: str | None) -> None:
    """Stores the scores of all folds, in fold order; a failed candidate is stored with its reason."""
    folds = sorted(by_fold)
    facts = json.dumps({"candidate": candidate.to_json(), "seconds": round(seconds, 3), "failed": failed}).encode()
    columns = {}
    if not failed:
        columns = {
            "raw": _column(np.concatenate([by_fold[f].raw for f in folds])),
            "offset": _column(np.concatenate([by_fold[f].offset for f in folds])),
        }
    folder.write_table(f"{candidate.id}.parquet", pa.table(columns).replace_schema_metadata({FACTS: facts}))


def read_outcome(folder: Folder, candidate: Candidate) -> Outcome | None:
    """The stored outcome, or None when the candidate was not tried yet."""
    name = f"{candidate.id}.parquet"
    if not folder.exists(name):
        return None
    table = folder.read_table(name)
    facts = json.loads(table.schema.metadata[FACTS])
    if facts["failed"]:
        empty = np.zeros((0, 0), dtype=np.float32)
        return Outcome(candidate, empty, empty, facts["seconds"], facts["failed"])
    return Outcome(candidate, _array(table["raw"]), _array(table["offset"]), facts["seconds"])


def forms(outcome: Outcome, truth: Truth, task: str, classes: int, mix: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the candidate raw, offset-corrected, and calibrated on top by the other folds' rows."""
    raw, offset = outcome.raw.astype(np.float64), outcome.offset.astype(np.float64)
    if task == "regression":
        return {"raw": raw, "offset": offset, "calibrated": offset}
    # One hold-out has no other fold to calibrate on: its rows are halved by position instead.
    fold = truth.fold if len(np.unique(truth.fold)) > 1 else (truth.row % 2).astype(np.int8)
    return {"raw": raw, "offset": offset, "calibrated": cross_fitted(offset, truth.truth, truth.group, mix, fold)}


def losses(scores: dict[str, np.ndarray], truth: Truth, task: str, classes: int) -> dict[str, np.ndarray]:
    """(n,) float64 losses per form."""
    judge = task_of(task, classes)
    return {form: judge.losses(values, truth.truth) for form, values in scores.items()}


@dataclass
class Table:
    """Outcomes so far, with losses per form."""

    folder: Folder
    task: str
    classes: int
    mix: np.ndarray
    truth: Truth | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    losses: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def add(self, candidate: Candidate) -> float:
        """Reads a stored outcome; returns its balanced loss under the best corrector, infinite when it failed.

        Raises:
            InternalError: nothing is stored.
        """
        outcome = read_outcome(self.folder, candidate)
        if outcome is None:
            raise InternalError(f"candidate {candidate.name} left no outcome; run again, finished ones are kept")
        self.outcomes[candidate.id] = outcome
        if outcome.failed:
            self.scores[candidate.id] = float("inf")
            return float("inf")
        if self.truth is None:
            self.truth = read_truth(self.folder)
        found = losses(forms(outcome, self.truth, self.task, self.classes, self.mix), self.truth, self.task, self.classes)
        for form, values in found.items():
            self.losses[candidate.id, form] = values.astype(np.float32)
        score = min(balanced(found[form], self.truth.group, self.mix) for form in ("offset", "calibrated"))
        self.scores[candidate.id] = score
        return score

    def tuned(self, variants: int) -> int:
        """The learner's variant that did best without synthesis."""
        return min(range(variants), key=lambda v: (self.scores[Candidate(variant=v).id], v))

"""Outcomes: out-of-fold scores of every candidate as they are stored, row by row; knows no learner."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
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

    @property
    def parts(self) -> np.ndarray:
        """(n,) folds; where there is one hold-out its rows are halved by position, so that one half can calibrate the other."""
        return self.fold if len(np.unique(self.fold)) > 1 else (self.row % 2).astype(np.int8)

    def of(self, folds: Iterable[int]) -> "Truth":
        """The rows of some folds."""
        kept = np.isin(self.fold, list(folds))
        return Truth(self.row[kept], self.fold[kept], self.truth[kept], self.group[kept], None if self.unit is None else self.unit[kept])


@dataclass(frozen=True)
class Pruned:
    """Why a candidate was not tried on the remaining folds.

    Args:
        reference: id of the candidate it was held against.
        reason: in words.
        loss: what the strategy is told.
    """

    reference: str
    reason: str
    loss: float


@dataclass(frozen=True)
class Outcome:
    """One candidate's scores, or why there are none.

    Args:
        raw, offset: (n, C) float32 log-probabilities, or (n,) for other tasks; empty when failed, of the folds done when pruned.
        seconds: of its fits.
        failed: the reason, or None.
        pruned: why it was given up after some folds, or None.
    """

    candidate: Candidate
    raw: np.ndarray
    offset: np.ndarray
    seconds: float
    failed: str | None = None
    pruned: Pruned | None = None

    @property
    def left_out(self) -> str | None:
        """Why it cannot be compared with the others, or None."""
        return self.failed or (self.pruned.reason if self.pruned else None)


def _column(scores: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(scores, dtype=np.float32).ravel())
    return flat if scores.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, scores.shape[1])


def _array(column: pa.ChunkedArray) -> np.ndarray:
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.asarray(array.to_numpy())
    return np.asarray(array.flatten().to_numpy()).reshape(len(array), array.type.list_size)


def truth_of(by_fold: dict[int, Scores]) -> Truth:
    """The scored rows of the folds, in fold order."""
    folds = sorted(by_fold)
    unit = [u for f in folds if (u := by_fold[f].unit) is not None]
    return Truth(
        np.concatenate([by_fold[f].row for f in folds]),
        np.concatenate([np.full(len(by_fold[f].row), f, dtype=np.int8) for f in folds]),
        np.concatenate([by_fold[f].truth for f in folds]),
        np.concatenate([by_fold[f].group for f in folds]),
        np.concatenate(unit) if unit else None,
    )


def write_truth(folder: Folder, by_fold: dict[int, Scores]) -> None:
    """Writes the scored rows; whoever comes first, all write the same bytes."""
    if folder.exists(TRUTH):
        return
    truth = truth_of(by_fold)
    columns: dict[str, Any] = {ROW: truth.row, FOLD: truth.fold, "truth": truth.truth, GROUP: truth.group}
    if truth.unit is not None:
        columns[UNIT] = truth.unit
    folder.write_table(TRUTH, pa.table(columns))


def read_truth(folder: Folder) -> Truth:
    """What `write_truth` wrote."""
    table = folder.read_table(TRUTH)
    unit = table[UNIT].to_numpy() if UNIT in table.column_names else None
    return Truth(table[ROW].to_numpy(), table[FOLD].to_numpy(), table["truth"].to_numpy(), table[GROUP].to_numpy(), unit)


def outcome_of(
    candidate: Candidate, by_fold: dict[int, Scores], seconds: float, failed: str | None = None, pruned: Pruned | None = None
) -> Outcome:
    """The outcome of the folds' scores, in fold order; a failed candidate has none."""
    if failed:
        empty = np.zeros((0, 0), dtype=np.float32)
        return Outcome(candidate, empty, empty, seconds, failed)
    folds = sorted(by_fold)
    raw, offset = (np.concatenate([getattr(by_fold[f], form) for f in folds]).astype(np.float32) for form in ("raw", "offset"))
    return Outcome(candidate, raw, offset, seconds, None, pruned)


def write_outcome(folder: Folder, outcome: Outcome) -> None:
    """Stores the outcome under its candidate's id; one that failed or was pruned with the reason."""
    candidate, pruned = outcome.candidate, asdict(outcome.pruned) if outcome.pruned else None
    facts = {"candidate": candidate.to_json(), "seconds": round(outcome.seconds, 3), "failed": outcome.failed, "pruned": pruned}
    columns = {} if outcome.failed else {"raw": _column(outcome.raw), "offset": _column(outcome.offset)}
    folder.write_table(f"{candidate.id}.parquet", pa.table(columns).replace_schema_metadata({FACTS: json.dumps(facts).encode()}))


def read_outcome(folder: Folder, candidate: Candidate) -> Outcome | None:
    """The stored outcome, or None when the candidate was not tried yet."""
    name = f"{candidate.id}.parquet"
    if not folder.exists(name):
        return None
    table = folder.read_table(name)
    facts = json.loads(table.schema.metadata[FACTS])
    if facts["failed"]:
        return outcome_of(candidate, {}, facts["seconds"], facts["failed"])
    pruned = Pruned(**facts["pruned"]) if facts["pruned"] else None
    return Outcome(candidate, _array(table["raw"]), _array(table["offset"]), facts["seconds"], None, pruned)


def forms(outcome: Outcome, truth: Truth, task: str, classes: int, mix: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of the candidate raw, offset-corrected, and calibrated on top by the other folds' rows."""
    raw, offset = outcome.raw.astype(np.float64), outcome.offset.astype(np.float64)
    if task == "regression":
        return {"raw": raw, "offset": offset, "calibrated": offset}
    return {"raw": raw, "offset": offset, "calibrated": cross_fitted(offset, truth.truth, truth.group, mix, truth.parts)}


def losses(scores: dict[str, np.ndarray], truth: Truth, task: str, classes: int, loss: str = "") -> dict[str, np.ndarray]:
    """(n,) float64 losses per form; `loss` as `risk.task_of` takes it."""
    judge = task_of(task, classes, loss)
    return {form: judge.losses(values, truth.truth) for form, values in scores.items()}


@dataclass
class Table:
    """Outcomes so far, with losses per form."""

    folder: Folder
    task: str
    classes: int
    mix: np.ndarray
    loss: str = ""
    truth: Truth | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    losses: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def add(self, candidate: Candidate) -> float:
        """Reads a stored outcome; returns its balanced loss under the best corrector, as told when it was pruned, infinite when it failed.

        Raises:
            InternalError: nothing is stored.
        """
        outcome = read_outcome(self.folder, candidate)
        if outcome is None:
            raise InternalError(f"candidate {candidate.name} left no outcome; run again, finished ones are kept")
        self.outcomes[candidate.id] = outcome
        if outcome.left_out:
            self.scores[candidate.id] = outcome.pruned.loss if outcome.pruned else float("inf")
            return self.scores[candidate.id]
        if self.truth is None:
            self.truth = read_truth(self.folder)
        found = self.judged(outcome, self.truth)
        for form, values in found.items():
            self.losses[candidate.id, form] = values.astype(np.float32)
        score = min(balanced(found[form], self.truth.group, self.mix) for form in ("offset", "calibrated"))
        self.scores[candidate.id] = score
        return score

    def judged(self, outcome: Outcome, truth: Truth) -> dict[str, np.ndarray]:
        """(n,) float64 losses per form of an outcome's scores of these rows."""
        return losses(forms(outcome, truth, self.task, self.classes, self.mix), truth, self.task, self.classes, self.loss)

    def tuned(self, variants: int) -> dict[str, int]:
        """The learner's variant that did best without synthesis, for each way to take other domains' rows (Candidate.domains)."""
        ways = dict.fromkeys(outcome.candidate.domains for outcome in self.outcomes.values())
        return {way: min(range(variants), key=lambda v: (self.scores[Candidate(variant=v, domains=way).id], v)) for way in ways}

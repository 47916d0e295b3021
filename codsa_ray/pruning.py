"""Pruning: whether a candidate is hopeless by the folds it has been scored on; fits nothing and knows no order of trials."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.outcomes import Outcome, Pruned, Table, Truth, losses, read_outcome, read_truth
from codsa_ray.risk import balanced, estimate

ERRORS = 3.0  # standard errors of the paired difference
SHARE = 0.05  # of the reference's loss


@dataclass(frozen=True)
class Reference:
    """The best candidate told before a batch was asked, and the balanced loss it was told with.

    It travels in every trial of the batch, so that what is pruned does not depend on which trial ended first.
    """

    candidate: Candidate
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Reference":
        """The inverse of `to_json`."""
        return Reference(Candidate(**value["candidate"]), value["loss"])


def prunable(candidate: Candidate) -> bool:
    """Synthetic candidates alone: those without synthesis are the evidence that all others are held against."""
    return candidate.kind == "synthetic"


def scored(table: Table, reference: Reference, folds: list[int]) -> tuple[Truth, np.ndarray]:
    """The rows of the folds done, and the reference's losses there under its best corrector, calibrated by these rows alone."""
    truth, stored = read_truth(table.folder), read_outcome(table.folder, reference.candidate)
    assert stored is not None, "a reference was told"
    kept, done = np.isin(truth.fold, folds), truth.of(folds)
    found = table.judged(Outcome(stored.candidate, stored.raw[kept], stored.offset[kept], stored.seconds), done)
    return done, min((found[form] for form in ("offset", "calibrated")), key=lambda values: balanced(values, done.group, table.mix))


def hopeless(table: Table, outcome: Outcome, reference: Reference, truth: Truth, theirs: np.ndarray) -> Pruned | None:
    """Pruned where both corrected forms are worse than the reference by more than ERRORS standard errors and SHARE of its loss.

    Candidate and reference are calibrated by the same rows, those of the folds done. Calibration is costly and looked at only where the
    offset alone would not save the candidate.

    Args:
        table: how losses are judged.
        outcome: scores on the rows of `truth`.
        truth, theirs: see `scored`.
    """
    judge = {"offset": outcome.offset.astype(np.float64)}
    excess = [_excess(table, losses(judge, truth, table.task, table.classes, table.loss)["offset"], truth, theirs)]
    if excess[0] is not None:
        excess.append(_excess(table, table.judged(outcome, truth)["calibrated"], truth, theirs))
    worse = [value for value in excess if value is not None]
    if len(worse) < len(excess):
        return None
    after = f"{len(np.unique(truth.fold))} fold(s)"
    reason = f"pruned after {after}, where its balanced loss was {min(worse):.4f} above that of {reference.candidate.name}"
    # The difference carries over to the other folds better than the loss: some folds are harder than others.
    return Pruned(reference.candidate.id, reason, reference.loss + min(worse))


def _excess(table: Table, mine: np.ndarray, truth: Truth, theirs: np.ndarray) -> float | None:
    """How much worse, or None where that is not sure or not much."""
    # A group of a few rows has not shown its tail: its variance is taken to be at least the pooled one.
    found = estimate(mine - theirs, truth.group, table.mix, truth.unit, floor=True)
    mean, se = float(found.mean[0]), float(found.se[0])
    return mean if mean > max(ERRORS * se, SHARE * balanced(theirs, truth.group, table.mix)) else None

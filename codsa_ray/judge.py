"""Judge: from stored scores to the verdict, the final candidates and the correction that ships; fits and draws nothing."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.correct import Calibration, fit_all
from codsa_ray.decide import Entry, Verdict, decide
from codsa_ray.errors import InternalError
from codsa_ray.outcomes import Outcome, Table, Truth


@dataclass(frozen=True)
class Decision:
    """The verdict and what it stands on.

    Args:
        verdict: see decide.py.
        entries: what was compared: (candidate, form) in the order of the losses' columns.
        losses: (n, M) float32 out-of-fold losses.
        chosen: the verdict's (candidate, form).
        base: the best (candidate, form) without synthesis.
        best: the best synthetic (candidate, form), or None where none could be scored.
    """

    verdict: Verdict
    entries: tuple[tuple[Candidate, str], ...]
    losses: np.ndarray
    chosen: tuple[Candidate, str]
    base: tuple[Candidate, str]
    best: tuple[Candidate, str] | None


def title(candidate: Candidate, form: str) -> str:
    """What people read: the candidate and its correction."""
    return candidate.name if form == "raw" else f"{candidate.name} + {'offset' if form == 'offset' else 'offset and calibration'}"


def compared(outcomes: dict[str, Outcome], task: str, tuned: int) -> list[tuple[Candidate, str]]:
    """What the decision compares: the plain candidate also as it is, all others corrected, all with the `tuned` variant of the learner."""
    alive = [o.candidate for o in outcomes.values() if not o.failed]
    if not alive:
        reasons = "; ".join(sorted({str(o.failed) for o in outcomes.values()}))
        raise InternalError(f"every candidate failed: {reasons}; try another --learner")
    found = []
    for candidate in alive:
        if candidate.variant != tuned:
            continue
        plain = candidate.kind == "plain" and candidate.fits == 1
        corrected = ("raw",) if task == "regression" else ("offset", "calibrated")
        found += [(candidate, form) for form in (*(("raw",) if plain and task != "regression" else ()), *corrected)]
    return found


def decide_run(table: Table, sizes: dict[str, int], names: list[str], tuned: int, seed: int) -> Decision:
    """The verdict over stored out-of-fold losses (design law 4).

    Args:
        sizes: synthetic rows of a candidate (by id) on all training rows.
        names: of the groups.
        tuned: the learner's variant that did best without synthesis.
    """
    truth, mix = table.truth, table.mix
    pairs = compared(table.outcomes, table.task, tuned)
    if truth is None:
        raise InternalError("wanted scores of at least one candidate; got none; run the search first")
    L = np.stack([table.losses[c.id, form] for c, form in pairs], axis=1)
    entries = tuple(Entry(title(c, form), c.level(form), sizes.get(c.id, 0), form) for c, form in pairs)
    verdict = decide(L, truth.group, mix, entries, units=truth.unit, names=names, seed=seed)
    pair_of = dict(zip(entries, pairs, strict=True))
    best = pair_of[verdict.best] if verdict.best else None
    return Decision(verdict, tuple(pairs), L, pair_of[verdict.chosen], pair_of[verdict.base], best)


def final_candidates(decision: Decision) -> list[Candidate]:
    """What is fitted on all training rows and scored on the test rows: all without synthesis, the verdict's, the best synthetic one."""
    found = [c for c, _ in decision.entries if c.kind != "synthetic"]
    found.append(decision.chosen[0])
    if decision.best:
        found.append(decision.best[0])
    return list(dict.fromkeys(found))


def calibration_of(outcome: Outcome, truth: Truth, task: str, mix: np.ndarray) -> Calibration | None:
    """The calibration that ships, fitted on every out-of-fold row."""
    if task == "regression":
        return None
    return fit_all(outcome.offset.astype(np.float64), truth.truth.astype(np.int64), truth.group, mix)


def test_scores(outcome: Outcome, final: Outcome, form: str, truth: Truth, task: str, mix: np.ndarray) -> np.ndarray:
    """The final candidate's test scores in a form; calibrations come from the out-of-fold scores."""
    if form == "raw":
        return final.raw.astype(np.float64)
    offset = final.offset.astype(np.float64)
    scaling = calibration_of(outcome, truth, task, mix) if form == "calibrated" else None
    return scaling.apply(offset) if scaling else offset


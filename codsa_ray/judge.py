"""Judge: from stored scores to the verdict, the final candidates and the correction that ships; fits and draws nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.correct import Calibration, fit_all
from codsa_ray.decide import Entry, Verdict, decide
from codsa_ray.errors import InternalError
from codsa_ray.outcomes import Outcome, Table, Truth
from codsa_ray.prior import Belief
from codsa_ray.risk import estimate, row_weights
from codsa_ray.verdict import CONFIDENCE

HOPELESS = 3.0
NEVER_SHIPPED = "corrected_synthesis"  # signed rows of an encoding cannot be written as a table (bias.py)


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


def compared(outcomes: dict[str, Outcome], task: str, tuned: Mapping[str, int]) -> list[tuple[Candidate, str]]:
    """What the decision compares: the plain candidate also as it is, all others corrected, all with the `tuned` variant of the learner."""
    alive = [o.candidate for o in outcomes.values() if not o.left_out]
    if not alive:
        reasons = [str(o.failed) for o in outcomes.values()]
        raise InternalError(f"every candidate failed: {reasons[0]} (and {len(reasons) - 1} others); try another --learner")
    found = []
    for candidate in alive:
        if candidate.variant != tuned[candidate.domains] or candidate.kind == NEVER_SHIPPED:
            continue
        plain = candidate.kind == "plain" and candidate.fits == 1 and not candidate.domains
        corrected = ("raw",) if task == "regression" else ("offset", "calibrated")
        found += [(candidate, form) for form in (*(("raw",) if plain and task != "regression" else ()), *corrected)]
    return found


Believe = Callable[[list[tuple[Candidate, str]]], Belief | None]


def decide_run(
    table: Table,
    sizes: dict[str, int],
    names: list[str],
    tuned: Mapping[str, int],
    seed: int,
    believe: Believe | None = None,
    again: Sequence[Table] = (),
    confidence: float = CONFIDENCE,
) -> Decision:
    """The verdict over stored out-of-fold losses (design law 4).

    Args:
        sizes: synthetic rows of a candidate (by id) on all training rows.
        names: of the groups.
        tuned: see `Table.tuned`.
        believe: what earlier data sets say of the entries, or None to go by these rows alone.
        confidence: see `decide`.
        again: scores on further cuts of the same rows; a row's loss is the mean over the cuts on which the candidate was scored.
    """
    truth, mix = table.truth, table.mix
    pairs = compared(table.outcomes, table.task, tuned)
    if truth is None:
        raise InternalError("wanted scores of at least one candidate; got none; run the search first")
    L = np.stack([_over_cuts(table, again, (c.id, form)) for c, form in pairs], axis=1)
    # The offset alone is shown beside the calibrated form and not chosen: calibration is shrunk towards doing nothing already, so that
    # a choice between the two is one more chance to be lucky (docs/benchmarks/decisions.md).
    entries = tuple(
        Entry(title(c, form), c.level(form), sizes.get(c.id, 0), form, control=form == "offset" and (c, "calibrated") in pairs)
        for c, form in pairs
    )
    belief = believe(pairs) if believe else None
    verdict = decide(L, truth.group, mix, entries, units=truth.unit, names=names, belief=belief, confidence=confidence, seed=seed)
    pair_of = dict(zip(entries, pairs, strict=True))
    best = pair_of[verdict.best] if verdict.best else None
    return Decision(verdict, tuple(pairs), L, pair_of[verdict.chosen], pair_of[verdict.base], best)


def _over_cuts(table: Table, again: Sequence[Table], key: tuple[str, str]) -> np.ndarray:
    """(n,) float32 mean loss of each of the first cut's rows."""
    assert table.truth is not None
    found = [table.losses[key].astype(np.float64)]
    for other in again:
        if key in other.losses and other.truth is not None:
            order = np.argsort(other.truth.row)
            place = np.minimum(np.searchsorted(other.truth.row[order], table.truth.row), len(order) - 1)
            # A label that a cut's training rows lack leaves its rows unscored there.
            there = other.truth.row[order][place] == table.truth.row
            found.append(np.where(there, other.losses[key][order][place], np.nan))
    return np.asarray(np.nanmean(found, axis=0), dtype=np.float32)


def running(decision: Decision, table: Table) -> list[Candidate]:
    """Candidates that may still turn out best: within HOPELESS standard errors of the lowest loss; the verdict's and its rivals always."""
    assert table.truth is not None
    means = row_weights(table.truth.group, table.mix) @ decision.losses.astype(np.float64)
    lowest = decision.losses[:, [int(np.argmin(means))]].astype(np.float64)
    away = estimate(decision.losses - lowest, table.truth.group, table.mix, table.truth.unit)
    near = [pair[0] for pair, mean, se in zip(decision.entries, away.mean, away.se, strict=True) if mean <= HOPELESS * se]
    named = [pair[0] for pair in (decision.chosen, decision.base, decision.best) if pair]
    plain = [c for c, _ in decision.entries if c.kind == "plain" and c.fits == 1]
    return list(dict.fromkeys([*plain, *near, *named]))


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

"""Trial: one candidate trained on one fold and scored on its held-out rows, corrected by its own training weights; draws nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codsa_ray.bench import Bench, Real, digests_of
from codsa_ray.bias import bias_corrected, smote
from codsa_ray.candidates import Candidate
from codsa_ray.correct import average, merge_cells, offset_scores
from codsa_ray.domain import POWERS
from codsa_ray.errors import CandidateError
from codsa_ray.plan import sainte_lague, size_of
from codsa_ray.seeds import rng_of, seed_of


@dataclass(frozen=True)
class Mix:
    """Rows of one fit.

    Args:
        X: (n, ...) encoded rows.
        y: (n,) class ids (group ids for joint cells), or values.
        weight: (n,) > 0, or of any sign (corrected_synthesis).
        group: (n,) groups.
        first: (n,) weights of all layers but the last, where that is trained again on `weight`; None: there is one training.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    first: np.ndarray | None = None


@dataclass(frozen=True)
class Scores:
    """Held-out scores of a candidate in one fold.

    Args:
        row, truth, group, unit: of the held-out rows.
        raw: (n, C) averaged log-probabilities as trained (or (n,) for other tasks).
        offset: the same, each fit corrected by its own training weights before averaging.
    """

    row: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None
    raw: np.ndarray
    offset: np.ndarray


def run_trial(bench: Bench, candidate: Candidate, fold: int) -> Scores:
    """Trains and scores the candidate.

    Raises:
        CandidateError: scores of another shape, that are not finite, or that do not sum to 1; negative weights for a learner that does not
            take them.
    """
    bench = bench.within(candidate.domains)
    held = bench.held_out(fold)
    raw, corrected = [], []
    for index, mix in enumerate(mixes(bench, candidate, fold)):
        scores = _fit(bench, candidate, fold, index, mix, held)
        _check(candidate, scores, len(held.y), _outputs(bench, candidate))
        plain, offset = _correct(bench, candidate, fold, mix, scores, held)
        raw.append(plain)
        corrected.append(offset)
    classes = bench.classes > 0
    return Scores(held.row, held.y, held.group, held.unit, average(raw, classes), average(corrected, classes))


def mixes(bench: Bench, candidate: Candidate, fold: int) -> Iterator[Mix]:
    """The training rows of each of the candidate's fits."""
    bench = bench.within(candidate.domains)
    real = bench.training(fold, candidate.share)
    power = POWERS.get(candidate.domains)
    weight = real.weight if power is None else real.weight * bench.importance(fold, power, candidate.share)
    base = Mix(real.X, real.group if candidate.kind == "cells" else real.y, weight, real.group)
    for index in range(candidate.fits):
        rng = rng_of(bench.rows.seed, "mix", fold, index)
        if candidate.kind == "synthetic":
            yield _with_synthetic(bench, candidate, fold, index, base)
        elif candidate.kind == "corrected_synthesis":
            yield _with_corrected(bench, candidate, fold, base, rng)
        elif candidate.kind == "undersampled":
            yield _undersampled(base, candidate.ratio, rng)
        else:
            mix = _resampled(base, rng, bench.learner.needs.holds_out) if candidate.fits > 1 else base
            if candidate.kind == "retrained":
                yield replace(_weighted(mix, candidate), first=mix.weight)
            else:
                yield _weighted(mix, candidate) if candidate.kind == "weights" else mix


def _with_synthetic(bench: Bench, candidate: Candidate, fold: int, draw: int, real: Mix) -> Mix:
    regions = bench.regions(fold, candidate.share)
    plan = candidate.plan(regions, bench.allocator)
    if plan.size == 0:
        return real
    X, y, region = bench.synthetic(candidate.generator, fold, draw, plan.counts, candidate.share)
    weight = np.concatenate(plan.row_weights())
    return Mix(
        np.concatenate([real.X, X]),
        np.concatenate([real.y, y]),
        np.concatenate([real.weight, weight]),
        np.concatenate([real.group, regions.groups[region].astype(np.int64)]),
    )


def _with_corrected(bench: Bench, candidate: Candidate, fold: int, real: Mix, rng: np.random.Generator) -> Mix:
    """Interpolated rows per group and the signed rows that take their bias off (bias.py); every fit draws its own."""
    regions = bench.partitions[fold].regions
    size = size_of(candidate.gamma, candidate.eta, regions.gap, int(regions.counts.sum()))
    if size == 0:
        return real
    weights = bench.allocator.weights(regions, size, candidate.row_weight)
    counts = sainte_lague(np.bincount(regions.groups, weights, len(regions.mix)), size)
    if real.X.ndim != 2 or not bench.classes:
        raise CandidateError(f"{candidate.name}: wanted classes and rows of numbers; got rows of shape {real.X.shape[1:]}; leave it out")
    added = bias_corrected(real.X, real.y, real.group, counts, smote, rng)
    return Mix(
        np.concatenate([real.X, added.X.astype(real.X.dtype)]),
        np.concatenate([real.y, added.y]),
        np.concatenate([real.weight, candidate.row_weight * added.weight]),
        np.concatenate([real.group, added.group]),
    )


def _take(mix: Mix, index: np.ndarray) -> Mix:
    return Mix(mix.X[index], mix.y[index], mix.weight[index], mix.group[index])


def _resampled(mix: Mix, rng: np.random.Generator, once: bool) -> Mix:
    """A bootstrap sample within every group (Breiman 1996), so that no bag loses a rare group.

    Args:
        once: a row that is drawn again weighs more; else it comes again. A copy would be taught where the learner holds the other one out.
    """
    drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in _by_group(mix)])
    if not once:
        return _take(mix, np.sort(drawn))
    index, times = np.unique(drawn, return_counts=True)
    return Mix(mix.X[index], mix.y[index], mix.weight[index] * times, mix.group[index])


def each_once(mix: Mix, real: Sequence[bytes]) -> Mix:
    """Drawn rows that equal an earlier row weigh there instead of coming again; real rows stay as many as they are.

    As in bags: a copy would be taught where the learner holds the other one out, and synthesis would look better than it is.

    Args:
        real: digests of the real rows, which come first.
    """
    first: dict[tuple[bytes, Any, int], int] = {}
    place, digests = np.arange(len(mix.y)), [*real, *digests_of(mix.X[len(real) :])]
    for index, key in enumerate(zip(digests, mix.y.tolist(), mix.group.tolist(), strict=True)):
        at = first.setdefault(key, index)
        place[index] = index if index < len(real) else at
    weight = np.bincount(place, mix.weight, len(place))
    return _take(replace(mix, weight=weight), np.flatnonzero(place == np.arange(len(place))))


def _undersampled(mix: Mix, ratio: float, rng: np.random.Generator) -> Mix:
    """At most ratio x the smallest group's rows of every group, without replacement."""
    groups = _by_group(mix)
    most = max(1, round(ratio * min(len(rows) for rows in groups)))
    index = [rows if len(rows) <= most else rng.choice(rows, most, replace=False) for rows in groups]
    return _take(mix, np.sort(np.concatenate(index)))


def _by_group(mix: Mix) -> list[np.ndarray]:
    return [np.flatnonzero(mix.group == g) for g in np.unique(mix.group)]


def _weighted(mix: Mix, candidate: Candidate) -> Mix:
    """Weights (n_cell)^-strength, scaled to keep the total."""
    cell = (mix.y if candidate.by == "class" else mix.group).astype(np.int64)
    totals = np.bincount(cell, weights=mix.weight)
    factor = np.maximum(totals, 1e-12)[cell] ** -candidate.strength
    weight = mix.weight * factor
    return Mix(mix.X, mix.y, weight * (mix.weight.sum() / weight.sum()), mix.group)


def _outputs(bench: Bench, candidate: Candidate) -> int:
    """Columns of the learner's scores: cells, classes, or 0 for tasks without."""
    return len(bench.rows.groups.items) if candidate.kind == "cells" else bench.classes


def _fit(bench: Bench, candidate: Candidate, fold: int, index: int, mix: Mix, held: Real) -> np.ndarray:
    learner = bench.learner.variants()[candidate.variant]
    if (mix.weight <= 0).any() and not learner.needs.negative:
        raise CandidateError(f"{candidate.name}: wanted a learner that takes negative weights; got one that does not; take logistic or mlp")
    outputs = _outputs(bench, candidate)
    if candidate.kind == "synthetic" and learner.needs.holds_out:
        mix = each_once(mix, bench.digests(fold, candidate.share))
    offset = None
    if candidate.kind == "loss":
        totals = np.bincount(mix.y, weights=mix.weight, minlength=outputs)
        offset = np.tile(np.log(np.maximum(totals, 1e-12) / totals.sum()), (len(mix.y), 1))
    # The seed leaves the candidate out: two candidates differ by their rows, not by their luck.
    seed = seed_of(bench.rows.seed, "learner", fold, index)
    try:
        if mix.first is not None:
            again: Any = learner
            predictor = again.retrained(mix.X, mix.y, mix.first, mix.weight, classes=outputs, seed=seed)
        else:
            predictor = learner.fit(mix.X, mix.y, mix.weight, classes=outputs, seed=seed, offset=offset)
        return np.asarray(predictor.scores(held.X), dtype=np.float64)
    except CandidateError as error:
        raise CandidateError(f"{candidate.name}: {error}") from error


def _check(candidate: Candidate, scores: np.ndarray, rows: int, outputs: int) -> None:
    """Scores that say nothing (the same for every row) pass: on rows without signal they are the right answer, and cost what they cost."""
    wanted = (rows, outputs) if outputs else (rows,)
    if scores.shape != wanted:
        raise CandidateError(f"{candidate.name}: wanted scores of shape {wanted}; got {scores.shape}; the learner breaks its contract")
    if not np.all(np.isfinite(scores)):
        raise CandidateError(f"{candidate.name}: {np.sum(~np.isfinite(scores))} scores are not finite")
    if outputs and np.max(np.abs(np.exp(scores).sum(axis=1) - 1), initial=0) > 1e-3:
        raise CandidateError(f"{candidate.name}: probabilities do not sum to 1")


def _correct(bench: Bench, candidate: Candidate, fold: int, mix: Mix, scores: np.ndarray, held: Real) -> tuple[np.ndarray, np.ndarray]:
    """(as trained, corrected to the target mix); tasks without classes need no correction."""
    if not bench.classes:
        return scores, scores
    groups = bench.rows.groups
    tau = np.array(groups.mix)
    weight = np.bincount(mix.group, weights=mix.weight, minlength=len(tau))
    labels = groups.labels(bench.rows.schema(fold).classes)
    if candidate.kind == "cells":
        identity = np.tile(np.arange(len(tau), dtype=np.int32), (len(scores), 1))
        offset = offset_scores(scores, identity, tau, weight, labels)
        return merge_cells(scores, labels, bench.classes), merge_cells(offset, labels, bench.classes)
    if candidate.kind == "loss":
        weight = weight / np.maximum(np.bincount(labels, weights=weight, minlength=bench.classes)[labels], 1e-12)
    coarse, onto = bench.coarse(fold)
    size = len(coarse.items)
    tau, weight = np.bincount(onto, tau, minlength=size), np.bincount(onto, weight, minlength=size)
    return scores, offset_scores(scores, held.cells, tau, weight, coarse.labels(bench.rows.schema(fold).classes))

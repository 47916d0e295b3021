"""Under a null, copies of real rows drawn as if they were new, the whole rule (fits, corrections, both choices) rarely says augment."""

import numpy as np
import pytest

from codsa_ray.candidates import Candidate
from codsa_ray.correct import average, cross_fitted, offset_scores
from codsa_ray.decide import decide
from codsa_ray.learners.logistic import Logistic
from codsa_ray.prior import Prior
from codsa_ray.risk import task_of
from codsa_ray.seeds import rng_of
from codsa_ray.verdict import Entry

MIX = np.array([0.5, 0.5])
ROWS, RARE, FOLDS, FITS = 240, 24, 4, 3
CANDIDATES = (
    Candidate(),
    Candidate("weights", by="class", strength=0.5),
    Candidate("weights", by="class", strength=1.0),
    Candidate(fits=FITS),
    *(
        Candidate("synthetic", fits, generator="bootstrap-1", gamma=g, row_weight=w)
        for g, w in ((0.5, 1), (1, 1), (2, 0.2))
        for fits in (1, FITS)
    ),
)


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = rng_of(seed, "null")
    y = (np.arange(ROWS) < RARE).astype(np.int64)
    return rng.normal(size=(ROWS, 3)) * 1.2 + y[:, None] * np.array([1.2, 0.6, 0.0]), y


def fits_of(
    candidate: Candidate, X: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, labels, weights) of every fit; synthetic rows are copies of rare ones."""
    found = []
    for _ in range(candidate.fits):
        rows, weight = np.arange(len(y)), np.ones(len(y))
        if candidate.kind == "weights":
            weight = np.bincount(y)[y] ** -candidate.strength
        elif candidate.kind == "synthetic":
            drawn = rng.choice(np.flatnonzero(y == 1), round(candidate.gamma * (len(y) - 2 * y.sum())))
            rows, weight = np.concatenate([rows, drawn]), np.concatenate([weight, np.full(len(drawn), candidate.row_weight)])
        elif candidate.fits > 1:
            rows = np.concatenate([rng.choice(np.flatnonzero(y == c), int((y == c).sum())) for c in (0, 1)])
        found.append((X[rows], y[rows], weight))
    return found


def verdict_of(seed: int, prior: Prior | None) -> str:
    X, y = simulated(seed)
    fold = rng_of(seed, "folds").permutation(ROWS) % FOLDS
    learner, judge = Logistic(), task_of("classification", 2)
    losses, pairs = [], []
    for candidate in CANDIDATES:
        scores = np.zeros((ROWS, 2))
        for f in range(FOLDS):
            kept, held = fold != f, fold == f
            corrected = []
            for rows, labels, weight in fits_of(candidate, X[kept], y[kept], rng_of(seed, "fits", f)):
                raw = learner.fit(rows, labels, weight, classes=2, seed=0).scores(X[held])
                corrected.append(offset_scores(raw, None, MIX, np.bincount(labels, weight, 2), np.arange(2)))
            scores[held] = average(corrected)
        for form, values in (("offset", scores), ("calibrated", cross_fitted(scores, y, y, MIX, fold))):
            losses.append(judge.losses(values, y))
            pairs.append((candidate, form))
    entries = [Entry(f"{c.name} {form}", c.level(form), round(1000 * c.gamma), form) for c, form in pairs]
    belief = prior.belief("logistic", pairs, RARE) if prior else None
    return decide(np.stack(losses, axis=1), y, MIX, entries, belief=belief, resamples=200, seed=seed).kind


@pytest.mark.parametrize("prior", [None, Prior.shipped()], ids=["these rows alone", "with the prior"])
@pytest.mark.parametrize("sets", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_copies_of_real_rows_are_called_augment_in_at_most_one_of_twenty_data_sets(sets: int, prior: Prior | None) -> None:
    said = [verdict_of(seed, prior) for seed in range(sets)]
    assert said.count("augment") <= sets / 20, said

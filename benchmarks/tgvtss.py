"""TG-VTSS end to end on two arrays (Ma & Zhang 2026, Algorithm 1), as published and mended; knows no simulation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from codsa_ray.correct import Calibration, offset_scores
from codsa_ray.pilot import Model
from codsa_ray.theory import LEVEL, TOLERATED, asymmetry, cross_fit, quality, symmetry, tg_candidates, theory_size

QUALITY_FOLDS = 3
FOLDS = 5
CEILING = 4.0  # of the gap, for the mended grid

Draw = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """What is fitted, and how rare rows are made.

    Args:
        model: the loss.
        draw: (rare training rows, number, rng) -> rows.
        design: rows -> what the model sees.
        cost: sklearn's C: the penalty on the sum of losses is 1 / C.
        hold_out: a share held out once for validation, or 0 for FOLDS folds.
    """

    model: Model
    draw: Draw
    design: Callable[[np.ndarray], np.ndarray]
    cost: float = 1e6
    hold_out: float = 0.0

    def fit(self, common: np.ndarray, rare: np.ndarray, start: np.ndarray | None = None, balanced: bool = False) -> np.ndarray:
        """(p,) the fit at natural proportions, or balanced by class weights; designs, not rows."""
        n0, n1 = len(common), len(rare)
        model = replace(self.model, ridge=1 / (self.cost * (n0 + n1)))
        return model.fit(common, rare, (0.5, 0.5) if balanced else (n0 / (n0 + n1), n1 / (n0 + n1)), start)

    def loss(self, theta: np.ndarray, common: np.ndarray, rare: np.ndarray) -> float:
        """Balanced loss on designs."""
        means = [np.mean(self.model.value(X @ theta, t)) for X, t in zip((common, rare), self.model.targets, strict=True)]
        return float(np.mean(means))

    def augmented(self, common: np.ndarray, rare: np.ndarray, gammas: list[float], rng: np.random.Generator) -> list[np.ndarray]:
        """A fit at each gamma, on prefixes of one pool."""
        sizes = [round(g * (len(common) - len(rare))) for g in gammas]
        pool = self.design(self.draw(rare, max(sizes), rng)) if max(sizes) else np.zeros((0, 0))
        X0, X1 = self.design(common), self.design(rare)
        fits: list[np.ndarray] = []
        for size in sizes:
            fits.append(self.fit(X0, np.concatenate([X1, pool[:size]]) if size else X1, fits[-1] if fits else None))
        return fits


@dataclass(frozen=True)
class Choice:
    """What the algorithm chose: the size over the gap, and what its tests said."""

    gamma: float
    symmetric: bool
    biased: bool
    optimum: float | None


def choose(problem: Problem, common: np.ndarray, rare: np.ndarray, seed: int, published: bool) -> Choice:
    """Tests, candidates, validated choice."""
    rng = np.random.default_rng(seed)
    n0, n1 = len(common), len(rare)
    model = replace(problem.model, ridge=1 / (problem.cost * (n0 + n1)))
    X0, X1 = problem.design(common), problem.design(rare)
    symmetric = symmetry(model, X0, X1, published).p_value > LEVEL
    folds = rng.permutation(n0) % QUALITY_FOLDS, rng.permutation(n1) % QUALITY_FOLDS
    drawn = [problem.design(problem.draw(rare[folds[1] != k], n0 - n1, rng)) for k in range(QUALITY_FOLDS)]
    result = quality(cross_fit(model, X0, X1, folds), drawn, rng)
    biased = result.published > TOLERATED if published else result.test.p_value <= LEVEL
    optimum = theory_size(asymmetry(model, X0, X1), result.bias, n0, n1)
    ceiling = None if published else round(CEILING * (n0 - n1))
    sizes = tg_candidates(n0 - n1, symmetric, biased, optimum, published=published, ceiling=ceiling)
    gammas = [size / (n0 - n1) for size in sizes]
    return Choice(gammas[int(np.argmin(validated(problem, common, rare, gammas, rng)))], symmetric, biased, optimum)


def validated(problem: Problem, common: np.ndarray, rare: np.ndarray, gammas: list[float], rng: np.random.Generator) -> np.ndarray:
    """(candidates,) balanced validation loss."""
    parts = [rng.permutation(len(X)) for X in (common, rare)]
    if problem.hold_out:
        held = [[part[: round(problem.hold_out * len(part))]] for part in parts]
    else:
        held = [np.array_split(part, FOLDS) for part in parts]
    total = np.zeros(len(gammas))
    for out0, out1 in zip(*held, strict=True):
        fits = problem.augmented(np.delete(common, out0, 0), np.delete(rare, out1, 0), gammas, rng)
        X0, X1 = problem.design(common[out0]), problem.design(rare[out1])
        total += [problem.loss(theta, X0, X1) for theta in fits]
    return total / len(held[0])


def controls(problem: Problem, common: np.ndarray, rare: np.ndarray, test: tuple[np.ndarray, np.ndarray], seed: int) -> dict[str, float]:
    """Balanced test loss of a logistic model without synthesis: raw, offset, offset + calibration, class weights; `test` holds designs."""
    rng = np.random.default_rng(seed)
    X0, X1 = problem.design(common), problem.design(rare)
    held = [rng.permutation(len(X)) % FOLDS for X in (X0, X1)]
    scores = [np.zeros(len(X)) for X in (X0, X1)]
    for k in range(FOLDS):
        theta = problem.fit(X0[held[0] != k], X1[held[1] != k])
        for c, X in enumerate((X0, X1)):
            scores[c][held[c] == k] = X[held[c] == k] @ theta
    raw = problem.fit(X0, X1)
    counts = np.array([len(X0), len(X1)])
    on_test = tuple(X @ raw for X in test)
    found = calibrated((scores[0], scores[1]), (on_test[0], on_test[1]), counts)
    return {"raw": problem.loss(raw, *test), **found, "class weights": problem.loss(problem.fit(X0, X1, balanced=True), *test)}


def calibrated(out_of_fold: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], counts: np.ndarray) -> dict[str, float]:
    """Balanced test loss of log-odds after the exact offset for `counts`, and after calibration on out-of-fold ones; per side each."""

    def moved(odds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        both = np.concatenate(odds)
        return offset_scores(np.stack([np.zeros_like(both), both], 1), None, np.array([0.5, 0.5]), counts, np.arange(2))

    truth, weight = (np.repeat([0, 1], [len(s) for s in out_of_fold]), np.concatenate([np.full(len(s), 0.5 / len(s)) for s in out_of_fold]))
    scaling = Calibration.fit(moved(out_of_fold), truth, weight)
    offset = moved(test)
    split = len(test[0])

    def loss(scores: np.ndarray) -> float:
        return float(-(scores[:split, 0].mean() + scores[split:, 1].mean()) / 2)

    return {"offset": loss(offset), "offset and calibration": loss(scaling.apply(offset))}

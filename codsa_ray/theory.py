"""Theory of the synthetic size (Ma & Zhang 2026, arXiv 2601.16120): asymmetry, generator bias, the optimum; knows arrays, no data set.

Two sides: common rows (side 0) and rare rows (side 1) of a linear model. With R_0, R_1 their risks, R = (R_0 + R_1) / 2 and theta* its
minimiser, g_phi = grad R_0 - grad R_1 is the asymmetry and g_psi = grad R_synthetic - grad R_1 the generator's bias, both at theta*.
To first order n synthetic rows bring the fit to theta*, along g_phi, when n = (n0 - n1) / (1 - 2 <g_phi, g_psi> / |g_phi|^2).

Shapes: n0, n1 rows of the sides, p parameters, K folds. Our extensions beyond the paper are said to be ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as snedecor

from codsa_ray.errors import CandidateError
from codsa_ray.pilot import Model, solved

LEVEL = 0.05
REDRAWS = 499
MANY = 1000  # held-out rows from which a sum of gradients is normal enough
TOLERATED = 10.0  # the paper's bound on its quality score
SYMMETRIC = tuple(np.linspace(0.0, 0.2, 5).round(2).tolist())
NARROW = tuple(np.linspace(0.8, 1.2, 9).round(2).tolist())
WIDE = tuple(np.linspace(0.0, 2.0, 41).round(2).tolist())


@dataclass(frozen=True)
class Wald:
    """A quadratic-form test.

    Args:
        statistic: estimate' covariance^-1 estimate.
        df: parameters tested.
        p_value: chance of a larger one where the hypothesis holds.
    """

    statistic: float
    df: int
    p_value: float


def _covariance(rows: np.ndarray) -> np.ndarray:
    return np.atleast_2d(np.cov(rows, rowvar=False))


def asymmetry(model: Model, common: np.ndarray, rare: np.ndarray) -> np.ndarray:
    """(p,) g_phi: the sides' mean gradients at the balanced fit, common minus rare."""
    theta = model.fit(common, rare)
    return np.asarray(model.gradients(theta, common, 0).mean(0) - model.gradients(theta, rare, 1).mean(0))


def symmetry(model: Model, common: np.ndarray, rare: np.ndarray, published: bool = False) -> Wald:
    """Tests g_phi = 0: both sides have the same minimiser, so that their proportion changes no fit.

    Published: the paper's Wald statistic of g_phi against chi2(p); at n1 = 5 p, n0 = 20 n1 it rejects .42 of symmetric data at a nominal
    .05. Ours tests the same by the rare side's gradient at the fit of natural proportions, with the covariance of White (1982) about zero
    (Boos 1992) and leverages as in HC2 (MacKinnon & White 1985): common rows settle that fit, so that rare rows do not choose the
    point at which they are judged. Logistic loss with an intercept is never symmetric: see `beyond_offset` for what an offset leaves.

    Args:
        model: the loss.
        common, rare: (n0, p), (n1, p).
        published: the paper's statistic.
    """
    return _published_symmetry(model, common, rare) if published else _score_symmetry(model, common, rare)


def _published_symmetry(model: Model, common: np.ndarray, rare: np.ndarray) -> Wald:
    theta = model.fit(common, rare)
    s0, s1 = model.gradients(theta, common, 0), model.gradients(theta, rare, 1)
    h0, h1 = model.hessian(theta, common, 0), model.hessian(theta, rare, 1)
    bent = solved(h0 + h1, h0 - h1).T  # (1/2) G H^-1
    a0, a1 = np.eye(len(theta)) - bent, -np.eye(len(theta)) - bent
    spread = a0 @ _covariance(s0) @ a0.T / len(s0) + a1 @ _covariance(s1) @ a1.T / len(s1)
    gap = s0.mean(0) - s1.mean(0)
    statistic = float(gap @ solved(spread, gap))
    return Wald(statistic, len(gap), float(chi2.sf(statistic, len(gap))))


def _score_symmetry(model: Model, common: np.ndarray, rare: np.ndarray) -> Wald:
    theta, inverse, leverages = _fitted(model, common, rare, (len(common), len(rare)))
    s0, s1 = (model.gradients(theta, X, c) / np.sqrt(1 - leverages[c])[:, None] for c, X in enumerate((common, rare)))
    through = inverse @ (len(rare) * model.hessian(theta, rare, 1))
    influence = np.concatenate([-s0 @ through, s1 @ (np.eye(len(through)) - through)])
    gap = model.gradients(theta, rare, 1).sum(0)
    # About zero and not about the mean: what the gap adds to its own covariance keeps chi2 right in small samples.
    statistic = float(gap @ solved(influence.T @ influence, gap))
    return Wald(statistic, len(gap), float(chi2.sf(statistic, len(gap))))


def _fitted(
    model: Model, common: np.ndarray, rare: np.ndarray, totals: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The fit that gives the sides these totals of weight: theta, the inverse of the summed Hessian, leverages of the rows of each side."""
    theta = model.fit(common, rare, (totals[0] / sum(totals), totals[1] / sum(totals)))
    bend = sum(w * model.hessian(theta, X, c) for c, (w, X) in enumerate(zip(totals, (common, rare), strict=True)))
    inverse = solved(np.asarray(bend), np.eye(len(theta)))
    leverages = [
        w / len(X) * model.curvatures(theta, X, c) * np.einsum("ni,ij,nj->n", X, inverse, X, optimize=True)
        for c, (w, X) in enumerate(zip(totals, (common, rare), strict=True))
    ]
    return theta, inverse, [np.minimum(one, 0.999) for one in leverages]


def beyond_offset(model: Model, common: np.ndarray, rare: np.ndarray) -> Wald:
    """Ours: tests that balancing the sides moves no slope, so that the exact offset does all that balancing can.

    A well-specified logistic model passes: there neither weights nor a perfect generator's rows do more than the offset (Prentice & Pyke
    1979). Compares the slopes of the balanced and the natural fit (Hausman 1978) by their influences with leverages as in HC3, as two
    samples of unequal covariance (degrees of freedom of Krishnamoorthy & Yu 2004); it errs towards passing under a hundred rare rows.

    Args:
        model: the loss, with an intercept.
        common, rare: (n0, p), (n1, p); p at least 2.
    """
    moved = np.zeros(common.shape[1] - 1)
    influence = [np.zeros((len(X), len(moved))) for X in (common, rare)]
    for sign, totals in ((1, (0.5, 0.5)), (-1, (len(common), len(rare)))):
        theta, inverse, leverages = _fitted(model, common, rare, totals)
        moved += sign * theta[:-1]
        for c, X in enumerate((common, rare)):
            felt = model.gradients(theta, X, c) * (totals[c] / len(X) / (1 - leverages[c]))[:, None]
            influence[c] += sign * (felt @ inverse)[:, :-1]
    return _two_samples(moved, influence)


def _two_samples(estimate: np.ndarray, influence: Sequence[np.ndarray]) -> Wald:
    """Hotelling's T2 of what independent rows of two populations add up to; p-value 1 where too few rows leave no degree of freedom."""
    p, parts = len(estimate), [_covariance(rows) * len(rows) for rows in influence]
    total = np.asarray(sum(parts))
    statistic = float(estimate @ solved(total, estimate))
    spent = [
        (np.trace(m @ m) + np.trace(m) ** 2) / (len(rows) - 1) for m, rows in zip((solved(total, c) for c in parts), influence, strict=True)
    ]
    df = (p + p**2) / float(sum(spent)) - p + 1
    return Wald(statistic, p, float(snedecor.sf(statistic * df / (p * (df + p - 1)), p, df)) if df > 0 else 1.0)


@dataclass(frozen=True)
class CrossFit:
    """Rare rows' gradients, each at the balanced fit of the other folds.

    Args:
        model: the loss.
        held: the K folds that hold out rows of both sides.
        thetas: (K, p).
        fold: (n1,) index into thetas of each held-out rare row.
        scores: (n1, p) its gradient there.
        hessian: (p, p) mean of the held-out sides' Hessians, halves.
        common: (p, p) covariance of the common rows' held-out gradients.
        sizes: n0, n1.
    """

    model: Model
    held: tuple[int, ...]
    thetas: np.ndarray
    fold: np.ndarray
    scores: np.ndarray
    hessian: np.ndarray
    common: np.ndarray
    sizes: tuple[int, int]


def cross_fit(model: Model, common: np.ndarray, rare: np.ndarray, folds: tuple[np.ndarray, np.ndarray]) -> CrossFit:
    """Balanced fits on all folds but one, for every fold that holds out rows of both sides.

    Args:
        model: the loss.
        common, rare: (n0, p), (n1, p).
        folds: (n0,), (n1,) fold ids; below 0 where a row is never held out.

    Raises:
        CandidateError: no such fold, or a fit that fails.
    """
    sides = common, rare
    held = np.intersect1d(folds[0][folds[0] >= 0], folds[1])
    if not len(held) or any(np.all(np.isin(f, held[:1])) for f in folds):
        raise CandidateError("no fold holds out rows of both sides and leaves rows of both to the pilot")
    thetas, fold, kept = [], [], ([], [], [])  # type: ignore[var-annotated]
    for index, k in enumerate(held):
        outside = [X[f != k] for X, f in zip(sides, folds, strict=True)]
        inside = [X[f == k] for X, f in zip(sides, folds, strict=True)]
        theta = model.fit(outside[0], outside[1])
        thetas.append(theta)
        fold.append(np.full(len(inside[1]), index))
        for c, X in enumerate(inside):
            kept[c].append(model.gradients(theta, X, c))
        kept[2].append(np.mean([model.hessian(theta, X, c) for c, X in enumerate(inside)], axis=0))
    usual, scores = (np.concatenate(rows) for rows in kept[:2])
    sizes, fits = (len(common), len(rare)), (tuple(map(int, held)), np.stack(thetas), np.concatenate(fold))
    return CrossFit(model, *fits, scores, np.mean(kept[2], axis=0), _covariance(usual), sizes)


@dataclass(frozen=True, eq=False)
class Quality:
    """How far a generator's rare rows are from real ones, in what the fit feels.

    Args:
        bias: (p,) g_psi, synthetic minus held-out mean gradient.
        published: the paper's quality score: the bias's cost at full balance over the variance's; its bound is TOLERATED.
        score: ours: the same with the noise of the bias taken out; 0 in the mean for a perfect generator, whatever n0 / n1.
        test: of bias = 0.
    """

    bias: np.ndarray
    published: float
    score: float
    test: Wald


def quality(fits: CrossFit, drawn: Sequence[np.ndarray], rng: np.random.Generator) -> Quality:
    """Judges rows that were drawn for each fold by a generator that had not seen it.

    The published score holds the noise of the bias times (n0 - n1)^2 / n0: of a perfect generator it grows with n0 / n1, and its bound of
    10 flags half of them at n0 = 20 n1. Ours subtracts tr(H^-1 Cov(bias)). Its test has the null of a perfect generator: in every fold
    held-out and drawn rows are then exchangeable, so sets of held-out size drawn from both together show what the bias would be
    (Efron & Tibshirani 1993, 16.2). Gradients of a dozen rare rows are too skew for Hotelling's T2, which rejects three times too often.
    What a generator took over from the few rows it learned from, their sampling error, is bias like any other.

    Args:
        fits: of `cross_fit`.
        drawn: K arrays (m_k, p), in the order of `fits.held`.
        rng: of the redrawn sets.
    """
    n0, n1 = fits.sizes
    own = [fits.model.gradients(theta, X, 1) for theta, X in zip(fits.thetas, drawn, strict=True)]
    bias = np.mean([s.mean(0) - fits.scores[fits.fold == k].mean(0) for k, s in enumerate(own)], axis=0)
    pairs = [_pair(fits.scores[fits.fold == k], s) for k, s in enumerate(own)]
    noise = np.sum([both.T @ both / len(both) * scale for both, _, scale in pairs], axis=0) / len(pairs) ** 2
    cost = (n0 - n1) ** 2 / (2 * n0)
    synthetic, rare = _covariance(np.concatenate(own)), _covariance(fits.scores)
    unit = np.trace(solved(fits.hessian, fits.common / 2 + n1 / (2 * n0) * rare + (n0 - n1) / (2 * n0) * synthetic))
    square, chance = float(bias @ solved(fits.hessian, bias)), float(np.trace(solved(fits.hessian, noise)))
    return Quality(bias, float(cost * square / unit), float(cost * (square - chance) / unit), _exchanged(bias, noise, pairs, rng))


Pair = tuple[np.ndarray, int, float]


def _pair(held: np.ndarray, drawn: np.ndarray) -> Pair:
    """Both about their common mean, the rows held out, and what a difference of means has of a row's variance."""
    both = np.concatenate([held, drawn])
    return both - both.mean(0), len(held), 1 / len(held) + 1 / len(drawn)


def _exchanged(bias: np.ndarray, noise: np.ndarray, pairs: Sequence[Pair], rng: np.random.Generator) -> Wald:
    inverse = solved(noise, np.eye(len(bias)))
    statistic = float(bias @ inverse @ bias)
    if sum(many for _, many, _ in pairs) >= MANY:
        return Wald(statistic, len(bias), float(chi2.sf(statistic, len(bias))))
    found = np.zeros((REDRAWS, len(bias)))
    for both, many, scale in pairs:
        # Means of `many` rows with replacement, widened to the variance of a difference of means.
        means = both[rng.integers(0, len(both), (REDRAWS, many))].mean(1)
        found += means * np.sqrt(scale * many) / len(pairs)
    reached = int(np.count_nonzero(np.einsum("bi,ij,bj->b", found, inverse, found) >= statistic))
    return Wald(statistic, len(bias), (reached + 1) / (REDRAWS + 1))


def theory_size(g_phi: np.ndarray, g_psi: np.ndarray, n0: float, n1: float) -> float | None:
    """(n0 - n1) / (1 - 2 (|g_psi| / |g_phi|) cos): synthetic rows that bring the fit to the balanced one; None where none do."""
    left = 1 - pull(g_phi, g_psi)
    return (n0 - n1) / left if left > 0 else None


def pull(g_phi: np.ndarray, g_psi: np.ndarray) -> float:
    """2 (|g_psi| / |g_phi|) cos: how far the generator's bias goes the way of the asymmetry; 0 where there is no asymmetry."""
    square = float(g_phi @ g_phi)
    return 2 * float(g_phi @ g_psi) / square if square > 0 else 0.0


def combined(groups: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> float | None:
    """Ours: one gamma (size over gap) for several rare groups, each against its own common one.

    Stacking one model per group, the rows that balance adds being d_g, the same expansion gives
    1 / (1 - 2 sum d_g^2 <g_phi, g_psi> / sum d_g^2 |g_phi|^2): the paper's for one group. None where the bias wins.

    Args:
        groups: (g_phi, g_psi, d_g) each.
    """
    down = sum(d**2 * float(g_phi @ g_phi) for g_phi, _, d in groups)
    along = sum(d**2 * 2 * float(g_phi @ g_psi) for g_phi, g_psi, d in groups)
    left = 1 - along / down if down > 0 else 1.0
    return 1 / left if left > 0 else None


def tg_candidates(
    gap: int, symmetric: bool, biased: bool, optimum: float | None, *, published: bool = False, ceiling: int | None = None
) -> tuple[int, ...]:
    """Synthetic sizes to try, ascending.

    Published: at most .2 of the gap under symmetry; around the gap and the theory's size where the generator passes; else 0 to 2 gaps
    without the theory's size, so that an optimum beyond twice the gap cannot be found. Ours holds the wide grid, the theory's size and its
    neighbours whatever the tests say: with ten rare rows tests find nothing, and sizes go wrong most. Where the bias wins and theory has
    no size, the wide grid is stretched to the ceiling.

    Args:
        gap: n0 - n1.
        symmetric: the symmetry test did not reject; ours does not ask.
        biased: the quality score is over its bound; ours does not ask.
        optimum: of `theory_size`.
        published: the paper's grid.
        ceiling: ours: most rows, 2 gaps where None.
    """
    near = [] if optimum is None else [g * optimum for g in NARROW]
    if published:
        grid = SYMMETRIC if symmetric else WIDE if biased else NARROW
        asked = [g * gap for g in grid] + (near if grid is NARROW else [])
        return tuple(sorted({round(size) for size in asked}))
    most = 2 * gap if ceiling is None else ceiling
    wide = [g * (gap if optimum is not None else most / 2) for g in WIDE]
    return tuple(sorted({min(round(size), most) for size in wide + near}))

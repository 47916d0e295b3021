"""Bias-corrected synthesis (Lyu, Ma, Zhang & Zhang 2025): a generator's bias, seen on the majority and taken off; knows no model.

The paper (arXiv:2510.26046) corrects the loss on a rare group's real and synthetic rows by the bias that the same generator shows on
majority rows. Its exact estimator is not known to us; this is a documented reconstruction. For a rare group g of n rows, s drawn ones:

- donors: the largest group of another label, cut at random into blocks of n rows, or into two halves where it holds no two such blocks;
  one block alone is far too noisy, so all are used (of at most DONORS rows) and averaged;
- every block draws as many rows as it has by the same generator as g. They enter with total weight -s, and with total weight +s enter
  donor rows that the block does not hold (held_out: every block's are the next one's, so that each donor row counts once) or its own;
- both are moved (centred) from their block's mean to the mean of g in the columns that are not indicators, and scored with g's label, so
  that the bias is taken where the rare rows lie. Scored with their own label they harm a network, and a linear model of classes that
  are not normal: both take donor rows that stand among rare ones for what they say they are (measured: docs/claims.md).

So L(theta) = real rows + s rows of g - s (mean loss of the donors' drawn rows - mean loss of donor rows): weight is added to g alone.
It rests on the generator doing to g what it does to the donors. Weights below 0 make a loss non-convex: only learners that say so take
them (Needs.negative); a library that ignores the sign must not see them. A table of rows with negative weights is of no use to anybody
else's learner, so such a candidate is reported and never shipped.

What it is worth (docs/claims.md): it beats SMOTE and class weights, the more so the more columns. On normal classes the offset alone beats
it with a logistic regression and equals it with a network; on digits it beats the offset. A generator whose bias helps, such as jitter,
which spreads the rows as a ridge would, loses by having it taken off from a logistic regression.

Only generators that cost nothing run here, in encoded space, since a trial may run no plug-in: `smote` and `jitter`.

Several tasks at once (the paper's multi-task extension) are groups here: every group that lacks rows gets a correction of its own. The
average treatment effect carries over to outcome regression by least squares, in closed form (`ate`); not to propensity weighting, which
has no loss on outcomes from which a bias could be taken off.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codsa_ray.errors import CandidateError

NEIGHBOURS = 5
SHAKE = 0.3  # deviation of the jitter, times the column's own in the group
DONORS = 20_000  # donor rows at most: beyond, more blocks average out what is noise no more
BLOCK = 2_048  # rows whose distances are held at a time

Synthesize = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Signed:
    """Rows to append to the real ones.

    Args:
        X: (m, d) encoded rows.
        y: (m,) class ids.
        group: (m,) group ids.
        weight: (m,) of either sign; in each group they sum to the rows asked for.
    """

    X: np.ndarray
    y: np.ndarray
    group: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class BiasCorrection:
    """Which of the reconstructions.

    Args:
        centred: move donors to the rare group's mean; otherwise they stay where they are.
        held_out: compare a block's drawn rows with donor rows outside of it; otherwise with the block itself.
        own_label: score donors with their own label; otherwise with the rare group's, to which they then count.
    """

    centred: bool = True
    held_out: bool = True
    own_label: bool = False


def bias_corrected(
    X: np.ndarray,
    y: np.ndarray,
    group: np.ndarray,
    counts: np.ndarray,
    synthesize: Synthesize,
    rng: np.random.Generator,
    settings: BiasCorrection = BiasCorrection(),
) -> Signed:
    """Synthetic rows of the groups that are asked for, and the signed donor rows that take their bias off.

    Args:
        X: (n, d) encoded real rows.
        y: (n,) class ids, one per group.
        group: (n,) group ids, none negative.
        counts: (G,) synthetic rows of each group.
        synthesize: (rows of a group, how many, rng) -> drawn rows.
        rng: of everything random.
        settings: see BiasCorrection.

    Raises:
        CandidateError: a group that is asked for has no row, or no group of another label holds two.
    """
    X = np.asarray(X, dtype=np.float64)
    moved = ~indicators(X)
    parts = []
    for one in np.flatnonzero(counts):
        rare = X[group == one]
        if not len(rare):
            raise CandidateError(f"bias correction: {counts[one]} rows are wanted of group {one}, which has none to learn from")
        label = y[group == one][0]
        drawn, size = synthesize(rare, int(counts[one]), rng), int(counts[one])
        parts.append(Signed(drawn, np.full(size, label), np.full(size, one), np.ones(size)))
        donor = largest_other(y, group, label)
        off, weight = _donors(X[group == donor], rare, synthesize, rng, settings, moved)
        worn = np.full(len(off), y[group == donor][0] if settings.own_label else label)
        of = np.full(len(off), donor if settings.own_label else one)
        parts.append(Signed(off, worn, of, size * weight))
    return _joined(parts, X.shape[1])


def _joined(parts: list[Signed], columns: int) -> Signed:
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Signed(np.zeros((0, columns)), none, none, np.zeros(0))
    return Signed(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("X", "y", "group", "weight")))


def largest_other(y: np.ndarray, group: np.ndarray, label: int) -> int:
    """The largest group of another label, the first of several.

    Raises:
        CandidateError: none has two rows.
    """
    sizes = np.bincount(group[y != label]) if (y != label).any() else np.zeros(1)
    if sizes.max() < 2:
        raise CandidateError(f"bias correction: no group of another label than {label} has two rows to serve as donors")
    return int(sizes.argmax())


def _donors(
    donors: np.ndarray, rare: np.ndarray, synthesize: Synthesize, rng: np.random.Generator, settings: BiasCorrection, moved: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Donor rows, drawn ones first, and their weights: -1 in all on the drawn ones, +1 in all on the real ones."""
    size = min(len(rare), len(donors) // 2)
    most = max(min(len(donors), DONORS) // size, 2)
    blocks = rng.permutation(len(donors))[: most * size].reshape(-1, size)
    drawn, real = [], []
    for index, block in enumerate(blocks):
        rows = donors[block]
        shift = np.where(moved, rare.mean(axis=0) - rows.mean(axis=0), 0.0) if settings.centred else 0.0
        beside = donors[blocks[(index + 1) % len(blocks)]] if settings.held_out else rows
        drawn.append(synthesize(rows, size, rng) + shift)
        real.append(beside + shift)
    return np.concatenate(drawn + real), np.repeat([-1.0, 1.0], blocks.size) / blocks.size


def indicators(X: np.ndarray) -> np.ndarray:
    """(d,) bool: columns that hold nothing but 0 and 1, such as one-hot columns and flags of null."""
    return np.asarray(((X == 0) | (X == 1)).all(axis=0))


def smote(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Points on segments from a row to one of its NEIGHBOURS nearest others (Chawla et al. 2002), indicators from the nearer end.

    Args:
        rows: (n, d) rows of a group; fewer than two are copied.
        size: how many to draw.
        rng: of everything random.

    Returns:
        (size, d); starts are as even as can be.
    """
    start = np.resize(rng.permutation(len(rows)), size)
    k = min(NEIGHBOURS, len(rows) - 1)
    if k == 0 or size == 0:
        return rows[start]
    end = nearest(rows, k)[start, rng.integers(0, k, size)]
    along = rng.random((size, 1))
    whole = indicators(rows)
    return np.where(whole, np.where(along < 0.5, rows[start], rows[end]), rows[start] + along * (rows[end] - rows[start]))


def nearest(rows: np.ndarray, k: int) -> np.ndarray:
    """(n, k) positions of the k nearest other rows, in no order."""
    squares = np.square(rows).sum(axis=1)
    found = np.empty((len(rows), k), dtype=np.int64)
    for first in range(0, len(rows), BLOCK):
        part = rows[first : first + BLOCK]
        # Without the row's own square, which orders nothing.
        away = squares - 2 * part @ rows.T
        away[np.arange(len(part)), first + np.arange(len(part))] = np.inf
        found[first : first + BLOCK] = np.argpartition(away, k - 1, axis=1)[:, :k]
    return found


def jitter(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn again, as evenly as can be, with normal noise of SHAKE deviations on what is no indicator (a smoothed bootstrap)."""
    start = np.resize(rng.permutation(len(rows)), size)
    noise = rng.normal(size=(size, rows.shape[1])) * SHAKE * rows.std(axis=0)
    return rows[start] + np.where(indicators(rows), 0.0, noise)


def ate(
    X: np.ndarray, outcome: np.ndarray, treated: np.ndarray, size: int, synthesize: Synthesize, rng: np.random.Generator, ridge: float = 0.0
) -> float:
    """Average treatment effect by outcome regression, the rarer arm filled up by bias-corrected rows: mean over real rows of f_1 - f_0.

    The arms are the groups and a row is a covariate with its outcome, drawn together. Each arm has least squares of its own, so donors
    are scored in the rare arm: in their own they would correct the other arm's fit. Signed weights enter the normal equations as any do.

    Args:
        X: (n, d) covariates.
        outcome: (n,).
        treated: (n,) 0 or 1.
        size: rows to draw for the rarer arm; 0 is plain outcome regression.
        synthesize, rng: see bias_corrected.
        ridge: added to the normal equations, intercept excepted.

    Raises:
        CandidateError: the weighted normal equations of an arm are not positive definite.
    """
    arm = treated.astype(np.int64)
    counts = np.zeros(2, dtype=np.int64)
    counts[np.bincount(arm, minlength=2).argmin()] = size
    added = bias_corrected(np.column_stack([X, outcome]), arm, arm, counts, synthesize, rng)
    rows = np.vstack([np.column_stack([X, outcome]), added.X.reshape(-1, X.shape[1] + 1)])
    arms, weight = np.concatenate([arm, added.y]), np.concatenate([np.ones(len(X)), added.weight])
    control, treatment = (_least_squares(rows[arms == a], weight[arms == a], ridge) for a in (0, 1))
    return float(np.mean(np.column_stack([X, np.ones(len(X))]) @ (treatment - control)))


def _least_squares(rows: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    """(d + 1,) coefficients of the last column on the others, intercept last."""
    design, outcome = np.column_stack([rows[:, :-1], np.ones(len(rows))]), rows[:, -1]
    gram = (design.T * weight) @ design + ridge * np.diag([1.0] * (design.shape[1] - 1) + [0.0])
    if np.linalg.eigvalsh(gram).min() <= 1e-10 * np.abs(gram).max():
        raise CandidateError("bias correction: the normal equations of an arm are not positive definite; draw fewer rows")
    return np.asarray(np.linalg.solve(gram, design.T @ (weight * outcome)))

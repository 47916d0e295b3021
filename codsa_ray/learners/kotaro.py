"""Kernel interpolation with a width of its own for every centre (KOTARO; Nishimura et al. 2025); knows only distances of numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import CandidateError
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, log_probabilities
from codsa_ray.seeds import rng_of

EXACT = 5_000  # distinct rows up to which each is a centre
BLOCK = 2_048  # rows whose kernel is held at a time


@dataclass(frozen=True)
class Kotaro:
    """f(x) = sum_i w_i exp(-gamma_i |x - x_i|^2) with gamma_i = 1 / d_i^power, d_i the distance from x_i to its n-th neighbour.

    Dense regions, where the majority lives, get narrow bumps and sparse ones wide bumps. One such f per class is fitted to its labels
    +-1 (arXiv:2510.04046 has two classes, an exact interpolant and no ridge, whose matrix is singular in doubles for power 1):

        w = argmin sum_j weight_j (f(x_j) - y_j)^2 + ridge |w|^2,

    weights having mean 1 over distinct rows. Copies of a row are one row with their weights together and their mean label, so that they
    are nobody's neighbours. Scores: log-probabilities log softmax_c(slope f_c(x) + bias_c), the link fitted to the leave-one-out values
    of f, which have the closed form (f - h y) / (1 - h), h a row's own leverage (the bumps never saw a label, so they stay).

    Args:
        ridge: squared length of w that is worth a squared error of 1 of one row.
        power: 1 or 2.
        neighbours: n, among all distinct training rows but the row itself.
        landmarks: centres once there are more than EXACT distinct rows (Nystrom): the rare classes whole, the others at random.
    """

    ridge: float = 0.1
    power: float = 2.0
    neighbours: int = 5
    landmarks: int = 1_500

    @property
    def needs(self) -> Needs:
        """One core; about 8 bytes x (centres^2 + BLOCK x rows)."""
        return Needs(tasks=frozenset({"classification"}))

    def variants(self) -> tuple[Self, ...]:
        """These settings; wider neighbourhoods; these with a stronger ridge; the wider bumps of power 1 with it."""
        wide, strong = replace(self, neighbours=4 * self.neighbours), 10 * self.ridge
        return (self, wide, replace(wide, ridge=strong), replace(self, power=3 - self.power, ridge=strong))

    def encoder(self, train: pa.Table, schema: Schema) -> OneHot:
        """Standardised and one-hot columns."""
        return OneHot.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The interpolant and its link in float64; `seed` chooses landmarks alone. It takes no offset.

        Raises:
            CandidateError: values that are not finite, or a singular matrix.
        """
        assert offset is None, "needs.offset is False"
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        if not np.isfinite(X).all():
            bad = int((~np.isfinite(X)).any(axis=1).sum())
            raise CandidateError(f"kotaro: {bad} of {len(X)} encoded rows hold values that are not finite")
        rows, share, mass = distinct(X, labels, weight, len(present))
        with threadpool_limits(1):
            chosen = centres(share, mass, self.landmarks, seed) if len(rows) > EXACT else np.arange(len(rows))
            gamma = widths(rows, chosen, self.neighbours, self.power)
            bumps = Bumps(rows[chosen], gamma)
            coefficients, margins = self._solve(bumps, rows, 2 * share - 1, mass)
            slope, bias = link(margins, share, mass)
        return Interpolant(bumps, coefficients, slope, bias, present, classes)

    def _solve(self, bumps: "Bumps", rows: np.ndarray, target: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(m, P) coefficients and (n, P) leave-one-out values, the kernel computed twice and never held whole."""
        size = len(bumps.gamma)
        gram, right = self.ridge * np.eye(size), np.zeros((size, target.shape[1]))
        for part, kernel in bumps.blocks(rows):
            scaled = kernel * np.sqrt(mass[part])[:, None]
            gram += scaled.T @ scaled
            right += kernel.T @ (mass[part, None] * target[part])
        try:
            root = cholesky(gram, lower=True, overwrite_a=True)
        except LinAlgError as error:
            raise CandidateError(f"kotaro: the kernel's matrix is singular at ridge {self.ridge:g}; raise it") from error
        coefficients = cho_solve((root, True), right)
        margins = np.empty_like(target)
        for part, kernel in bumps.blocks(rows):
            leverage = mass[part] * np.square(solve_triangular(root, kernel.T, lower=True)).sum(axis=0)
            leverage = np.minimum(leverage, 1 - 1e-9)[:, None]
            margins[part] = (kernel @ coefficients - leverage * target[part]) / (1 - leverage)
        return coefficients, margins

    @classmethod
    def tiny(cls) -> Self:
        """The default: it is fast enough."""
        return cls()


def distinct(X: np.ndarray, labels: np.ndarray, weight: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, d) distinct rows in float64, (n, P) share of each class in a row's weight, (n,) weights with mean 1."""
    rows, place = np.unique(X, axis=0, return_inverse=True)
    held = np.zeros((len(rows), columns))
    np.add.at(held, (place.ravel(), labels), weight)
    mass = held.sum(axis=1)
    return rows.astype(np.float64), held / mass[:, None], mass / mass.mean()


def centres(share: np.ndarray, mass: np.ndarray, size: int, seed: int) -> np.ndarray:
    """(<= size,) sorted rows: an equal number of each class, where a class has fewer all of it and the others more."""
    label = share.argmax(axis=1)
    left, chosen = size, []
    order = np.argsort(np.bincount(label, minlength=share.shape[1]), kind="stable")
    for turn, one in enumerate(order):
        mine = np.flatnonzero(label == one)
        take = min(len(mine), left // (len(order) - turn))
        chosen.append(rng_of(seed, "landmarks", int(one)).choice(mine, take, replace=False))
        left -= take
    return np.sort(np.concatenate(chosen))


def widths(rows: np.ndarray, chosen: np.ndarray, neighbours: int, power: float) -> np.ndarray:
    """(m,) gamma of each chosen row: its distance to the n-th nearest of the other rows (the last, if there are fewer) to minus power."""
    nth = min(neighbours, len(rows) - 1)
    if nth == 0:
        return np.ones(len(chosen))
    found = np.empty(len(chosen))
    for start in range(0, len(chosen), BLOCK):
        part = chosen[start : start + BLOCK]
        squares = squared(rows[part], rows)
        squares[np.arange(len(part)), part] = -1.0  # itself comes first, whatever the rounding
        found[start : start + BLOCK] = np.partition(squares, nth, axis=1)[:, nth]
    # Rows so close that rounding hides it keep a finite width.
    return np.maximum(found, 1e-12) ** (-power / 2)


def squared(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """(a, b) squared distances."""
    return np.maximum(np.square(A).sum(axis=1)[:, None] + np.square(B).sum(axis=1) - 2 * A @ B.T, 0.0)


def link(margins: np.ndarray, share: np.ndarray, mass: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope > 0 and (P,) biases of least log loss (Platt 1999, with his softened labels, for any number of classes).

    The log slope is pulled towards 0 as by a standard normal prior: 1 is the slope near f = 0 of labels' mean f. Without it, a handful of
    rare rows whose left-out values lean against the label by chance would set the slope to 0 and lose the order of the rows with it.

    Args:
        margins: (n, P) values of f for rows it did not see.
        share: (n, P) share of each class in a row's weight.
        mass: (n,) weights with mean 1.
    """
    columns = margins.shape[1]
    total = mass @ share
    doubt = 1 / (total + 2)
    target = share * (1 - doubt) + (share @ doubt)[:, None] / (columns - 1) - share * doubt / (columns - 1)
    part = mass[:, None] / mass.sum()

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(theta[0])
        logits = slope * margins + theta[1:]
        error = part * (softmax(logits, axis=1) - target)
        value = -np.sum(part * target * log_softmax(logits, axis=1)) + theta[0] ** 2 / (2 * len(mass))
        return float(value), np.concatenate([[slope * np.sum(error * margins) + theta[0] / len(mass)], error.sum(axis=0)])

    start = np.concatenate([[0.0], np.log(total / total.sum())])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9})
    return float(np.exp(found.x[0])), found.x[1:] - found.x[1:].mean()


@dataclass(frozen=True)
class Bumps:
    """The basis.

    Args:
        centres: (m, d) float64.
        gamma: (m,).
    """

    centres: np.ndarray
    gamma: np.ndarray

    def blocks(self, X: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of at most BLOCK rows and their (b, m) kernel."""
        for start in range(0, len(X), BLOCK):
            part = slice(start, start + BLOCK)
            yield part, np.exp(-self.gamma * squared(X[part], self.centres))


@dataclass(frozen=True)
class Interpolant:
    """A fitted interpolant.

    Args:
        bumps: its basis.
        coefficients: (m, P).
        slope, bias: of the link, () and (P,).
        present: (P,) class ids.
        classes: C.
    """

    bumps: Bumps
    coefficients: np.ndarray
    slope: float
    bias: np.ndarray
    present: np.ndarray
    classes: int

    def margins(self, X: np.ndarray) -> np.ndarray:
        """(n, P) values of f, before the link; the paper predicts the class of the largest."""
        found = np.empty((len(X), len(self.present)))
        with threadpool_limits(1):
            for part, kernel in self.bumps.blocks(np.asarray(X, dtype=np.float64)):
                found[part] = kernel @ self.coefficients
        return found

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        return log_probabilities(self.slope * self.margins(X) + self.bias, self.present, self.classes)

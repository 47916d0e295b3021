"""Pilot: a linear model of common against rare rows, its gradients, curvatures and fit; knows no test and no data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from codsa_ray.errors import CandidateError

RIDGE = 1e-6
STEPS = 100
CONVERGED = 1e-9  # Newton decrement, in units of the mean loss

OfScores = Callable[[np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class Model:
    """A loss of the linear score X @ theta; the ridge penalty counts as part of every row's loss, so every formula holds with it.

    Args:
        value, slope, curvature: of (n,) scores and a side's target.
        targets: of common and of rare rows.
        ridge: penalty / 2 * squared length of theta, beside the mean loss.
        intercept: the last column is ones and its parameter goes without penalty.
    """

    value: OfScores
    slope: OfScores
    curvature: OfScores
    targets: tuple[float, float] = (0.0, 1.0)
    ridge: float = RIDGE
    intercept: bool = True

    def penalty(self, p: int) -> np.ndarray:
        """(p,) penalty of each parameter."""
        held = np.full(p, self.ridge)
        held[p - self.intercept :] = 0.0
        return held

    def gradients(self, theta: np.ndarray, X: np.ndarray, side: int) -> np.ndarray:
        """(n, p) gradient of each row's loss."""
        return self.slope(X @ theta, self.targets[side])[:, None] * X + self.penalty(len(theta)) * theta

    def curvatures(self, theta: np.ndarray, X: np.ndarray, side: int) -> np.ndarray:
        """(n,) second derivative of each row's loss in its score."""
        return self.curvature(X @ theta, self.targets[side])

    def hessian(self, theta: np.ndarray, X: np.ndarray, side: int) -> np.ndarray:
        """(p, p) mean Hessian."""
        bent = self.curvatures(theta, X, side) / len(X)
        return np.asarray((X.T * bent) @ X + np.diag(self.penalty(len(theta))))

    def risk(self, theta: np.ndarray, sides: Sequence[np.ndarray], shares: Sequence[float]) -> float:
        """sum of share x mean loss over the sides."""
        means = [np.mean(self.value(X @ theta, target)) for X, target in zip(sides, self.targets, strict=True)]
        return float(np.dot(shares, means) + np.sum(shares) * (self.penalty(len(theta)) @ theta**2) / 2)

    def fit(
        self, common: np.ndarray, rare: np.ndarray, shares: tuple[float, float] = (0.5, 0.5), start: np.ndarray | None = None
    ) -> np.ndarray:
        """(p,) minimiser of the risk at these shares of the sides, by damped Newton steps (one step for squared loss).

        Args:
            common, rare: (n0, p), (n1, p).
            shares: weights of the sides' risks, summing to 1.
            start: (p,) where to begin, 0 where None.

        Raises:
            CandidateError: a singular Hessian, values that are not finite, no convergence in STEPS steps.
        """
        sides = (common, rare)
        theta, risk = np.zeros(common.shape[1]) if start is None else start, np.inf
        for _ in range(STEPS):
            slope = sum(w * self.gradients(theta, X, c).mean(0) for c, (w, X) in enumerate(zip(shares, sides, strict=True)))
            bend = sum(w * self.hessian(theta, X, c) for c, (w, X) in enumerate(zip(shares, sides, strict=True)))
            step = solved(np.asarray(bend), np.asarray(slope))
            risk = self.risk(theta, sides, shares)
            if not np.isfinite(risk):
                break
            if slope @ step < CONVERGED * max(1.0, abs(risk)):
                return theta - step
            length = 1.0
            while self.risk(theta - length * step, sides, shares) > risk - 1e-4 * length * (slope @ step) and length > 1e-10:
                length /= 2
            theta = theta - length * step
        raise CandidateError(f"the pilot fit of {len(common)} and {len(rare)} rows did not converge in {STEPS} steps: mean loss {risk:.3g}")


LOGISTIC = Model(
    value=lambda score, target: np.logaddexp(0.0, score) - target * score,
    slope=lambda score, target: expit(score) - target,
    curvature=lambda score, target: expit(score) * expit(-score),
)
SQUARED = Model(
    value=lambda score, target: np.square(score - target),
    slope=lambda score, target: 2.0 * (score - target),
    curvature=lambda score, target: np.full(len(score), 2.0),
)


def solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """matrix^-1 right.

    Raises:
        CandidateError: a singular matrix, or values that are not finite.
    """
    try:
        found = np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError as error:
        raise CandidateError(f"a pilot of {len(matrix)} parameters has a singular matrix; too few rows or redundant columns") from error
    if not np.all(np.isfinite(found)):
        raise CandidateError(f"a pilot of {len(matrix)} parameters has values that are not finite")
    return np.asarray(found)

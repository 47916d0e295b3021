"""Logistic regression with a ridge penalty and offsets (Menon et al. 2021); knows no encoding beyond numbers without NaN."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import CandidateError
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, log_probabilities

PENALTIES = (1e-3, 1e-2, 1e-1, 1e-4, 1e-5)
WIDE = 1500  # columns beyond which the cube of their number costs more than the steps it saves
CONVERGED = 1e-3  # largest entry of the gradient of the mean loss (nats) that still counts as a minimum


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression: weighted MEAN log loss + penalty / 2 * sum of squared coefficients, one vector per class.

    The penalty is relative to the mean: it is the only form in which a weight of 2 equals two copies and a common factor of all weights
    changes nothing, and so synthetic rows do not loosen it. sklearn's C is 1 / (penalty * sum of weights); its two-class form has one
    vector where this one has two of opposite sign, so there C is 2 / (penalty * sum of weights). Intercepts are free.

    Args:
        penalty: ridge penalty per nat of mean loss.
        steps: most L-BFGS iterations.
    """

    penalty: float = PENALTIES[0]
    steps: int = 1000

    @property
    def needs(self) -> Needs:
        """One core; about 24 bytes per encoded value."""
        return Needs(tasks=frozenset({"classification"}), offset=True)

    def variants(self) -> tuple[Self, ...]:
        """This penalty, then the others of PENALTIES."""
        return (self, *(replace(self, penalty=p) for p in PENALTIES if p != self.penalty))

    def encoder(self, train: pa.Table, schema: Schema) -> OneHot:
        """Standardised and one-hot columns."""
        return OneHot.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The minimum of the objective in float64; `seed` is not used.

        Raises:
            CandidateError: the objective is not finite or did not converge.
        """
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        fixed = np.zeros((1, 1)) if offset is None else np.asarray(offset, dtype=np.float64)[:, present]
        share = weight / weight.sum()
        if not np.isfinite(X).all():
            bad = int((~np.isfinite(X)).any(axis=1).sum())
            raise CandidateError(f"logistic regression: {bad} of {len(X)} encoded rows hold values that are not finite")
        # One thread, since the order of a sum must not depend on the machine; fits run side by side anyway.
        with threadpool_limits(1):
            design = np.column_stack([np.asarray(X, dtype=np.float64), np.ones(len(X))])
            basis = whitening(design, share, labels, self.penalty)
            objective = Objective(design @ basis, labels, share, fixed, len(present), basis, self.penalty)
            options = {"maxiter": self.steps, "maxfun": 2 * self.steps, "gtol": 1e-7, "ftol": 1e-13, "maxcor": 20}
            found = minimize(objective, np.zeros(design.shape[1] * len(present)), jac=True, method="L-BFGS-B", options=options)
        slope = float(np.abs(found.jac).max())
        if not slope < CONVERGED:
            raise CandidateError(f"logistic regression did not converge in {found.nit} steps: gradient {slope:.2g}, {found.message}")
        solution = basis @ found.x.reshape(-1, len(present))
        return Linear(solution[:-1], solution[-1], present, classes)

    @classmethod
    def tiny(cls) -> Self:
        """The default: it is fast enough."""
        return cls()


def whitening(design: np.ndarray, share: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """The change of variables in which the objective is about round, so that L-BFGS needs tens of steps and not hundreds.

    Args:
        design: (n, d + 1), the last column being the intercept's ones.
        share: (n,) weights summing to 1.
        labels: (n,) columns of the true class.
        penalty: see Logistic.

    Returns:
        (d + 1, d + 1) M with coefficients = M @ variables: the inverse root of the curvature at the class shares (of its diagonal alone
        beyond WIDE columns).
    """
    classes = np.bincount(labels, weights=share)
    spread = 1 - float(classes @ classes)
    ridge = np.full(design.shape[1], penalty + spread * 1e-9)
    if design.shape[1] > WIDE:
        return np.diag((spread * (share @ design**2) + ridge) ** -0.5)
    curvature = spread * (design.T * share) @ design + np.diag(ridge)
    return solve_triangular(cholesky(curvature, lower=True), np.eye(len(curvature)), lower=True).T


@dataclass(frozen=True)
class Objective:
    """The penalised loss and its gradient in whitened variables.

    Args:
        X: (n, d + 1) float64, whitened, intercept included.
        labels: (n,) columns of the true class.
        share: (n,) weights summing to 1.
        offset: (n, P) or (1, 1).
        columns: P.
        basis: (d + 1, d + 1), see `whitening`.
        penalty: see Logistic.
    """

    X: np.ndarray
    labels: np.ndarray
    share: np.ndarray
    offset: np.ndarray
    columns: int
    basis: np.ndarray
    penalty: float

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and flat gradient at ((d + 1) * P,) variables."""
        variables = flat.reshape(-1, self.columns)
        coefficients = self.basis[:-1] @ variables
        scores = self.X @ variables + self.offset
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        rows = np.arange(len(self.labels))
        loss = -self.share @ scores[rows, self.labels] + self.penalty / 2 * np.sum(coefficients**2)
        residual = np.exp(scores)
        residual[rows, self.labels] -= 1
        residual *= self.share[:, None]
        slope = self.X.T @ residual + self.penalty * (self.basis[:-1].T @ coefficients)
        return float(loss), slope.ravel()


@dataclass(frozen=True)
class Linear:
    """Fitted coefficients.

    Args:
        coefficients: (d, P) float64.
        intercepts: (P,) float64.
        present: (P,) class ids.
        classes: C.
    """

    coefficients: np.ndarray
    intercepts: np.ndarray
    present: np.ndarray
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        with threadpool_limits(1):
            logits = np.asarray(X, dtype=np.float64) @ self.coefficients + self.intercepts
        return log_probabilities(logits, self.present, self.classes)

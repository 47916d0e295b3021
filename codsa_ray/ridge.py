"""Ridge: multinomial logistic regression's penalised objective, with offsets and weights of any sign, and its minimum; knows no learner.

The objective is the weighted MEAN log loss + penalty / 2 * sum of squared coefficients, one vector per class, intercepts free. Threads of
the matrix library are the caller's business: the order of a sum depends on them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import softmax

from codsa_ray.errors import CandidateError

WIDE = 1500  # columns beyond which the cube of their number costs more than the steps it saves
CONVERGED = 1e-3  # largest entry of the gradient of the mean loss (nats) that still counts as a minimum
WIDEST = 4000  # coefficients beyond which Newton's matrix is too large
NEWTON_STEPS = 100


def solved(
    X: np.ndarray, labels: np.ndarray, weight: np.ndarray, offset: np.ndarray | None, columns: int, penalty: float, steps: int
) -> np.ndarray:
    """The minimum, in float64: by L-BFGS, or by Newton steps where a weight is negative.

    Args:
        X: (n, d).
        labels: (n,) in [0, P), each with a row.
        weight: (n,) of positive sum.
        offset: (n, P) fixed terms of the scores, or None.
        columns: P.
        penalty: ridge penalty per nat of mean loss.
        steps: most L-BFGS iterations.

    Returns:
        (d + 1, P) coefficients, intercepts last.

    Raises:
        CandidateError: the objective is not finite or did not converge; with negative weights also where it is singular or not convex,
            or where a class has no more than 0 in all.
    """
    fixed = np.zeros((1, 1)) if offset is None else np.asarray(offset, dtype=np.float64)
    if not np.isfinite(X).all():
        bad = int((~np.isfinite(X)).any(axis=1).sum())
        raise CandidateError(f"logistic regression: {bad} of {len(X)} encoded rows hold values that are not finite")
    design = np.column_stack([np.asarray(X, dtype=np.float64), np.ones(len(X))])
    if (weight < 0).any():
        return newton(design, labels, weight, fixed, columns, penalty)
    share = weight / weight.sum()
    basis = whitening(design, share, labels, penalty)
    objective = Objective(design @ basis, labels, share, fixed, columns, basis, penalty)
    options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": 1e-7, "ftol": 1e-13, "maxcor": 20}
    found = minimize(objective, np.zeros(design.shape[1] * columns), jac=True, method="L-BFGS-B", options=options)
    slope = float(np.abs(found.jac).max())
    if not slope < CONVERGED:
        raise CandidateError(f"logistic regression did not converge in {found.nit} steps: gradient {slope:.2g}, {found.message}")
    return np.asarray(basis @ found.x.reshape(-1, columns))


def whitening(design: np.ndarray, share: np.ndarray, labels: np.ndarray, penalty: float) -> np.ndarray:
    """The change of variables in which the objective is about round, so that L-BFGS needs tens of steps and not hundreds.

    Args:
        design: (n, d + 1), the last column being the intercept's ones.
        share: (n,) weights summing to 1.
        labels: (n,) columns of the true class.
        penalty: ridge penalty per nat of mean loss.

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
        penalty: ridge penalty per nat of mean loss.
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


def newton(design: np.ndarray, labels: np.ndarray, weight: np.ndarray, offset: np.ndarray, columns: int, penalty: float) -> np.ndarray:
    """The minimum for weights of any sign, by Newton steps halved until the objective falls (Armijo 1966).

    Args:
        design: (n, d + 1), the last column being the intercept's ones.
        labels: (n,) columns of the true class.
        weight: (n,).
        offset: (n, P) or (1, 1).
        columns: P.
        penalty: ridge penalty per nat of mean loss.

    Returns:
        (d + 1, P) coefficients.
    """
    totals = np.bincount(labels, weights=weight, minlength=columns)
    if totals.min() <= 0 or design.shape[1] * columns > WIDEST:
        got = f"weights of {totals.min():.3g} in all" if totals.min() <= 0 else f"{design.shape[1] * columns} coefficients"
        raise CandidateError(f"wanted classes of positive weight and at most {WIDEST} coefficients; got {got}; weigh no row below 0")
    share = weight / weight.sum()
    objective = Objective(design, labels, share, offset, columns, np.eye(design.shape[1]), penalty)
    point = np.zeros((design.shape[1], columns))
    point[-1] = np.log(totals / totals.sum())
    value, slope = objective(point.ravel())
    for _ in range(NEWTON_STEPS):
        step = cho_solve(_factor(objective, point), slope).reshape(point.shape)
        drop = 1e-4 * float(slope @ step.ravel())
        length = next((h for h in 0.5 ** np.arange(30) if objective((point - h * step).ravel())[0] <= value - h * drop), 0.0)
        point = point - length * step
        value, slope = objective(point.ravel())
        if not length or np.abs(slope).max() < 1e-10:
            break
    if not np.abs(slope).max() < CONVERGED:
        raise CandidateError(f"logistic regression did not converge in {NEWTON_STEPS} Newton steps: gradient {np.abs(slope).max():.2g}")
    return point


def _factor(objective: "Objective", point: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of the Hessian, ordered as `point` is flat; scores that all classes share cost 1, which moves no minimum."""
    width, columns = point.shape
    chances = softmax(objective.X @ point + objective.offset, axis=1)
    hessian = np.zeros((width, columns, width, columns))
    for a in range(columns):
        for b in range(a + 1):
            curve = objective.share * chances[:, a] * ((a == b) - chances[:, b])
            hessian[:, a, :, b] = hessian[:, b, :, a] = (objective.X.T * curve) @ objective.X
        hessian[:-1, a, :-1, a] += objective.penalty * np.eye(width - 1)
    each = np.arange(width)
    hessian[each, :, each, :] += 1 / columns
    try:
        factor = cholesky(hessian.reshape(width * columns, width * columns), lower=True)
        flat = np.diag(factor).min() < 1e-7 * np.diag(factor).max()
    except LinAlgError:
        flat = True
    if flat:
        got = "one with a direction that falls or is flat"
        raise CandidateError(f"wanted a positive definite Hessian; got {got}; draw fewer rows or raise the penalty")
    return factor, True

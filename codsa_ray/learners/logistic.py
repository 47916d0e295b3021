"""Logistic regression with a ridge penalty, offsets (Menon et al. 2021) and signed weights; knows only numbers without NaN."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.ridge import solved
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, log_probabilities

PENALTIES = (1e-3, 1e-2, 1e-1, 1e-4, 1e-5)


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression: weighted MEAN log loss + penalty / 2 * sum of squared coefficients, one vector per class.

    The penalty is relative to the mean: it is the only form in which a weight of 2 equals two copies and a common factor of all weights
    changes nothing, and so synthetic rows do not loosen it. sklearn's C is 1 / (penalty * sum of weights); its two-class form has one
    vector where this one has two of opposite sign, so there C is 2 / (penalty * sum of weights). Intercepts are free.

    Rows of negative weight (bias.py) can bend the objective downwards. Such fits go by damped Newton steps from the constant scores, and
    every point on the way must have a positive definite Hessian: then the end is a minimum, and the one that the way leads to.

    Args:
        penalty: ridge penalty per nat of mean loss.
        steps: most L-BFGS iterations.
    """

    penalty: float = PENALTIES[0]
    steps: int = 1000

    @property
    def needs(self) -> Needs:
        """One core; about 24 bytes per encoded value."""
        return Needs(tasks=frozenset({"classification"}), offset=True, negative=True)

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
            CandidateError: the objective is not finite or did not converge; with negative weights also where it is singular or not convex,
                or where a class has no more than 0 in all.
        """
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        fixed = None if offset is None else offset[:, present]
        # One thread, since the order of a sum must not depend on the machine; fits run side by side anyway.
        with threadpool_limits(1):
            solution = solved(X, labels, weight, fixed, len(present), self.penalty, self.steps)
        return Linear(solution[:-1], solution[-1], present, classes)

    @classmethod
    def tiny(cls) -> Self:
        """The default: it is fast enough."""
        return cls()


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

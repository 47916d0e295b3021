"""Scores of classifiers: log-probabilities of every class, clipped and normalised; knows no learner."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from codsa_ray.errors import CandidateError

LEAST = 1e-7  # the probability below which a log loss says nothing any more
SCALING_STEPS = 50  # of iterative scaling; a constant offset needs one


def log_probabilities(logits: np.ndarray, present: np.ndarray, classes: int) -> np.ndarray:
    """Log-probabilities of all classes from the logits of those that had training rows.

    Args:
        logits: (n, P) unnormalised log-probabilities.
        present: (P,) class ids of the columns; the other classes get probability LEAST.
        classes: C.

    Returns:
        (n, C) float64: clipped at log LEAST, then normalised again.

    Raises:
        CandidateError: a logit is not a number.
    """
    if np.isnan(logits).any():
        raise CandidateError(f"{int(np.isnan(logits).any(axis=1).sum())} of {len(logits)} rows have scores that are not numbers")
    scores = np.full((len(logits), classes), np.log(LEAST))
    scores[:, present] = np.maximum(log_softmax(logits.astype(np.float64), axis=1), np.log(LEAST))
    return log_softmax(scores, axis=1)


def best_constant(offset: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The constant scores that minimise the weighted log loss on top of the offset, by iterative scaling (Darroch & Ratcliff 1972).

    Args:
        offset: (n, P).
        labels: (n,) in [0, P), each with a row.
        weight: (n,) > 0.

    Returns:
        (P,) with mean 0; the log class shares when the offset is 0.
    """
    wanted = np.bincount(labels, weights=weight, minlength=offset.shape[1])
    constant = np.zeros(offset.shape[1])
    for _ in range(SCALING_STEPS):
        step = np.log(wanted / (weight @ softmax(offset + constant, axis=1)))
        constant += step - step.mean()
        if np.ptp(step) < 1e-9:
            break
    return constant - constant.mean()


@dataclass(frozen=True)
class OneClass:
    """The predictor of training rows that all have one class.

    Args:
        present: its id.
        classes: C.
    """

    present: int
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities, the same for every row."""
        return log_probabilities(np.zeros((len(X), 1)), np.array([self.present]), self.classes)

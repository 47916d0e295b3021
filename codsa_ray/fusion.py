"""Fusion: how much each of several models counts, learned on rows that they have not seen; knows no model.

Source: Wolpert 1992 (stacking), Breiman 1996 (weights of 0 or more).
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from codsa_ray.seeds import rng_of

EVENLY = 0.01
"""Nats per squared distance of a model's weight from the average's: what little rows say of weights does not move them."""
FREE = 1e-4
"""Of a class's constant: enough to choose among those that say the same."""


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each row, each label spread over all of them."""
    order = np.lexsort((rng_of(seed, "fusion").random(len(labels)), labels))
    found = np.empty(len(labels), dtype=np.int64)
    found[order] = np.arange(len(labels)) % folds
    return found


def heard(scores: np.ndarray, absent: np.ndarray) -> np.ndarray:
    """The scores with those of models that have nothing to go by replaced by the mean of the others: a row is judged by what it has.

    Args:
        scores: (M, n, P) log-probabilities.
        absent: (M, n) bool; where all are, all are heard.
    """
    there = (~absent)[..., None]
    count = there.sum(axis=0)
    mean = np.where(there, scores, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(there | (count == 0), scores, mean)


def stacked(scores: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much each model counts, and a constant per class, of least weighted log loss.

    Args:
        scores: (M, n, P) log-probabilities of rows that the models have not seen.
        labels: (n,) in [0, P).
        weight: (n,) > 0.

    Returns:
        (M,) weights >= 0 and (P,) constants.
    """
    models, rows, classes = scores.shape
    share, even = weight / weight.sum(), 1.0 / models
    ridge = np.repeat([EVENLY, FREE], [models, classes])

    def asked(flat: np.ndarray) -> tuple[float, np.ndarray]:
        odds = np.tensordot(flat[:models], scores, axes=1) + flat[models:]
        residual = softmax(odds, axis=1)
        loss = -share @ log_softmax(odds, axis=1)[np.arange(rows), labels]
        residual[np.arange(rows), labels] -= 1
        residual *= share[:, None]
        away = np.concatenate([flat[:models] - even, flat[models:]])
        slope = np.concatenate([np.tensordot(scores, residual, axes=2), residual.sum(axis=0)])
        return float(loss + ridge @ away**2), slope + 2 * ridge * away

    bounds = [(0.0, None)] * models + [(None, None)] * classes
    start = np.concatenate([np.full(models, even), np.zeros(classes)])
    found = minimize(asked, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:models], found[models:]

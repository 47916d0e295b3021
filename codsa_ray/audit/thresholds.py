"""Threshold moving: terms on log-probabilities that give the best balanced accuracy; knows no candidate."""

import numpy as np

from codsa_ray.audit.metrics import probabilities

PASSES = 3


def move_thresholds(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Terms to add to log-probabilities so that the label of the highest has the best balanced accuracy on these rows.

    Exact line search per class in turn (for two classes: exact). Find them on out-of-fold rows, use them on others.

    Args:
        scores: (n, C) log-probabilities or (n,) log-odds.
        truth: (n,) labels.

    Returns:
        (C,) float64.
    """
    logs = np.log(np.maximum(probabilities(scores), 1e-12))
    classes = logs.shape[1]
    terms = np.zeros(classes)
    weight = 1.0 / np.maximum(np.bincount(truth, minlength=classes), 1)[truth]
    for _ in range(1 if classes == 2 else PASSES):
        for c in range(1, classes):
            terms[c] += _best_shift(logs + terms, truth, weight, c)
    return terms


def _best_shift(logs: np.ndarray, truth: np.ndarray, weight: np.ndarray, c: int) -> float:
    """The shift of column c with the highest weighted accuracy; the smallest in size among equals."""
    others = np.delete(logs, c, axis=1)
    labels = np.delete(np.arange(logs.shape[1]), c)[others.argmax(axis=1)]
    needed = others.max(axis=1) - logs[:, c]  # a shift beyond this makes the row's label c
    order = np.argsort(needed, kind="stable")
    change = (weight * (truth == c).astype(float) - weight * (labels == truth))[order]
    value = np.concatenate([[0.0], np.cumsum(change)])
    edges = np.concatenate([[needed[order[0]] - 2], needed[order], [needed[order[-1]] + 2]])
    middle = (edges[:-1] + edges[1:]) / 2
    held = np.concatenate([[True], np.diff(needed[order]) > 0, [True]])  # a cut between equal values cannot be made
    best = np.flatnonzero(held & (value >= value[held].max() - 1e-12))
    return float(middle[best[np.argmin(np.abs(middle[best]))]])

"""Reliability: do predicted probabilities come true?; knows scores, truth and weights, no model."""

from typing import Any

import numpy as np

BINS = 10
Z = 1.959964


def reliability(before: np.ndarray, after: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
    """Reliability curves of two candidates' scores on the same rows.

    Args:
        before, after: (n, C) log-probabilities.
        truth: (n,) class ids; rows of a label unseen in training (-1) are left out.
        weight: (n,) >= 0, balanced by the target mix.

    Returns:
        {before: curve, after: curve, ece: {before, after}}.
    """
    first, second = curve(before, truth, weight), curve(after, truth, weight)
    return {"before": first, "after": second, "ece": {"before": error(first), "after": error(second)}}


def curve(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> list[dict[str, Any]]:
    """Bins of equal weight, equal predictions kept together; two classes: those of class 1, more: every class against the rest, pooled.

    Returns:
        [{p: mean predicted, y: share that came true, n: rows, mass: share of the weight, low, high: Wilson's 95 % interval of y
        with Kish's effective number of rows}], by rising p.
    """
    known = (truth >= 0) & (weight > 0)
    p, y, w, row = _pooled(np.exp(scores[known]), truth[known], weight[known])
    place = _bins(p, w)
    return [_point(p[mine], y[mine], w[mine], row[mine], w.sum()) for b in np.unique(place) if (mine := place == b).any()]


def _pooled(p: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    n, classes = p.shape
    kept = [1] if classes == 2 else list(range(classes))
    y = truth[:, None] == np.array(kept)
    return p[:, kept].ravel(), y.ravel().astype(np.float64), np.repeat(weight, len(kept)), np.repeat(np.arange(n), len(kept))


def _bins(p: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n,) bin of each prediction: where the middle of its tied weight falls."""
    values, tied = np.unique(p, return_inverse=True)
    mass = np.bincount(tied, weights=weight, minlength=len(values))
    middle = (np.cumsum(mass) - mass / 2) / max(mass.sum(), np.finfo(float).tiny)
    return np.asarray(np.minimum((middle * BINS).astype(np.int64), BINS - 1)[tied])


def _point(p: np.ndarray, y: np.ndarray, weight: np.ndarray, row: np.ndarray, total: float) -> dict[str, Any]:
    share = float(np.average(y, weights=weight))
    low, high = wilson(share, float(weight.sum() ** 2 / (weight**2).sum()))
    mean, rows = float(np.average(p, weights=weight)), len(np.unique(row))
    return {"p": mean, "y": share, "n": rows, "mass": float(weight.sum() / total), "low": low, "high": high}


def wilson(share: float, rows: float) -> tuple[float, float]:
    """95 % interval of a share seen on `rows` rows (Wilson 1927)."""
    middle = (share + Z**2 / (2 * rows)) / (1 + Z**2 / rows)
    half = Z / (1 + Z**2 / rows) * np.sqrt(share * (1 - share) / rows + Z**2 / (4 * rows**2))
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))


def error(points: list[dict[str, Any]]) -> float:
    """Expected calibration error: the weight's mean of |predicted - came true| over bins."""
    return float(sum(point["mass"] * abs(point["p"] - point["y"]) for point in points))

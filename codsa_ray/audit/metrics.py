"""Label metrics of scores, with bootstrap intervals: what people compare papers by; no decision is made from them.

The formulas are here, and scikit-learn's and imbalanced-learn's only in the tests that hold them against these: their checks of the
input take 30 to 130 ms a set, and an interval asks for 200 sets.
"""

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import rankdata

from codsa_ray.seeds import rng_of

BINS = 15
RESAMPLES = 200
PASSES = 3


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(n, C) probabilities of (n, C) log-probabilities, or of (n,) log-odds of anomaly (two columns)."""
    if scores.ndim == 1:
        return np.stack([expit(-scores), expit(scores)], axis=1)
    return np.asarray(softmax(scores, axis=1))


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


def expected_calibration_error(chance: np.ndarray, truth: np.ndarray, bins: int = BINS) -> float:
    """Top-label calibration error over bins of equal numbers of rows (Guo et al. 2017; equal mass: Nguyen & O'Connor 2015)."""
    top = chance.max(axis=1)
    right = (chance.argmax(axis=1) == truth).astype(float)
    parts = np.array_split(np.argsort(top, kind="stable"), min(bins, len(top)))
    return float(sum(len(p) * abs(right[p].mean() - top[p].mean()) for p in parts) / len(top))


def brier(chance: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of the probabilities to the label's unit vector (Brier 1950): 0 to 2."""
    return float(np.mean(np.sum(np.square(chance - np.eye(chance.shape[1])[truth]), axis=1)))


def point_metrics(scores: np.ndarray, truth: np.ndarray, terms: np.ndarray | None = None) -> dict[str, float]:
    """Metrics of one set of scores.

    Args:
        scores: (n, C) log-probabilities or (n,) log-odds.
        truth: (n,) labels in [0, C).
        terms: (C,) from `move_thresholds` on other rows: they move the labels only, not AUROC, AUPRC, Brier or ECE.

    Returns:
        Metrics by name. AUROC is one against rest; AUPRC is average precision; with two classes AUPRC and F1 are the rarer one's,
        else means over classes. A metric that needs a class without rows is NaN.
    """
    chance = probabilities(scores)
    moved = np.log(np.maximum(chance, 1e-12)) + (0.0 if terms is None else terms)
    classes = chance.shape[1]
    confusion = np.bincount(truth * classes + moved.argmax(axis=1), minlength=classes**2).reshape(classes, classes).astype(float)
    count, guessed, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    recall = np.divide(right, count, out=np.full(classes, np.nan), where=count > 0)[count > 0]
    f1 = np.divide(2 * right, count + guessed, out=np.zeros(classes), where=count + guessed > 0)
    judged = [1 if count[1] <= count[0] else 0] if classes == 2 else list(range(classes))
    return {
        "balanced accuracy": float(recall.mean()),
        "AUROC": float(np.mean([area_under_roc(chance[:, c], truth == c) for c in judged])),
        "AUPRC": float(np.mean([average_precision(chance[:, c], truth == c) for c in judged])),
        "G-mean": float(np.prod(recall) ** (1 / len(recall))),
        "F1" if classes == 2 else "macro F1": float(f1[judged].mean()),
        "MCC": matthews(confusion),
        "Brier score": brier(chance, truth),
        "calibration error": expected_calibration_error(chance, truth),
    }


def area_under_roc(score: np.ndarray, hit: np.ndarray) -> float:
    """The share of (hit, miss) pairs in the right order, ties counting half (Mann & Whitney 1947); NaN without hits or misses."""
    hits = int(hit.sum())
    misses = len(hit) - hits
    if not hits or not misses:
        return float("nan")
    return float((rankdata(score)[hit].sum() - hits * (hits + 1) / 2) / hits / misses)


def average_precision(score: np.ndarray, hit: np.ndarray) -> float:
    """Precision at every distinct threshold, weighted by the recall it adds; NaN without hits or misses."""
    if not hit.any() or hit.all():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    found = np.cumsum(hit[order])
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    return float(np.sum(np.diff(found[last], prepend=0) * found[last] / (last + 1)) / found[-1])


def matthews(confusion: np.ndarray) -> float:
    """Correlation of label and guess over C classes (Gorodkin 2004); 0 where either has one value only."""
    count, guessed, rows = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum()
    spread = (rows**2 - np.sum(count**2)) * (rows**2 - np.sum(guessed**2))
    return float((np.trace(confusion) * rows - count @ guessed) / np.sqrt(spread)) if spread > 0 else 0.0


def label_metrics(
    scores: np.ndarray, truth: np.ndarray, seed: int, terms: np.ndarray | None = None, resamples: int = RESAMPLES
) -> dict[str, dict[str, float | None]]:
    """`point_metrics` with 95 % percentile intervals by bootstrap: rows drawn with replacement within each class, so that no class is lost.

    Rows of label -1 (never seen in training) have no metric and are left out.

    Returns:
        name -> {value, low, high}; None where the metric needs a class without rows.
    """
    scores, truth = scores[truth >= 0], truth[truth >= 0]
    rng = rng_of(seed, "label metrics")
    members = [np.flatnonzero(truth == c) for c in np.unique(truth)]
    draws = []
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in members])
        draws.append(point_metrics(scores[rows], truth[rows], terms))
    found = {}
    for name, value in point_metrics(scores, truth, terms).items():
        low, high = np.quantile([draw[name] for draw in draws], (0.025, 0.975))
        found[name] = {key: None if np.isnan(number) else float(number) for key, number in (("value", value), ("low", low), ("high", high))}
    return found

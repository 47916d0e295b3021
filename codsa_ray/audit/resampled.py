"""The metrics of weighted rows under many weightings at once, for bootstrap intervals; knows not how the weights were drawn.

Almost every metric is a function of a few sums over rows, so 500 resamples cost one product of a sparse matrix with the counts.
With weights of one they are what `metrics.py` gives; scikit-learn's own functions would take minutes here.
"""

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from codsa_ray.audit.metrics import BINS, OF_VALUES, Sample, guesses, probabilities, top_label
from codsa_ray.risk import task_of

LEVELS = 4096  # distinct scores that a ranking tells apart; of more rows neighbours in rank count as ties


def resampled(sample: Sample, scores: np.ndarray, counts: np.ndarray, terms: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`metrics.point_metrics` of every resample.

    Args:
        scores, terms: as there.
        counts: (n, B) weight >= 0 of each row in each resample.

    Returns:
        name -> (B,); NaN where a resample leaves the metric undefined.
    """
    if sample.task == "regression":
        return _of_values(sample, scores, counts)
    labels = {} if sample.task == "anomaly" else _of_labels(sample, guesses(scores, terms), counts)
    if terms is not None:
        return labels
    chance = probabilities(scores)
    losses = task_of(sample.task, len(sample.labels)).losses(scores, sample.truth)
    means, mean = _group_means(sample, losses, counts)
    found = {"balanced log loss": mean, "worst-group log loss": np.nanmax(means, axis=0)}
    rankings = [_rankings(chance[:, c], sample.truth == c, counts) for c in sample.judged]
    found |= {name: np.mean([pair[i] for pair in rankings], axis=0) for i, name in enumerate(("AUROC", "AUPRC"))}
    if sample.task == "anomaly":
        return found
    total = counts.sum(axis=0)
    distance = np.square(chance - np.eye(chance.shape[1])[sample.truth]).sum(axis=1)
    miss, bins = top_label(chance, sample.truth)
    error = np.abs(_sums(bins, BINS, counts, miss)).sum(axis=0) / total
    return {**found, **labels, "Brier score": distance @ counts / total, "calibration error": error}


def _sums(index: np.ndarray, size: int, counts: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """(size, B) sums of counts, times values, over the rows of each index."""
    n = len(index)
    data = np.ones(n, counts.dtype) if values is None else values.astype(counts.dtype)
    return np.asarray(sparse.csc_array((data, index, np.arange(n + 1)), shape=(size, n)) @ counts, dtype=np.float64)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), np.nan), where=below > 0)


def _group_means(sample: Sample, values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G, B) means by group, NaN where a resample has no such row, and (B,) their mean over the mix of the others."""
    size = len(sample.mix)
    means = _ratio(_sums(sample.group, size, counts, values), _sums(sample.group, size, counts))
    return means, _mixed(sample, means)


def _mixed(sample: Sample, means: np.ndarray) -> np.ndarray:
    held = np.where(np.isnan(means), 0.0, sample.mix[:, None])
    return _ratio((held * np.nan_to_num(means)).sum(axis=0), held.sum(axis=0))


def _rankings(score: np.ndarray, hit: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) AUROC (Mann & Whitney 1947, ties count half) and (B,) average precision of one label."""
    if len(score) > LEVELS:
        score = ((rankdata(score) - 1) * LEVELS / len(score)).astype(np.int64)
    values, level = np.unique(score, return_inverse=True)
    both = _sums(2 * level + hit, 2 * len(values), counts).reshape(len(values), 2, -1)
    misses, hits = both[::-1, 0], both[::-1, 1]  # from the highest score down
    found, passed = np.cumsum(hits, axis=0), np.cumsum(misses, axis=0)
    wins = (hits * (passed[-1] - passed + misses / 2)).sum(axis=0)
    precision = np.nan_to_num(_ratio(found, found + passed))
    # As with scikit-learn's: a ranking needs both hits and misses.
    area = _ratio(wins, found[-1] * passed[-1])
    return area, np.where(passed[-1] > 0, _ratio((hits * precision).sum(axis=0), found[-1]), np.nan)


def _of_labels(sample: Sample, guess: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    classes, present = len(sample.labels), np.unique(sample.truth)
    confusion = _sums(sample.truth * classes + guess, classes**2, counts).reshape(classes, classes, -1)
    count, guessed = confusion.sum(axis=1), confusion.sum(axis=0)
    right = confusion[np.arange(classes), np.arange(classes)]
    recall = _ratio(right, count)[present]
    f1 = np.nan_to_num(_ratio(2 * right, count + guessed))
    rows = count.sum(axis=0)
    spread = (rows**2 - (count**2).sum(axis=0)) * (rows**2 - (guessed**2).sum(axis=0))
    agree = right.sum(axis=0) * rows - (count * guessed).sum(axis=0)
    found = {
        "balanced accuracy": recall.mean(axis=0),
        "G-mean": np.prod(recall, axis=0) ** (1 / len(present)),
        "macro F1": f1[present].mean(axis=0),
        "F1": f1[list(sample.judged)].mean(axis=0),
        # Gorodkin 2004; 0 where label or guess has one value only.
        "MCC": np.nan_to_num(_ratio(agree, np.sqrt(np.maximum(spread, 0.0)))),
    }
    named = {name: value for name, value in found.items() if classes == 2 or name != "F1"}
    return named if len(present) > 1 else {name: np.full(len(rows), np.nan) for name in named}


def _of_values(sample: Sample, scores: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    # Around the mean, so that the square of a sum does not swallow the variance.
    y, error = sample.truth - np.mean(sample.truth), scores - sample.truth
    square, size, mean, power = (_group_means(sample, v, counts)[0] for v in (error**2, np.abs(error), y, y**2))
    whole = [_mixed(sample, part) for part in (square, size, mean, power)]
    found = _named("balanced {}", *whole) | {"worst-group RMSE": np.sqrt(np.nanmax(square, axis=0))}
    for g, name in enumerate(sample.groups):
        found |= _named(f"{{}}: {name}", square[g], size[g], mean[g], power[g])
    return found


def _named(named: str, square: np.ndarray, size: np.ndarray, mean: np.ndarray, power: np.ndarray) -> dict[str, np.ndarray]:
    """RMSE, MAE and R2 of mean squared and absolute errors and of the truth's first two moments."""
    spread = power - mean**2
    values = np.sqrt(square), size, 1 - _ratio(square, np.where(spread > 1e-12 * np.maximum(power, 1e-300), spread, 0.0))
    head, tail = named.split("{}", 1)
    return {f"{head}{name}{tail}": value for name, value in zip(OF_VALUES, values, strict=True)}

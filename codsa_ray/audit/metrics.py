"""Metrics of scores, what people compare papers by; knows rows, truth and groups, no candidate and no interval.

scikit-learn's and imbalanced-learn's wherever they have the metric; no decision is made from them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from imblearn.metrics import geometric_mean_score
from scipy.special import expit, softmax
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    recall_score,
    roc_auc_score,
)

from codsa_ray.risk import balanced, row_weights, task_of, worst

BINS = 15
# What a moved threshold changes; the others are of the scores themselves.
OF_LABELS = ("balanced accuracy", "G-mean", "macro F1", "F1", "MCC")
OF_VALUES = ("RMSE", "MAE", "R2")


@dataclass(frozen=True)
class Sample:
    """The rows on which metrics are taken.

    Args:
        task: classification, anomaly or regression.
        truth: (n,) labels in [0, C), or values.
        group: (n,) groups, none negative.
        unit: (n,) ids of what was sampled together, or None.
        mix: (G,) target mix.
        groups: (G,) names.
        labels: (C,) names; empty for a regression.
        judged: the labels whose ranking counts: the anomaly, the rarer of two, or each against the rest.
    """

    task: str
    truth: np.ndarray
    group: np.ndarray
    unit: np.ndarray | None
    mix: np.ndarray
    groups: tuple[str, ...]
    labels: tuple[str, ...] = ()
    judged: tuple[int, ...] = ()

    @staticmethod
    def of(
        task: str,
        truth: np.ndarray,
        group: np.ndarray,
        unit: np.ndarray | None,
        mix: np.ndarray,
        groups: tuple[str, ...],
        labels: tuple[str, ...] = (),
    ) -> "Sample":
        """From rows in any order; labels of any number type."""
        truth = truth if task == "regression" else truth.astype(np.int64)
        judged = tuple(range(len(labels)))
        if len(labels) == 2:
            count = np.bincount(truth, minlength=2)
            judged = (1 if task == "anomaly" or count[1] <= count[0] else 0,)
        return Sample(task, truth, group, unit, mix, groups, labels, judged)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: np.ndarray) -> "Sample":
        """The rows at these positions, judged as all of them are."""
        return replace(self, truth=self.truth[rows], group=self.group[rows], unit=None if self.unit is None else self.unit[rows])


def probabilities(scores: np.ndarray) -> np.ndarray:
    """(n, C) probabilities of (n, C) log-probabilities, or of (n,) log-odds of anomaly (two columns)."""
    if scores.ndim == 1:
        return np.stack([expit(-scores), expit(scores)], axis=1)
    return np.asarray(softmax(scores, axis=1))


def guesses(scores: np.ndarray, terms: np.ndarray | None = None) -> np.ndarray:
    """(n,) label of the highest log-probability, `terms` (C,) of `move_thresholds` added."""
    logs = np.log(np.maximum(probabilities(scores), 1e-12))
    return np.asarray((logs if terms is None else logs + terms).argmax(axis=1))


def point_metrics(sample: Sample, scores: np.ndarray, terms: np.ndarray | None = None) -> dict[str, float]:
    """The metrics of one set of scores, in the order in which they are shown.

    AUROC is one against rest; AUPRC is average precision; both, with two labels, of the rarer one, else means over labels.
    Those of OF_LABELS are means over the labels that have rows; F1 alone, with two labels, is the rarer one's.

    Args:
        scores: (n, C) log-probabilities, (n,) log-odds of anomaly, or (n,) predictions.
        terms: (C,) from `move_thresholds` on other rows: they move the labels only, so OF_LABELS alone are given.

    Returns:
        Metrics by name; NaN where one is undefined on these rows (see `undefined`).
    """
    if sample.task == "regression":
        return _of_values(sample, scores)
    labels = {} if sample.task == "anomaly" else _of_labels(sample, guesses(scores, terms))
    if terms is not None:
        return labels
    chance, truth = probabilities(scores), sample.truth
    losses = task_of(sample.task, len(sample.labels)).losses(scores, truth)
    found = {
        "balanced log loss": balanced(losses, sample.group, sample.mix),
        "worst-group log loss": worst(losses, sample.group, len(sample.mix)),
        "AUROC": _ranked(roc_auc_score, sample, chance),
        "AUPRC": _ranked(average_precision_score, sample, chance),
        **labels,
    }
    if sample.task == "anomaly":
        return found
    return {**found, "Brier score": brier(chance, truth), "calibration error": expected_calibration_error(chance, truth)}


def _ranked(metric: Callable[..., float], sample: Sample, chance: np.ndarray) -> float:
    """The mean of a ranking's metric over the judged labels; NaN where one of them has no row, or every row."""
    hits = [(sample.truth == c, chance[:, c]) for c in sample.judged]
    return float(np.mean([metric(hit, score) if hit.any() and not hit.all() else np.nan for hit, score in hits]))


def _of_labels(sample: Sample, guess: np.ndarray) -> dict[str, float]:
    """NaN where fewer than two labels have rows."""
    truth, present = sample.truth, np.unique(sample.truth)
    names = [name for name in OF_LABELS if len(sample.labels) == 2 or name != "F1"]
    if len(present) < 2:
        return dict.fromkeys(names, float("nan"))
    found = {
        "balanced accuracy": recall_score(truth, guess, labels=present, average="macro", zero_division=0),
        "G-mean": geometric_mean_score(truth, guess, labels=present, average="multiclass"),
        "macro F1": f1_score(truth, guess, labels=present, average="macro", zero_division=0),
        "F1": f1_score(truth, guess, labels=list(sample.judged), average="macro", zero_division=0),
        "MCC": matthews_corrcoef(truth, guess),
    }
    return {name: float(found[name]) for name in names}


def top_label(chance: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) right - predicted of each row's likeliest label, and (n,) its bin among 15 of equal numbers of rows."""
    top = chance.max(axis=1)
    bins = np.zeros(len(top), dtype=np.int64)
    for b, rows in enumerate(np.array_split(np.argsort(top, kind="stable"), min(BINS, len(top)))):
        bins[rows] = b
    return (chance.argmax(axis=1) == truth) - top, bins


def expected_calibration_error(chance: np.ndarray, truth: np.ndarray) -> float:
    """Top-label calibration error over 15 bins of equal numbers of rows (Guo et al. 2017; equal mass: Nguyen & O'Connor 2015)."""
    miss, bins = top_label(chance, truth)
    return float(np.abs(np.bincount(bins, weights=miss)).sum() / len(truth))


def brier(chance: np.ndarray, truth: np.ndarray) -> float:
    """Mean squared distance of the probabilities to the label's unit vector (Brier 1950): 0 to 2."""
    return float(np.mean(np.sum(np.square(chance - np.eye(chance.shape[1])[truth]), axis=1)))


def _of_values(sample: Sample, scores: np.ndarray) -> dict[str, float]:
    """Balanced: rows weighted to the target mix, so that RMSE is the root of the mix's mean of group errors; then group by group."""
    errors = np.square(scores - sample.truth)
    found = _errors("balanced {}", sample.truth, scores, row_weights(sample.group, sample.mix))
    found["worst-group RMSE"] = float(np.sqrt(worst(errors, sample.group, len(sample.mix))))
    for g, name in enumerate(sample.groups):
        found |= _errors(f"{{}}: {name}", sample.truth, scores, (sample.group == g).astype(float))
    return found


def _errors(named: str, truth: np.ndarray, scores: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """NaN where no row counts; R2 also where the truth does not vary."""
    kept = weight > 0
    values = dict.fromkeys(OF_VALUES, float("nan"))
    if kept.any():
        rows = {"y_true": truth[kept], "y_pred": scores[kept], "sample_weight": weight[kept]}
        values |= {"RMSE": float(np.sqrt(mean_squared_error(**rows))), "MAE": float(mean_absolute_error(**rows))}
        values["R2"] = float(r2_score(**rows)) if np.ptp(truth[kept]) > 0 else float("nan")
    head, tail = named.split("{}", 1)
    return {f"{head}{name}{tail}": value for name, value in values.items()}


def undefined(sample: Sample, found: dict[str, float]) -> str:
    """Why metrics are NaN, in words that name them; empty where none is."""
    names = [name for name, value in found.items() if np.isnan(value)]
    if not names:
        return ""
    gone = [label for c, label in enumerate(sample.labels) if not np.any(sample.truth == c)]
    why = f"no row of label {', '.join(gone)}" if gone else "a group without rows, or whose truth does not vary"
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} undefined: {why}"

"""Correction of scores to the target mix: the exact offset for the weights of a fit, and calibration on top; knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from codsa_ray.errors import InternalError
from codsa_ray.risk import row_weights

LEAST = float(np.log(1e-12))  # log-probabilities are taken no lower, so that no learner's exact zero becomes infinite
SLOPE_SPREAD = 0.5  # prior standard deviation of the mean slope around 1
CLASS_SPREAD = 0.25  # the same of each class's slope around the mean slope, and of each class's bias around the mean bias
STEEPEST = 20.0


def normalise(scores: np.ndarray) -> np.ndarray:
    """(n, C) log-probabilities of logits, none below log 1e-12."""
    return np.maximum(log_softmax(np.maximum(np.nan_to_num(scores, nan=np.nan, neginf=-1e30), -1e30), axis=1), LEAST)


@dataclass(frozen=True)
class Offset:
    """Exact (group-)prior correction of a fit (Saerens, Latinne & Decaestecker 2002; for cells: design law "Correction").

    score[y] += log mix[A(x, y)] - log weight[A(x, y)], A(x, y) the cell of row x if its label were y. A cell without weight counts
    as half the lightest cell that has some, a cell outside the mix as 1e-12, so every term is finite.

    Args:
        weight: (H,) all weight used in the fit per cell (real rows, synthetic rows x row weight, class weights).
        mix: (H,) target mix.
        labels: (H,) label of each cell.
        classes: C.
    """

    weight: tuple[float, ...]
    mix: tuple[float, ...]
    labels: tuple[int, ...]
    classes: int

    @staticmethod
    def of(weight: np.ndarray, mix: np.ndarray, labels: np.ndarray, classes: int, coarse: np.ndarray | None = None) -> "Offset":
        """From arrays over groups.

        Args:
            weight, mix, labels: (G,).
            classes: C.
            coarse: (G,) cell of each group among those that can be told apart when predicting, or None where all can.
        """
        if coarse is not None:
            size = int(coarse.max()) + 1
            lookup = np.zeros(size, dtype=int)
            lookup[coarse] = labels
            if np.any(lookup[coarse] != labels):
                raise InternalError("wanted coarse cells of one label each; got a cell of several; correct the coarse map")
            weight, mix, labels = np.bincount(coarse, weight, size), np.bincount(coarse, mix, size), lookup
        return Offset(_floats(weight), _floats(mix), tuple(int(y) for y in labels), classes)

    @property
    def class_terms(self) -> np.ndarray:
        """(C,) terms of whole labels: all cells of a label together."""
        labels = np.array(self.labels)
        return _terms(np.bincount(labels, self.weight, self.classes), np.bincount(labels, self.mix, self.classes))

    @property
    def cell_terms(self) -> np.ndarray:
        """(H,) terms of cells."""
        return _terms(np.array(self.weight), np.array(self.mix))

    def terms(self, cells: np.ndarray | None) -> np.ndarray:
        """(n, C) terms of rows, (1, C) when cells is None; where cells is -1 no such cell exists and the label's own term stands in."""
        if cells is None:
            return self.class_terms[None]
        return np.where(cells >= 0, self.cell_terms[cells], self.class_terms[None])

    @staticmethod
    def stood_in(cells: np.ndarray) -> int:
        """Rows with a label whose cell does not exist."""
        return int((cells < 0).any(axis=1).sum())

    def apply(self, scores: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
        """Corrected scores.

        Args:
            scores: (n, C) log-probabilities, or (n,) log-odds of label 1 against 0.
            cells: (n, C) int, A(x, y); None for the label alone.

        Returns:
            (n, C) log-probabilities, or (n,) log-odds.
        """
        terms = self.terms(cells)
        return scores + terms[:, 1] - terms[:, 0] if scores.ndim == 1 else normalise(normalise(scores) + terms)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the terms worked out for readers without this package."""
        kept = {"weight": list(self.weight), "mix": list(self.mix), "labels": list(self.labels), "classes": self.classes}
        return {**kept, "cell_terms": self.cell_terms.tolist()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Offset":
        """The inverse of `to_json`."""
        return Offset(tuple(value["weight"]), tuple(value["mix"]), tuple(value["labels"]), value["classes"])


def _floats(values: np.ndarray | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _terms(weight: np.ndarray, mix: np.ndarray) -> np.ndarray:
    if not np.any(weight > 0):
        raise InternalError("wanted a fit with weight in at least one cell; got none; pass the weights of its training rows")
    lightest = weight[weight > 0].min()
    return np.log(np.maximum(mix, 1e-12)) - np.log(np.where(weight > 0, weight, lightest / 2))


def offset_scores(scores: np.ndarray, cells: np.ndarray | None, mix: np.ndarray, weight: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`Offset.apply` in one call, for a fit whose weights are at hand; classes are the columns of scores."""
    return Offset.of(weight, mix, labels, scores.shape[1] if scores.ndim == 2 else 2).apply(scores, cells)


def merge_cells(scores: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Scores of a model of label x group cells as scores of labels: (n, H) -> (n, C), probabilities of a label's cells added up.

    A label without a cell gets the least log-probability.
    """
    columns = [scores[:, np.asarray(labels) == y] for y in range(classes)]
    return normalise(np.stack([logsumexp(c, axis=1) if c.shape[1] else np.full(len(scores), LEAST) for c in columns], axis=1))


def average(scores: Sequence[np.ndarray], classes: bool = True) -> np.ndarray:
    """Scores of an ensemble: mean log-probabilities, normalised again; for tasks without classes the mean alone."""
    if classes:
        return normalise(np.mean([normalise(one) for one in scores], axis=0))
    return np.asarray(np.mean(scores, axis=0))


@dataclass(frozen=True)
class Calibration:
    """Vector scaling (Guo et al. 2017; for two classes it is beta calibration, Kull et al. 2017): slope x log-probability + bias per class.

    Fitted on the balanced log loss as a maximum a posteriori estimate, shrunk towards doing nothing: with row weights w summing to 1,
        sum_i w_i loss_i + (mean slope - 1)^2 / (2 n s^2) + sum_c [(slope_c - mean)^2 + (bias_c - mean)^2] r_c / (2 t^2),
    n = 1 / sum_i w_i^2 effective rows, r_c = sum_{i in c} w_i^2 / sum_{i in c} w_i the weight of one of class c's rows,
    s = SLOPE_SPREAD, t = CLASS_SPREAD: the pull fades as rows of the rarest group come in. Why .5 and .25
    (`benchmarks/calibration_shrinkage.py`, two classes, 5 / 24 / 1000 rare rows): flawless scores lose .006 / .005 / .000 to it
    (.535 / .025 / .001 without the pull), scores 3 x too steep win .104 / .126 / .118 (lose .440, win .098 / .118 without).

    Args:
        slope, bias: (C,) each; for log-odds (anomaly) one each.
    """

    slope: tuple[float, ...]
    bias: tuple[float, ...]

    @staticmethod
    def identity(classes: int) -> "Calibration":
        """Does nothing; classes is 1 for tasks whose scores are one number."""
        return Calibration((1.0,) * classes, (0.0,) * classes)

    @staticmethod
    def fit(scores: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> "Calibration":
        """Fits on out-of-fold scores.

        Args:
            scores: (n, C) log-probabilities, or (n,) log-odds.
            truth: (n,) labels; rows of label -1 are left out.
            weight: (n,) >= 0, as `risk.row_weights` gives them; rows of weight 0 are left out.
        """
        kept = (truth >= 0) & (weight > 0)
        odds = scores.ndim == 1
        logits = np.stack([-scores[kept] / 2, scores[kept] / 2], axis=1) if odds else normalise(scores[kept])
        if not kept.any():
            return Calibration.identity(1 if odds else logits.shape[1])
        slope, bias = _descend(logits, truth[kept].astype(int), weight[kept] / weight[kept].sum(), odds)
        if odds:
            return Calibration((float(slope[0]),), (float(bias[1] - bias[0]),))
        return Calibration(_floats(slope), _floats(bias - bias.mean()))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated scores in the shape they came."""
        if scores.ndim == 1:
            return scores * self.slope[0] + self.bias[0]
        return normalise(normalise(scores) * np.array(self.slope) + np.array(self.bias))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"slope": list(self.slope), "bias": list(self.bias)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Calibration":
        """The inverse of `to_json`."""
        return Calibration(tuple(value["slope"]), tuple(value["bias"]))


def _descend(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, odds: bool) -> tuple[np.ndarray, np.ndarray]:
    """(slope, bias) (C,) each, by L-BFGS; log-odds share one slope and have opposite biases."""
    classes = logits.shape[1]
    of_mean, of_class = _pulls(truth, weight, classes)
    # Classes along the first axis: sums over few classes are then sums of long rows, which is three times as fast.
    along = np.ascontiguousarray(logits.T)
    hits = weight * (truth == np.arange(classes)[:, None])

    def loss(slope: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        z = along * slope[:, None] + bias[:, None]
        z -= z.max(axis=0)
        share = np.exp(z)
        total = share.sum(axis=0)
        value = -np.sum(hits * (z - np.log(total)))
        error = weight / total * share - hits
        away_slope, away_bias, shift = slope - slope.mean(), bias - bias.mean(), slope.mean() - 1
        value += (of_mean * shift**2 + np.sum(of_class * (away_slope**2 + away_bias**2))) / 2
        grad_slope = np.sum(error * along, axis=1) + of_mean * shift / classes + _centred(of_class * away_slope)
        return value, grad_slope, error.sum(axis=1) + _centred(of_class * away_bias)

    # theta = (slopes, biases), or (slope, bias) with slopes (a, a) and biases (-b/2, b/2).
    expand = np.array([[1.0, 0], [1, 0], [0, -0.5], [0, 0.5]]) if odds else np.eye(2 * classes)
    free = expand.shape[1] // 2

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        full = expand @ theta
        value, grad_slope, grad_bias = loss(full[:classes], full[classes:])
        return value, np.concatenate([grad_slope, grad_bias]) @ expand

    start = np.concatenate([np.ones(free), np.zeros(free)])
    bounds = [(0.0, STEEPEST)] * free + [(None, None)] * free
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200, "ftol": 1e-10, "gtol": 1e-7})
    full = expand @ found.x
    return full[:classes], full[classes:]


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


def _pulls(truth: np.ndarray, weight: np.ndarray, classes: int) -> tuple[float, np.ndarray]:
    """Strength of the pull on the mean slope, and per class; a class without rows is pulled as by half the rarest one's."""
    squares = np.square(weight)
    share = np.bincount(truth, weight, classes)
    per_row = np.divide(np.bincount(truth, squares, classes), share, out=np.zeros(classes), where=share > 0)
    per_row[share == 0] = 2 * per_row.max()
    return float(squares.sum()) / SLOPE_SPREAD**2, per_row / CLASS_SPREAD**2


def fit_all(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, mix: np.ndarray) -> Calibration:
    """The calibration that ships: fitted on every out-of-fold row, balanced over the target mix."""
    return Calibration.fit(scores, truth, row_weights(groups, mix))


def cross_fitted(scores: np.ndarray, truth: np.ndarray, groups: np.ndarray, mix: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Calibrated out-of-fold scores, each fold's calibration fitted on the other folds, so that no row's own label helps it.

    Args:
        scores: (n, C) log-probabilities or (n,) log-odds of anomaly; predictions of a regression need no calibration.
        truth, groups, folds: (n,) ints; rows of group -1 are calibrated but teach nothing.
        mix: (G,) target mix.

    Returns:
        Scores of the same shape; those of a lone fold, or whose other folds hold no row of the mix, are left as they are.
    """
    result = np.array(scores, dtype=np.float64)
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        taught = rest & (groups >= 0) & (np.asarray(mix)[groups] > 0)
        if taught.any():
            result[here] = fit_all(scores[taught], truth[taught], groups[taught], mix).apply(scores[here])
    return result


@dataclass(frozen=True)
class Correction:
    """What correction.json holds: what to do to the scores of a model trained on the augmented (or real) rows.

    With cells known when predicting use `Correction.from_json(c).apply(log_p, cells)`; by label alone, on (n, C) log-probabilities:

        z = log_p + c["class_terms"]; z -= np.log(np.exp(z).sum(1, keepdims=True))
        z = z * c["slope"] + c["bias"]
        p = np.exp(z - z.max(1, keepdims=True)); p /= p.sum(1, keepdims=True)

    Args:
        task: classification, regression or anomaly.
        classes: class names in id order, empty for other tasks.
        offset: or None where nothing is to be added.
        calibration: or None.
        by_cell: the offset is known to be needed cell by cell (label x group), not by label alone.
        joint: the model was fitted on cells: its scores have a column per cell, and corrected they are added up to labels.
    """

    task: str
    classes: tuple[str, ...] = ()
    offset: Offset | None = None
    calibration: Calibration | None = None
    by_cell: bool = False
    joint: bool = False

    def apply(self, scores: np.ndarray, cells: np.ndarray | None = None) -> np.ndarray:
        """Corrected scores.

        Args:
            scores: (n, C) log-probabilities, (n, H) of cells when joint, or (n,) (log-odds of anomaly; predictions of a
                regression come back as they are).
            cells: (n, C) cell of each row under each label, -1 where none; wanted when by_cell.

        Raises:
            InternalError: by_cell without cells.
        """
        if self.task == "regression":
            return scores
        if self.by_cell and cells is None:
            raise InternalError("wanted the cell of each row under each label; got none; pass Groups.assign_each_label of the rows")
        offset = self._joined(scores) if self.joint else scores
        if self.offset is not None and not self.joint:
            offset = self.offset.apply(scores, cells if self.by_cell else None)
        return offset if self.calibration is None else self.calibration.apply(offset)

    def _joined(self, scores: np.ndarray) -> np.ndarray:
        if self.offset is None:
            raise InternalError("wanted the cells of a joint model; got no offset; joint models ship with one")
        return merge_cells(normalise(normalise(scores) + self.offset.cell_terms), np.array(self.offset.labels), len(self.classes))

    def to_json(self) -> dict[str, Any]:
        """Plain data; class_terms, slope and bias are always there, neutral where there is no offset or calibration."""
        width = len(self.classes) if self.task == "classification" else 1
        scaling = self.calibration or Calibration.identity(width)
        terms = [0.0] * max(width, 2) if self.offset is None else self.offset.class_terms.tolist()
        return {
            "task": self.task,
            "classes": list(self.classes),
            "offset": self.offset.to_json() if self.offset else None,
            "calibrated": self.calibration is not None,
            "by_cell": self.by_cell,
            "joint": self.joint,
            "class_terms": terms,
            **scaling.to_json(),
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Correction":
        """The inverse of `to_json`."""
        offset = Offset.from_json(value["offset"]) if value["offset"] else None
        scaling = Calibration.from_json(value) if value["calibrated"] else None
        return Correction(value["task"], tuple(value["classes"]), offset, scaling, value["by_cell"], value["joint"])

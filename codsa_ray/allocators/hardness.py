"""Hardness: synthetic rows go where rows are lacking, and more of them where a pilot model is wrong; knows no learner of the package."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from codsa_ray.embedding import Numbers
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.regions import Regions
from codsa_ray.risk import row_weights, task_of
from codsa_ray.scores import log_probabilities
from codsa_ray.seeds import hash_rows


@dataclass(frozen=True)
class Hardness:
    """Weights in proportion to deficit x (mean loss of a pilot on the region's rows) ^ power.

    The pilot is a linear model of the encoded rows (logistic, or ridge for a regression), balanced over the target mix. Each training row
    is scored by a pilot that has not seen it, and no row of another fold of the run is. A loss that no model could lower, such as that of
    wrong labels, draws rows as well: power 0 is `balanced`.

    Args:
        power: how much loss counts.
        folds: of the pilot's cross-fitting.
        cap: training rows looked at; beyond it the larger regions are thinned.
    """

    power: float = 1.0
    folds: int = 3
    cap: int = 10_000

    def __post_init__(self) -> None:
        if self.power < 0 or self.folds < 2 or self.cap < 1:
            raise SettingError("power of at least 0, folds of at least 2, cap of at least 1", repr(self), "raise the one that is not")

    def measure(self, data: FitData) -> np.ndarray:
        """(K,) mean loss ^ power; the mean of all rows where a region has none."""
        table = data.table(self.cap)
        region = table[REGION].to_numpy()
        X, y = Numbers.learn(table, data.schema).encode(table).astype(np.float32), data.schema.truth(table)
        order = np.lexsort((hash_rows(table[ROW].to_numpy(), data.seed, "hardness"), region))
        fold = np.empty(len(table), dtype=np.int64)
        fold[order] = np.arange(len(table)) % self.folds
        weight = row_weights(data.regions.groups[region].astype(np.int64), np.array(data.regions.mix)) * len(table)
        losses = np.zeros(len(table))
        with threadpool_limits(1), warnings.catch_warnings():
            # A pilot that stops early still tells hard regions from easy ones.
            warnings.simplefilter("ignore", ConvergenceWarning)
            for k in range(self.folds):
                train, held = (fold != k) & (weight > 0), fold == k
                losses[held] = _losses(data, X[train], y[train], weight[train], X[held], y[held])
        count = np.bincount(region, minlength=len(data.regions))
        total = np.bincount(region, weights=losses, minlength=len(data.regions))
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), losses.mean()) ** self.power)

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1."""
        return regions.lacking

    @classmethod
    def tiny(cls) -> "Hardness":
        """Few rows."""
        return cls(cap=200)


def _losses(data: FitData, X: np.ndarray, y: np.ndarray, weight: np.ndarray, held: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(m,) losses of a pilot's held rows; of a pilot that learned from rows of one class or none, those of a constant."""
    if not len(held) or not len(X):
        return np.ones(len(held))
    if data.schema.task == "regression":
        return np.square(Ridge().fit(X, y, sample_weight=weight).predict(held) - truth)
    classes = len(data.schema.classes) if data.schema.task == "classification" else 2
    present = np.unique(y)
    if len(present) > 1:
        model = LogisticRegression(max_iter=300).fit(X, y, sample_weight=weight)
        logits, present = model.predict_log_proba(held), model.classes_
    else:
        logits = np.zeros((len(held), 1))
    scores = log_probabilities(np.maximum(logits, -1e3), present.astype(np.int64), classes)
    return task_of("classification", classes).losses(scores, truth.astype(np.int64))

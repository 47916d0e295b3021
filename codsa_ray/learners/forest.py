"""Random forest (Breiman 2001) by scikit-learn, its leaves smoothed; knows no encoding beyond numbers, NaN for null."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from threadpoolctl import threadpool_limits

from codsa_ray.contracts import Needs, Predictor
from codsa_ray.encode import Ordinal
from codsa_ray.errors import CandidateError
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, log_probabilities


@dataclass(frozen=True)
class Forest:
    """Trees on bootstrap samples, each split among `share` of the columns; classes by their smoothed shares in a leaf, values by its mean.

    A pure leaf of one row says "certain", and a mean of such leaves still says 0 where no tree held a rare row. So a leaf of weight W in
    which class c has weight W_c says (W_c + smoothing p_c) / (W + smoothing), p_c its share in all rows (the m-estimate: Cestnik 1990),
    and the forest says the mean over trees. Bootstrap samples are drawn by weight, so a common factor of the weights changes nothing.

    Args:
        trees: how many.
        leaf: least share of the bootstrap sample in a leaf; 0 grows trees until leaves are pure.
        share: of the columns, what a split may choose from; 0: the square root of their number, or a third for values.
        smoothing: rows that the shares of all rows are worth in a leaf.
    """

    trees: int = 200
    leaf: float = 0.0
    share: float = 0.0
    smoothing: float = 1.0

    @property
    def needs(self) -> Needs:
        """One core. Regression is by squared error."""
        return Needs(tasks=frozenset({"classification", "regression"}))

    def variants(self) -> tuple[Self, ...]:
        """These settings; larger leaves, twice; more columns."""
        return (self, replace(self, leaf=self.leaf + 0.003), replace(self, leaf=self.leaf + 0.015), replace(self, share=0.6))

    def encoder(self, train: pa.Table, schema: Schema) -> Ordinal:
        """One column per feature."""
        return Ordinal.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The forest; it takes no offset.

        Raises:
            CandidateError: scikit-learn refuses the rows.
        """
        assert offset is None, "needs.offset is False"
        present = np.unique(y) if classes else np.zeros(0, dtype=np.int64)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        kind = RandomForestClassifier if classes else RandomForestRegressor
        columns = self.share or ("sqrt" if classes else 1 / 3)
        forest = kind(self.trees, min_weight_fraction_leaf=self.leaf, max_features=columns, random_state=seed % 2**32, n_jobs=1)
        # Rounded, so that a common factor of all weights cannot tip a split that is a tie.
        scaled = np.round(weight / weight.mean(), 9)
        try:
            with threadpool_limits(1):
                # A copy: where there are nulls, scikit-learn refuses rows that are memory-mapped read-only.
                forest.fit(np.array(X), y, sample_weight=scaled)
        except ValueError as error:
            raise CandidateError(f"forest: {' '.join(str(error).split())}") from error
        if not classes:
            return Regressor(forest)
        prior = np.bincount(np.searchsorted(present, y), weights=scaled) / scaled.sum()
        return Classifier(forest, tuple(self._leaves(tree.tree_, prior) for tree in forest.estimators_), present, classes)

    def _leaves(self, tree: Any, prior: np.ndarray) -> np.ndarray:
        """(nodes, P) smoothed shares."""
        weight = tree.weighted_n_node_samples[:, None]
        return (weight * tree.value[:, 0] + self.smoothing * prior) / (weight + self.smoothing)

    @classmethod
    def tiny(cls) -> Self:
        """Few trees with large leaves."""
        return cls(trees=40, leaf=0.03)


@dataclass(frozen=True)
class Classifier:
    """A fitted forest.

    Args:
        forest: its trees.
        leaves: per tree (nodes, P) chances.
        present: (P,) class ids.
        classes: C.
    """

    forest: RandomForestClassifier
    leaves: tuple[np.ndarray, ...]
    present: np.ndarray
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        if not len(X):  # which scikit-learn refuses
            return np.empty((0, self.classes))
        with threadpool_limits(1):
            places = self.forest.apply(X)
        chances = np.mean([leaves[place] for leaves, place in zip(self.leaves, places.T, strict=True)], axis=0)
        return log_probabilities(np.log(np.maximum(chances, 1e-300)), self.present, self.classes)


@dataclass(frozen=True)
class Regressor:
    """A fitted forest of values."""

    forest: RandomForestRegressor

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n,) predictions."""
        if not len(X):
            return np.empty(0)
        with threadpool_limits(1):
            return np.asarray(self.forest.predict(X), dtype=np.float64)

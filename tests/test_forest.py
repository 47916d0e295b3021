"""The forest against scikit-learn's own averages, and what smoothing its leaves is for."""

from dataclasses import replace

import numpy as np
import pytest

from codsa_ray.errors import CandidateError
from codsa_ray.learners.forest import Forest


def rare(n=600, seed=0):
    """One row in thirty is of class 1, most of which lie to the right."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 30 == 0).astype(np.int64)
    return (rng.normal(size=(n, 4)) + 1.5 * y[:, None] * [1, 0, 0, 0]).astype(np.float32), y, np.ones(n)


def test_without_smoothing_chances_are_scikit_learns():
    X, y, weight = rare()
    fitted = Forest(trees=20, smoothing=0.0, leaf=0.01).fit(X, y, weight, classes=2, seed=3)
    assert np.exp(fitted.scores(X)) == pytest.approx(np.clip(fitted.forest.predict_proba(X), 1e-7, 1), abs=1e-6)


def test_a_leaf_is_smoothed_towards_the_share_of_all_rows():
    """One tree, by hand: (W_c + s p_c) / (W + s) of the leaf that each row falls into, bootstrap counts as W."""
    X, y, weight = rare()
    fitted = Forest(trees=1, smoothing=2.0, leaf=0.01).fit(X, y, weight, classes=2, seed=0)
    tree = fitted.forest.estimators_[0].tree_
    leaf = tree.apply(X)
    held = tree.weighted_n_node_samples[leaf]
    prior = np.array([1 - y.mean(), y.mean()])
    assert np.exp(fitted.scores(X)) == pytest.approx((held[:, None] * tree.value[leaf, 0] + 2 * prior) / (held[:, None] + 2), abs=1e-6)


def test_smoothing_keeps_rare_rows_from_being_impossible():
    """Pure leaves say 0 to most rare rows, which costs 16 nats each; smoothed ones cost less on new rows."""
    X, y, weight = rare()
    new, truth, _ = rare(seed=1)
    losses = [-Forest(smoothing=s).fit(X, y, weight, classes=2, seed=0).scores(new)[truth == 1, 1].mean() for s in (0.0, 1.0)]
    assert losses[1] < losses[0] - 0.2


def test_nulls_are_values_to_a_tree():
    """A column whose nulls tell the class, in rows that may not be written to."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = np.where(y[:, None] == 1, np.nan, rng.normal(size=(200, 1))).astype(np.float32)
    X.setflags(write=False)
    scores = Forest(trees=20).fit(X, y, np.ones(200), classes=2, seed=0).scores(X)
    assert np.exp(scores)[np.arange(200), y].min() > 0.9


def test_values_are_means_of_leaves():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    fitted = Forest(trees=10).fit(X, X[:, 0] ** 2, np.ones(300), classes=0, seed=0)
    assert np.array_equal(fitted.scores(X), fitted.forest.predict(X))
    assert fitted.scores(X[:0]).shape == (0,)


def test_what_scikit_learn_refuses_is_a_reason():
    X, y, weight = rare()
    with pytest.raises(CandidateError, match="forest: "):
        replace(Forest.tiny(), leaf=0.9).fit(X, y, weight, classes=2, seed=0)
    X[0, 0] = np.inf
    with pytest.raises(CandidateError, match=r"forest: .*infinity"):
        Forest.tiny().fit(X, y, weight, classes=2, seed=0)

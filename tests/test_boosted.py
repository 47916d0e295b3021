"""Boosted trees: offsets, starting point, penalties and the reference implementation."""

import numpy as np
import pytest
import xgboost as xgb

from codsa_ray.errors import CandidateError
from codsa_ray.learners.boosted import Boosted
from codsa_ray.scores import best_constant


def rows(classes=2, n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return X, np.clip(np.digitize(X[:, 0] + 0.3 * rng.normal(size=n), [0.8, 1.5][: classes - 1]), 0, classes - 1), np.ones(n)


def test_the_trees_are_those_of_xgboost():
    """XGBClassifier with the same settings and the class share as its base score gives the same probabilities."""
    X, y, weight = rows()
    ours = np.exp(Boosted().fit(X, y, weight, classes=2, seed=0).scores(X))[:, 1]
    settings = {"n_estimators": 150, "max_depth": 4, "learning_rate": 0.1, "min_child_weight": 0.1, "reg_lambda": 10.0}
    reference = xgb.XGBClassifier(**settings, tree_method="hist", n_jobs=1, base_score=float(y.mean())).fit(X, y)
    assert np.allclose(ours, reference.predict_proba(X)[:, 1], atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_without_rounds_to_learn_the_scores_are_the_weighted_shares(classes):
    """The start is the best constant, so that a rare class costs no rounds; an offset of the log shares makes it flat."""
    X, y, _ = rows(classes)
    weight = np.random.default_rng(0).uniform(1, 3, len(y))
    idle = Boosted(rounds=1, rate=1e-9)
    share = np.bincount(y, weights=weight) / weight.sum()
    assert np.allclose(np.exp(idle.fit(X, y, weight, classes=classes, seed=0).scores(X)), share, atol=1e-5)
    offset = np.tile(np.log(share), (len(y), 1))
    assert np.allclose(np.exp(idle.fit(X, y, weight, classes=classes, seed=0, offset=offset).scores(X)), 1 / classes, atol=1e-5)


def test_the_best_constant_meets_the_class_totals():
    """At the minimum of the log loss the expected total of each class is its observed one, whatever the offset."""
    rng = np.random.default_rng(0)
    offset, labels, weight = rng.normal(size=(500, 3)), rng.choice(3, 500, p=[0.9, 0.08, 0.02]), rng.uniform(0.1, 5, 500)
    scores = offset + best_constant(offset, labels, weight)
    expected = weight @ (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
    assert np.allclose(expected, np.bincount(labels, weights=weight), rtol=1e-6)


def test_uneven_weights_count_as_fewer_rows():
    """Kish: a few heavy rows are few rows to the penalties, and leaves shrink towards the start."""
    X, y, weight = rows()
    uneven = np.where(np.arange(len(y)) % 10 == 0, 1e6, 1.0)
    heavy = y[::10]
    even = Boosted().fit(X[::10], heavy, weight[::10], classes=2, seed=0).scores(X)
    lone = Boosted().fit(X, y, uneven, classes=2, seed=0).scores(X)
    assert np.abs(np.exp(even) - np.exp(lone)).mean() < 0.02


def test_nulls_are_their_own_direction():
    """Missing on purpose: NaN rows of class 1 among numbers of class 0 are told apart."""
    X = np.array([[np.nan]] * 30 + [[1.0], [2.0], [3.0]] * 10, dtype=np.float32)
    scores = Boosted.tiny().fit(X, np.repeat([1, 0], 30), np.ones(60), classes=2, seed=0).scores(X)
    assert np.exp(scores[:30, 1]).min() > 0.8
    assert np.exp(scores[30:, 0]).min() > 0.8


def test_what_xgboost_refuses_is_a_reason():
    X, y, weight = rows()
    X[0, 0] = np.inf
    with pytest.raises(CandidateError, match="xgboost"):
        Boosted.tiny().fit(X, y, weight, classes=2, seed=0)

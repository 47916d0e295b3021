"""Estimators by import path: what is accepted, what is refused and how."""

import warnings

import numpy as np
import pytest

from codsa_ray.encode import OneHot, Ordinal
from codsa_ray.errors import CandidateError, SettingError
from codsa_ray.learners.sklearn import Sklearn

from tables import mixed_table


def rows(n=120, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    return (rng.normal(size=(n, 3)) + y[:, None]).astype(np.float32), y, np.ones(n)


def test_a_path_with_settings_is_read():
    """Both spellings, any literal; the instance equals the one made by hand."""
    assert Sklearn.parse("sklearn.ensemble.RandomForestClassifier") == Sklearn()
    parsed = Sklearn.parse(" sklearn.ensemble.RandomForestClassifier(n_estimators=50, max_depth=3, criterion='entropy') ")
    assert parsed == Sklearn(settings=(("n_estimators", 50), ("max_depth", 3), ("criterion", "entropy")))
    assert parsed._estimator(0).n_estimators == 50
    assert Sklearn("sklearn.ensemble.RandomForestClassifier", [["n_estimators", 50]]).settings == (("n_estimators", 50),)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("sklearn.ensemble.RandomForestClassifier(n_estimators=__import__('os'))", "import path with literal settings"),
        ("sklearn.ensemble.RandomForestClassifier(100)", "settings have names|literal settings"),
        ("sklearn.ensemble.RandomForestClassifier(**{'a': 1})", "literal settings"),
        ("sklearn.ensemble.RandomForestClassifier(", "literal settings"),
        ("", "literal settings"),
        ("RandomForestClassifier", "import path of a class"),
        ("sklearn.ensemble.RandomForestClassifer", "a class RandomForestClassifer in sklearn.ensemble"),
        ("no_such_module.Thing", "a module no_such_module"),
        ("sklearn.ensemble", "a class ensemble"),
        ("sklearn.metrics.log_loss", "a class log_loss"),
        ("sklearn.svm.LinearSVC", "predict_proba"),
        ("sklearn.svm.SVC", "predict_proba"),
        ("sklearn.neighbors.KNeighborsClassifier", "sample_weight"),
        ("sklearn.ensemble.RandomForestClassifier(trees=3)", "settings of sklearn.ensemble.RandomForestClassifier"),
        ("collections.OrderedDict", "settings of collections.OrderedDict"),
        ("sklearn.ensemble.VotingClassifier", "settings of"),
        ("os.system('true')", "a class system|literal settings"),
    ],
)
def test_what_is_no_weighted_classifier_is_refused_in_one_line(text, got):
    with pytest.raises(SettingError, match=got) as caught:
        Sklearn.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_nulls_reach_only_estimators_that_take_them():
    table, schema, _ = mixed_table(200)
    assert isinstance(Sklearn().encoder(table, schema), Ordinal)
    assert isinstance(Sklearn("sklearn.ensemble.HistGradientBoostingClassifier").encoder(table, schema), Ordinal)
    assert isinstance(Sklearn("sklearn.linear_model.LogisticRegression").encoder(table, schema), OneHot)


@pytest.mark.parametrize("path", ["ensemble.RandomForestClassifier", "naive_bayes.GaussianNB", "linear_model.LogisticRegression"])
def test_scores_are_the_estimators_own(path):
    """The same estimator fitted by hand gives the same probabilities, up to the clip."""
    X, y, weight = rows()
    learner = Sklearn(f"sklearn.{path}")
    by_hand = learner._estimator(5).fit(X, y, sample_weight=weight)
    ours = np.exp(learner.fit(X, y, weight, classes=2, seed=5).scores(X))
    assert np.allclose(ours, by_hand.predict_proba(X), atol=1e-6)


def test_the_seed_is_the_estimators_unless_the_user_chose_one():
    assert Sklearn()._estimator(7).random_state == 7
    assert Sklearn(settings=(("random_state", 1),))._estimator(7).random_state == 1
    assert Sklearn("xgboost.XGBClassifier")._estimator(7).n_jobs == 1


def test_a_setting_the_estimator_refuses_is_a_reason():
    X, y, weight = rows()
    learner = Sklearn(settings=(("n_estimators", -3),))
    with warnings.catch_warnings(), pytest.raises(CandidateError, match="n_estimators") as caught:
        learner.fit(X, y, weight, classes=2, seed=0)
    assert "\n" not in str(caught.value)

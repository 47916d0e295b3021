"""Bias-corrected rows: what is added, with which weights, and that they take a known bias off."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imblearn.over_sampling import SMOTE
from scipy.special import expit

from codsa_ray.bias import BiasCorrection, ate, bias_corrected, indicators, jitter, nearest, smote
from codsa_ray.errors import CandidateError
from codsa_ray.learners.logistic import Logistic

EVERY = [BiasCorrection(centred, held, own) for centred in (True, False) for held in (True, False) for own in (True, False)]


def rows(n0=120, n1=10, d=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [n0, n1])
    return rng.normal(size=(n0 + n1, d)) + 2 * y[:, None], y


def shifted(by):
    """A generator with a bias that is known: rows drawn again, moved."""

    def synthesize(rows, size, rng):
        return rows[np.resize(rng.permutation(len(rows)), size)] + by

    return synthesize


@given(st.integers(2, 40), st.integers(1, 60), st.integers(0, 100), st.sampled_from(EVERY), st.integers(0, 5))
def test_weight_is_added_to_the_groups_that_asked_and_to_no_other(n0, n1, size, settings, seed):
    """In each group the signed rows sum to the rows asked for; drawn rows of the group come first, each of weight 1."""
    X, y = rows(n0, n1, seed=seed)
    added = bias_corrected(X, y, y, np.array([0, size]), smote, np.random.default_rng(seed), settings)
    assert np.bincount(added.group, added.weight, 2) == pytest.approx([0, size], abs=1e-9)
    assert np.bincount(added.y, added.weight, 2) == pytest.approx([0, size], abs=1e-9)
    assert (added.weight[:size] == 1).all()
    assert (added.y[:size] == 1).all()
    assert set(np.sign(added.weight[size:])) == ({-1.0, 1.0} if size else set())


def test_donors_are_the_largest_group_of_another_label():
    """Groups 0 and 1 have label 0, groups 2 and 3 label 1: group 3 lacks rows and group 1 gives; its own label's largest never does."""
    group = np.repeat([0, 1, 2, 3], [20, 30, 90, 5])
    y = (group >= 2).astype(int)
    X = group[:, None] * 100.0 + np.arange(145)[:, None] / 1000
    added = bias_corrected(
        X, y, group, np.array([0, 0, 0, 7]), smote, np.random.default_rng(0), BiasCorrection(centred=False, own_label=True)
    )
    assert Counter(added.group.tolist()) == {3: 7, 1: 60}
    assert (np.rint(added.X[7:, 0] / 100) == 1).all()
    assert (added.y[7:] == 0).all()


def test_every_donor_row_counts_once_and_never_beside_its_own_block():
    """25 donors, 6 rare rows: four blocks of six. Compared rows are 24 of the donors, each once, of other blocks than the drawn ones."""
    X, y = np.arange(31.0)[:, None] ** 2 + 0.5, np.repeat([0, 1], [25, 6])
    copies = shifted(0.0)
    for held_out in (True, False):
        settings = BiasCorrection(centred=False, held_out=held_out)
        added = bias_corrected(X, y, y, np.array([0, 12]), copies, np.random.default_rng(0), settings)
        drawn, real = (added.X[added.weight == w, 0].reshape(4, 6) for w in (-0.5, 0.5))
        assert len(set(real.ravel())) == 24
        assert set(real.ravel()) <= set(X[:25, 0])
        shared = [len(set(a) & set(b)) for a, b in zip(drawn, real, strict=True)]
        assert shared == ([0] * 4 if held_out else [6] * 4)


def test_centred_donors_lie_where_the_rare_rows_do_but_for_indicators():
    """Drawn and compared rows of a block are moved alike, from the block's mean to the rare rows'; flags stay 0 or 1."""
    X, y = rows()
    X[:, 2] = X[:, 2] > 1
    assert indicators(X).tolist() == [False, False, True]
    added = bias_corrected(X, y, y, np.array([0, 110]), shifted(0.0), np.random.default_rng(0))
    drawn = added.X[(added.weight < 0)].reshape(12, 10, 3)
    assert drawn[:, :, :2].mean(axis=1) == pytest.approx(np.tile(X[y == 1, :2].mean(axis=0), (12, 1)))
    assert indicators(added.X).tolist() == [False, False, True]
    assert added.X[110:, 2].mean() == pytest.approx(X[y == 0, 2].mean())


def test_a_known_bias_is_taken_off_the_mean():
    """A generator that moves every row by 3: the signed mean of the rare rows is their own again, exactly; without donors it is not."""
    X, y = rows()
    added = bias_corrected(X, y, y, np.array([0, 30]), shifted(3.0), np.random.default_rng(0))
    own = X[y == 1].mean(axis=0)
    assert added.X.T @ added.weight / 30 == pytest.approx(own)
    assert added.X[:30].mean(axis=0) == pytest.approx(own + 3.0)


def test_a_shrunken_spread_is_made_up_for():
    """SMOTE's points between few rows have less variance than new rows of the group; the corrected second moment has not."""
    shares = []
    for seed in range(40):
        X, y = rows(400, 8, d=4, seed=seed)
        added = bias_corrected(X, y, y, np.array([0, 400]), smote, np.random.default_rng(seed))
        away = np.square(added.X - X[y == 1].mean(axis=0)).sum(axis=1)
        shares.append([away[:400].mean() / 4, away @ added.weight / 400 / 4])
    plain, corrected = np.mean(shares, axis=0)
    assert plain < 0.75
    # New rows lie 1 + 1/8 variances around the mean of eight.
    assert corrected == pytest.approx(1.125, abs=0.15)


def test_the_corrected_logistic_regression_is_nearer_the_truth_than_the_interpolated_one():
    """d = 20 and 50 rare rows (methods of the paper's own setting): balanced log loss on new rows, five seeds, each one better."""
    axis = 1.5 * np.eye(20)[0]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        y, truth = np.repeat([0, 1], [1000, 50]), np.repeat([0, 1], 2000)
        X, new = rng.normal(size=(1050, 20)) + y[:, None] * axis, rng.normal(size=(4000, 20)) + truth[:, None] * axis
        added = bias_corrected(X, y, y, np.array([0, 950]), smote, rng)
        losses = []
        for taken in (np.arange(len(added.y)) < 950, added.weight != 0):
            weight = np.concatenate([np.ones(1050), added.weight[taken]])
            fitted = Logistic().fit(np.vstack([X, added.X[taken]]), np.concatenate([y, added.y[taken]]), weight, classes=2, seed=0)
            losses.append(-fitted.scores(new)[np.arange(4000), truth].mean())
        assert losses[1] < losses[0] - 0.01


def test_points_lie_between_near_rows_as_imbalanced_learns_do():
    """The same mean and covariance as SMOTE's of the library, of many points; every point on a segment to one of five neighbours."""
    X, y = rows(2000, 40, d=2)
    rare = X[y == 1]
    found = smote(rare, 4000, np.random.default_rng(0))
    known = SMOTE(sampling_strategy={1: 4000}, random_state=0).fit_resample(np.vstack([X, X[y == 0]]), np.concatenate([y, y[y == 0]]))
    theirs = known[0][-3960:]
    assert found.mean(axis=0) == pytest.approx(theirs.mean(axis=0), abs=0.05)
    assert np.cov(found.T) == pytest.approx(np.cov(theirs.T), abs=0.08)
    near = nearest(rare, 5)
    a, b = np.repeat(rare, 5, axis=0), rare[near.ravel()]
    for point in found[:50]:
        beyond = np.linalg.norm(point - a, axis=1) + np.linalg.norm(point - b, axis=1) - np.linalg.norm(a - b, axis=1)
        assert beyond.min() < 1e-9


def test_jitter_is_a_smoothed_bootstrap():
    """Rows evenly, noise of .3 deviations: variance 1 + .09 of the group's own, flags untouched, one row stays itself."""
    X, _ = rows(50, 1)
    X[:, 2] = X[:, 2] > 0
    drawn = jitter(X[:50], 20_000, np.random.default_rng(0))
    assert drawn[:, :2].var(axis=0) == pytest.approx(1.09 * X[:50, :2].var(axis=0), rel=0.03)
    assert drawn[:, 2].mean() == pytest.approx(X[:50, 2].mean())
    assert np.array_equal(jitter(X[:1], 3, np.random.default_rng(0)), np.repeat(X[:1], 3, axis=0))
    assert np.array_equal(smote(X[:1], 3, np.random.default_rng(0)), np.repeat(X[:1], 3, axis=0))


def test_the_same_seed_gives_the_same_rows():
    X, y = rows()
    one, again, other = (bias_corrected(X, y, y, np.array([0, 30]), smote, np.random.default_rng(s)).X for s in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_what_cannot_be_corrected_is_a_reason():
    X, y = rows(20, 4)
    with pytest.raises(CandidateError, match="group 2, which has none"):
        bias_corrected(X, y, y, np.array([0, 0, 5]), smote, np.random.default_rng(0))
    with pytest.raises(CandidateError, match="no group of another label than 1"):
        bias_corrected(X[19:], y[19:], y[19:], np.array([0, 5]), smote, np.random.default_rng(0))


# --- average treatment effect


def patients(seed=0, n=400, few=40):
    """Sicker people are treated, which adds 2 to an outcome that is a line in two columns."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2))
    treated = np.zeros(n, dtype=int)
    treated[rng.choice(n, few, replace=False, p=expit(X[:, 0]) / expit(X[:, 0]).sum())] = 1
    return X, X @ [1.0, -1.0] + 2.0 * treated + rng.normal(0, 0.3, n), treated


def test_the_effect_without_drawn_rows_is_that_of_two_regressions():
    X, outcome, treated = patients()
    design = np.column_stack([X, np.ones(400)])
    fits = [np.linalg.lstsq(design[treated == a], outcome[treated == a], rcond=None)[0] for a in (0, 1)]
    assert ate(X, outcome, treated, 0, smote, np.random.default_rng(0)) == pytest.approx(np.mean(design @ (fits[1] - fits[0])))


def test_a_generators_bias_does_not_enter_the_effect():
    """Drawn outcomes that are .8 too high: two thirds of the treated rows are drawn, yet the effect is 2 and not 2.5."""
    effects = []
    for seed in range(20):
        X, outcome, treated = patients(seed)
        moved = shifted(np.array([0.0, 0.0, 0.8]))
        arm = np.column_stack([X, outcome])[treated == 1]
        plain = np.vstack([arm, moved(arm, 80, np.random.default_rng(seed))])
        design = np.column_stack([plain[:, :2], np.ones(120)])
        line = np.linalg.lstsq(design, plain[:, 2], rcond=None)[0]
        control = np.linalg.lstsq(np.column_stack([X, np.ones(400)])[treated == 0], outcome[treated == 0], rcond=None)[0]
        biased = np.mean(np.column_stack([X, np.ones(400)]) @ (line - control))
        effects.append([biased, ate(X, outcome, treated, 80, moved, np.random.default_rng(seed))])
    assert np.mean(effects, axis=0) == pytest.approx([2 + 0.8 * 2 / 3, 2.0], abs=0.1)


def test_an_arm_whose_equations_are_flat_is_a_reason():
    X, outcome, treated = patients()
    with pytest.raises(CandidateError, match="not positive definite"):
        ate(np.column_stack([X, X[:, 0]]), outcome, treated, 80, smote, np.random.default_rng(0))

"""Losses and their balance, against closed forms and references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mean_absolute_error, mean_pinball_loss

from codsa_ray.errors import CandidateError, InternalError, SettingError
from codsa_ray.risk import (
    WORST_LOG_LOSS,
    Absolute,
    Anomaly,
    Classification,
    Pinball,
    Regression,
    absent,
    balanced,
    estimate,
    group_means,
    group_sums,
    paired,
    row_weights,
    strata_of,
    task_of,
    worst,
)

MIX = np.array([0.5, 0.3, 0.2])


def rows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.gamma(1.0, size=60), rng.integers(-1, 3, 60)


def test_classification_is_sklearns_log_loss_whatever_constant_is_added_to_the_logits() -> None:
    rng = np.random.default_rng(0)
    logits, truth = rng.standard_normal((40, 3)), rng.integers(0, 3, 40)
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = Classification(3).losses(logits + 7, truth)
    assert losses.mean() == pytest.approx(log_loss(truth, chance, labels=[0, 1, 2]))


def test_an_impossible_or_unseen_label_costs_the_worst_loss_and_no_more() -> None:
    scores = np.log(np.array([[1 - 1e-12, 1e-12], [0.5, 0.5]]))
    assert Classification(2).losses(scores, np.array([1, -1])) == pytest.approx([WORST_LOG_LOSS] * 2)
    assert Anomaly().losses(np.array([-99.0, 99.0]), np.array([1, 0])) == pytest.approx([WORST_LOG_LOSS] * 2)


def test_anomaly_is_classification_of_two_labels() -> None:
    odds, truth = np.linspace(-5, 5, 11), np.arange(11) % 2
    two = Classification(2).losses(np.stack([np.zeros(11), odds], axis=1), truth)
    assert Anomaly().losses(odds, truth) == pytest.approx(two)


def test_regression_is_squared_error() -> None:
    assert Regression().losses(np.array([1.0, 4.0]), np.array([3.0, 4.0])).tolist() == [4.0, 0.0]


def test_absolute_and_pinball_are_sklearns() -> None:
    rng = np.random.default_rng(6)
    scores, truth = rng.normal(size=50), rng.normal(size=50)
    assert Absolute().losses(scores, truth).mean() == pytest.approx(mean_absolute_error(truth, scores))
    assert Pinball(0.8).losses(scores, truth).mean() == pytest.approx(mean_pinball_loss(truth, scores, alpha=0.8))
    assert Pinball(0.5).losses(scores, truth) == pytest.approx(Absolute().losses(scores, truth) / 2)
    assert Pinball(0.9).losses(np.array([0.0, 0.0]), np.array([2.0, -2.0])).tolist() == pytest.approx([1.8, 0.2])


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=30).map(np.array),
    st.sampled_from(["squared", "absolute", "pinball:0.5", "pinball:0.1", "pinball:0.75"]),
)
def test_the_best_constant_is_the_mean_the_median_or_the_quantile(truth: np.ndarray, loss: str) -> None:
    level = float(loss.partition(":")[2] or 0.5)
    best = truth.mean() if loss == "squared" else np.quantile(truth, level, method="inverted_cdf")
    task = task_of("regression", loss=loss)

    def cost(constant: float) -> float:
        return float(task.losses(np.full(len(truth), constant), truth).mean())

    assert all(cost(best) <= cost(other) + 1e-9 for other in np.arange(-51, 51, 0.5))


@pytest.mark.parametrize("loss", ["huber", "pinball", "pinball:0", "pinball:1", "pinball:x", "pinball:nan"])
def test_a_loss_that_does_not_exist_is_refused(loss: str) -> None:
    with pytest.raises(SettingError, match="squared, absolute or pinball:Q"):
        task_of("regression", loss=loss)


def test_only_a_regression_has_a_choice_of_losses() -> None:
    assert task_of("regression") == task_of("regression", loss="squared") == Regression()
    with pytest.raises(SettingError, match="--task regression"):
        task_of("classification", 2, "absolute")


@pytest.mark.parametrize("scores", [np.full((4, 2), np.nan), np.full((4, 2), np.inf), np.zeros((4, 3)), np.zeros(4)])
def test_scores_that_are_no_scores_are_the_candidates_error(scores: np.ndarray) -> None:
    with pytest.raises(CandidateError):
        Classification(2).losses(scores, np.zeros(4, dtype=int))


def test_tasks_are_found_by_name() -> None:
    assert [task_of(name, 3).name for name in ("classification", "regression", "anomaly")] == ["classification", "regression", "anomaly"]
    with pytest.raises(SettingError, match="ranking"):
        task_of("ranking")


def test_sums_and_means_leave_out_rows_without_a_group() -> None:
    losses, groups = np.array([1.0, 2.0, 4.0, 100.0]), np.array([0, 0, 2, -1])
    total, count = group_sums(losses, groups, 3)
    assert (total.tolist(), count.tolist()) == ([3.0, 0.0, 4.0], [2, 0, 1])
    assert group_means(losses, groups, 3).tolist() == pytest.approx([1.5, np.nan, 4.0], nan_ok=True)
    assert worst(losses, groups, 3) == 4.0


def test_balanced_is_the_mix_of_group_means_and_shares_out_the_weight_of_absent_groups() -> None:
    losses, groups = np.array([1.0, 2.0, 4.0, 100.0]), np.array([0, 0, 2, -1])
    assert balanced(losses, groups, MIX) == pytest.approx((0.5 * 1.5 + 0.2 * 4.0) / 0.7)
    assert absent(groups, MIX).tolist() == [1]
    assert row_weights(groups, MIX).sum() == pytest.approx(1)
    with pytest.raises(InternalError):
        balanced(losses, np.full(4, -1), MIX)


def test_the_standard_error_is_the_stratified_formula() -> None:
    losses, groups = rows(np.random.default_rng(1))
    found = estimate(losses, groups, MIX)
    wanted = sum(MIX[g] ** 2 * losses[groups == g].var(ddof=1) / np.sum(groups == g) for g in range(3))
    assert found.se[0] == pytest.approx(np.sqrt(wanted))
    assert found.mean[0] == pytest.approx(balanced(losses, groups, MIX))
    assert found.excluded == np.sum(groups == -1) > 0


def test_the_standard_error_is_the_spread_over_fresh_samples() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat([0, 1, 2], [12, 60, 200])
    found = [estimate(rng.gamma(1.0 + groups), groups, MIX) for _ in range(400)]
    spread = np.std([one.mean[0] for one in found])
    assert np.sqrt(np.mean([one.se[0] ** 2 for one in found])) == pytest.approx(spread, rel=0.12)


def test_rows_of_one_unit_count_as_one() -> None:
    rng = np.random.default_rng(3)
    losses, groups = rng.gamma(1.0, size=40), np.repeat([0, 1], 20)
    once = estimate(losses, groups, np.array([0.5, 0.5]))
    tripled = [np.repeat(a, 3) for a in (losses, groups, np.arange(40))]
    thrice = estimate(tripled[0], tripled[1], np.array([0.5, 0.5]), units=tripled[2])
    assert thrice.se[0] == pytest.approx(once.se[0])
    assert estimate(tripled[0], tripled[1], np.array([0.5, 0.5])).se[0] < 0.65 * once.se[0]


def test_a_units_stratum_is_its_rarest_group() -> None:
    unit, stratum = strata_of(np.array([0, 0, 0, 1, 1, 2]), np.array(["a", "b", "c", "a", "b", "a"]))
    assert unit.tolist() == [0, 1, 2, 0, 1, 0]
    assert stratum.tolist() == [2, 1, 0]


def test_the_floor_lifts_a_group_that_has_not_shown_its_tail_and_never_lowers() -> None:
    losses, groups = np.concatenate([np.full(10, 0.1), np.random.default_rng(4).gamma(1.0, size=500)]), np.repeat([0, 1], [10, 500])
    plain, floored = (estimate(losses, groups, np.array([0.5, 0.5]), floor=f) for f in (False, True))
    pooled = np.square(losses[10:] - losses[10:].mean()).sum() / 508
    assert floored.se[0] ** 2 == pytest.approx(plain.se[0] ** 2 + 0.25 * pooled / 10)
    assert floored.df[0] < 12


def test_paired_differences_are_far_surer_than_their_parts() -> None:
    rng = np.random.default_rng(5)
    groups = np.repeat([0, 1, 2], 100)
    before = rng.gamma(1.0, size=300)
    after = before - 0.05 + 0.01 * rng.standard_normal(300)
    mean, se = paired(after, before, groups, MIX)
    assert mean == pytest.approx(-0.05, abs=0.003)
    assert se < 0.05 * estimate(before, groups, MIX).se[0]

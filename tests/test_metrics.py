"""Label metrics against scikit-learn and imbalanced-learn, and what threshold moving may and may not change."""

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from codsa_ray.audit.metrics import expected_calibration_error, label_metrics, move_thresholds, point_metrics, probabilities


def drawn(seed: int, classes: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Scores that know something, with ties, and labels of falling frequency."""
    rng = np.random.default_rng(seed)
    share = 0.4 ** np.arange(classes)
    truth = np.concatenate([np.arange(classes), rng.choice(classes, rows - classes, p=share / share.sum())])
    logits = np.round(rng.standard_normal((rows, classes)) + 1.2 * np.eye(classes)[truth] + np.log(share), 1)
    return logits, truth


@pytest.mark.parametrize("seed", range(4))
def test_two_classes_give_what_the_libraries_give(seed: int) -> None:
    logits, truth = drawn(seed, 2)
    chance, guess = probabilities(logits)[:, 1], logits.argmax(axis=1)
    found = point_metrics(logits, truth)
    wanted = {
        "balanced accuracy": balanced_accuracy_score(truth, guess),
        "AUROC": roc_auc_score(truth, chance),
        "AUPRC": average_precision_score(truth, chance),
        "G-mean": geometric_mean_score(truth, guess),
        "F1": f1_score(truth, guess),
        "MCC": matthews_corrcoef(truth, guess),
        "Brier score": 2 * brier_score_loss(truth, chance),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_many_classes_give_what_the_libraries_give(seed: int) -> None:
    logits, truth = drawn(seed, 4)
    chance, guess = probabilities(logits), logits.argmax(axis=1)
    found = point_metrics(logits, truth)
    wanted = {
        "balanced accuracy": balanced_accuracy_score(truth, guess),
        "AUROC": roc_auc_score(truth, chance, multi_class="ovr"),
        "AUPRC": average_precision_score(np.eye(4)[truth], chance),
        "G-mean": geometric_mean_score(truth, guess),
        "macro F1": f1_score(truth, guess, average="macro"),
        "MCC": matthews_corrcoef(truth, guess),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)


def test_the_rarer_class_is_the_one_that_counts_whichever_id_it_has() -> None:
    logits, truth = drawn(5, 2)
    logits = logits + 0.001 * np.random.default_rng(0).standard_normal(logits.shape)  # ties would go to the first label
    flipped = point_metrics(logits[:, ::-1], 1 - truth)
    assert flipped == pytest.approx(point_metrics(logits, truth))


def test_calibration_error_is_the_distance_of_chance_and_share() -> None:
    truth = np.tile([0, 0, 0, 1], 100)
    chance = np.full((400, 2), [0.9, 0.1])
    assert expected_calibration_error(chance, truth, bins=1) == pytest.approx(0.15)
    rng = np.random.default_rng(6)
    p = rng.uniform(size=20_000)
    good = expected_calibration_error(np.stack([1 - p, p], axis=1), (rng.uniform(size=20_000) < p).astype(int))
    assert good < 0.015


@pytest.mark.parametrize("classes", [2, 4])
def test_moved_thresholds_raise_balanced_accuracy_and_leave_ranking_and_chances_alone(classes: int) -> None:
    logits, truth = drawn(7, classes, 600)
    terms = move_thresholds(logits, truth)
    before, after = point_metrics(logits, truth), point_metrics(logits, truth, terms)
    assert after["balanced accuracy"] > before["balanced accuracy"] + 0.03
    for name in ("AUROC", "AUPRC", "Brier score", "calibration error"):
        assert after[name] == before[name]


def test_for_two_classes_no_threshold_is_better_than_the_moved_one() -> None:
    logits, truth = drawn(8, 2)
    moved = point_metrics(logits, truth, move_thresholds(logits, truth))["balanced accuracy"]
    grid = [point_metrics(logits, truth, np.array([0.0, t]))["balanced accuracy"] for t in np.arange(-8.025, 8, 0.05)]
    assert moved == pytest.approx(max(grid))


def test_log_odds_are_two_columns() -> None:
    odds, truth = drawn(9, 2)[0][:, 1], drawn(9, 2)[1]
    assert point_metrics(odds, truth) == pytest.approx(point_metrics(np.stack([np.zeros(400), odds], axis=1), truth))


def test_intervals_hold_the_value_cover_the_truth_and_repeat() -> None:
    rng = np.random.default_rng(10)
    covered = 0
    for seed in range(12):
        truth = np.repeat([0, 1], [200, 60])
        odds = truth + rng.standard_normal(260)
        found = label_metrics(odds, truth, seed, resamples=40)["AUROC"]
        assert found["low"] <= found["value"] <= found["high"]  # type: ignore[operator]
        covered += found["low"] <= 0.7602 <= found["high"]  # type: ignore[operator]
    assert covered >= 9
    assert label_metrics(odds, truth, 3, resamples=5) == label_metrics(odds, truth, 3, resamples=5)


def test_unseen_labels_are_left_out_and_a_class_without_rows_gives_none() -> None:
    logits, truth = drawn(11, 3)
    strange = np.concatenate([truth, [-1, -1]])
    assert label_metrics(np.concatenate([logits, logits[:2]]), strange, 0, resamples=5) == label_metrics(logits, truth, 0, resamples=5)
    two_of_three = label_metrics(logits[truth < 2], truth[truth < 2], 0, resamples=5)
    assert two_of_three["AUROC"] == {"value": None, "low": None, "high": None}
    assert two_of_three["balanced accuracy"]["value"] is not None

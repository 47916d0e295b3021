"""Metrics against scikit-learn and imbalanced-learn, their intervals, and what threshold moving may and may not change."""

import time

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    matthews_corrcoef,
    r2_score,
    roc_auc_score,
)

from codsa_ray.audit.intervals import Resamples, measured
from codsa_ray.audit.metrics import OF_LABELS, Sample, expected_calibration_error, guesses, point_metrics, probabilities, undefined
from codsa_ray.audit.resampled import resampled
from codsa_ray.audit.thresholds import move_thresholds


def sample_of(truth: np.ndarray, classes: int, group: np.ndarray | None = None, unit: np.ndarray | None = None) -> Sample:
    """Groups are the labels, weighted alike, unless given."""
    group = truth if group is None else group
    size = max(classes, int(group.max()) + 1)
    names = tuple(f"group {g}" for g in range(size))
    return Sample.of("classification", truth, group, unit, np.full(size, 1 / size), names, tuple("abcdefghijkl"[:classes]))


def drawn(seed: int, classes: int, rows: int = 400) -> tuple[np.ndarray, Sample]:
    """Scores that know something, with ties, and labels of falling frequency."""
    rng = np.random.default_rng(seed)
    share = 0.4 ** np.arange(classes)
    truth = np.concatenate([np.arange(classes), rng.choice(classes, rows - classes, p=share / share.sum())])
    logits = np.round(rng.standard_normal((rows, classes)) + 1.2 * np.eye(classes)[truth] + np.log(share), 1)
    return logits, sample_of(truth, classes)


def of_values(seed: int, rows: int = 300) -> tuple[np.ndarray, Sample]:
    rng = np.random.default_rng(seed)
    group = np.concatenate([[0, 1, 2], rng.choice(3, rows - 3, p=[0.7, 0.2, 0.1])])
    truth = rng.normal(3 * group, 1 + group)
    mix = np.array([0.5, 0.2, 0.3])
    return truth + rng.normal(0.2, 1 + group), Sample.of("regression", truth, group, None, mix, ("low", "mid", "high"))


# --- points


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_give_what_the_libraries_give(seed: int) -> None:
    logits, sample = drawn(seed, 2)
    truth, chance, guess = sample.truth, probabilities(logits)[:, 1], logits.argmax(axis=1)
    each = [log_loss(truth[truth == c], probabilities(logits)[truth == c], labels=[0, 1]) for c in (0, 1)]
    assert point_metrics(sample, logits) == pytest.approx(
        {
            "balanced log loss": np.mean(each),
            "worst-group log loss": max(each),
            "balanced accuracy": balanced_accuracy_score(truth, guess),
            "AUROC": roc_auc_score(truth, chance),
            "AUPRC": average_precision_score(truth, chance),
            "G-mean": geometric_mean_score(truth, guess),
            "F1": f1_score(truth, guess),
            "macro F1": f1_score(truth, guess, average="macro"),
            "MCC": matthews_corrcoef(truth, guess),
            "Brier score": 2 * brier_score_loss(truth, chance),
            "calibration error": expected_calibration_error(probabilities(logits), truth),
        }
    )


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_give_what_the_libraries_give(seed: int) -> None:
    logits, sample = drawn(seed, 4)
    truth, chance, guess = sample.truth, probabilities(logits), logits.argmax(axis=1)
    found = point_metrics(sample, logits)
    wanted = {
        "balanced accuracy": balanced_accuracy_score(truth, guess),
        "AUROC": roc_auc_score(truth, chance, multi_class="ovr"),
        "AUPRC": average_precision_score(np.eye(4)[truth], chance),
        "G-mean": geometric_mean_score(truth, guess),
        "macro F1": f1_score(truth, guess, average="macro"),
        "MCC": matthews_corrcoef(truth, guess),
    }
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert "F1" not in found


def test_the_rarer_class_is_the_one_that_counts_whichever_id_it_has() -> None:
    logits, sample = drawn(5, 2)
    logits = logits + 0.001 * np.random.default_rng(0).standard_normal(logits.shape)  # ties would go to the first label
    assert point_metrics(sample_of(1 - sample.truth, 2), logits[:, ::-1]) == pytest.approx(point_metrics(sample, logits))


def test_balanced_errors_of_a_regression_are_the_mix_of_its_groups() -> None:
    guess, sample = of_values(0)
    found = point_metrics(sample, guess)
    square = [np.mean((guess - sample.truth)[sample.group == g] ** 2) for g in range(3)]
    assert found["balanced RMSE"] == pytest.approx(np.sqrt(sample.mix @ square))
    assert found["worst-group RMSE"] == pytest.approx(np.sqrt(max(square)))
    assert found["RMSE: mid"] == pytest.approx(np.sqrt(square[1]))
    weight = sample.mix[sample.group] / np.bincount(sample.group)[sample.group]
    assert found["balanced R2"] == pytest.approx(r2_score(sample.truth, guess, sample_weight=weight))
    assert found["R2: high"] == pytest.approx(r2_score(sample.truth[sample.group == 2], guess[sample.group == 2]))


def test_an_anomaly_is_ranked_by_its_own_odds_however_frequent() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(200) < 0.7).astype(int)
    odds = truth + rng.standard_normal(200)
    sample = Sample.of("anomaly", truth.astype(float), truth, None, np.array([0.5, 0.5]), ("a", "b"), ("usual", "anomaly"))
    found = point_metrics(sample, odds)
    assert found["AUPRC"] == pytest.approx(average_precision_score(truth, odds))
    assert list(found) == ["balanced log loss", "worst-group log loss", "AUROC", "AUPRC"]


def test_calibration_error_is_the_distance_of_chance_and_share() -> None:
    truth = np.tile([0, 0, 0, 1], 150)
    assert expected_calibration_error(np.full((600, 2), [0.9, 0.1]), np.sort(truth)) >= 0.15 - 1e-12
    assert expected_calibration_error(np.full((600, 2), [0.75, 0.25]), truth) == pytest.approx(0)
    rng = np.random.default_rng(6)
    p = rng.uniform(size=20_000)
    good = expected_calibration_error(np.stack([1 - p, p], axis=1), (rng.uniform(size=20_000) < p).astype(int))
    assert good < 0.015


def test_log_odds_are_two_columns() -> None:
    logits, _ = drawn(9, 2)
    odds = logits[:, 1] - logits[:, 0]
    assert probabilities(odds) == pytest.approx(probabilities(logits))


# --- what is undefined is named


def test_a_class_without_rows_leaves_rankings_undefined_and_says_so() -> None:
    logits, sample = drawn(11, 3)
    part = sample.take(np.flatnonzero(sample.truth < 2))
    found, why = measured(part, logits[sample.truth < 2], Resamples.draw(part, 0, 5))
    assert found["AUROC"] == {"value": None, "low": None, "high": None}
    assert found["balanced accuracy"]["value"] is not None
    assert why == "AUROC, AUPRC are undefined: no row of label c"


def test_one_class_alone_leaves_every_metric_of_labels_undefined() -> None:
    logits, sample = drawn(12, 2)
    part = sample.take(np.flatnonzero(sample.truth == 0))
    points = point_metrics(part, logits[sample.truth == 0])
    assert {name for name, value in points.items() if np.isnan(value)} == {"AUROC", "AUPRC", *OF_LABELS}
    assert points["balanced log loss"] > 0
    assert undefined(part, points).endswith("undefined: no row of label b")
    values, _ = measured(part, logits[sample.truth == 0], Resamples.draw(part, 0, 5))
    assert values["MCC"] == {"value": None, "low": None, "high": None}


def test_a_group_whose_truth_does_not_vary_has_no_r2() -> None:
    guess, sample = of_values(1)
    sample.truth[sample.group == 2] = 4.0
    found, why = measured(sample, guess, Resamples.draw(sample, 0, 5))
    assert found["R2: high"]["value"] is None
    assert found["RMSE: high"]["value"] is not None
    assert why == "R2: high is undefined: a group without rows, or whose truth does not vary"


# --- intervals


@pytest.mark.parametrize("kind", ["two", "four", "values", "odds", "moved"])
def test_a_resample_has_the_metrics_of_its_rows_written_out(kind: str) -> None:
    logits, sample = of_values(2) if kind == "values" else drawn(13, 4 if kind == "four" else 2, 300)
    terms = np.array([0.0, 0.8]) if kind == "moved" else None
    if kind == "odds":
        logits = logits[:, 1] - logits[:, 0]
        sample = Sample.of("anomaly", sample.truth, sample.group, None, sample.mix, sample.groups, ("usual", "anomaly"))
    draws = Resamples.draw(sample, 0, 4)
    counts = np.concatenate([np.ones((len(sample), 1), np.float32), draws.counts], axis=1)
    found = resampled(sample, logits, counts, terms)
    for b in range(counts.shape[1]):
        rows = np.repeat(np.arange(len(sample)), counts[:, b].astype(int))
        wanted = point_metrics(sample.take(rows), logits[rows], terms)
        # The calibration error keeps the bins of all rows.
        kept = [name for name in wanted if name != "calibration error" or b == 0]
        assert {name: found[name][b] for name in kept} == pytest.approx({name: wanted[name] for name in kept}, rel=2e-5, abs=1e-6)


def test_resamples_keep_the_size_of_every_group_and_units_together() -> None:
    _, sample = drawn(14, 3)
    draws = Resamples.draw(sample, 0, 50)
    for g in range(3):
        assert np.all(draws.counts[sample.truth == g].sum(axis=0) == (sample.truth == g).sum())
    unit = np.arange(len(sample)) // 4
    clustered = Resamples.draw(sample_of(sample.truth, 3, unit=unit), 0, 50).counts
    assert all(np.all(clustered[unit == u] == clustered[unit == u][0]) for u in range(20))
    assert np.any(clustered != draws.counts)


def test_intervals_hold_the_value_cover_the_truth_and_repeat() -> None:
    rng = np.random.default_rng(10)
    covered = 0
    truth = np.repeat([0, 1], [200, 60])
    sample = sample_of(truth, 2)
    for seed in range(40):
        odds = truth + rng.standard_normal(260)
        logits = np.stack([np.zeros(260), odds], axis=1)
        found = measured(sample, logits, Resamples.draw(sample, seed, 200))[0]["AUROC"]
        assert found["low"] <= found["value"] <= found["high"]  # type: ignore[operator]
        covered += found["low"] <= 0.7602 <= found["high"]  # type: ignore[operator]
    assert covered >= 34
    draws = [Resamples.draw(sample, 3, 20) for _ in range(2)]
    assert measured(sample, logits, draws[0]) == measured(sample, logits, draws[1])


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    truth = np.tile(np.repeat([0, 1], 10), 30)
    unit = np.repeat(np.arange(60), 10)
    logits = np.stack([np.zeros(600), truth + 1.5 * rng.standard_normal(60)[unit] + 0.1 * rng.standard_normal(600)], axis=1)
    wide, narrow = (
        measured(s, logits, Resamples.draw(s, 0, 200))[0]["AUROC"] for s in (sample_of(truth, 2, unit=unit), sample_of(truth, 2))
    )
    assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])  # type: ignore[operator]


def test_beyond_the_cap_rare_groups_stay_whole_and_intervals_stay_about_the_value() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1], [4000, 100])
    logits = np.stack([np.zeros(4100), truth + rng.standard_normal(4100)], axis=1)
    sample = sample_of(truth, 2)
    draws = Resamples.draw(sample, 0, 200, most=1000)
    assert np.bincount(truth[draws.rows]).tolist() == [900, 100]
    assert draws.counts[truth[draws.rows] == 0].sum(axis=0) == pytest.approx(4000, rel=1e-3)
    thin, whole = (measured(sample, logits, d)[0] for d in (draws, Resamples.draw(sample, 0, 200)))
    for name in ("AUPRC", "MCC", "balanced log loss"):
        spread = whole[name]["high"] - whole[name]["low"]  # type: ignore[operator]
        assert thin[name]["low"] == pytest.approx(whole[name]["low"], abs=0.5 * spread)
        assert thin[name]["high"] == pytest.approx(whole[name]["high"], abs=0.5 * spread)


def test_three_candidates_on_50_000_rows_take_seconds() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random(50_000) < 0.1).astype(int)
    sample = sample_of(truth, 2)
    started = time.process_time()
    draws = Resamples.draw(sample, 0)
    for _ in range(3):
        measured(sample, np.stack([np.zeros(50_000), truth + rng.standard_normal(50_000)], axis=1), draws)
    # About 2.3 s of one core; the bound leaves room for a busy machine.
    assert time.process_time() - started < 6


# --- threshold moving


@pytest.mark.parametrize("classes", [2, 4])
def test_moved_thresholds_raise_balanced_accuracy_and_touch_metrics_of_labels_alone(classes: int) -> None:
    logits, sample = drawn(7, classes, 600)
    before, after = point_metrics(sample, logits), point_metrics(sample, logits, move_thresholds(logits, sample.truth))
    assert after["balanced accuracy"] > before["balanced accuracy"] + 0.03
    assert set(after) <= set(OF_LABELS)


def test_for_two_classes_no_threshold_is_better_than_the_moved_one() -> None:
    logits, sample = drawn(8, 2)
    moved = point_metrics(sample, logits, move_thresholds(logits, sample.truth))["balanced accuracy"]
    hits = [guesses(logits, np.array([0.0, t])) == sample.truth for t in np.arange(-8.025, 8, 0.05)]
    grid = [np.mean([hit[sample.truth == c].mean() for c in (0, 1)]) for hit in hits]
    assert moved == pytest.approx(max(grid))

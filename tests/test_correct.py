"""Offsets are exact where theory says so; calibration recovers what is wrong and does little harm."""

import json
import textwrap

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax, logit

from codsa_ray import correct
from codsa_ray.correct import Calibration, Correction, Offset, average, cross_fitted, fit_all, merge_cells, normalise, offset_scores
from codsa_ray.errors import InternalError
from codsa_ray.risk import Anomaly, Classification, balanced, row_weights

EVEN = np.array([0.5, 0.5])
BY_CELL = Offset((9.0, 1.0, 2.0), (0.5, 0.3, 0.2), (0, 1, 1), 2)


def posterior(x: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Log-probabilities of three unit Gaussians at -1, 0, 2 with the prior."""
    return log_softmax(-0.5 * (x[:, None] - np.array([-1.0, 0.0, 2.0])) ** 2 + np.log(prior), axis=1)


def noisy(rng: np.random.Generator, counts: tuple[int, ...], steep: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores calibrated under balanced classes, then made too steep."""
    truth = np.repeat(np.arange(len(counts)), counts)
    x = 2.0 * np.eye(len(counts))[truth] + rng.standard_normal((len(truth), len(counts)))
    return normalise(2.0 * x * steep), truth


def test_the_offset_turns_the_posterior_of_one_prior_into_that_of_another() -> None:
    x, mix = np.linspace(-3, 4, 50), np.array([0.2, 0.2, 0.6])
    weight = np.array([1000.0, 30.0, 4.5])
    found = offset_scores(posterior(x, weight / weight.sum()), None, mix, weight, np.arange(3))
    assert found == pytest.approx(posterior(x, mix), abs=1e-9)


def test_cells_of_label_and_group_are_exact_where_the_group_is_seen() -> None:
    # p(x | y, a) = N(x; 2y - a, 1); cells (y, a) in the order 00, 01, 10, 11.
    rng = np.random.default_rng(0)
    weight, mix, labels = np.array([900.0, 100.0, 50.0, 400.0]), np.full(4, 0.25), np.array([0, 0, 1, 1])
    a, x = rng.integers(0, 2, 200), rng.standard_normal(200) * 2

    def scores(prior: np.ndarray) -> np.ndarray:
        columns = [np.log(prior[2 * y + a]) - 0.5 * (x - (2 * y - a)) ** 2 for y in (0, 1)]
        return log_softmax(np.stack(columns, axis=1), axis=1)

    cells = np.stack([a, 2 + a], axis=1)
    assert offset_scores(scores(weight), cells, mix, weight, labels) == pytest.approx(scores(mix), abs=1e-9)


def test_a_predicate_of_the_row_alone_cancels() -> None:
    scores, cells = posterior(np.linspace(-2, 2, 9), np.full(3, 1 / 3)), np.full((9, 3), 1)
    found = Offset((5.0, 80.0), (0.5, 0.5), (0, 0), 3).terms(cells)
    assert normalise(scores + found) == pytest.approx(scores)


def test_a_cell_that_does_not_exist_falls_back_on_its_label_and_is_counted() -> None:
    offset = Offset.of(np.array([30.0, 10.0, 5.0]), np.array([0.25, 0.25, 0.5]), np.array([0, 0, 1]), 2)
    cells = np.array([[0, 2], [-1, 2]])
    assert offset.terms(cells)[1].tolist() == pytest.approx([np.log(0.5 / 40), np.log(0.5 / 5)])
    assert offset.stood_in(cells) == 1


def test_coarse_cells_add_up_the_fine_ones() -> None:
    fine = Offset.of(np.array([30.0, 10.0, 5.0]), np.array([0.25, 0.25, 0.5]), np.array([0, 0, 1]), 2, coarse=np.array([0, 0, 1]))
    assert (fine.weight, fine.mix, fine.labels) == ((40.0, 5.0), (0.5, 0.5), (0, 1))
    with pytest.raises(InternalError, match="one label"):
        Offset.of(np.ones(2), EVEN, np.array([0, 1]), 2, coarse=np.array([0, 0]))


def test_a_class_without_weight_gets_a_finite_term_and_no_weight_at_all_is_an_error() -> None:
    assert Offset((10.0, 0.0), (0.5, 0.5), (0, 1), 2).class_terms.tolist() == pytest.approx([np.log(0.05), np.log(0.1)])
    with pytest.raises(InternalError):
        Offset((0.0, 0.0), (0.5, 0.5), (0, 1), 2).apply(np.zeros((1, 2)))


def test_log_odds_shift_as_log_probabilities_do() -> None:
    odds = np.linspace(-3, 3, 7)
    offset = Offset((990.0, 10.0), (0.5, 0.5), (0, 1), 2)
    two = offset.apply(np.stack([log_expit(-odds), log_expit(odds)], axis=1))
    assert offset.apply(odds) == pytest.approx(two[:, 1] - two[:, 0])


def test_merging_cells_adds_their_probabilities() -> None:
    chance = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert np.exp(merge_cells(np.log(chance), np.array([0, 1, 0, 1]), 2)) == pytest.approx(np.array([[0.4, 0.6]]))
    assert np.exp(merge_cells(np.log(chance), np.array([0, 1, 0, 1]), 3))[0, 2] < 1e-11


def test_averages_are_geometric_means_that_a_lone_zero_does_not_undo() -> None:
    chance = np.array([[0.9, 0.1]]), np.array([[0.5, 0.5]])
    found = np.exp(average([np.log(c) for c in chance]))
    assert found[0, 1] / found[0, 0] == pytest.approx(np.sqrt(1 / 9))
    with np.errstate(divide="ignore"):
        assert np.isfinite(average([np.log(np.array([[1.0, 0.0]])), np.log(chance[1])])).all()
    assert average([np.array([1.0]), np.array([3.0])], classes=False).tolist() == [2.0]


def test_calibration_recovers_a_temperature_from_many_rows() -> None:
    scores, truth = noisy(np.random.default_rng(1), (3000, 3000, 3000), steep=3.0)
    found = Calibration.fit(scores, truth, row_weights(truth, np.full(3, 1 / 3)))
    assert found.slope == pytest.approx([1 / 3] * 3, abs=0.03)
    assert found.bias == pytest.approx([0.0] * 3, abs=0.1)


def test_the_gradient_descends_to_the_minimum_that_finite_differences_confirm() -> None:
    scores, truth = noisy(np.random.default_rng(2), (200, 20), steep=2.0)
    weight = row_weights(truth, EVEN)
    found = Calibration.fit(scores, truth, weight)
    mean, per_class = correct._pulls(truth, weight, 2)

    def objective(slope: np.ndarray, bias: np.ndarray) -> float:
        losses = Classification(2).losses(scores * slope + bias, truth)
        away = per_class @ ((slope - slope.mean()) ** 2 + (bias - bias.mean()) ** 2)
        return float(weight @ losses + mean * (slope.mean() - 1) ** 2 / 2 + away / 2)

    theta = np.array(found.slope + found.bias)
    least = objective(theta[:2], theta[2:])
    for k in range(4):
        for step in (-0.02, 0.02):
            moved = theta + step * np.eye(4)[k]
            assert objective(moved[:2], moved[2:]) >= least - 1e-9


@pytest.mark.parametrize(("rare", "most"), [(5, 0.015), (24, 0.012), (300, 0.003)])
def test_calibrating_good_scores_on_few_rows_costs_little(rare: int, most: float) -> None:
    rng = np.random.default_rng(3)
    fresh, label = noisy(rng, (5000, 5000))
    task = Classification(2)
    plain = balanced(task.losses(fresh, label), label, EVEN)
    costs = []
    for _ in range(25):
        scores, truth = noisy(rng, (1000, rare))
        weight = row_weights(truth, EVEN)
        costs.append(balanced(task.losses(Calibration.fit(scores, truth, weight).apply(fresh), label), label, EVEN) - plain)
    assert np.mean(costs) < most


def test_overconfident_scores_win_most_of_what_the_temperature_costs_even_with_24_rare_rows() -> None:
    rng = np.random.default_rng(4)
    task = Classification(2)
    fresh, label = noisy(rng, (5000, 5000), steep=4.0)
    steep = balanced(task.losses(fresh, label), label, EVEN)
    ideal = balanced(task.losses(fresh / 4, label), label, EVEN)
    left = []
    for _ in range(15):
        scores, truth = noisy(rng, (1000, 24), steep=4.0)
        found = fit_all(scores, truth, truth, EVEN)
        left.append((balanced(task.losses(found.apply(fresh), label), label, EVEN) - ideal) / (steep - ideal))
    assert np.mean(left) < 0.15


def test_log_odds_of_anomaly_get_one_slope_and_one_bias() -> None:
    rng = np.random.default_rng(5)
    truth = np.repeat([0, 1], 4000)
    odds = 2 * (truth + rng.standard_normal(8000) - 0.5)
    true = odds / 2
    found = fit_all(2 * true + 1, truth, truth, EVEN)
    assert (found.slope[0], found.bias[0]) == pytest.approx((0.5, -0.5), abs=0.06)
    calibrated = Anomaly().losses(found.apply(2 * true + 1), truth)
    assert balanced(calibrated, truth, EVEN) == pytest.approx(balanced(Anomaly().losses(true, truth), truth, EVEN), abs=0.002)


def test_no_row_helps_its_own_fold() -> None:
    scores, truth = noisy(np.random.default_rng(6), (100, 30), steep=2.0)
    folds = np.arange(130) % 5
    groups = truth.copy()
    before = cross_fitted(scores, truth, groups, EVEN, folds)
    truth[folds == 2] = 1 - truth[folds == 2]
    after = cross_fitted(scores, truth, groups, EVEN, folds)
    same = (before == after).all(axis=1)
    assert same[folds == 2].all()
    assert not same[folds != 2].any()


def test_cross_fitting_lowers_the_loss_of_steep_scores_and_spares_rows_without_a_group() -> None:
    scores, truth = noisy(np.random.default_rng(7), (400, 60), steep=4.0)
    groups = np.where(np.arange(460) % 10 == 0, -1, truth)
    found = cross_fitted(scores, truth, groups, EVEN, np.arange(460) % 5)
    task = Classification(2)
    assert found.shape == scores.shape
    assert balanced(task.losses(found, truth), groups, EVEN) < 0.8 * balanced(task.losses(scores, truth), groups, EVEN)
    assert np.array_equal(cross_fitted(scores, truth, groups, EVEN, np.zeros(460, dtype=int)), scores)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_numpy_recipe_of_the_docstring_does_what_apply_does(calibrated: bool) -> None:
    calibration = Calibration((0.5, 0.7, 1.1), (0.2, -0.3, 0.1)) if calibrated else None
    correction = Correction("classification", ("a", "b", "c"), Offset((900.0, 90.0, 9.0), (0.2, 0.3, 0.5), (0, 1, 2), 3), calibration)
    c = json.loads(json.dumps(correction.to_json()))
    log_p = posterior(np.linspace(-3, 3, 20), np.array([0.9, 0.09, 0.01]))
    recipe = [line for line in (Correction.__doc__ or "").splitlines() if line.strip().startswith(("z ", "p "))]
    space = {"np": np, "c": c, "log_p": log_p}
    exec(textwrap.dedent("\n".join(recipe)), space)
    assert len(recipe) == 3
    assert space["p"] == pytest.approx(np.exp(correction.apply(log_p)), abs=1e-9)


@pytest.mark.parametrize(
    "correction",
    [
        Correction("regression"),
        Correction("anomaly", calibration=Calibration((0.5,), (1.0,))),
        Correction("classification", ("a", "b"), Offset((9.0, 1.0), (0.5, 0.5), (0, 1), 2)),
        Correction("classification", ("a", "b"), BY_CELL, Calibration((1.0, 2.0), (0.0, 0.1)), True),
    ],
)
def test_corrections_survive_json_and_do_the_same(correction: Correction) -> None:
    back = Correction.from_json(json.loads(json.dumps(correction.to_json())))
    assert back == correction
    scores = np.log(np.array([[0.9, 0.1], [0.4, 0.6]])) if correction.classes else logit(np.array([0.2, 0.7]))
    cells = np.array([[0, 1], [0, 2]]) if correction.by_cell else None
    assert np.array_equal(back.apply(scores, cells), correction.apply(scores, cells))


def test_a_correction_by_cell_asks_for_cells() -> None:
    with pytest.raises(InternalError, match="cell of each row"):
        Correction("classification", ("a", "b"), Offset((9.0, 1.0), (0.5, 0.5), (0, 1), 2), by_cell=True).apply(np.zeros((1, 2)))

"""The prior: a belief learned from earlier data sets, and how this data set's losses move it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.candidates import Candidate, baselines
from codsa_ray.decide import decide
from codsa_ray.prior import FEATURES, LEAST_LOSS, Belief, Effects, Prior, features, is_reference, log_ratios, ratio_noise, stretch
from codsa_ray.risk import covariance, estimate, row_weights
from codsa_ray.verdict import Entry

PLAIN = (Candidate(), "offset")
BAG = (Candidate(fits=5), "offset")
DRAWN = (Candidate("synthetic", 5, generator="sequential_trees-1", gamma=2.0, row_weight=0.5), "calibrated")


def effects(**means: float) -> Effects:
    mean = tuple(means.get(name.replace(" ", "_"), 0.0) for name in FEATURES)
    return Effects(mean, (0.0,) * len(FEATURES), 0.1)


def test_the_reference_has_no_feature_and_every_other_entry_has_one() -> None:
    assert is_reference(*PLAIN)
    assert not features(*PLAIN, smallest=24).any()
    others = [(c, "offset") for c in baselines(5, True, True, False, 2, 0)] + [(Candidate(), "calibrated"), DRAWN]
    for pair in others:
        assert features(*pair, smallest=24).any(), pair
        assert len(features(*pair, smallest=24)) == len(FEATURES)


@given(st.integers(1, 10**9))
def test_features_stay_small_whatever_the_rows(smallest: int) -> None:
    assert np.all(np.abs(features(*DRAWN, smallest=smallest)) <= 4)


def test_one_entry_is_shrunk_by_the_share_of_its_variance() -> None:
    belief = Belief(np.array([0.0, -0.1]), np.diag([0.0, 0.04]), np.ones(2, bool), 0, 38)
    noise, losses = np.array([[0.0, 0.0], [0.0, 0.01]]), np.array([1.0, 1.2])
    shrunk = belief.seen(losses, noise)
    before = shrunk.before[1, 1]
    weight = before / (before + 0.01)
    ratio = np.log((1.2 + LEAST_LOSS) / (1.0 + LEAST_LOSS))
    assert shrunk.means(losses)[0] == pytest.approx(1.0)
    assert np.log((shrunk.means(losses)[1] + LEAST_LOSS) / (1 + LEAST_LOSS)) == pytest.approx(-0.1 + weight * (ratio + 0.1), abs=1e-4)
    assert shrunk.share_of_data(0, 1) == pytest.approx(weight, abs=1e-4)
    assert shrunk.se(1, 0) == pytest.approx((shrunk.means(losses)[1] + LEAST_LOSS) * np.sqrt(before * 0.01 / (before + 0.01)), rel=1e-3)


def test_much_data_leaves_the_losses_and_none_leaves_the_belief() -> None:
    belief = Belief(np.array([0.0, -0.1, 0.3]), np.diag([0.0, 0.04, 0.04]), np.ones(3, bool), 0, 38)
    losses = np.array([0.5, 0.6, 0.4])
    precise, vague = (belief.seen(losses, size * np.diag([0.0, 1.0, 1.0])) for size in (1e-9, 1e9))
    assert precise.means(losses) == pytest.approx(losses, abs=1e-4)
    assert vague.means(losses) == pytest.approx((0.5 + LEAST_LOSS) * np.exp(belief.mean) - LEAST_LOSS, abs=1e-4)
    assert precise.share_of_data(1, 2) == pytest.approx(1.0, abs=1e-4)
    assert vague.share_of_data(1, 2) == pytest.approx(0.0, abs=1e-4)


def test_entries_of_equal_losses_and_features_keep_equal_estimates() -> None:
    Z = np.stack([features(*pair, smallest=30) for pair in (PLAIN, BAG, DRAWN, DRAWN)])
    belief = Effects((0.1,) * len(FEATURES), (0.2,) * len(FEATURES), 0.0).belief(Z, np.ones(4, bool), 0, 5)
    losses = np.array([0.5, 0.45, 0.4, 0.4])
    noise = np.zeros((4, 4))
    noise[1:, 1:] = [[0.02, 0.01, 0.01], [0.01, 0.03, 0.03], [0.01, 0.03, 0.03]]
    means = belief.seen(losses, noise).means(losses)
    assert means[2] == pytest.approx(means[3], abs=1e-4)
    assert np.all(np.isfinite(means))


def test_of_an_uncorrected_entry_only_the_losses_speak() -> None:
    belief = Prior({"": effects(bag=-0.1)}, 9).belief("any", [PLAIN, (Candidate(), "raw"), BAG], 20)
    assert belief is not None
    assert belief.known.tolist() == [True, False, True]
    losses, noise = np.array([0.4, 0.9, 0.4]), np.diag([0.0, 0.01, 1e6])
    shrunk = belief.seen(losses, noise).means(losses)
    assert shrunk[1] == pytest.approx(0.9, rel=0.01)
    assert shrunk[2] < 0.4


def test_a_data_set_on_which_everything_matters_more_stretches_the_belief() -> None:
    cov, noise = 0.01 * np.eye(30), 0.001 * np.eye(30)
    rng = np.random.default_rng(0)
    usual, loud = (scale * rng.normal(size=30) * np.sqrt(0.01) for scale in (1, 8))
    assert stretch(usual, cov, noise) in (0.5, 1.0, 2.0)
    assert stretch(loud, cov, noise) >= 16
    assert stretch(loud, cov, 1e3 * noise) < stretch(loud, cov, noise)


def test_the_noise_of_ratios_is_that_of_resampled_losses() -> None:
    rng = np.random.default_rng(1)
    groups, mix = np.repeat([0, 1], [200, 80]), np.array([0.5, 0.5])
    losses = rng.gamma(2, 0.2, (280, 1)) + rng.gamma(1, 0.1, (280, 3))
    by_group = [np.flatnonzero(groups == g) for g in (0, 1)]
    found = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in by_group])
        found.append(log_ratios(row_weights(groups[rows], mix) @ losses[rows], 0))
    expected = ratio_noise(losses, 0, groups, mix)
    assert np.cov(np.array(found), rowvar=False)[1:, 1:] == pytest.approx(expected[1:, 1:], rel=0.12)
    assert not expected[0].any()


def test_a_prior_survives_json_and_knows_learners_it_did_not_see() -> None:
    prior = Prior({"boosted": effects(bag=-0.05), "": effects(bag=-0.02)}, 38)
    again = Prior.from_json(prior.to_json())
    assert again == prior
    known, other = (again.belief(name, [PLAIN, BAG], 20) for name in ("boosted", "convnet"))
    assert known is not None
    assert other is not None
    assert (known.mean[1], other.mean[1]) == pytest.approx((-0.05, -0.02))
    assert again.belief("boosted", [BAG], 20) is None


def test_the_shipped_prior_covers_every_candidate_without_synthesis() -> None:
    prior = Prior.shipped()
    assert prior.sets >= 30
    pairs = [PLAIN, *((c, form) for c in baselines(5, True, True, False, 2, 0) for form in ("offset", "calibrated")), DRAWN]
    for learner in ("logistic", "boosted", "mlp", "forest"):
        belief = prior.belief(learner, pairs, 24)
        assert belief is not None
        assert np.linalg.eigvalsh(belief.cov).min() > -1e-9
        assert np.all(np.abs(belief.mean) < 1)


def test_the_covariance_of_balanced_means_has_the_squared_errors_on_its_diagonal() -> None:
    rng = np.random.default_rng(0)
    groups, units = rng.integers(0, 3, 300), rng.integers(0, 90, 300)
    columns, mix = rng.normal(size=(300, 4)), np.array([0.2, 0.3, 0.5])
    for among in (None, units):
        found = covariance(columns, groups, mix, among)
        assert np.sqrt(np.diag(found)) == pytest.approx(estimate(columns, groups, mix, among).se)
        pair = estimate(columns[:, 0] - columns[:, 1], groups, mix, among).se[0]
        assert np.sqrt(found[0, 0] + found[1, 1] - 2 * found[0, 1]) == pytest.approx(pair)


def sampled(seed: int, gap: float, rare: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses of the plain fit and of a bag that is truly better by `gap`, with noise of few rare rows."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], [400, rare])
    common = np.abs(rng.normal(0.3, 0.5, len(groups)))
    return np.stack([common, common - gap + rng.normal(0, 0.6, len(groups))], axis=1), groups


def chosen(seeds: Sequence[int], belief: Belief | None) -> float:
    entries = [Entry("plain", "correct", form="offset"), Entry("bag", "bag", form="offset")]
    took = [decide(*sampled(s, 0.05, 12), np.array([0.5, 0.5]), entries, belief=belief, resamples=50).chosen.name == "bag" for s in seeds]
    return float(np.mean(took))


def test_with_few_rare_rows_a_true_belief_finds_the_better_bag_more_often() -> None:
    belief = Belief(np.array([0.0, -0.1]), np.diag([0.0, 0.05**2]), np.ones(2, bool), 0, 38)
    seeds = range(60)
    assert chosen(seeds, belief) > chosen(seeds, None) + 0.2


def test_the_verdict_says_how_much_came_from_these_rows() -> None:
    belief = Belief(np.array([0.0, -0.1]), np.diag([0.0, 0.05**2]), np.ones(2, bool), 0, 38)
    losses, groups = sampled(1, 0.2, 12)
    entries = [Entry("plain", "correct", form="offset"), Entry("bag", "bag", form="offset")]
    verdict = decide(losses, groups, np.array([0.5, 0.5]), entries, belief=belief, resamples=50)
    assert verdict.chosen.name == "bag"
    assert verdict.learned is not None
    assert 0 < verdict.learned.share < 1
    assert any("38 earlier data sets" in sentence for sentence in verdict.sentences())

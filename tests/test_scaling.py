"""The laws of scaling are found where they hold, told apart by folds that did not fit them, and their intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.scaling import LAWS, RATES, Scaling, fitted, study, values

ADDED = np.array([0, 125, 250, 500, 1000, 2000])
START = 1200.0
MIX = np.array([0.5, 0.5])


def sampled(truth: np.ndarray, seed: int, rows: tuple[int, int] = (400, 80), noise: float = 0.05) -> Scaling:
    """A study of rows whose own losses vary and whose changes are `truth`'s plus noise of every row."""
    rng = np.random.default_rng(seed)
    groups = np.repeat([0, 1], rows)
    own = rng.gamma(1.0, 0.2, len(groups))[:, None]
    losses = truth + own - 0.2 + noise * rng.standard_normal((len(groups), len(truth)))
    return study(losses, ADDED, START, groups, np.arange(len(groups)) % 5, MIX, resamples=200, seed=seed)


@given(st.floats(0.1, 2), st.floats(-0.5, 1.5))
def test_a_power_law_is_recovered_exactly(drop: float, rate: float) -> None:
    curve = values(np.array([[0.0, drop, rate]]), ADDED, START)
    np.testing.assert_allclose(fitted("power", curve, ADDED, START), [[0.0, drop, rate]], rtol=1e-9, atol=1e-9)


@given(st.floats(0.05, 2), st.floats(0.01, 1) | st.floats(-0.04, -0.01), st.sampled_from(list(RATES[20:])))
def test_a_plateau_is_recovered_exactly(level: float, drop: float, rate: float) -> None:
    curve = values(np.array([[level, drop, rate]]), ADDED, START)
    np.testing.assert_allclose(fitted("plateau", curve, ADDED, START), [[level, drop, rate]], rtol=1e-5, atol=1e-6)


@given(st.lists(st.floats(0.1, 3), min_size=6, max_size=6), st.floats(0.01, 100))
def test_the_unit_of_the_loss_changes_nothing(curve: list[float], unit: float) -> None:
    for name in LAWS:
        one, other = (fitted(name, np.array([curve]) * u, ADDED, START) for u in (1.0, unit))
        np.testing.assert_allclose(values(other, ADDED, START), unit * values(one, ADDED, START), rtol=1e-6)


def test_a_plateau_below_zero_is_the_power_law() -> None:
    curve = 0.5 - 0.05 * np.log1p(ADDED[None] / START) ** 2
    np.testing.assert_array_equal(fitted("plateau", curve, ADDED, START), fitted("power", curve, ADDED, START))


@pytest.mark.parametrize(
    ("name", "parameters"), [("flat", (0.5, 0.0, 0.0)), ("power", (0.0, 0.6, 0.6)), ("plateau", (0.4, 0.2, float(RATES[80])))]
)
def test_the_law_that_holds_is_chosen(name: str, parameters: tuple[float, float, float]) -> None:
    truth = values(np.array([parameters]), ADDED, START)[0]
    found = [sampled(truth, seed).law for seed in range(12)]
    assert found.count(name) >= 9


@pytest.mark.parametrize("truth", [(0.3, 0.3, float(RATES[60])), (0.0, 0.5, 0.03), (0.5, 0.0, 0.0)])
def test_the_interval_of_doubling_covers(truth: tuple[float, float, float]) -> None:
    after, before = values(np.array([truth]), np.array([4000, 2000]), START)[0]
    curve = values(np.array([truth]), ADDED, START)[0]
    found = [sampled(curve, seed, noise=0.1).doubling for seed in range(60)]
    assert sum(one.low <= after - before <= one.high for one in found) >= 54


def test_whole_units_are_resampled_together() -> None:
    """Ten copies of every row under one unit know no more than the rows alone."""
    rng = np.random.default_rng(0)
    losses = rng.gamma(2.0, 0.2, (300, 1)) + 0.1 * rng.standard_normal((300, 6))
    groups, folds = np.repeat([0, 1], [200, 100]), np.arange(300) % 3
    alone = study(losses, ADDED, START, groups, folds, MIX, resamples=400)
    many = [np.repeat(values, 10, axis=0) for values in (losses, groups, folds, np.arange(300))]
    together = study(many[0], ADDED, START, many[1], many[2], MIX, many[3], resamples=400)
    assert together.total.value == pytest.approx(alone.total.value)
    assert together.total.high - together.total.low == pytest.approx(alone.total.high - alone.total.low, rel=0.15)


def test_rows_without_a_group_change_nothing() -> None:
    rng = np.random.default_rng(1)
    losses, groups, folds = rng.random((200, 6)), np.arange(200) % 2, np.arange(200) % 4
    extra = np.concatenate([losses, rng.random((20, 6))]), np.concatenate([groups, np.full(20, -1)]), np.arange(220) % 4
    assert study(extra[0], ADDED, START, extra[1], extra[2], MIX, resamples=50) == study(
        losses, ADDED, START, groups, folds, MIX, resamples=50
    )


def test_the_sentences_say_what_the_numbers_say() -> None:
    truth = values(np.array([[0.0, 0.6, 0.6]]), ADDED, START)[0]
    measured, law, doubling = next(found for seed in range(9) if (found := sampled(truth, seed)).law == "power").sentences()
    assert measured.startswith("2,000 rows beyond balance change the balanced loss from ")
    assert "no plateau shows" in law
    assert doubling.startswith("Doubling them to 4,000 would change it by -.")
    flat = sampled(np.full(6, 0.5), 3)
    assert flat.law == "flat"
    assert flat.sentences()[1].startswith("No law of size shows")
    assert flat.doubling.value == 0


def test_a_plateau_is_rarely_claimed_where_the_sizes_do_not_show_it() -> None:
    found = [sampled(values(np.array([[0.1, 0.5, 0.5]]), ADDED, START)[0], seed, noise=0.1) for seed in range(40)]
    assert sum(one.identified for one in found) <= 3
    unknown = [one for one in found if one.law == "plateau" and not one.identified]
    assert unknown
    assert all("do not tell where" in one.sentences()[1] for one in unknown)


def test_a_plateau_that_the_sizes_show_is_found() -> None:
    found = sampled(values(np.array([[0.4, 0.2, 8.0]]), ADDED, START)[0], 0)
    assert found.law == "plateau"
    assert found.identified
    assert found.fit.level.low < 0.4 < found.fit.level.high

"""Doubt: the standard error of a balanced difference, on the rows as they are and as a resample draws them."""

import numpy as np
import pytest

from codsa_ray.decide import CAUTION, Entry, decide
from codsa_ray.doubt import Doubt
from codsa_ray.risk import estimate

GROUPS = np.repeat([0, 1, 2], [8, 30, 100])
MIX = np.array([0.5, 0.3, 0.2])


def columns(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.5, size=(len(GROUPS), 4)) * (1 + GROUPS)[:, None]


@pytest.mark.parametrize("units", [None, np.arange(len(GROUPS)) // 2])
def test_on_the_rows_as_they_are_it_is_the_estimate_s_standard_error(units: np.ndarray | None) -> None:
    found = Doubt.of(columns(1), GROUPS, MIX, units).se()
    assert found == pytest.approx(estimate(columns(1), GROUPS, MIX, units).se)


def test_on_a_resample_it_is_the_standard_error_of_the_rows_drawn() -> None:
    rng, values = np.random.default_rng(2), columns(2)
    picks = np.concatenate([rng.choice(rows, len(rows)) for rows in (np.flatnonzero(g == GROUPS) for g in range(3))])
    counts = np.bincount(picks, minlength=len(GROUPS)).astype(float)
    found = Doubt.of(values, GROUPS, MIX, None).se(counts[None])[0]
    assert found == pytest.approx(estimate(values[picks], GROUPS[picks], MIX).se)


def test_a_lone_unit_shows_no_variance() -> None:
    groups = np.array([0, 1, 1, 1])
    values = np.array([[5.0], [1.0], [2.0], [3.0]])
    assert Doubt.of(values, groups, np.array([0.5, 0.5]), None).se() == pytest.approx([0.5 / np.sqrt(3)])


def test_a_lead_within_its_own_error_does_not_beat_plain_correction_and_a_sure_one_does() -> None:
    rng = np.random.default_rng(3)
    base = 1 + rng.gamma(1.0, size=400)
    wild = base - 0.26 + 4 * (rng.random(400) < 0.05)
    sure = base - 0.03 + 0.01 * rng.standard_normal(400)
    groups, mix = np.zeros(400, dtype=int), np.ones(1)
    table = np.stack([base, wild, sure], axis=1)
    entries = [Entry("calibrated", "correct", form="calibrated"), Entry("wild", "bag"), Entry("sure", "reweight")]
    lead = estimate(wild - base, groups, mix)
    assert -CAUTION * lead.se[0] < lead.mean[0] < -0.03
    assert decide(table, groups, mix, entries).base.name == "sure"
    assert decide(table[:, :2], groups, mix, entries[:2]).base.name == "calibrated"


def test_a_control_is_never_chosen() -> None:
    table = np.array([[1.0, 0.1], [2.0, 0.2], [1.5, 0.1]])
    entries = [Entry("calibrated", "correct", form="calibrated"), Entry("offset", "correct", form="offset", control=True)]
    verdict = decide(table, np.zeros(3, dtype=int), np.ones(1), entries)
    assert (verdict.chosen.name, verdict.base.name) == ("calibrated", "calibrated")

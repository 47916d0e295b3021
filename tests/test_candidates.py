"""Candidates: sizes, plans and ladders."""

import numpy as np
import pytest

from codsa_ray.allocators.balanced import Balanced
from codsa_ray.candidates import Candidate, baselines, largest_gamma, openers
from codsa_ray.pools import ceiling
from codsa_ray.regions import Region, Regions

RARE = Regions((Region("a", 0, 0, 900), Region("b", 1, 0, 100)), (0.5, 0.5))
EVEN = Regions((Region("a", 0, 0, 500), Region("b", 1, 0, 500)), (0.5, 0.5))


def test_gamma_one_balances_and_eta_counts_rows() -> None:
    assert Candidate("synthetic", gamma=1.0).plan(RARE, Balanced()).counts.tolist() == [0, 800]
    assert Candidate("synthetic", eta=0.5).plan(EVEN, Balanced()).size == 500


def test_a_tilt_moves_rows_to_the_target_mix() -> None:
    counts = Candidate("synthetic", gamma=1.0, tilt=0.5).plan(RARE, Balanced()).counts
    assert counts.tolist() == [200, 600]


def test_no_candidate_asks_for_more_than_the_ceiling() -> None:
    most = ceiling(RARE, Balanced())
    for gamma in np.linspace(0.05, largest_gamma(RARE), 50):
        for tilt in (0.0, 0.25, 0.5):
            plan = Candidate("synthetic", gamma=float(gamma), tilt=tilt).plan(RARE, Balanced())
            assert np.all(plan.counts <= most)


def test_the_search_never_goes_beyond_its_stated_size_unless_full_balance_does() -> None:
    large = Regions((Region("a", 0, 0, 900_000), Region("b", 1, 0, 100)), (0.5, 0.5))
    assert largest_gamma(large) == 1.0
    assert largest_gamma(RARE) == 4.0


def test_candidates_without_synthesis_hold_every_control_the_design_names() -> None:
    names = [c.name for c in baselines(5, offset=True, cells=True, groups_are_classes=False, classes=2, variant=0)]
    for wanted in (
        "class weights 0.5",
        "class weights full",
        "group weights 0.5",
        "group weights full",
        "logit-adjusted loss",
        "joint cells",
        "undersampled 1 x smallest, bag of 5",
        "undersampled 3 x smallest, bag of 5",
        "undersampled 10 x smallest, bag of 5",
        "none, bag of 5",
    ):
        assert wanted in names
    assert len(set(names)) == len(names)


def test_a_last_layer_is_trained_again_where_the_learner_has_one_and_there_are_groups() -> None:
    for classes_only, retrains in ((False, True), (True, True), (False, False)):
        names = [c.name for c in baselines(5, True, False, classes_only, 2, 0, retrains=retrains)]
        wanted = ["last layer again, group weights full", "last layer again, group weights full, bag of 5"]
        assert [name for name in names if "last layer" in name] == (wanted if retrains and not classes_only else [])


@pytest.mark.parametrize(
    ("candidate", "form", "level"),
    [
        (Candidate(), "raw", "leave"),
        (Candidate(), "calibrated", "correct"),
        (Candidate("weights", by="class", strength=1.0), "offset", "reweight"),
        (Candidate("retrained", by="group", strength=1.0), "offset", "reweight"),
        (Candidate(fits=5), "offset", "bag"),
        (Candidate("synthetic", gamma=1.0), "offset", "augment"),
    ],
)
def test_levels(candidate: Candidate, form: str, level: str) -> None:
    assert candidate.level(form) == level


def test_openers_are_within_the_ceiling_and_unique() -> None:
    found = openers(["g-1"], 5, RARE, 0)
    assert len(found) == len({c.id for c in found}) == 5
    assert all(c.gamma <= largest_gamma(RARE) for c in found)
    assert all(c.gamma == 0 and c.eta > 0 for c in openers(["g-1"], 5, EVEN, 0))

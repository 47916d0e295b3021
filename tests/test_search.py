"""Candidates are asked for in the same batches whatever order trials end in, and a killed search goes on to the same candidates."""

import heapq
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codsa_ray.candidates import Candidate, openers
from codsa_ray.folder import Folder
from codsa_ray.outcomes import Outcome, Pruned, read_outcome, write_outcome
from codsa_ray.pruning import Reference, prunable
from codsa_ray.regions import Region, Regions
from codsa_ray.seeds import rng_of
from codsa_ray.stages.search import Feed
from codsa_ray.stages.strategy import BATCH, Space, strategy

import runs

RARE = Regions((Region("rare", 0, 0, 20), Region("common", 1, 0, 400)), (0.5, 0.5))
OPENERS = len(openers(["g-1", "h-2"], 5, RARE, 0))
NONE = np.zeros((0, 2), dtype=np.float32)
EVEN = Regions((Region("one", 0, 0, 200), Region("other", 1, 0, 200)), (0.5, 0.5))


def space(**changes: object) -> Space:
    settings = {
        "variants": 3, "generators": ("g-1", "h-2"), "draws": 5, "trials": 30, "offset": True, "cells": False,
        "groups_are_classes": True, "classes": 2, "regions": RARE, "seed": 0,
    }  # fmt: skip
    return Space(**{**settings, **changes})  # type: ignore[arg-type]


def loss(candidate: Candidate) -> float:
    """A made-up loss that depends on the candidate alone; every seventh or so failed."""
    rng = rng_of(candidate.id)
    return float("inf") if rng.random() < 0.15 and candidate.kind != "plain" else 1 + 0.1 * candidate.row_weight + 0.01 * rng.random()


def scored(candidate: Candidate, reference: Reference | None) -> Outcome:
    """What a trial stores: a made-up rule prunes what loses much to the reference."""
    value, left = loss(candidate), None
    if value == float("inf"):
        return Outcome(candidate, NONE, NONE, 0.0, "made up")
    if reference and prunable(candidate) and value > 1.01 * reference.loss:
        left = Pruned(reference.candidate.id, "made up", value)
    return Outcome(candidate, NONE, NONE, 0.0, None, left)


def simulate(folder: Path, workers: int, order: np.random.Generator, die_after: int | None = None, **changes: object) -> list[Candidate]:
    """Runs a search with `workers` made-up workers whose trials end in random order; returns the candidates told, in order."""
    told: list[Candidate] = []
    place = Folder(str(folder))

    def tell(candidate: Candidate) -> float:
        assert read_outcome(place, candidate), "told before it was tried"
        told.append(candidate)
        return loss(candidate)

    feed = Feed(strategy(space(**changes)), tell, place, lambda *_: None, 0)
    running: list[tuple[float, str, Outcome]] = []
    ended = 0
    while not feed.ended or running:
        while len(running) < workers and (candidate := feed.following()) is not None:
            assert not (folder / f"{candidate.id}.parquet").exists(), "tried again"
            heapq.heappush(running, (order.random(), candidate.id, scored(candidate, feed.reference)))
        if not running:
            break
        _, identity, outcome = heapq.heappop(running)
        write_outcome(place, outcome)
        ended += 1
        if ended == die_after:
            return told
        feed.finished(identity)
    assert feed.ended
    return told


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("straight")


@pytest.fixture(scope="module")
def straight(place: Path) -> list[Candidate]:
    """One trial after the other."""
    return simulate(place, 1, np.random.default_rng(0))


@pytest.mark.parametrize(("workers", "seed"), [(2, 1), (3, 2), (8, 3), (50, 4)])
def test_the_order_in_which_trials_end_changes_nothing(
    straight: list[Candidate], place: Path, tmp_path: Path, workers: int, seed: int
) -> None:
    assert simulate(tmp_path, workers, np.random.default_rng(seed)) == straight
    assert runs.contents(tmp_path) == runs.contents(place)


@pytest.mark.parametrize("die_after", [1, 3, 5, 14, 20, 31])
def test_a_killed_search_goes_on_to_the_same_candidates(straight: list[Candidate], place: Path, tmp_path: Path, die_after: int) -> None:
    simulate(tmp_path, 3, np.random.default_rng(5), die_after)
    assert len(list(tmp_path.iterdir())) == die_after
    assert simulate(tmp_path, 2, np.random.default_rng(6)) == straight
    assert runs.contents(tmp_path) == runs.contents(place)


def given_up(place: Path, told: list[Candidate]) -> dict[Candidate, Outcome]:
    stored = {candidate: read_outcome(Folder(str(place)), candidate) for candidate in told}
    return {candidate: outcome for candidate, outcome in stored.items() if outcome and outcome.pruned}


def test_what_is_given_up_is_synthetic_and_asked_after_the_openers(straight: list[Candidate], place: Path) -> None:
    pruned = given_up(place, straight)
    first = [candidate.kind for candidate in straight].index("synthetic")
    assert pruned
    assert {candidate.kind for candidate in pruned} == {"synthetic"}
    assert min(map(straight.index, pruned)) >= first + OPENERS


def test_what_was_given_up_against_another_reference_is_tried_again(straight: list[Candidate], place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    candidate, outcome = next(iter(given_up(place, straight).items()))
    assert outcome.pruned
    write_outcome(Folder(str(tmp_path)), replace(outcome, pruned=replace(outcome.pruned, reference="another")))
    feed = Feed(strategy(space()), loss, Folder(str(tmp_path)), lambda *_: None, 0)
    assert feed.following() == candidate


def test_a_finished_search_tries_nothing(straight: list[Candidate], tmp_path: Path) -> None:
    simulate(tmp_path, 2, np.random.default_rng(7))
    feed = Feed(strategy(space()), loss, Folder(str(tmp_path)), lambda *_: None, 0)
    assert feed.following() is None
    assert feed.ended


def test_all_size_zero_candidates_come_before_the_first_synthetic_one(straight: list[Candidate]) -> None:
    kinds = [candidate.kind for candidate in straight]
    first = kinds.index("synthetic")
    assert set(kinds[first:]) == {"synthetic"}
    assert {"plain", "weights", "loss", "undersampled"} == set(kinds[:first])
    assert [candidate.variant for candidate in straight[:3]] == [0, 1, 2]


def test_all_others_have_the_variant_that_did_best_without_synthesis(straight: list[Candidate]) -> None:
    best = min(range(3), key=lambda v: loss(Candidate(variant=v)))
    assert {candidate.variant for candidate in straight[3:]} == {best}


def test_as_many_synthetic_candidates_as_asked_of_every_generator(straight: list[Candidate]) -> None:
    synthetic = [candidate for candidate in straight if candidate.kind == "synthetic"]
    assert len(synthetic) == 30
    assert {candidate.generator for candidate in synthetic} == {"g-1", "h-2"}
    assert {candidate.generator for candidate in synthetic[:2]} == {"g-1", "h-2"}
    assert {candidate.fits for candidate in synthetic} == {1, 5}


@pytest.mark.parametrize("changes", [{"generators": ()}, {"trials": 0}, {"regions": RARE, "generators": (), "cells": True}])
def test_size_zero_candidates_run_when_there_is_nothing_to_draw_from(tmp_path: Path, changes: dict[str, object]) -> None:
    told = simulate(tmp_path, 2, np.random.default_rng(8), **changes)
    assert told
    assert all(candidate.kind != "synthetic" for candidate in told)
    assert ("cells" in {candidate.kind for candidate in told}) == bool(changes.get("cells"))


def test_balanced_data_are_searched_by_size_and_rare_groups_by_gamma(straight: list[Candidate], tmp_path: Path) -> None:
    even = [c for c in simulate(tmp_path, 2, np.random.default_rng(9), regions=EVEN) if c.kind == "synthetic"]
    assert {(c.gamma > 0, c.eta > 0) for c in even} == {(False, True)}
    assert {(c.gamma > 0, c.eta > 0) for c in straight if c.kind == "synthetic"} == {(True, False)}


def test_another_seed_proposes_others_after_the_same_openers(straight: list[Candidate], tmp_path: Path) -> None:
    other = simulate(tmp_path, 2, np.random.default_rng(10), seed=1)
    first = len(straight) - 30 + OPENERS
    assert other[:first] == straight[:first]
    assert other[first : first + BATCH] != straight[first : first + BATCH]


def test_a_trial_that_died_for_good_ends_the_asking(tmp_path: Path) -> None:
    feed = Feed(strategy(space()), loss, Folder(str(tmp_path)), lambda *_: None, 0)
    assert feed.following() is not None
    feed.stop()
    assert feed.following() is None
    assert feed.ended

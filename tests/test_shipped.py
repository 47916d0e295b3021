"""What ships fits what was judged: the correction's weights are those of the trial's own training rows, kind by kind."""

from dataclasses import replace

import numpy as np
import pytest

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate, baselines
from codsa_ray.correct import Correction
from codsa_ray.folder import Folder
from codsa_ray.partition import partition
from codsa_ray.pipeline import Report, run_until, settled
from codsa_ray.rows import FINAL
from codsa_ray.shipped import correction_of, fit_weights, recipe
from codsa_ray.strata.whole import Whole
from codsa_ray.trial import mixes, run_trial

from runs import job, patients, rows_of, written

EVERY = [Candidate(), *baselines(3, offset=True, cells=True, groups_are_classes=False, classes=2, variant=0, retrains=True)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, ray: None) -> Bench:
    place = tmp_path_factory.mktemp("shipped")
    one = job(written(place, patients(400)), place / "run", group=("sex",), hide=("sex",))
    run_until(one, "read")
    made = settled(one.made())
    rows = rows_of(Report(Folder(one.out).absolute.address, None, {}))  # type: ignore[arg-type]
    parts = {FINAL: partition(rows, Whole(), FINAL)}
    return Bench(rows, parts, {}, made.learner, made.allocator, str(place / "cache"))  # type: ignore[arg-type]


@pytest.mark.parametrize("candidate", EVERY, ids=lambda c: c.name)
def test_weights_in_closed_form_are_the_weights_of_the_fit(bench: Bench, candidate: Candidate) -> None:
    regions = bench.partitions[FINAL].regions
    labels = bench.rows.groups.labels(bench.rows.schema(FINAL).classes)
    closed = fit_weights(candidate, regions, labels, candidate.plan(regions, bench.allocator))
    for mix in mixes(bench, candidate, FINAL):
        held = np.bincount(mix.group, mix.weight, len(labels))
        if candidate.kind == "loss":
            held = held / np.bincount(labels, held)[labels]
        assert np.allclose(held, closed)


@pytest.mark.parametrize("candidate", [Candidate(), Candidate("weights", by="group", strength=1.0), Candidate("loss"), Candidate("cells")],
                         ids=lambda c: c.name)  # fmt: skip
def test_applying_what_ships_to_the_models_scores_gives_the_scores_that_were_judged(bench: Bench, candidate: Candidate) -> None:
    judged = run_trial(bench, candidate, FINAL)
    shipped = Correction.from_json(correction_of(bench, candidate, "offset", "it", None))
    outputs = len(bench.rows.groups.items) if candidate.kind == "cells" else 2
    (mix,) = mixes(bench, candidate, FINAL)
    offset = None
    if candidate.kind == "loss":
        offset = np.tile(np.log(np.bincount(mix.y, mix.weight) / mix.weight.sum()), (len(mix.y), 1))
    model = bench.learner.variants()[0].fit(mix.X, mix.y, mix.weight, classes=outputs, seed=0, offset=offset)
    assert np.allclose(shipped.apply(model.scores(bench.held_out(FINAL).X)), judged.offset, atol=1e-6)


@pytest.mark.parametrize("candidate", EVERY, ids=lambda c: c.name)
def test_every_candidate_says_how_it_is_trained(bench: Bench, candidate: Candidate) -> None:
    words = recipe(candidate, bench.partitions[FINAL].regions.group_counts)
    assert "{" not in words
    assert ("average" in words) == (candidate.fits > 1)


def test_a_verdict_that_changes_nothing_needs_no_cells(bench: Bench) -> None:
    scores = np.log(np.array([[0.2, 0.8], [0.5, 0.5]]))
    plain = Correction.from_json(correction_of(bench, Candidate(), "raw", "none", None))
    assert np.allclose(plain.apply(scores), scores)
    assert not replace(plain).by_cell

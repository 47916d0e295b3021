"""What a candidate is trained on and how its scores are corrected, by counting and in closed form, on a real run's rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codsa_ray.bench import Bench, digests_of
from codsa_ray.candidates import Candidate
from codsa_ray.correct import Offset, average, merge_cells
from codsa_ray.errors import CandidateError
from codsa_ray.fitdata import REGION
from codsa_ray.learners.forest import Forest
from codsa_ray.learners.logistic import Logistic
from codsa_ray.learners.mlp import Mlp
from codsa_ray.pipeline import run
from codsa_ray.report.facts import _thinned
from codsa_ray.rows import FINAL
from codsa_ray.scores import OneClass
from codsa_ray.seeds import hash_rows, seed_of
from codsa_ray.shipped import fit_weights, real_weights
from codsa_ray.stages import search
from codsa_ray.trial import Mix, each_once, mixes, run_trial

import runs

DRAWS = 2


@pytest.fixture(scope="module")
def bench(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The bench of a run with groups state x sex, of which learners do not see the sex."""
    place, seen = tmp_path_factory.mktemp("bench"), []

    def tries(trial: search.Trial, feed: search.Feed, workers: int) -> None:
        seen.append(trial.bench)
        runs.tries_here(trial, feed, workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr(search, "_tune", tries)
        data = runs.written(place, runs.patients())
        run(runs.job(data, place / "run", generator=("bootstrap:jitter=0.1",), group=("sex",), hide=("sex",), trials=1, draws=DRAWS))
    return replace(seen[0], cache=str(place / "cache"), memory={})


@pytest.fixture
def drawn(bench: Bench) -> Candidate:
    return Candidate("synthetic", DRAWS, generator=next(iter(bench.pools))[0], gamma=0.5, row_weight=0.2)


def test_a_last_layer_alone_is_trained_on_group_weights(bench: Bench) -> None:
    candidate = Candidate("retrained", by="group", strength=1.0)
    mix, plain = only(bench, candidate), only(bench, Candidate())
    assert mix.first is not None
    assert mix.first.tolist() == plain.weight.tolist()
    assert mix.weight.tolist() == only(bench, replace(candidate, kind="weights")).weight.tolist()
    again = replace(bench, learner=Mlp.tiny(), memory={}, cache=f"{bench.cache}-mlp")
    found = run_trial(again, candidate, 0)
    assert not np.array_equal(found.raw, run_trial(again, Candidate(), 0).raw)


def only(bench: Bench, candidate: Candidate, fold: int = 0) -> Mix:
    (mix,) = mixes(bench, candidate, fold)
    return mix


def totals(mix: Mix, by: np.ndarray) -> np.ndarray:
    return np.bincount(by.astype(int), weights=mix.weight)


def test_the_plain_candidate_trains_on_the_rows_as_they_are(bench: Bench) -> None:
    mix = only(bench, Candidate())
    assert len(mix.y) == bench.partitions[0].regions.counts.sum()
    assert set(mix.weight) == {1.0}
    assert (np.bincount(mix.group) == bench.rows.group_counts(0)).all()


def test_full_weights_level_what_they_are_by_and_keep_the_total(bench: Bench) -> None:
    plain = only(bench, Candidate())
    for by, cell in (("class", plain.y), ("group", plain.group)):
        full, half = (only(bench, Candidate("weights", by=by, strength=strength)) for strength in (1.0, 0.5))
        assert totals(full, cell) == pytest.approx(len(plain.y) / len(np.unique(cell)))
        ratio = totals(half, cell) / np.sqrt(np.bincount(cell.astype(int)))
        assert ratio == pytest.approx(ratio[0])
        assert half.weight.sum() == pytest.approx(full.weight.sum()) == pytest.approx(plain.weight.sum())


def test_the_weights_that_are_written_are_those_that_were_judged(bench: Bench) -> None:
    counts, labels = bench.rows.group_counts(FINAL), bench.rows.groups.labels(bench.rows.schema(FINAL).classes)
    for candidate in (Candidate(), *(Candidate("weights", by=by, strength=s) for by in ("class", "group") for s in (0.5, 1.0))):
        mix = only(bench, candidate, FINAL)
        assert real_weights(candidate, counts, labels)[mix.group] == pytest.approx(mix.weight)


def test_the_shipped_correction_counts_drawn_rows_as_they_were_judged(bench: Bench, drawn: Candidate) -> None:
    regions, labels = bench.partitions[0].regions, bench.rows.groups.labels(bench.rows.schema(0).classes)
    shipped = fit_weights(drawn, regions, labels, drawn.plan(regions, bench.allocator))
    for mix in mixes(bench, drawn, 0):
        assert shipped == pytest.approx(totals(mix, mix.group))


def test_undersampled_bags_are_level_to_the_ratio_and_differ(bench: Bench) -> None:
    smallest = bench.rows.group_counts(0).min()
    for ratio in (1.0, 3.0):
        bags = list(mixes(bench, Candidate("undersampled", 3, ratio=ratio), 0))
        for bag in bags:
            counts = np.minimum(bench.rows.group_counts(0), round(ratio * smallest))
            assert (np.bincount(bag.group) == counts).all()
            assert len(np.unique(bag.X, axis=0)) == len(bag.X), "without replacement"
        assert not np.array_equal(bags[0].X, bags[1].X)


@pytest.mark.parametrize("learner", [Logistic(), Mlp.tiny()], ids=["takes all rows", "holds rows out"])
def test_a_bag_is_a_bootstrap_within_every_group(bench: Bench, learner: Any) -> None:
    """Where the learner sets rows aside each comes once, weighed by how often it was drawn: a copy would be taught what is held out."""
    bench = replace(bench, learner=learner, memory={})
    base, once = only(bench, Candidate()), learner.needs.holds_out
    one, other = mixes(bench, Candidate(fits=2), 0)
    for bag in (one, other):
        assert totals(bag, bag.group) == pytest.approx(bench.rows.group_counts(0))
        assert np.array_equal(bag.weight, np.round(bag.weight))
        assert len(bag.X) < 0.8 * len(base.X) if once else len(bag.X) == len(base.X)
        assert len(np.unique(bag.X, axis=0)) == len(bag.X) if once else len(np.unique(bag.X, axis=0)) < 0.8 * len(bag.X)
    assert not np.array_equal(one.X, other.X)


def test_groups_of_weighted_bags_carry_what_they_carry_without_bags(bench: Bench) -> None:
    candidate = Candidate("weights", by="group", strength=0.5)
    whole = only(bench, candidate)
    for bag in mixes(bench, replace(candidate, fits=2), 0):
        assert totals(bag, bag.group) == pytest.approx(totals(whole, whole.group))


def test_synthetic_rows_are_the_first_of_each_draws_pool_beside_all_real_ones(bench: Bench, drawn: Candidate) -> None:
    regions = bench.partitions[0].regions
    plan = drawn.plan(regions, bench.allocator)
    real = bench.training(0)
    schema = bench.rows.schema(0)
    found = list(mixes(bench, drawn, 0))
    assert len(found) == DRAWS
    assert plan.size > 10
    for draw, mix in enumerate(found):
        table = bench.pools[drawn.generator, 0, draw, 1.0].take(plan.counts)
        size = len(real.y)
        assert np.array_equal(mix.X[:size], real.X)
        assert np.array_equal(mix.X[size:], bench.encoder(0).encode(table))
        assert np.array_equal(mix.y[size:], schema.truth(table))
        assert np.array_equal(mix.group[size:], regions.groups[table[REGION].to_numpy()])
        assert set(mix.weight[size:]) == {0.2}
    assert not np.array_equal(found[0].X, found[1].X)


def test_drawn_copies_weigh_where_the_row_stands_and_other_rows_stay_as_they_are() -> None:
    """Of three real rows two are alike, and both stay; a drawn row of another label is no copy, and a copy of a drawn row is one."""
    X = np.array([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [5.0, 6.0], [3.0, 4.0]])
    y = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1])
    found = each_once(Mix(X, y, np.array([1.0, 1.0, 2.0, *[0.25] * 6]), y), digests_of(X[:3]))
    assert found.X[:, 0].tolist() == [1, 1, 3, 3, 5]
    assert found.y.tolist() == found.group.tolist() == [0, 0, 1, 0, 1]
    assert found.weight.tolist() == [1.25, 1, 2.5, 0.25, 0.5]
    alone = Mix(X[:1], y[:1], np.ones(1), y[:1])
    assert each_once(alone, digests_of(alone.X)).X.tobytes() == X[:1].tobytes()


def test_a_learner_that_holds_rows_out_sees_no_copy_of_them_and_others_see_every_row(
    bench: Bench, drawn: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pools are drawn again as copies of real rows: what is fitted by mlp are the real rows, which weigh what all did."""

    def copied(self: Bench, generator: str, fold: int, draw: int, counts: np.ndarray, share: float = 1.0) -> Any:
        real, regions = self.training(fold, share), self.regions(fold, share)
        region = np.repeat(np.arange(len(counts)), counts)
        rows = np.array([np.flatnonzero(real.group == regions.groups[k])[0] for k in region])
        return real.X[rows], real.y[rows], region

    fitted: list[tuple[np.ndarray, np.ndarray]] = []
    hashed: list[int] = []

    def digests(X: np.ndarray) -> list[bytes]:
        hashed.append(len(X))
        return digests_of(X)

    def fit(self: Any, X: np.ndarray, y: np.ndarray, weight: np.ndarray, **given: Any) -> Any:
        fitted.append((X, weight))
        return OneClass(0, 2)

    monkeypatch.setattr(Bench, "synthetic", copied)
    monkeypatch.setattr("codsa_ray.bench.digests_of", digests)
    size = drawn.plan(bench.regions(0), bench.allocator).size
    for learner, rows in ((Mlp.tiny(), 0), (Logistic(), size)):
        monkeypatch.setattr(type(learner), "fit", fit)
        again = replace(bench, learner=learner, memory={}, cache=f"{bench.cache}-copies-{rows}")
        run_trial(again, drawn, 0)
        X, weight = fitted[-1]
        assert len(X) == len(again.training(0).y) + rows
        assert weight.sum() == pytest.approx(len(again.training(0).y) + 0.2 * size)
    assert hashed == [len(bench.training(0).y)], "real rows once for all draws, and for no learner that sees every row"


def test_every_fit_is_corrected_by_its_own_weights_and_then_averaged(bench: Bench, drawn: Candidate) -> None:
    """By hand: two fits, each offset by log target mix - log weight of its labels (the sex is not known), log-probabilities averaged."""
    scores, held, schema = run_trial(bench, drawn, 0), bench.held_out(0), bench.rows.schema(0)
    labels = bench.rows.groups.labels(schema.classes)
    mix_of_label = np.bincount(labels, weights=np.array(bench.rows.groups.mix))
    raw, corrected = [], []
    for index, mix in enumerate(mixes(bench, drawn, 0)):
        seed = seed_of(bench.rows.seed, "learner", 0, index)
        raw.append(Logistic().fit(mix.X, mix.y, mix.weight, classes=2, seed=seed).scores(held.X))
        corrected.append(raw[-1] + np.log(mix_of_label) - np.log(np.bincount(mix.y, weights=mix.weight)))
    assert scores.raw == pytest.approx(average(raw))
    assert scores.offset == pytest.approx(average(corrected))
    assert np.abs(scores.offset - scores.raw).max() > 0.1


def test_joint_cells_are_fitted_corrected_and_added_up(bench: Bench) -> None:
    scores, held, groups = run_trial(bench, Candidate("cells"), 0), bench.held_out(0), bench.rows.groups
    mix = only(bench, Candidate("cells"))
    assert np.array_equal(mix.y, mix.group)
    seed = seed_of(bench.rows.seed, "learner", 0, 0)
    fitted = Logistic().fit(mix.X, mix.y, mix.weight, classes=len(groups), seed=seed).scores(held.X)
    labels = groups.labels(bench.rows.schema(0).classes)
    offset = fitted + np.log(np.array(groups.mix)) - np.log(np.bincount(mix.group))
    assert scores.raw == pytest.approx(merge_cells(fitted, labels, 2))
    assert scores.offset == pytest.approx(merge_cells(offset, labels, 2))


def test_a_logit_adjusted_fit_is_balanced_over_labels_already(bench: Bench) -> None:
    """The offset of its loss does what the class correction does, so that the label mix alone adds nothing more."""
    scores = run_trial(bench, Candidate("loss"), 0)
    assert scores.offset == pytest.approx(scores.raw, abs=1e-9)


def test_scores_carry_the_rows_they_are_of(bench: Bench) -> None:
    scores = run_trial(bench, Candidate(), 1)
    table = bench.rows.held_out(1)
    assert np.array_equal(scores.row, table["_row"].to_numpy())
    assert np.array_equal(scores.truth, bench.rows.schema(1).truth(table))
    assert np.array_equal(scores.group, bench.rows.groups.assign(table))


def test_the_same_trial_gives_the_same_scores(bench: Bench, drawn: Candidate) -> None:
    assert np.array_equal(run_trial(bench, drawn, 0).offset, run_trial(replace(bench, memory={}), drawn, 0).offset)


def test_beyond_the_cap_small_regions_stay_whole_and_weights_make_up_for_the_rest(bench: Bench, tmp_path: object) -> None:
    capped = replace(bench, cap=70, cache=str(tmp_path), memory={})
    real, counts = capped.training(0), bench.partitions[0].regions.counts
    kept = np.bincount(real.group, minlength=len(counts))
    assert (kept[counts <= 15] == counts[counts <= 15]).all()
    assert kept.sum() < 0.9 * counts.sum()
    assert np.bincount(real.group, weights=real.weight) == pytest.approx(counts)
    held = capped.held_out(0)
    assert len(held.y) < len(bench.held_out(0).y)
    assert set(held.weight) == {1.0}


def test_held_out_rows_beyond_the_cap_are_thinned_as_they_are_read_and_the_report_says_so(bench: Bench) -> None:
    capped, whole = replace(bench, cap=30, memory={}), bench.held_out(0)
    counts = np.bincount(whole.group)
    chance = np.minimum(1, 30 / np.count_nonzero(counts) / np.maximum(counts, 1))
    kept = whole.row[hash_rows(whole.row, bench.rows.seed, "held-out cap") < chance[whole.group] * 2.0**64]
    assert capped.rows.held_out(0, capped._scored(0))["_row"].to_pylist() == kept.tolist()
    assert np.array_equal(capped.held_out(0).row, kept)
    assert 0 < len(kept) < len(whole.row)
    assert _thinned(bench) == []
    assert _thinned(capped)[0].startswith("scores are of at most 30 held-out rows a fold and as many test rows: ")


def test_the_offset_of_known_groups_is_cell_by_cell(bench: Bench) -> None:
    """Where the sex is a feature, every row is corrected by the weight of its own sex under each label."""
    seen = replace(bench, rows=replace(bench.rows, schemas=tuple(replace(s, hidden=()) for s in bench.rows.schemas)), memory={})
    groups, held = seen.rows.groups, seen.held_out(0)
    scores, mix = run_trial(seen, Candidate(), 0), only(seen, Candidate())
    weight = np.bincount(mix.group, weights=mix.weight)
    labels = groups.labels(seen.rows.schema(0).classes)
    by_hand = Offset.of(weight, np.array(groups.mix), labels, 2).apply(scores.raw, held.cells)
    assert scores.offset == pytest.approx(by_hand)
    sex = np.array([group.values[0] == "F" for group in groups.items])[held.group]
    assert len(np.unique(np.round((scores.offset - scores.raw)[:, 0] - (scores.offset - scores.raw)[:, 1], 9))) == 2
    assert len(np.unique(sex)) == 2


def test_bias_corrected_synthesis_adds_weight_to_the_groups_that_lack_rows_alone(bench: Bench) -> None:
    """Real rows first, then as many of each group as full balance lacks, net; the offset counts exactly that."""
    real, regions = bench.training(0), bench.partitions[0].regions
    candidate = Candidate("corrected_synthesis", gamma=1.0, row_weight=0.5)
    mix = only(bench, candidate)
    size = len(real.y)
    assert np.array_equal(mix.X[:size], real.X)
    assert mix.X.dtype == real.X.dtype
    assert (mix.weight[size:] < 0).any()
    lacking = np.bincount(regions.groups, weights=regions.deficits)
    assert totals(mix, mix.group) == pytest.approx(bench.rows.group_counts(0) + 0.5 * lacking, abs=0.51)
    scores = run_trial(bench, candidate, 0)
    label_mix = np.bincount(bench.rows.groups.labels(bench.rows.schema(0).classes), weights=np.array(bench.rows.groups.mix))
    wanted = scores.raw + np.log(label_mix) - np.log(totals(mix, mix.y))
    assert scores.offset == pytest.approx(average([wanted]))
    assert len({fit.X[size:].tobytes() for fit in mixes(bench, replace(candidate, fits=2), 0)}) == 2
    assert len(only(bench, replace(candidate, gamma=0.0)).y) == size


def test_signed_rows_are_kept_from_learners_that_would_ignore_the_sign(bench: Bench) -> None:
    forest = replace(bench, learner=Forest.tiny(), memory={}, cache=f"{bench.cache}-forest")
    with pytest.raises(CandidateError, match=r"bias-corrected .*: wanted a learner that takes negative weights"):
        run_trial(forest, Candidate("corrected_synthesis", gamma=1.0), 0)

"""Domains: only rows of the target's are held out, tested and drawn; the others train; without --domain nothing has changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from codsa_ray.bench import Bench, keys_of
from codsa_ray.candidates import BESIDE, Candidate, baselines, openers
from codsa_ray.contracts import silent
from codsa_ray.correct import Correction
from codsa_ray.domain import AIDED, FLATTENED, OTHERS, POOLED, TARGET, WAYS, WEIGHTED
from codsa_ray.errors import GroupError, SchemaError, SettingError
from codsa_ray.estimate import dry_run
from codsa_ray.folder import Folder
from codsa_ray.learners.logistic import Logistic
from codsa_ray.outcomes import read_truth
from codsa_ray.pipeline import Report, prepare, run
from codsa_ray.plan import Plan
from codsa_ray.regions import Region, Regions
from codsa_ray.rows import AWAY, FINAL, FOLD, Rows
from codsa_ray.shipped import correction_of, fit_weights, real_counts, recipe
from codsa_ray.stages.apply import apply
from codsa_ray.stages.recut import cut_again
from codsa_ray.stages.strategy import Space, strategy
from codsa_ray.trial import mixes, run_trial

import runs
from doubles import NoisyCopies
from telltales import Watchful, Watching, tales

HOME = {"target": "state", "domain": "site", "target_domain": "va"}
FEW, MANY = 60, 150


def sites(home: int = FEW, others: int = MANY, seed: int = 0) -> pa.Table:
    """Rows of `va` first, then of two other sites, whose numbers lie elsewhere."""
    rng = np.random.default_rng(seed)
    site = np.repeat(["va", "north", "south"], [home, others, others])
    sick = rng.random(len(site)) < 0.4
    x = rng.normal(size=(len(site), 3)) + np.where(site == "va", 0.4, 0.0)[:, None] + np.outer(sick, [1.5, -1.0, 0.0])
    state = np.where(sick, "sick", "well")
    return pa.table(
        {**{f"x{i}": column for i, column in enumerate(x.T)}, "job": rng.choice(["a", "b"], len(site)), "site": site, "state": state}
    )


def job(place: Path, table: pa.Table, **settings: Any) -> Any:
    return runs.job(runs.written(place, table), place / "run", **{**HOME, "generator": ("bootstrap",), "trials": 3, **settings})


def prepared(place: Path, table: pa.Table, **settings: Any) -> tuple[Rows, dict[str, Any], Bench]:
    """The rows of a job, what reading them said, and a bench on them."""
    made = job(place, table, **settings).made()
    rows, facts, partitions = prepare(made, Folder(str(place / "run")).absolute, silent)
    return rows, facts, Bench(rows, partitions, {}, made.learner, made.allocator, str(place / "cache"))


@pytest.fixture(scope="module")
def bench(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return prepared(tmp_path_factory.mktemp("sites"), sites())[2]


@pytest.fixture(scope="module")
def watched(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A whole run whose generator and learner tell which rows they saw."""
    place = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        told = str(place / "tales")
        return run(job(place, sites(), generator=(Watching(told),), learner=Watchful(told))), place / "tales"


# What may be seen


def test_no_row_of_another_domain_is_scored(watched: tuple[Report, Path]) -> None:
    report, place = watched
    home = set(range(FEW))
    scored = [rows - {-1} for _, rows in tales(place, "scores")]
    assert scored
    assert all(rows <= home for rows in scored)
    stored = [*Path(report.folder).rglob("truth.parquet")]
    assert len(stored) == 2
    truths = [read_truth(Folder(str(path.parent))) for path in stored]
    assert set.union(*(set(truth.row.tolist()) for truth in truths)) == home


def test_learners_train_on_rows_of_other_domains_and_never_on_a_held_out_one(watched: tuple[Report, Path]) -> None:
    report, place = watched
    rows, away = runs.rows_of(report), set(range(FEW, FEW + 2 * MANY))
    held = {fold: set(rows.held_out(fold)["_row"].to_pylist()) for fold in (*range(rows.folds), FINAL)}
    seen = [found - {-1} for _, found in tales(place, "learner")]
    assert any(found >= away for found in seen)
    assert any(found and found <= away for found in seen)
    assert any(found and not found & away for found in seen)
    for found in seen:
        mine = found - away
        assert not mine or any(not mine & held[fold] and mine <= set(range(FEW)) - held[fold] for fold in held)


def test_generators_are_fitted_on_the_target_domain_with_the_others_as_their_source(bench: Bench, watched: tuple[Report, Path]) -> None:
    for _, seen in tales(watched[1], "fit"):
        assert seen <= set(range(FEW))
    part, rows = bench.partitions[0], bench.rows
    others = rows.away(0, part.regions, part.rule).table()
    assert set(others["_row"].to_pylist()) == set(range(FEW, FEW + 2 * MANY))
    assert set(others["site"].to_pylist()) == {"north", "south"}
    for region, item in enumerate(part.regions.items):
        mine = others.filter(pc.equal(others["_region"], region))
        assert set(mine["state"].to_pylist()) == {dict(item.constants)["state"]}


def test_drawn_rows_are_of_the_target_domain_whatever_they_learned_from(here: None, tmp_path: Path) -> None:
    report = run(job(tmp_path, sites(), generator=(NoisyCopies(related=True),), trials=1))
    real, drawn = runs.augmented(report)
    assert set(drawn["site"].to_pylist()) == {"va"}
    assert set(real["site"].to_pylist()) == {"va", "north", "south"}
    assert report.facts["data"]["other_domains"] == 2 * MANY
    assert len(real) == report.facts["data"]["train"] + 2 * MANY


# The same as elsewhere


def test_the_target_domain_alone_is_a_run_on_its_rows_alone(bench: Bench, ray: None, tmp_path: Path) -> None:
    _, _, alone = prepared(tmp_path, sites().slice(0, FEW).drop_columns(["site"]), domain=None, target_domain=None)
    for fold in (0, 1, FINAL):
        mine, its = run_trial(bench, Candidate(domains=TARGET), fold), run_trial(alone, Candidate(), fold)
        assert mine.row.tolist() == its.row.tolist()
        assert mine.raw.tobytes() == its.raw.tobytes()
        assert mine.offset.tobytes() == its.offset.tobytes()
        assert not np.array_equal(run_trial(bench, Candidate(), fold).raw, its.raw)


def test_candidates_and_partitions_without_domains_are_those_of_before() -> None:
    assert Candidate().id == "a72442536f58a5c2"
    assert Candidate("synthetic", 3, generator="bootstrap-1", gamma=0.5, lean=(1.0, 0.0)).id == "94e11df9f1705a03"
    assert "domains" not in Candidate().to_json()
    regions = Regions((Region("a", 0, 0, 9),), (1.0,))
    assert "aided" not in repr(regions)
    assert "aided" not in regions.to_json()
    assert {c.domains for c in (*baselines(5, True, True, False, 2, 0), *openers(["g-1"], 5, regions, 0))} == {POOLED}


def test_another_cut_leaves_rows_of_other_domains_where_they_are(bench: Bench) -> None:
    again, _ = cut_again(bench.rows, 1, "mark", silent)
    assert again.others == bench.rows.others == tuple(np.bincount(np.array(sites()["state"])[FEW:] == "well").tolist())
    for part in again.parts:
        first, second = ((again.folder / split).read_table(part) for split in ("split", again.split))
        away = first[FOLD].to_numpy() == AWAY
        assert away.sum() == 2 * MANY
        assert (second[FOLD].to_numpy() == AWAY).tolist() == away.tolist()
    assert np.array_equal(again.group_counts(FINAL), bench.rows.group_counts(FINAL))
    assert np.array(again.counts).sum() == FEW


# Candidates


def test_every_way_to_take_the_others_competes_with_the_same_fits() -> None:
    found = baselines(5, True, False, True, 2, 0, domains=True)
    plain = baselines(5, True, False, True, 2, 0)
    assert found[: len(plain)] == plain
    names = [candidate.name for candidate in found[len(plain) :]]
    for way in ("target domain alone", "other domains alone", "importance weights full", "importance weights 0.5"):
        assert {way, f"{way}, bag of 5", f"class weights full, {way}"} <= set(names)
    assert {c.level("calibrated") for c in found[len(plain) :]} == {"reweight", "bag"}
    assert Candidate().level("calibrated") == "correct"


def test_drawn_rows_stand_beside_real_ones_of_every_way_but_the_others_alone() -> None:
    regions = Regions((Region("a", 0, 0, 20), Region("b", 1, 0, 20)), (0.5, 0.5), aided=400)
    found = openers(["g-1"], 5, regions, 0, domains=True)
    assert {c.domains for c in found} == set(BESIDE)
    assert len({c.id for c in found}) == len(found)
    assert all(c.eta > 0 for c in found)


def test_sizes_go_by_a_bounded_number_of_the_others_rows(bench: Bench) -> None:
    regions = bench.partitions[FINAL].regions
    own = int(regions.counts.sum())
    assert regions.rows == own + min(2 * MANY, AIDED * own)
    assert Candidate("synthetic", eta=1.0).plan(regions, bench.allocator).size == regions.rows
    shares = Candidate("synthetic", eta=1.0).plan(regions, bench.allocator).counts + regions.counts
    assert np.ptp(shares) <= 1  # the default allocator goes by the target mix, whatever the size


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["plain", "weights"])
def test_weights_in_closed_form_are_the_weights_of_the_fit(bench: Bench, way: str, kind: str) -> None:
    candidate = Candidate(kind, by="class" if kind == "weights" else "", strength=float(kind == "weights"), domains=way)
    regions, labels = bench.regions(FINAL), bench.rows.groups.labels(bench.rows.schema(FINAL).classes)
    closed = fit_weights(candidate, regions, labels, candidate.plan(regions, bench.allocator), real_counts(bench, candidate))
    (mix,) = mixes(bench, candidate, FINAL)
    assert np.allclose(np.bincount(mix.group, mix.weight, len(labels)), closed)
    total = {TARGET: FEW, OTHERS: 2 * MANY}.get(way, FEW + 2 * MANY) - sum(bench.rows.counts[-1]) * (way != OTHERS)
    assert mix.weight.sum() == pytest.approx(total)


@pytest.mark.parametrize("way", WAYS)
def test_what_ships_on_augmented_rows_is_what_was_judged(bench: Bench, tmp_path: Path, way: str) -> None:
    candidate, schema = Candidate(domains=way), bench.rows.schema(FINAL)
    facts = apply(bench, (), Plan(), candidate, Folder(str(tmp_path)), {}, 1, silent)
    table = pa.concat_tables([pq.read_table(file) for file in sorted((tmp_path / "augmented").glob("*.parquet"))])
    assert facts["rows_out"] == len(table) == FEW - sum(bench.rows.counts[-1]) + 2 * MANY
    weight, home = table["_weight"].to_numpy(), np.array(table["site"]) == "va"
    assert set(weight[home]) == {float(way != OTHERS)}
    assert (weight[~home] > 0).all() == (way != TARGET)
    kept = table.filter(pa.array(weight > 0))
    canonical, _ = schema.canonical(kept)
    learner = Logistic()
    encoder = learner.encoder(canonical, schema)
    model = learner.fit(encoder.encode(canonical), schema.truth(canonical), weight[weight > 0], classes=2, seed=0)
    held = bench.rows.held_out(FINAL)
    shipped = Correction.from_json(correction_of(bench, candidate, "offset", "it", None))
    judged = run_trial(bench, candidate, FINAL)
    assert np.allclose(shipped.apply(model.scores(encoder.encode(held))), judged.offset, atol=2e-3)
    words = recipe(candidate, real_counts(bench, candidate))
    assert ("`_weight` 0" in words) == (way in (TARGET, OTHERS))


# What cannot be used is counted


def test_rows_that_tell_of_held_out_ones_or_lie_in_no_group_are_left_out_and_counted(ray: None, tmp_path: Path) -> None:
    table = sites()
    state = np.array(table["state"])
    state[FEW : FEW + 7] = "unheard of"
    unit = np.arange(len(table)) // 2
    unit[-10:] = 3  # a patient of the target domain
    table = table.set_column(table.column_names.index("state"), "state", pa.array(state)).append_column("patient", pa.array(unit))
    rows, facts, bench = prepared(tmp_path, table, unit="patient")
    assert rows.left == 17
    assert sum(rows.others) == 2 * MANY - 17
    assert any(notice.startswith("17 rows of other domains are in no group") for notice in facts["notices"])
    assert rows.schema(FINAL).classes == ("sick", "well")
    positions = set(bench.training(FINAL).row.tolist())
    assert not positions & set(range(FEW, FEW + 7))
    assert not positions & set(range(len(table) - 10, len(table)))


def test_a_test_set_s_rows_of_other_domains_are_left_out_and_counted(ray: None, tmp_path: Path) -> None:
    path = runs.written(tmp_path, sites(40, 30, seed=1), "test.parquet")
    rows, facts, bench = prepared(tmp_path, sites(), test=path)
    assert sum(rows.counts[-1]) == 40
    assert any(notice.startswith("60 of 100 test rows") for notice in facts["notices"])
    assert len(bench.held_out(FINAL).y) == 40
    assert len(bench.training(FINAL).y) == FEW + 2 * MANY


def test_rows_that_share_a_unit_with_a_test_row_are_left_out(ray: None, tmp_path: Path) -> None:
    table, tests = sites(), sites(40, 0, seed=1)
    unit = np.arange(len(table))
    unit[-8:] = 5000  # a patient of the test set
    path = runs.written(tmp_path, tests.append_column("patient", pa.array(np.arange(40) + 5000)), "test.parquet")
    rows, _, bench = prepared(tmp_path, table.append_column("patient", pa.array(unit)), test=path, unit="patient")
    assert rows.left == 8
    assert not set(bench.training(FINAL).row.tolist()) & set(range(len(table) - 8, len(table)))


def test_others_that_all_share_units_with_the_target_domain_are_told(ray: None, tmp_path: Path) -> None:
    table = sites()
    with pytest.raises(GroupError, match="rows of other domains to train on"):
        prepared(tmp_path, table.append_column("patient", pa.array(np.arange(len(table)) % FEW)), unit="patient")


def test_few_rows_at_home_in_a_table_too_large_to_rank_are_all_ranked(ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, _, _ = prepared(tmp_path, sites())
    for place in ("codsa_ray.split.EXACT_ROWS", "codsa_ray.stages.read.EXACT_ROWS"):
        monkeypatch.setattr(place, 100)
    (tmp_path / "large").mkdir()
    rows, facts, _ = prepared(tmp_path / "large", sites())
    assert rows.counts == exact.counts
    assert not any("split by hash" in notice for notice in facts["notices"])


def test_a_ratio_learned_from_some_of_the_rows_is_that_of_all(ray: None, tmp_path: Path) -> None:
    """Everywhere one law with 5 % sick: were the sick kept whole where there are many rows, they would seem the others'."""
    rng = np.random.default_rng(0)
    site = np.repeat(["va", "north"], [500, 4000])
    sick = rng.random(4500) < 0.05
    table = pa.table({"x": rng.normal(3.0 * sick), "site": site, "state": np.where(sick, "sick", "well")})
    rows, _, bench = prepared(tmp_path, table)
    few, part = replace(bench, cap=500, memory={}), bench.partitions[FINAL]
    others = rows.away(FINAL, part.regions, part.rule).table()
    weights, ill = few.ratio(FINAL).weights(others, keys_of(others)), np.array(others["state"]) == "sick"
    assert 0.6 < weights[ill].mean() / weights[~ill].mean() < 1.6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target_domain": None}, "--domain alone"),
        ({"domain": None}, "--target-domain alone"),
        ({"source": "x.parquet"}, "without --source"),
        ({"prior": True}, "without --prior"),
        ({"group": ("site",)}, "group column"),
    ],
)
def test_what_does_not_go_with_domains_is_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says):
        job(tmp_path, sites(), **settings)


def test_a_domain_that_no_row_has_is_named_with_the_nearest(ray: None, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="did you mean north"):
        prepared(tmp_path, sites(), target_domain="nort")
    with pytest.raises(SchemaError, match="leave --domain out"):
        prepared(tmp_path, sites().slice(0, FEW))


def test_a_dry_run_says_who_is_trained_on_and_never_scored(here: None, tmp_path: Path) -> None:
    said = dry_run(replace(job(tmp_path, sites()), out=str(tmp_path / "none")), silent)
    assert "rows of other domains in these groups" in said
    assert "importance weights" in said
    assert f"{FEW} rows with 'site' 'va' are split and drawn; rows trained on and never scored: north {MANY}, south {MANY}" in said


def test_rows_of_a_table_without_domains_are_those_of_before(ray: None, tmp_path: Path) -> None:
    rows, _, _ = prepared(tmp_path, sites(), domain=None, target_domain=None)
    assert {"domain", "others", "left"}.isdisjoint(rows.to_json())


def test_each_way_to_take_the_others_is_tuned_by_itself() -> None:
    regions = Regions((Region("a", 0, 0, 20), Region("b", 1, 0, 20)), (0.5, 0.5), aided=400)
    space = Space(3, ("g-1",), 2, 12, True, False, True, 2, regions, seed=0, domains=True)
    batches, best = strategy(space), {POOLED: 0, TARGET: 2, OTHERS: 1, WEIGHTED: 2, FLATTENED: 0}
    batch, asked = next(batches), []
    while True:
        asked.append(batch)
        try:
            batch = batches.send({c.id: float(c.variant != best[c.domains]) for c in batch})
        except StopIteration:
            break
    assert {(c.domains, c.variant) for c in asked[0]} == {(way, v) for way in WAYS for v in range(3)}
    rest = [candidate for batch in asked[1:] for candidate in batch]
    assert all(candidate.variant == best[candidate.domains] for candidate in rest)
    assert {c.domains for c in rest if c.kind == "synthetic"} == set(BESIDE)
    assert sum(c.kind == "synthetic" for c in rest) == 12

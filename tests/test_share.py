"""No row is both the generator's and the learner's where they share the training rows, and at share 1 nothing has changed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import silent
from codsa_ray.cut import LEAST, Side, cuts
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, ROW
from codsa_ray.folder import Folder
from codsa_ray.job import Job, restored
from codsa_ray.pipeline import Report, prepare, run
from codsa_ray.rows import FINAL, UNIT
from codsa_ray.shipped import fit_weights
from codsa_ray.stages import search
from codsa_ray.trial import mixes

import runs

SHARES = (1.0, 0.5, 0.7)


def table(region: np.ndarray, first: int = 0, unit: np.ndarray | None = None) -> pa.Table:
    rows = pa.table({ROW: np.arange(first, first + len(region)), REGION: region.astype(np.int32)})
    return rows if unit is None else rows.append_column(UNIT, pa.array(unit.astype(np.uint64)))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=120).map(np.array), st.integers(0, 120), st.floats(0.05, 0.95))
def test_a_cut_shares_out_every_region_by_rank_whatever_the_blocks(region: np.ndarray, at: int, share: float) -> None:
    counts = np.bincount(region, minlength=4)
    blocks = [table(region[:at]), table(region[at:], first=min(at, len(region)))]
    small, large = cuts(blocks, counts, (share / 2, share), seed=3)
    assert (small, large) == cuts([table(region)], counts, (share / 2, share), seed=3)
    mine = {cut: Side(cut, True)(table(region)) for cut in (small, large)}
    assert (Side(large, False)(table(region)) == ~mine[large]).all()
    assert (mine[small] <= mine[large]).all()
    for cut in (small, large):
        assert np.bincount(region[mine[cut]], minlength=4).tolist() == list(cut.given)
        for k, rows in enumerate(counts):
            assert cut.given[k] == max(min(round(cut.share * rows), rows - 1), min(LEAST, rows))


def test_large_regions_are_cut_by_a_plain_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codsa_ray.cut.EXACT_ROWS", 100)
    region = np.repeat([0, 1], [50, 20_000])
    (cut,) = cuts([table(region)], np.bincount(region), (0.3,), seed=0)
    assert cut.given[0] == 15
    assert cut.given[1] == Side(cut, True)(table(region))[region == 1].sum() == pytest.approx(6000, rel=0.03)


def test_rows_of_a_unit_stay_together_within_their_region() -> None:
    region, unit = np.repeat([0, 1], 300), np.tile(np.repeat(np.arange(60), 5), 2)
    rows = table(region, unit=unit)
    (cut,) = cuts([rows], np.bincount(region), (0.5,), seed=0)
    mine = Side(cut, True)(rows)
    for k in (0, 1):
        shares = [mine[(region == k) & (unit == u)].mean() for u in range(60)]
        assert set(shares) == {0.0, 1.0}
        assert cut.given[k] == 150


def test_in_every_fold_generator_and_learner_have_no_row_in_common_and_leave_none_out(ray: None, tmp_path: Path) -> None:
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", group=("sex",), share=SHARES, folds=3).made()
    rows, _, partitions = prepare(job, Folder(str(tmp_path / "run")), silent)
    for fold in (*range(3), FINAL):
        part = partitions[fold]
        every = rows.training(fold, part.regions, part.rule).table()
        for share in SHARES:
            sides = [part.of_generator(share), part.of_learner(share)]
            found = [rows.training(fold, side.regions, side.rule, side=side.side).table() for side in sides]
            for side, held in zip(sides, found, strict=True):
                assert np.bincount(held[REGION].to_numpy(), minlength=len(side.regions)).tolist() == side.regions.counts.tolist()
            given, left = (set(held[ROW].to_pylist()) for held in found)
            assert given | left == set(every[ROW].to_pylist())
            assert not given & left or share == 1.0
            held_out = set(rows.held_out(fold)[ROW].to_pylist())
            assert not (given | left) & held_out


@pytest.fixture(scope="module")
def shared(finished: Report, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Bench]:
    """The finished run again, but with half of the rows left to the learner of its only synthetic candidate; and its bench."""
    place, seen = tmp_path_factory.mktemp("share"), []

    def tries(trial: search.Trial, feed: search.Feed, workers: int) -> None:
        seen.append(trial.bench)
        runs.tries_here(trial, feed, workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr(search, "_tune", tries)
        data = finished.facts["job"]["data"]
        report = run(runs.job(data, place / "run", generator=runs.GENERATORS[:1], trials=1, share=(0.5, 1.0)))
    return report, replace(seen[0], cache=str(place / "cache"), memory={})


def test_at_share_1_pools_and_scores_are_those_of_a_run_without_shares(finished: Report, shared: tuple[Report, Bench]) -> None:
    one, two = finished, shared[0]
    before, after = runs.contents(Path(one.folder) / "pools"), runs.contents(Path(two.folder) / "pools")
    drawn = [name for name in before if name.startswith("bootstrap") and "-final-" not in name]
    assert drawn
    assert all(after[name] == before[name] for name in drawn)
    files = sorted(Path(one.folder, "search").rglob("*.parquet"))
    pairs = [(file, Path(two.folder, file.relative_to(one.folder))) for file in files]
    same = [pq.read_table(a).equals(pq.read_table(b)) for a, b in pairs if b.exists()]
    assert len(same) > 10
    assert all(same)


def test_a_candidate_of_a_share_trains_on_the_rows_left_and_is_planned_on_them(shared: tuple[Report, Bench]) -> None:
    bench = shared[1]
    generator = next(key[0] for key in bench.pools if key[3] == 0.5)
    candidate = Candidate("synthetic", generator=generator, gamma=1.0, share=0.5)
    for fold in range(bench.rows.folds):
        (mix,) = mixes(bench, candidate, fold)
        real = bench.training(fold, 0.5)
        left = bench.regions(fold, 0.5)
        assert len(real.y) == left.counts.sum() < bench.partitions[fold].regions.counts.sum()
        assert (mix.X[: len(real.y)] == real.X).all()
        totals = np.bincount(mix.group, weights=mix.weight)
        assert totals == pytest.approx(np.full(len(totals), totals.max()), abs=1), "gamma 1 balances what is trained on"
        part = bench.partitions[fold].of_generator(0.5)
        given = bench.rows.training(fold, part.regions, part.rule, side=part.side).table()
        assert not set(given[ROW].to_pylist()) & set(real.row.tolist())


def test_what_is_shipped_gives_the_generators_rows_no_weight_and_corrects_for_the_others(shared: tuple[Report, Bench]) -> None:
    two = shared[0]
    job = restored(json.loads(Path(two.folder, "job.json").read_text()))
    assert job.share == (0.5, 1.0)
    stored = json.loads(Path(two.folder, "apply", "manifest.json").read_text())
    rows = runs.rows_of(two)
    real, drawn = runs.augmented(two)
    part = shared[1].partitions[FINAL]
    assert "generator share 0.5" in two.facts["verdict"]["best"]
    assert len(real) == rows.group_counts(FINAL).sum() == stored["rows_in"]
    assert (real["_weight"].to_numpy() > 0).sum() == part.of_learner(0.5).regions.counts.sum()
    assert len(drawn) == stored["synthetic"] > 0


def test_the_shipped_offset_counts_the_rows_that_are_trained_on(shared: tuple[Report, Bench]) -> None:
    bench = shared[1]
    generator = next(key[0] for key in bench.pools if key[3] == 0.5)
    candidate = Candidate("synthetic", generator=generator, gamma=0.5, row_weight=0.2, share=0.5)
    (mix,) = mixes(bench, candidate, 0)
    regions = bench.regions(0, 0.5)
    labels = bench.rows.groups.labels(bench.rows.schema(0).classes)
    weight = fit_weights(candidate, regions, labels, candidate.plan(regions, bench.allocator))
    assert weight == pytest.approx(np.bincount(mix.group, weights=mix.weight))


@pytest.mark.parametrize("share", [(), (0.0,), (1.5,), (0.5, 0.5)])
def test_shares_that_mean_nothing_are_refused(share: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match="--share"):
        Job(data="d", target="t", share=share)

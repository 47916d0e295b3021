"""Evidence on a real run's rows: what is compared, what is found, what is kept, and what happens where nothing can be said."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray import evidence
from codsa_ray.basis import Basis
from codsa_ray.bench import Bench
from codsa_ray.errors import CandidateError
from codsa_ray.evidence import Evidence, gather, kept
from codsa_ray.folder import Folder
from codsa_ray.pipeline import run
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages import search

import runs

Run = tuple[Bench, Folder, tuple[str, str]]


class Reached(Exception):
    """The search was about to begin."""


@pytest.fixture(scope="module")
def tried(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of groups state x sex up to its search, a generator that shakes rows a little and one that shakes them to pieces."""
    place, seen = tmp_path_factory.mktemp("evidence"), []

    def tries(trial: search.Trial, feed: search.Feed, workers: int) -> None:
        seen.append(trial.bench)
        raise Reached

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr(search, "_tune", tries)
        both = ("bootstrap:jitter=0.05", "bootstrap:jitter=20.0")
        data = runs.written(place, runs.patients(600))
        with pytest.raises(Reached):
            run(runs.job(data, place / "run", generator=both, group=("sex",), trials=1, draws=1))
    bench = replace(seen[0], cache=str(place / "cache"), memory={})
    names = sorted({key[0] for key in bench.pools}, key=lambda name: _jitter(bench, name))
    (folder,) = (place / "run" / "search").iterdir()
    return bench, Folder(str(folder)), (names[0], names[1])


def _jitter(bench: Bench, name: str) -> float:
    """How far the generator's rare rows are spread."""
    pool = next(pool for key, pool in bench.pools.items() if key[0] == name)
    return float(np.nanstd(next(pool.tables())["age"].to_numpy()))


def test_the_search_keeps_it_and_a_second_look_reads_it_back(tried: Run, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, searched, names = tried
    stored = searched.read_json(evidence.FILE)
    assert stored.pop("depends")
    folder = Folder(str(tmp_path))
    first = kept(bench, names, folder)
    assert dict(first.theory) == pytest.approx(dict(Evidence.from_json(stored).theory))
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "gather", lambda *_: pytest.fail("was kept"))
        assert kept(bench, names, folder) == first
    assert kept(bench, names[:1], folder) != first, "other generators are another question"


def test_it_is_the_same_again_and_goes_through_json(tried: Run) -> None:
    bench, _, names = tried
    first, second = gather(bench, names), gather(replace(bench, memory={}), names)
    assert first == second
    assert Evidence.from_json(first.to_json()) == first


def test_rare_groups_stand_against_the_largest_group_of_another_label(tried: Run) -> None:
    bench, _, names = tried
    found, counts = gather(bench, names), bench.partitions[FINAL].regions.group_counts
    groups = [group.name for group in bench.rows.groups.items]
    labels = [group.label for group in bench.rows.groups.items]
    assert len(found.contrasts) == 2, "the two sick ones; the smaller well one lacks rows but has no larger group of another label"
    for contrast in found.contrasts:
        rare, common = groups.index(contrast.group), groups.index(contrast.against)
        assert (labels[rare], labels[common]) == ("sick", "well")
        assert counts[common] == max(counts) == contrast.against_rows
        assert contrast.columns <= counts[rare] / evidence.ROWS_PER_COLUMN
        assert contrast.symmetry < 0.01, "logistic loss with an intercept is never symmetric"
        assert 0 <= contrast.beyond_offset <= 1


def test_a_generator_that_shakes_rows_to_pieces_is_found_and_worse_than_a_faithful_one(tried: Run) -> None:
    bench, _, (faithful, shaken) = tried
    found = [{b.generator: b for b in contrast.biases} for contrast in gather(bench, (faithful, shaken)).contrasts]
    assert min(bias[shaken].p_value for bias in found) < 0.05
    for bias in found:
        assert bias[shaken].score > bias[faithful].score
        assert -1 <= bias[shaken].cosine <= 1
        assert bias[shaken].ratio > bias[faithful].ratio


def test_the_test_rows_are_not_looked_at(tried: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _, names = tried
    monkeypatch.setattr(Rows, "held_out", lambda *_: pytest.fail("read held-out rows"))
    fresh = replace(bench, memory={})
    encoded: list[int] = []
    learned = Bench.encode

    def noted(bench: Bench, table: pa.Table, fold: int) -> np.ndarray:
        encoded.extend(table["_row"].to_pylist() if "_row" in table.column_names else [])
        return learned(bench, table, fold)

    monkeypatch.setattr(Bench, "encode", noted)
    gather(fresh, names)
    training = {row for block in bench.rows.blocks(FINAL, held_out=False) for row in block["_row"].to_pylist()}
    assert encoded
    assert set(encoded) <= training


def test_every_training_row_knows_the_fold_that_holds_it_out(tried: Run) -> None:
    rows = tried[0].rows
    place = np.concatenate([block["_row"].to_numpy() for block in rows.blocks(FINAL, held_out=False)])
    place = np.random.default_rng(0).permutation(place)
    fold = rows.folds_of(place)
    for k in range(rows.folds):
        held = {row for block in rows.blocks(k, held_out=True) for row in block["_row"].to_pylist()}
        assert set(place[fold == k].tolist()) == held
    assert np.array_equal(rows.folds_of(place[:7]), fold[:7])


def test_large_groups_are_thinned(tried: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _, _ = tried
    monkeypatch.setattr(evidence, "MOST_ROWS", 60)
    sample = evidence._Sample.of(bench)
    assert not isinstance(sample, str)
    counts, thinned = bench.partitions[FINAL].regions.group_counts, np.bincount(sample.group)
    assert thinned.max() <= 60
    assert (thinned[counts < 60] == counts[counts < 60]).all()


@dataclass(frozen=True)
class Pictures:
    """An encoder of something that is no table of numbers."""

    dimensions: int = 3

    def encode(self, table: pa.Table) -> np.ndarray:
        if self.dimensions == 0:
            raise ValueError("no such level")
        return np.zeros((len(table), *[2] * (self.dimensions - 1)))


def test_where_nothing_can_be_said_it_says_why(tried: Run) -> None:
    bench, _, names = tried

    def with_encoder(encoder: Pictures) -> Bench:
        return replace(bench, memory={("encoder", 0): encoder})

    assert "3 dimensions" in gather(with_encoder(Pictures()), names).reason
    assert "ValueError: no such level" in gather(with_encoder(Pictures(0)), names).reason
    constant = gather(with_encoder(Pictures(2)), names)
    assert constant.reason == "no pilot could be fitted"
    assert all("no encoded column varies" in note for note in constant.notes)
    assert constant.theory == ()
    values = replace(bench, rows=replace(bench.rows, schemas=tuple(replace(s, task="regression") for s in bench.rows.schemas)))
    assert gather(values, names) == Evidence(reason="theory's size is for classification")


def test_groups_of_few_rows_and_generators_without_pools_are_noted(tried: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _, (faithful, _) = tried
    found = gather(bench, (faithful, "absent"))
    assert set(dict(found.theory)) <= {faithful}
    assert len([note for note in found.notes if "absent: a fold's pool holds no row of the group" in note]) == 2
    monkeypatch.setattr(evidence, "LEAST_ROWS", 10_000)
    few = gather(bench, (faithful,))
    assert few.reason
    assert all("are too few" in note for note in few.notes)


# The projection


def spread(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) @ np.diag(np.linspace(3, 1, d))


@pytest.mark.parametrize(("n", "d"), [(200, 6), (20, 90)])
def test_components_are_uncorrelated_of_unit_variance_and_end_with_ones(n: int, d: int) -> None:
    sides = [spread(n, d), spread(n, d, 1)]
    Z = Basis.of(sides, 5, np.random.default_rng(0)).design(np.concatenate(sides))
    assert Z.shape == (2 * n, 6)
    assert np.cov(Z[:, :-1].T, bias=True) == pytest.approx(np.eye(5), abs=1e-9)
    assert (Z[:, -1] == 1).all()


def test_redundant_and_constant_columns_give_no_component() -> None:
    X = spread(50, 2)
    wide = np.column_stack([X, X @ [[1], [1]], np.full(50, 7.0)])
    assert Basis.of([wide, wide], 10, np.random.default_rng(0)).design(wide).shape == (50, 3)
    with pytest.raises(CandidateError, match="varies"):
        Basis.of([np.ones((5, 2)), np.ones((5, 2))], 3, np.random.default_rng(0))


def test_what_is_not_finite_is_read_as_the_mean() -> None:
    X = spread(80, 3)
    holes = X.copy()
    holes[::7, 1] = np.nan
    holes[1, 2] = np.inf
    basis = Basis.of([holes, holes], 3, np.random.default_rng(0))
    fine = holes.copy()
    fine[::7, 1], fine[1, 2] = basis.mean[1], basis.mean[2]
    assert basis.design(holes) == pytest.approx(basis.design(fine))
    assert np.isfinite(basis.design(holes)).all()

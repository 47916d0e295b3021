"""Further cuts of the rows: what they hold, who is scored on them, and what the decision makes of them."""

from pathlib import Path

import numpy as np
import pytest

from codsa_ray.candidates import Candidate
from codsa_ray.contracts import silent
from codsa_ray.folder import Folder
from codsa_ray.outcomes import Table
from codsa_ray.pipeline import Report, run
from codsa_ray.rows import FINAL, FOLD, GROUP, UNIT, Rows
from codsa_ray.seeds import rng_of
from codsa_ray.stages.recut import REPEATS, cut_again, repeats_for
from tests.runs import contents, fits_here, job, patients, rows_of, tries_here, written


@pytest.fixture(scope="module")
def twice(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("again")
    data = written(folder, patients())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", fits_here)
        patch.setattr("codsa_ray.stages.search._tune", tries_here)
        return run(job(data, folder / "run", repeats=2))


def folds_of(rows: Rows) -> np.ndarray:
    return np.concatenate([(rows.folder / rows.split).read_table(part, [FOLD])[FOLD].to_numpy() for part in rows.parts])


def column(rows: Rows, name: str) -> np.ndarray:
    return np.concatenate([(rows.folder / rows.split).read_table(part, [name])[name].to_numpy() for part in rows.parts])


def test_a_cut_leaves_the_test_rows_and_holds_every_training_row_out_once(twice: Report) -> None:
    first = rows_of(twice)
    second, _ = cut_again(first, 1, "any", silent)
    before, after = folds_of(first), folds_of(second)
    assert np.array_equal(before == FINAL, after == FINAL)
    assert set(after[after != FINAL]) == set(range(first.folds))
    assert np.mean(before[before != FINAL] != after[before != FINAL]) > 0.3
    for fold in range(second.folds):
        held, kept = second.held_out(fold)["_row"].to_numpy(), second.training(fold, *whole(second, fold)).table()["_row"].to_numpy()
        assert not set(held) & set(kept)
        assert len(held) + len(kept) == int((after != FINAL).sum())


def whole(rows: Rows, fold: int) -> tuple:
    from codsa_ray.partition import partition
    from codsa_ray.strata.whole import Whole

    part = partition(rows, Whole(), fold)
    return part.regions, part.rule


def test_a_cut_is_stratified_and_counts_what_it_holds(twice: Report) -> None:
    rows, _ = cut_again(rows_of(twice), 1, "any", silent)
    fold, group = folds_of(rows), column(rows, GROUP)
    for g in range(len(rows.groups.items)):
        held = [int(np.sum((fold == f) & (group == g))) for f in range(rows.folds)]
        assert max(held) - min(held) <= 1
        assert held == [rows.counts[f][g] for f in range(rows.folds)]


def test_cuts_differ_from_each_other_and_not_from_themselves(twice: Report) -> None:
    first = rows_of(twice)
    cuts = [cut_again(first, repeat, "any", silent) for repeat in (1, 2, 1)]
    assert np.array_equal(folds_of(cuts[0][0]), folds_of(cuts[2][0]))
    assert not np.array_equal(folds_of(cuts[0][0]), folds_of(cuts[1][0]))
    assert cuts[0][1] == cuts[2][1] != cuts[1][1]


def test_units_are_not_split_by_a_further_cut(here: None, tmp_path: Path) -> None:
    table = patients()
    unit = [f"U{i // 3}" for i in range(len(table))]
    data = written(tmp_path, table.append_column("unit", [unit]))
    report = run(job(data, tmp_path / "run", repeats=2, unit="unit", trials=0, generator=("bootstrap",), force=False))
    rows, _ = cut_again(rows_of(report), 1, "any", silent)
    fold, units = folds_of(rows), column(rows, UNIT)
    for one in np.unique(units):
        assert len(np.unique(fold[units == one])) == 1


def test_what_is_in_the_running_is_scored_again_and_the_same_command_scores_nothing_anew(here: None, twice: Report) -> None:
    place = Path(twice.folder) / "again" / "1"
    scored = [path for path in place.rglob("search/*/*.parquet") if path.stem != "truth"]
    assert any(path.stem == Candidate(variant=v).id for path in scored for v in range(5))
    before = contents(place)
    run(job(str(Path(twice.folder).parent / "patients.parquet"), twice.folder, repeats=2))
    assert contents(place) == before


def test_a_thin_group_asks_for_more_cuts_and_one_hold_out_for_none(twice: Report) -> None:
    rows = rows_of(twice)
    smallest = rows.group_counts(FINAL).min()
    assert repeats_for(None, rows) == (REPEATS if smallest < 30 else 1)
    assert repeats_for(4, rows) == 4


def test_losses_are_averaged_row_by_row_whatever_the_order_of_rows() -> None:
    from codsa_ray.judge import _over_cuts
    from codsa_ray.outcomes import Truth

    rng = rng_of(0, "again")
    n = 50

    def table(order: np.ndarray, losses: np.ndarray) -> Table:
        truth = Truth(order, order % 2, order % 3, order % 2, None)
        return Table(Folder("none"), "classification", 3, np.array([0.5, 0.5]), truth=truth, losses={("a", "offset"): losses[order]})

    one, two = rng.random(n), rng.random(n)
    first, second = table(rng.permutation(n), one), table(rng.permutation(n)[:40], two)
    assert second.truth is not None
    assert first.truth is not None
    found = np.full(n, np.nan)
    found[first.truth.row] = _over_cuts(first, [second], ("a", "offset"))
    there = np.isin(np.arange(n), second.truth.row)
    assert found[there] == pytest.approx(((one + two) / 2)[there], abs=1e-6)
    assert found[~there] == pytest.approx(one[~there], abs=1e-6)

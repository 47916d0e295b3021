"""A candidate is given up after a fold only where it is surely and much worse, whichever of its forms is looked at."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from codsa_ray import pruning
from codsa_ray.candidates import Candidate
from codsa_ray.folder import Folder
from codsa_ray.outcomes import Outcome, Pruned, Table, outcome_of, read_outcome, write_outcome, write_truth
from codsa_ray.pipeline import rewrite_report, run
from codsa_ray.pruning import Reference, hopeless, scored
from codsa_ray.stages import search
from codsa_ray.stages.search import Trial, run_candidate
from codsa_ray.trial import Scores

import runs

MIX = np.array([0.5, 0.5])
FOLDS = 5
PLAIN = Candidate()
DRAWN = Candidate("synthetic", generator="g-1", gamma=1.0)


def folds_of(wrong: float, slope: float = 1.0, rows: int = 400, seed: int = 0) -> dict[int, Scores]:
    """Scores of a two-class learner on every fold: the true log-odds plus `wrong` x noise, times `slope`."""
    found = {}
    for fold in range(FOLDS):
        rng = np.random.default_rng([seed, fold])
        odds = rng.normal(0, 1.5, rows)
        truth = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)
        told = slope * (odds + wrong * rng.normal(0, 1, rows))
        scores = np.stack([-np.logaddexp(0, told), -np.logaddexp(0, -told)], axis=1)
        row = np.arange(rows) + rows * fold
        found[fold] = Scores(row, truth, truth, None, scores, scores)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """With a reference that is off by a little."""
    folder = Folder(str(tmp_path))
    reference = folds_of(0.3)
    write_truth(folder, reference)
    write_outcome(folder, outcome_of(PLAIN, reference, 0.0))
    return Table(folder, "classification", 2, MIX)


def judged(table: Table, scores: dict[int, Scores], done: int) -> Pruned | None:
    reference = Reference(PLAIN, table.add(PLAIN))
    kept = {fold: scores[fold] for fold in range(done)}
    return hopeless(table, outcome_of(DRAWN, kept, 0.0), reference, *scored(table, reference, list(kept)))


def test_what_is_as_good_is_kept(table: Table) -> None:
    assert judged(table, folds_of(0.3, seed=0), 1) is None


def test_what_is_surely_and_much_worse_is_given_up_with_numbers(table: Table) -> None:
    found = judged(table, folds_of(3.0), 1)
    assert found
    assert found.reference == PLAIN.id
    assert found.loss > 1.05 * table.add(PLAIN)
    assert "after 1 fold(s)" in found.reason
    assert "none" in found.reason


def test_a_temperature_is_no_reason(table: Table) -> None:
    """Scores three times too steep lose much as they are and nothing once calibrated."""
    steep = folds_of(0.3, slope=3.0)
    truth, theirs = scored(table, Reference(PLAIN, 0.0), list(range(FOLDS)))
    mine = table.judged(outcome_of(DRAWN, steep, 0.0), truth)
    assert mine["offset"].mean() > 1.2 * theirs.mean()
    assert mine["calibrated"].mean() < 1.02 * theirs.mean()
    assert judged(table, steep, 1) is None


def test_sure_but_little_is_no_reason(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = folds_of(0.55)
    assert judged(table, worse, 4) is None
    monkeypatch.setattr(pruning, "SHARE", 0.0)
    assert judged(table, worse, 4) is not None


def test_much_but_unsure_is_no_reason(table: Table) -> None:
    few = {fold: _first(scores, 12) for fold, scores in folds_of(3.0).items()}
    reference = {fold: _first(scores, 12) for fold, scores in folds_of(0.3).items()}
    folder = table.folder / "few"
    write_truth(folder, reference)
    write_outcome(folder, outcome_of(PLAIN, reference, 0.0))
    assert judged(Table(folder, "classification", 2, MIX), few, 1) is None


def _first(scores: Scores, n: int) -> Scores:
    return Scores(scores.row[:n], scores.truth[:n], scores.group[:n], None, scores.raw[:n], scores.offset[:n])


def test_a_reference_without_synthesis_prunes_synthetic_candidates_alone(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scores, asked = folds_of(3.0), []

    def trial(bench: object, candidate: Candidate, fold: int) -> Scores:
        asked.append(fold)
        return scores[fold]

    monkeypatch.setattr(search, "run_trial", trial)
    here = Trial(_Bench(), table.folder, tuple(range(FOLDS)), table)  # type: ignore[arg-type]
    reference = Reference(PLAIN, table.add(PLAIN))
    for candidate, many in ((DRAWN, 1), (Candidate("weights", by="class", strength=1.0), FOLDS)):
        asked.clear()
        run_candidate(here, candidate, reference)
        assert asked == list(range(many))
    asked.clear()
    lone = replace(DRAWN, gamma=2.0)
    run_candidate(replace(here, folds=(0,)), lone, reference)
    found = read_outcome(table.folder, lone)
    assert asked == [0]
    assert found
    assert found.left_out is None, "with one fold nothing is given up"


class _Bench:
    cache = "none"

    def __init__(self) -> None:
        self.memory: dict[str, object] = {}


def test_what_was_given_up_is_listed_with_its_reason_and_does_not_judge(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "ERRORS", -1e9)
    monkeypatch.setattr(pruning, "SHARE", -1e9)
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=("bootstrap:jitter=0.1",), trials=9, folds=3)
    report = run(job)
    listed = [row for row in report.facts["candidates"] if row["failed"]]
    assert listed
    assert {row["failed"][:12] for row in listed} == {"pruned after"}
    assert {row["kind"] for row in listed} == {"synthetic"}
    assert {row["loss"] for row in listed} == {None}
    assert any("given up after some of the folds" in notice for notice in report.facts["notices"])
    names = {row["name"] for row in report.facts["candidates"] if not row["failed"]}
    assert not {row["name"] for row in listed} & names
    assert report.verdict.best
    kept = runs.contents(tmp_path / "run" / "search")
    again = rewrite_report(str(tmp_path / "run"))
    assert again.facts["candidates"] == report.facts["candidates"]
    assert runs.contents(tmp_path / "run" / "search") == kept


def test_outcomes_come_back_as_they_were_stored(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    outcome = outcome_of(DRAWN, {0: folds_of(1.0)[0]}, 1.5, None, Pruned(PLAIN.id, "why", 0.4))
    write_outcome(folder, outcome)
    found = read_outcome(folder, DRAWN)
    assert isinstance(found, Outcome)
    assert found.pruned == outcome.pruned
    assert found.left_out == "why"
    np.testing.assert_array_equal(found.offset, outcome.offset)

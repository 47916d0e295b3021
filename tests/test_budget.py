"""A budget is a number of trials or seconds; a search that ends by the clock says so and is kept as it was."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from codsa_ray.candidates import Candidate
from codsa_ray.cli import job_of, parser
from codsa_ray.errors import SettingError
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.outcomes import outcome_of, write_outcome
from codsa_ray.pipeline import rewrite_report, run
from codsa_ray.stages.search import Feed
from codsa_ray.stages.strategy import Batches

import runs

PLAIN = [Candidate(variant=v) for v in range(2)]
DRAWN = [Candidate("synthetic", generator="g-1", gamma=round(0.1 * k, 1)) for k in range(1, 9)]


def job(budget: str) -> Job:
    return Job("data.csv", "y", budget=budget)


@pytest.mark.parametrize(
    ("budget", "trials", "seconds"), [("", 24, 0.0), ("60", 60, 0.0), ("0", 0, 0.0), ("300s", 24, 300.0), ("1.5s", 24, 1.5)]
)
def test_a_budget_is_trials_or_seconds(budget: str, trials: int, seconds: float) -> None:
    assert (job(budget).trials, job(budget).seconds) == (trials, seconds)


@pytest.mark.parametrize("budget", ["s", "300 s", "-3", "3.5", "5m", "0s", "nans", "1e3s"])
def test_anything_else_is_refused_in_one_line(budget: str) -> None:
    with pytest.raises(SettingError, match="300s"):
        job(budget)


def test_trials_and_budget_together_are_refused() -> None:
    options = ["augment", "data.csv", "--target", "y"]
    assert job_of(parser().parse_args([*options, "--budget", "7"])).trials == 7
    with pytest.raises(SettingError):
        parser().parse_args([*options, "--budget", "7", "--trials", "8"])


def three() -> Batches:
    for batch in (PLAIN, DRAWN[:4], DRAWN[4:]):
        yield list(batch)


def fed(folder: Folder, until: float) -> Iterator[tuple[Feed, Candidate]]:
    """Every candidate that is handed out, each stored before the next is asked for."""
    feed = Feed(three(), lambda _: 1.0, folder, lambda *_: None, 0, until)
    while (candidate := feed.following()) is not None:
        yield feed, candidate
        write_outcome(folder, outcome_of(candidate, {}, 0.0, "made up"))
        feed.finished(candidate.id)


def test_time_up_leaves_those_without_synthesis(tmp_path: Path) -> None:
    assert [candidate for _, candidate in fed(Folder(str(tmp_path)), time.perf_counter() - 1)] == PLAIN


def test_what_was_handed_out_is_told_and_nothing_else_is_asked_for(tmp_path: Path) -> None:
    tried = []
    for feed, candidate in fed(Folder(str(tmp_path)), time.perf_counter() + 60):
        tried.append(candidate)
        if candidate == DRAWN[1]:
            feed.until = time.perf_counter() - 1
    assert tried == [*PLAIN, *DRAWN[:2]]
    assert feed.ended
    assert feed.told == [PLAIN, DRAWN[:2]]


def test_time_up_ends_a_search_whose_candidates_are_all_stored(tmp_path: Path) -> None:
    assert len(list(fed(Folder(str(tmp_path)), time.perf_counter() + 60))) == 10

    def forever() -> Batches:
        yield PLAIN
        while True:
            yield DRAWN

    feed = Feed(forever(), lambda _: 1.0, Folder(str(tmp_path)), lambda *_: None, 0, time.perf_counter() + 0.05)
    assert feed.following() is None
    assert feed.ended


def test_a_finished_search_by_the_clock_is_kept_and_the_report_says_so(here: None, tmp_path: Path) -> None:
    made = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=("bootstrap:jitter=0.1",), budget="0.1s")
    report = run(made)
    assert any("stopped asking after 0.1 s" in notice for notice in report.facts["notices"])
    assert any(row["kind"] == "plain" for row in report.facts["candidates"])
    tried = {path.name for path in (tmp_path / "run" / "search").rglob("*")}
    before = [row["name"] for row in report.facts["candidates"]]
    for again in (run(made), rewrite_report(str(tmp_path / "run"))):
        assert [row["name"] for row in again.facts["candidates"]] == before
    assert {path.name for path in (tmp_path / "run" / "search").rglob("*")} == tried

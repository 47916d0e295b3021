"""Results that are kept with the code: nothing is lost between processes, and pages say what the results say."""

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from benchmarks import claims, generators, modalities, shifts, speed, training, where
from benchmarks.results import Results

ROOT = Path(__file__).parents[1]
PAGES: dict[Path, Callable[[], str]] = {
    claims.PAGE: lambda: claims.page(claims.found()),
    generators.PAGE: generators.page,
    where.PAGE: where.page,
    shifts.PAGE: shifts.page,
    modalities.PAGE: modalities.page,
    training.PAGE: training.page,
    speed.PAGE: speed.page,
}


def _keep(place: Path, seed: int) -> None:
    Results("one", place).keep(f"set, learner, {seed}", {"loss": seed, "long": "x" * 20_000})


def test_cells_of_several_processes_are_all_kept(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(partial(_keep, tmp_path), range(40)))
    results = Results("one", tmp_path)
    assert len(results.path.read_text().splitlines()) == 40
    assert [cell["loss"] for cell in results.named("set", "learner")] == list(range(40))
    assert results.named("set") == results.named("set", "learn") == []


def test_of_two_lines_of_a_cell_the_later_counts(tmp_path: Path) -> None:
    results = Results("one", tmp_path)
    results.keep("a, 0", {"loss": 1.0})
    results.keep("a, 0", {"loss": 2.0})
    assert results.named("a")[0]["loss"] == 2
    assert results.when().startswith(results.read()["a, 0"]["date"])


def test_what_is_written_beside_a_value_is_not_hidden_by_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="machine"):
        Results("one", tmp_path).keep("a, 0", {"machine": "another"})


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_a_page_says_what_the_results_say(path: Path) -> None:
    assert (ROOT / path).read_text() == PAGES[path]()


def test_every_kept_line_has_its_date_and_machine() -> None:
    for path in (ROOT / "benchmarks/results").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            assert {"cell", "date", "machine"} <= set(json.loads(line)), path

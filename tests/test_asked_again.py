"""A folder asked for something else: what it holds is of the job that was asked last, or it is no finished run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import FolderError, ShortOfRows
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap, FittedBootstrap
from codsa_ray.pipeline import Report, rewrite_report, run, run_until

import runs


def copied(finished: Report, place: Path) -> Any:
    """The finished run's job on a copy of its folder."""
    import shutil

    shutil.copytree(finished.folder, place)
    return runs.job(finished.facts["job"]["data"], place)


def test_a_folder_whose_next_job_is_not_done_is_no_finished_run(finished: Report, here: None, tmp_path: Path) -> None:
    job = copied(finished, tmp_path / "run")
    run_until(replace(job, workers=1, max_hours=9.0), "read")
    assert (tmp_path / "run" / "report.json").exists(), "how it runs is no other job"
    run_until(replace(job, confidence=0.5), "read")
    assert not (tmp_path / "run" / "report.json").exists()
    with pytest.raises(FolderError, match="a finished run"):
        rewrite_report(str(tmp_path / "run"))
    assert run(job).verdict == finished.verdict
    assert runs.contents(tmp_path / "run" / "augmented") == runs.contents(finished.augmented)


def test_other_regions_are_written_even_where_nothing_is_drawn(here: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, runs.patients(120))
    job = runs.job(data, tmp_path / "run", trials=0, force=False, generator=("bootstrap",))
    before, _ = runs.augmented(run(job))
    after, drawn = runs.augmented(run(replace(job, strata="clusters:many=2,least=5")))
    assert not len(drawn)
    assert set(before["_region"].to_pylist()) == {"state=sick", "state=well"}
    assert len(set(after["_region"].to_pylist())) > 2


@dataclass(frozen=True)
class ShortAtLast:
    """Copies rows; with more than `limit` of them it learns nothing."""

    limit: int = 70

    @property
    def needs(self) -> Needs:
        return Bootstrap().needs

    def fit(self, data: FitData, worker: Worker) -> None:
        Bootstrap().fit(data, worker)
        worker.folder.write_json("rows.json", int(data.regions.counts.sum()))

    def load(self, folder: Folder) -> Any:
        return Nothing() if folder.read_json("rows.json") > self.limit else Bootstrap().load(folder)

    @classmethod
    def tiny(cls) -> Self:
        return cls()


class Nothing(FittedBootstrap):
    """Draws no row."""

    def __init__(self) -> None: ...

    def block(self, region: int, seed: int) -> Any:
        raise ShortOfRows("wanted rows; got none, as always")


def test_a_generator_that_falls_short_on_all_rows_alone_is_told_and_the_run_goes_on(here: None, tmp_path: Path) -> None:
    """Of 120 rows 48 are learned from by a fold's generator, 96 by the final one."""
    data = runs.written(tmp_path, runs.patients(120))
    report = run(runs.job(data, tmp_path / "run", force=False, generator=(ShortAtLast(),), trials=2, draws=1))
    assert report.verdict.kind != "augment"
    assert any("wanted rows; got none, as always" in notice for notice in report.facts["notices"])

"""A generator that is fitted by several Ray Train workers is as good as one fitted by one, and a fit that breaks says why."""

from pathlib import Path

import numpy as np
import pytest

from codsa_ray.draw import draw_block
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.job import Job
from codsa_ray.partition import Partition
from codsa_ray.pipeline import prepare, silent
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages.fit import FitJob, LocalWorker
from codsa_ray.stages.train import train_fit

import runs
from doubles import Broken

WORKERS = 2


@pytest.fixture(scope="module")
def prepared(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Rows, Partition]:
    place = tmp_path_factory.mktemp("train")
    job = runs.job(runs.written(place, runs.patients()), place / "run", generator=(TabularDiffusion.tiny(),)).made()
    rows, _, partitions = prepare(job, Folder(job.out), silent)
    return job, rows, partitions[FINAL]


def spread(prepared: tuple[Job, Rows, Partition], place: Path) -> FitJob:
    job, rows, part = prepared
    fit = FitJob(TabularDiffusion.tiny(), FINAL, Folder(str(place / "fit" / "tiny")), {"a": 1})
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    return fit


@pytest.fixture(scope="module")
def fitted(prepared: tuple[Job, Rows, Partition], tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    """Fitted by two gloo workers."""
    return spread(prepared, tmp_path_factory.mktemp("two"))


def test_two_workers_leave_what_load_needs_and_a_mark(fitted: FitJob, prepared: tuple[Job, Rows, Partition]) -> None:
    stored = fitted.manifest.read()
    assert stored is not None
    assert (stored["workers"], stored["rows"]) == (WORKERS, int(prepared[2].regions.counts.sum()))
    assert "train" not in fitted.folder.names(), "checkpoints are gone once it is fitted"


def test_what_two_workers_fitted_draws_rows_of_the_schema(fitted: FitJob, prepared: tuple[Job, Rows, Partition]) -> None:
    _, rows, part = prepared
    loaded = fitted.generator.load(fitted.folder)
    for region in range(len(part.regions)):
        block, _ = draw_block(loaded, rows.schema(FINAL), part.regions, region, seed=0)
        assert len(block) == fitted.generator.needs.block
        rows.schema(FINAL).check(block)


def test_two_workers_agree_with_one_in_their_losses(fitted: FitJob, prepared: tuple[Job, Rows, Partition], tmp_path: Path) -> None:
    """Law 1: at another world size a fit is not the same to the bit, but as good."""
    _, rows, part = prepared
    alone = Folder(str(tmp_path))
    TabularDiffusion.tiny().fit(rows.training(FINAL, part.regions, part.rule), LocalWorker(alone))
    last = [np.array(folder.read_json("denoiser.json")["history"])[-1] for folder in (alone, fitted.folder)]
    assert last[0][0] == last[1][0]
    assert last[0][1:] == pytest.approx(last[1][1:], rel=0.25)


@pytest.mark.slow
def test_two_workers_fit_the_same_twice(fitted: FitJob, prepared: tuple[Job, Rows, Partition], tmp_path: Path) -> None:
    again = spread(prepared, tmp_path)
    for name in ("denoiser.json", "denoiser.safetensors"):
        assert again.folder.read_bytes(name) == fitted.folder.read_bytes(name)


@pytest.mark.slow
def test_a_spread_fit_that_breaks_says_why(prepared: tuple[Job, Rows, Partition], tmp_path: Path) -> None:
    job, rows, part = prepared
    fit = FitJob(Broken("fit"), FINAL, Folder(str(tmp_path / "fit" / "broken")), {})
    reason = train_fit(fit, rows, part, None, job, workers=WORKERS)
    assert reason is not None
    assert reason == "RuntimeError: the fit broke"
    assert fit.manifest.read() is None

"""A generator that is fitted by several Ray Train workers is as good as one fitted by one, whoever dies; one that breaks says why."""

import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Needs, Worker
from codsa_ray.draw import draw_block
from codsa_ray.errors import InternalError, OutOfTime
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.language_model import LanguageModel
from codsa_ray.generators.tabular_diffusion import TabularDiffusion
from codsa_ray.job import Job
from codsa_ray.nn.train import Training, train
from codsa_ray.partition import Partition
from codsa_ray.pipeline import prepare, silent
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import seed_of
from codsa_ray.stages import fit as stage
from codsa_ray.stages.cluster import connect
from codsa_ray.stages.fit import FitJob, LocalWorker, spread_out
from codsa_ray.stages.train import train_fit, workers_of

import runs
from clusters import kill_node, wait_for
from failing import Broken

# A busy machine needs minutes for what an idle one does in seconds.
pytestmark = pytest.mark.timeout(900)
WORKERS = 2
STEPS, CHECKPOINT, DEATH = 60, 20, 33
ROOM = 1_500_000_000
"""Bytes of memory of a node that holds one worker."""


@dataclass(frozen=True)
class Watched:
    """A small network whose every rank notes the steps it does; the last rank of several ends its process at one step, so many times.

    Args:
        place: where notes are left.
        deaths: how many times.
        slow: seconds a step.
        memory: of one worker.
    """

    place: str
    deaths: int = 0
    slow: float = 0.0
    memory: int = 0

    @property
    def needs(self) -> Needs:
        return Needs(distributed=True, memory=self.memory)

    def fit(self, data: FitData, worker: Worker) -> None:
        of_death = seed_of(1, "step", DEATH)

        def loss(module: nn.Module, generator: torch.Generator, share: slice = slice(worker.rank, None, worker.world)) -> Tensor:
            if share.start is not None:
                self._note(worker, generator.initial_seed(), of_death)
            rows = torch.randn(32, 3, generator=generator)
            return (module(rows[share])[:, 0] - rows[share].prod(1) - 2).square().mean()

        def score(module: nn.Module) -> float:
            return float(loss(module, torch.Generator().manual_seed(5), slice(None)))

        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))
        settings = Training(steps=STEPS, rate=0.05, warmup=5, every=5, patience=100, checkpoint=CHECKPOINT)
        trained = train(network, loss, score, settings, worker, 1)
        if worker.rank == 0:
            worker.folder.write_json("trained.json", {"history": trained.history})

    def _note(self, worker: Worker, seed: int, of_death: int) -> None:
        time.sleep(self.slow)
        with (Path(self.place) / "steps").open("a") as file:
            file.write(f"{worker.rank} {worker.world} {seed}\n")
        died = len(list(Path(self.place).glob("death-*")))
        if seed == of_death and worker.rank == worker.world - 1 > 0 and died < self.deaths:
            (Path(self.place) / f"death-{died}").touch()
            # Time for the last checkpoint to be known to the trainer.
            time.sleep(1)
            os._exit(17)

    def load(self, folder: Folder) -> Any:
        return folder.read_json("trained.json")["history"]

    @classmethod
    def tiny(cls) -> Self:
        return cls("")


@pytest.fixture(scope="module")
def prepared(ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Rows, Partition]:
    place = tmp_path_factory.mktemp("train")
    job = runs.job(runs.written(place, runs.patients()), place / "run", generator=(TabularDiffusion.tiny(),)).made()
    rows, _, partitions = prepare(job, Folder(job.out), silent)
    return job, rows, partitions[FINAL]


def spread(prepared: tuple[Job, Rows, Partition], place: Path) -> FitJob:
    job, rows, part = prepared
    fit = FitJob(TabularDiffusion.tiny(), FINAL, Folder(str(place / "fit" / "tiny")), "a")
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
    fit = FitJob(Broken("fit"), FINAL, Folder(str(tmp_path / "fit" / "broken")), "")
    reason = train_fit(fit, rows, part, None, job, workers=WORKERS)
    assert reason is not None
    assert reason == "RuntimeError: the fit broke"
    assert fit.manifest.read() is None


def watched(prepared: tuple[Job, Rows, Partition], place: Path, **settings: Any) -> FitJob:
    place.mkdir()
    return FitJob(Watched(str(place), **settings), FINAL, Folder(str(place / "fit" / "watched")), "a")


def steps(fit: FitJob) -> list[tuple[int, int, int]]:
    """(rank, of how many, seed of the step) as they were done."""
    lines = (Path(fit.generator.place) / "steps").read_text().splitlines()  # type: ignore[attr-defined]
    return [(int(rank), int(world), int(seed)) for rank, world, seed in map(str.split, lines)]


@pytest.mark.slow
def test_a_spread_fit_whose_time_is_up_ends_with_its_next_checkpoint_and_goes_on_from_it(
    prepared: tuple[Job, Rows, Partition], tmp_path: Path
) -> None:
    job, rows, part = prepared
    fit = watched(prepared, tmp_path / "hours")
    with pytest.raises(OutOfTime, match="the same command goes on"):
        train_fit(fit, rows, part, None, job, workers=WORKERS, end=time.time())
    assert len({seed for *_, seed in steps(fit)}) == CHECKPOINT
    assert fit.manifest.read() is None
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    assert Counter(Counter(steps(fit)).values()) == {1: WORKERS * STEPS}, "no step is done twice"


@pytest.fixture(scope="module")
def undisturbed(prepared: tuple[Job, Rows, Partition], tmp_path_factory: pytest.TempPathFactory) -> FitJob:
    job, rows, part = prepared
    fit = watched(prepared, tmp_path_factory.mktemp("watched") / "whole")
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    return fit


@pytest.mark.cluster
def test_a_worker_that_dies_costs_what_came_after_the_last_checkpoint(
    undisturbed: FitJob, prepared: tuple[Job, Rows, Partition], tmp_path: Path
) -> None:
    job, rows, part = prepared
    fit = watched(prepared, tmp_path / "died", deaths=1)
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    assert (tmp_path / "died" / "death-0").exists()
    for rank in range(WORKERS):
        done = Counter(seed for own, _, seed in steps(fit) if own == rank)
        assert len(done) == STEPS
        twice = sum(many - 1 for many in done.values())
        # The step of the death is begun and not done: on one rank it ends, on the other it waits.
        assert 0 < twice <= DEATH - CHECKPOINT + 1
    # Two workers both times: law 1 asks for the same bytes. 1e-6 allows for gloo's order of sums.
    assert np.array(fit.generator.load(fit.folder)) == pytest.approx(np.array(undisturbed.generator.load(undisturbed.folder)), rel=1e-6)


@pytest.mark.cluster
def test_a_fit_whose_workers_die_each_time_stops_the_run_and_goes_on_with_the_next(
    undisturbed: FitJob, prepared: tuple[Job, Rows, Partition], tmp_path: Path
) -> None:
    job, rows, part = prepared
    fit = watched(prepared, tmp_path / "dies", deaths=3)
    with pytest.raises(InternalError, match="run again"):
        train_fit(fit, rows, part, None, job, workers=WORKERS)
    assert fit.manifest.read() is None
    before = len(steps(fit))
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    assert len(steps(fit)) - before == WORKERS * (STEPS - CHECKPOINT), "it went on from the last checkpoint"
    assert fit.generator.load(fit.folder)[-1] == pytest.approx(undisturbed.generator.load(undisturbed.folder)[-1], rel=1e-6)


def lose_a_node(fit: FitJob, rows: Rows, part: Partition, job: Job) -> None:
    """A fit on a cluster of this process's own, whose second node is killed after the first checkpoint; a node has room for one worker."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "memory": int(1.5 * ROOM), "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        # Before there is another node, so that it is the head's own driver.
        connect(cluster.address)
        second = cluster.add_node(**node)
        saved = Path(fit.folder.local()) / "train" / "trainer"

        def kill() -> None:
            wait_for(lambda: bool(list(saved.glob("checkpoint_*/state.json"))))
            # Time for it to be known to the trainer.
            time.sleep(1)
            kill_node(cluster, second)

        Thread(target=kill, daemon=True).start()
        assert train_fit(fit, rows, part, None, job, workers=(1, WORKERS)) is None
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.cluster
def test_a_node_that_is_lost_leaves_its_fit_to_the_workers_there_are(
    undisturbed: FitJob, prepared: tuple[Job, Rows, Partition], tmp_path: Path
) -> None:
    """Between one and two workers: two begin, and one ends it."""
    job, rows, part = prepared
    fit = watched(prepared, tmp_path / "elastic", slow=0.15, memory=ROOM)
    # A process of its own, for this one has its Ray.
    driver = get_context("spawn").Process(target=lose_a_node, args=(fit, rows, part, job))
    driver.start()
    driver.join()
    assert driver.exitcode == 0
    worlds = [world for _, world, _ in steps(fit)]
    assert (worlds[0], worlds[-1]) == (2, 1)
    first, last = ({seed for _, world, seed in steps(fit) if world == size} for size in (2, 1))
    assert len(first | last) == STEPS
    assert len(first & last) <= CHECKPOINT
    # At another number of workers a fit is not the same to the bit, but as good.
    assert fit.generator.load(fit.folder)[-1] == pytest.approx(undisturbed.generator.load(undisturbed.folder)[-1], rel=1e-3)


@pytest.mark.cluster
def test_a_language_model_cut_over_two_workers_is_as_good_as_one_worker_s(prepared: tuple[Job, Rows, Partition], tmp_path: Path) -> None:
    job, rows, part = prepared
    generator = replace(LanguageModel.tiny(), steps=50, checkpoint=20, sharded=True)
    fit = FitJob(generator, FINAL, Folder(str(tmp_path / "fit" / "cut")), "a")
    assert train_fit(fit, rows, part, None, job, workers=WORKERS) is None
    alone = Folder(str(tmp_path / "alone"))
    generator.fit(rows.training(FINAL, part.regions, part.rule), LocalWorker(alone))
    last = [np.array(folder.read_json("rows.json")["history"])[-1] for folder in (alone, fit.folder)]
    assert last[0] == pytest.approx(last[1], rel=1e-3)
    block, _ = draw_block(generator.load(fit.folder), rows.schema(FINAL), part.regions, 0, seed=0)
    assert len(block) == generator.block


@pytest.mark.parametrize(("gpus", "least", "workers"), [(0, 0, 1), (1, 0, 1), (4, 0, 4), (4, 2, (2, 4)), (4, 4, 4), (4, 9, 4), (0, 2, 1)])
def test_a_fit_is_spread_over_the_gpus_or_between_the_least_and_all(gpus: float, least: int, workers: Any) -> None:
    assert workers_of(Job("a.parquet", "b", gpus=gpus, least_gpus=least)) == workers


def test_only_what_is_large_and_may_use_several_gpus_starts_a_trainer(
    prepared: tuple[Job, Rows, Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _, part = prepared
    several, small = replace(job, gpus=4), LanguageModel.tiny()

    def spread(job: Job, generator: Any) -> bool:
        return spread_out(job, FitJob(generator, FINAL, Folder("/nowhere"), ""), part)

    assert not spread(several, small), "few rows"
    assert spread(several, replace(small, sharded=True)), "no GPU could hold it"
    assert not spread(job, replace(small, sharded=True))
    monkeypatch.setattr(stage, "SPREAD_ROWS", int(part.regions.counts.sum()))
    assert spread(several, small)
    assert not spread(replace(job, gpus=1), small)
    assert not spread(several, Broken("fit")), "cannot be spread"

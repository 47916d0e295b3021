"""Spread fits go side by side where the cluster's GPUs are enough for several trainers, and one grows with its cluster."""

import os
import time
from math import inf
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from test_ray_train import CHECKPOINT, ROOM, STEPS, Watched

from codsa_ray.errors import OutOfTime
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.pipeline import prepare, silent
from codsa_ray.rows import FINAL
from codsa_ray.stages import fit as stage
from codsa_ray.stages import train as trainer
from codsa_ray.stages.cluster import connect
from codsa_ray.stages.fit import FitJob, trainers

import runs
from clusters import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
HERE = str(Path(__file__).parent)  # workers import the doubles by name
GPUS, EACH, FITS = 4, 2, 3
"""Of the machine (Ray is told so; torch has none), of one fit, and how many are waiting."""


def fits_of(place: Path) -> list[FitJob]:
    found = []
    for name in map(str, range(FITS)):
        (place / name).mkdir()
        found.append(FitJob(Watched(str(place / name), slow=0.1), FINAL, Folder(str(place / name / "fit" / "watched")), name))
    return found


def most_under_way(place: Path, over: Event) -> int:
    """Fits that had begun to step and were not finished, at most, while `over` was not set."""
    most = 0
    while not over.wait(0.1):
        begun = {path.parent.name for path in place.glob("*/steps")}
        most = max(most, len(begun - {path.parents[2].name for path in place.glob("*/fit/watched/manifest.json")}))
    return most


def fit_them(place: Path, seconds: float, told: Any) -> None:
    """In a process of its own: what came of the fits, and how many were under way at a time."""
    import ray

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    ray.init(address="local", num_cpus=8, num_gpus=GPUS, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    connect()
    stage.SPREAD_ROWS = 1
    job = runs.job(runs.written(place, runs.patients()), place / "run", gpus=EACH, generator=(Watched(""),)).made()
    rows, _, partitions = prepare(job, Folder(job.out), silent)
    assert trainers(job) == GPUS // EACH
    over, counted = Event(), []
    watcher = Thread(target=lambda: counted.append(most_under_way(place, over)), daemon=True)
    watcher.start()
    try:
        ended = stage._run(job, rows, partitions, fits_of(place), None, time.perf_counter() + seconds)
        found: Any = {fit.folder.address: why for fit, why in filter(None, ended)}
    except OutOfTime as error:
        found = str(error)
    over.set()
    watcher.join()
    told.send((found, counted[0]))
    ray.shutdown()


def fitted(place: Path, seconds: float = inf) -> tuple[Any, int]:
    context = get_context("spawn")
    here, there = context.Pipe()
    driver = context.Process(target=fit_them, args=(place, seconds, there))
    driver.start()
    driver.join()
    assert driver.exitcode == 0
    found: tuple[Any, int] = here.recv()
    return found


def test_as_many_trainers_work_at_a_time_as_have_their_gpus(tmp_path: Path) -> None:
    reasons, most = fitted(tmp_path)
    assert list(reasons.values()) == [None] * FITS
    assert most == GPUS // EACH
    histories = {(tmp_path / str(k) / "fit" / "watched" / "trained.json").read_text() for k in range(FITS)}
    assert len(histories) == 1, "the same fit, whatever else is under way"


def test_trainers_whose_time_is_up_leave_their_checkpoints(tmp_path: Path) -> None:
    said, _ = fitted(tmp_path, seconds=1)
    assert "the same command goes on" in said
    for name in ("0", "1"):
        assert list((tmp_path / name / "fit" / "watched" / "train" / "trainer").glob("checkpoint_*")), "each stopped at its next checkpoint"
    assert not (tmp_path / "2" / "steps").exists(), "the third never began"


def one_to_two(fit: FitJob, shared: Any, job: Job) -> str | None:
    """Fits with one worker or two, whatever there is room for."""
    trainer.LOOKS = 1.0
    rows, part = shared
    return trainer.train_fit(fit, rows, part, None, job, workers=(1, 2))


def gain_a_node(place: Path) -> None:
    """In a process of its own: a fit on one node that has room for one worker; another node comes after the first checkpoint."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))
    node: dict[str, Any] = {"num_cpus": 2, "memory": int(1.5 * ROOM), "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        connect(cluster.address)
        job = runs.job(runs.written(place, runs.patients()), place / "run", generator=(Watched(""),)).made()
        rows, _, partitions = prepare(job, Folder(job.out), silent)
        fit = FitJob(Watched(str(place), slow=0.25, memory=ROOM), FINAL, Folder(str(place / "fit" / "watched")), "a")
        ended = ray.remote(num_cpus=0)(one_to_two).remote(fit, ray.put((rows, partitions[FINAL])), job)
        wait_for(lambda: bool(list((place / "fit" / "watched" / "train" / "trainer").glob("checkpoint_*/state.json"))))
        cluster.add_node(**node)
        assert ray.get(ended) is None
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_node_that_comes_is_taken_into_a_fit_under_way(tmp_path: Path) -> None:
    driver = get_context("spawn").Process(target=gain_a_node, args=(tmp_path,))
    driver.start()
    driver.join()
    assert driver.exitcode == 0
    lines = [list(map(int, line.split())) for line in (tmp_path / "steps").read_text().splitlines()]
    worlds = [world for _, world, _ in lines]
    assert (worlds[0], worlds[-1]) == (1, 2)
    alone, both = ({seed for _, world, seed in lines if world == size} for size in (1, 2))
    assert len(alone | both) == STEPS
    assert len(alone & both) <= CHECKPOINT, "it went on from the last checkpoint"

"""What a plug-in needs is what Ray is asked for, in every stage, so that an autoscaler brings the right nodes."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from codsa_ray.contracts import Needs
from codsa_ray.errors import ClusterError
from codsa_ray.pipeline import run_until
from codsa_ray.stages import cluster, fit, search, synthesize

import runs

LARGE = Needs(cpus=2, gpus=1, memory=2**30, accelerator="H100")


@dataclass(frozen=True)
class Wanting:
    """A generator's place: nothing but its needs is looked at."""

    needs: Needs


def task(needs: Needs) -> Any:
    return SimpleNamespace(fit=SimpleNamespace(generator=Wanting(needs)), generator=Wanting(needs))


def test_a_fit_asks_for_all_of_it() -> None:
    options = fit._task(task(LARGE))._default_options
    assert {key: options[key] for key in ("num_cpus", "num_gpus", "memory", "accelerator_type")} == {
        "num_cpus": 2,
        "num_gpus": 1,
        "memory": 2**30,
        "accelerator_type": "H100",
    }


def test_drawers_ask_for_the_most_of_any_and_for_a_device_that_all_agree_on() -> None:
    small, other = Needs(memory=2**20), Needs(gpus=0.5, accelerator="A100")
    most = {"num_cpus": 0.9 * 2, "num_gpus": 1, "memory": 2**30, "accelerator_type": "H100"}
    assert synthesize._resources([task(LARGE), task(small)], gpus=1) == most
    assert "accelerator_type" not in synthesize._resources([task(LARGE), task(other)], gpus=1)
    assert synthesize._resources([task(LARGE)], gpus=0) == {"num_cpus": 0.9 * 2, "memory": 2**30}
    assert synthesize._resources([task(Needs())], gpus=1) == {"num_cpus": 0.9}


def test_a_trial_asks_for_what_its_learner_needs() -> None:
    assert search._resources(Needs()) == {"cpu": pytest.approx(0.9)}
    found = search._resources(LARGE)
    assert (found["gpu"], found["memory"], found["accelerator_type:H100"]) == (1, 2**30, 0.001)


def test_what_this_machine_has_not_is_refused_and_what_a_cluster_has_not_yet_is_said(ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        told.append(note)

    cluster.room("fit", progress, num_cpus=1)
    with pytest.raises(ClusterError, match="wanted a machine with 1 CPUs, 64 GPUs to fit"):
        cluster.room("fit", progress, num_cpus=1, num_gpus=64)
    assert told == []
    monkeypatch.setattr(cluster, "OWN", "no node's")
    cluster.room("fit", progress, num_cpus=1, memory=2**50, accelerator_type="H100")
    assert told == ["fit         waits for a node with 1 CPUs, 1048576.0 GiB, H100"]


def test_a_run_that_asks_for_gpus_this_machine_has_not_ends_at_once(ray: None, tmp_path: Path) -> None:
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", generator=("tabular_diffusion:gpus=64",))
    with pytest.raises(ClusterError, match="64 GPUs to fit"):
        run_until(job, "fit")

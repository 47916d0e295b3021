"""Several Ray nodes on one machine: a run by address, of which a node dies on the way, writes what an undisturbed one writes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codsa_ray.pipeline import Report

import runs

ROOT = Path(__file__).parent.parent
PATIENCE = 240.0


@pytest.fixture
def cluster(ray: None) -> Iterator[Any]:
    """A head and a second node, processes of this test's own."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.mark.cluster
@pytest.mark.parametrize("moment", ["fit/*/*/manifest.json", "search/*/*.parquet"])
def test_a_node_that_dies_changes_nothing_in_what_is_written(finished: Report, cluster: Any, tmp_path: Path, moment: str) -> None:
    second = cluster.add_node(num_cpus=2)
    arguments = [*runs.options(finished.facts["job"]["data"], tmp_path / "run"), "--address", cluster.address]
    process = subprocess.Popen([sys.executable, "-m", "codsa_ray.cli", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + PATIENCE
    while not list((tmp_path / "run").glob(moment)):
        assert process.poll() is None, process.stderr
        assert time.monotonic() < until
        time.sleep(0.01)
    cluster.remove_node(second, allow_graceful=False)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert runs.contents(tmp_path / "run" / "augmented") == runs.contents(finished.augmented)

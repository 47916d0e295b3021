"""Several Ray nodes on one machine, killed hard or coming and going: what is written is what a single process writes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codsa_ray.pipeline import Report, run
from codsa_ray.stages import apply, fit, search, synthesize

import clusters
import runs

# So many draws that they are spread over the nodes.
DRAWS = 10
SECONDS = 120.0


@pytest.fixture(scope="module")
def undisturbed(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A whole pass in this process alone."""
    place = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_run", runs.fits_here)
        patch.setattr(search, "_tune", runs.tries_here)
        for stage in (synthesize, apply):
            patch.setattr(stage, "FEW_ROWS", 10**9)
        return run(runs.job(runs.written(place, runs.patients()), place / "run", draws=DRAWS))


@pytest.fixture
def cluster(ray: None) -> Iterator[Any]:
    with clusters.raylets(3, cpus=2) as found:
        yield found


def begun(report: Report, out: Path) -> Path:
    """A run folder with the report's rows and fits and nothing more."""
    for name in ("read", "fit"):
        shutil.copytree(Path(report.folder, name), out / name)
    shutil.copy(Path(report.folder, "codsa.json"), out)
    return out


def killed_at(cluster: Any, report: Report, out: Path, moment: str, least: int) -> None:
    """Runs the report's job by address, kills a node that holds work from the moment on, and compares what was written."""
    arguments = [*runs.options(report.facts["job"]["data"], out), "--draws", str(DRAWS), "--workers", "3", "--address", cluster.address]
    process = clusters.codsa(arguments)
    clusters.wait_for(lambda: len(list(out.glob(moment))) >= least, process)
    busy: list[Any] = []

    def holds_work() -> bool:
        busy.extend(node for node in cluster.worker_nodes if clusters.at_work(node))
        return bool(busy)

    clusters.wait_for(holds_work, process)
    clusters.kill_node(cluster, busy[0])
    _, said = process.communicate(timeout=clusters.PATIENCE)
    assert process.returncode == 0, said
    assert runs.contents(out / "augmented") == runs.contents(report.augmented)
    for name in ("verdict.json", "correction.json"):
        assert (out / name).read_bytes() == Path(report.folder, name).read_bytes()


def drawn(folder: Path | str) -> dict[str, bytes]:
    return {name: data for name, data in runs.contents(Path(folder) / "pools").items() if name.endswith(".parquet")}


@pytest.mark.cluster
@pytest.mark.parametrize(("moment", "least"), [("fit/*/*/manifest.json", 1), ("pools/*/*.parquet", 3), ("search/*/*.parquet", 3)])
def test_a_node_killed_hard_changes_nothing_in_what_is_written(
    undisturbed: Report, cluster: Any, tmp_path: Path, moment: str, least: int
) -> None:
    killed_at(cluster, undisturbed, tmp_path / "run", moment, least)


@pytest.mark.cluster
def test_what_three_nodes_draw_is_what_one_process_draws_from_the_same_fits(undisturbed: Report, cluster: Any, tmp_path: Path) -> None:
    out = begun(undisturbed, tmp_path / "run")
    killed_at(cluster, undisturbed, out, "pools/*/*.parquet", 8)
    assert drawn(out) == drawn(undisturbed.folder)
    assert len(drawn(out)) >= DRAWS * 2 * 2


@pytest.mark.cluster
def test_synthesis_takes_the_nodes_it_can_use_and_lets_them_go(undisturbed: Report, tmp_path: Path) -> None:
    """One node without work, three more while shards wait, one again."""
    out = begun(undisturbed, tmp_path / "run")
    arguments = [*runs.options(undisturbed.facts["job"]["data"], out), "--draws", str(DRAWS), "--workers", "3", "--until", "synthesize"]
    with clusters.autoscaling(cpus=1, most=3) as cluster:
        assert clusters.alive(cluster.address) == 1
        process = clusters.codsa([*arguments, "--address", cluster.address])
        clusters.wait_for(lambda: clusters.alive(cluster.address) == 4, process)
        _, said = process.communicate(timeout=clusters.PATIENCE)
        assert process.returncode == 0, said
        clusters.wait_for(lambda: clusters.alive(cluster.address) == 1, patience=SECONDS)
    assert runs.contents(out / "fit") == runs.contents(Path(undisturbed.folder) / "fit")
    theirs = drawn(undisturbed.folder)
    assert drawn(out) == {name: theirs[name] for name in drawn(out)}


@pytest.mark.cluster
def test_a_cluster_without_cpus_asks_for_the_number_of_workers(ray: None, tmp_path: Path) -> None:
    arguments = runs.options(runs.written(tmp_path, runs.patients()), tmp_path / "run")
    at = arguments.index("--workers")
    with clusters.raylets(1, cpus=0) as found:
        process = clusters.codsa([*arguments[:at], *arguments[at + 2 :], "--address", found.address])
        _, said = process.communicate(timeout=clusters.PATIENCE)
    assert process.returncode == 2, said
    assert "give --workers N" in said

"""The commands of docs/running-on-a-cluster.md on a head of this test's own: logs and exit codes arrive, a stopped job goes on."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from codsa_ray.pipeline import Report

import clusters
import runs

PAGE = (clusters.ROOT / "docs" / "running-on-a-cluster.md").read_text()
LINES = [line for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(ray: None) -> Iterator[clusters.Head]:
    with clusters.head() as found:
        yield found


def documented(*words: str) -> list[str]:
    """The page's commands that hold all of these words."""
    return [line for line in LINES if all(word in line for word in words)]


def augment() -> str:
    """The page's first: a run as it is begun, and as it is gone on with."""
    return documented("ray job submit --working-dir . -- python jobs/augment.py")[0]


def typed(line: str, cluster: clusters.Head, data: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Types a command of the page with this test's data in the place of the page's."""
    mine = {"s3://bucket/rows/": data, "label": "state", "s3://bucket/runs/1": str(out), "64": "2", "ray": str(clusters.BIN / "ray")}
    command = [mine.get(word, word) for word in shlex.split(line)]
    environment = clusters.environment(RAY_API_SERVER_ADDRESS=cluster.api)
    return subprocess.run([*command, *more], cwd=clusters.ROOT, env=environment, capture_output=True, text=True, timeout=clusters.PATIENCE)


def jobs(cluster: clusters.Head) -> dict[str, Any]:
    """What the SDK knows, by submission id."""
    from ray.job_submission import JobSubmissionClient

    return {job.submission_id: job for job in JobSubmissionClient(cluster.api).list_jobs()}


def last(cluster: clusters.Head) -> Any:
    return max(jobs(cluster).values(), key=lambda job: job.start_time)


def small(report: Report) -> tuple[str, list[str]]:
    """(data, options) of the finished run."""
    words = runs.options(report.facts["job"]["data"], "")
    return words[1], words[words.index("--generator") :]


def same(out: Path, finished: Report) -> bool:
    return runs.contents(out / "augmented") == runs.contents(finished.augmented)


def test_stage_by_stage_the_logs_arrive_and_the_rows_are_those_of_a_local_run(
    finished: Report, cluster: clusters.Head, tmp_path: Path
) -> None:
    data, options = small(finished)
    stages = documented("ray job submit", "jobs/fit.py") + documented("ray job submit", "jobs/synthesize.py")
    for line in [*stages, *documented("ray job submit", "jobs/search.py"), augment()]:
        ended = typed(line, cluster, data, tmp_path / "run", *options)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert last(cluster).driver_exit_code == 0
    assert re.search(r"fit .*\(kept\)", ended.stdout)
    assert re.search(r"apply .* rows .* rows/s", ended.stdout)
    assert f"report     {tmp_path / 'run'}/report.html" in ended.stdout
    assert same(tmp_path / "run", finished)


def test_exit_codes_tell_the_users_mistakes_from_ours(finished: Report, cluster: clusters.Head, tmp_path: Path) -> None:
    data, options = small(finished)
    line = augment()
    asked = typed(line, cluster, data, tmp_path / "run", *options, "--learner", "nosuch")
    assert asked.returncode == 1
    assert last(cluster).driver_exit_code == 2
    assert "codsa: error: wanted one of the learners" in asked.stdout + asked.stderr
    shutil.copytree(finished.folder, tmp_path / "torn")
    for name in ("pools", "search", "apply", "augmented", "judge"):
        shutil.rmtree(tmp_path / "torn" / name, ignore_errors=True)
    files = [path for path in (tmp_path / "torn").glob("fit/*/0-*/*") if path.name != "manifest.json"]
    learned = max(files, key=lambda path: path.stat().st_size)
    held = bytearray(learned.read_bytes())
    held[len(held) // 2] ^= 1
    learned.write_bytes(held)
    torn = typed(line, cluster, data, tmp_path / "torn", *options)
    assert torn.returncode == 1
    assert last(cluster).driver_exit_code == 1
    assert re.search(rf"codsa: .*{re.escape(learned.name)}", torn.stdout + torn.stderr)


def test_a_stopped_job_leaves_a_folder_that_the_same_submission_goes_on_from(
    finished: Report, cluster: clusters.Head, tmp_path: Path
) -> None:
    data, options = small(finished)
    (begin,), (stop,) = documented("--no-wait"), documented("ray job stop")
    assert typed(begin, cluster, data, tmp_path / "run", *options).returncode == 0
    clusters.wait_for(lambda: any((tmp_path / "run").glob("search/*/*.parquet")))
    assert typed(stop, cluster, data, tmp_path / "run").returncode == 0
    assert jobs(cluster)["codsa-1"].status == "STOPPED"
    assert not (tmp_path / "run" / "report.html").exists()
    ended = typed(augment(), cluster, data, tmp_path / "run", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"synthesize .*\(kept\)", ended.stdout)
    assert same(tmp_path / "run", finished)

"""A finished run is one run of MLflow: its settings, its numbers, its verdict and its report."""

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from codsa_ray.errors import ClusterError
from codsa_ray.pipeline import Report
from codsa_ray.tracking import EXPERIMENT, FILES, track


@pytest.fixture(autouse=True)
def plain_store(monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow asks for a word before it uses folders, and its databases need more packages than the client.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def test_settings_numbers_verdict_and_report_are_there(finished: Report, tmp_path: Path) -> None:
    uri = f"file:{tmp_path}/store"
    made = MlflowClient(uri).get_run(track(finished.folder, uri))
    facts = finished.facts
    assert made.info.status == "FINISHED"
    assert (made.data.params["target"], made.data.params["seed"]) == ("state", "0")
    assert made.data.tags["verdict"] == facts["verdict"]["kind"]
    assert made.data.metrics["loss"] == pytest.approx(facts["verdict"]["loss"])
    chosen = next(c for c in facts["candidates"] if c["name"] == facts["verdict"]["chosen"])
    assert made.data.metrics["test_loss"] == pytest.approx(chosen["test_loss"])
    assert {file.path for file in MlflowClient(uri).list_artifacts(made.info.run_id)} == set(FILES)


def test_a_second_run_joins_the_same_experiment(finished: Report, tmp_path: Path) -> None:
    uri = f"file:{tmp_path}/store"
    first, second = (MlflowClient(uri).get_run(track(finished.folder, uri)) for _ in range(2))
    assert first.info.experiment_id == second.info.experiment_id
    assert MlflowClient(uri).get_experiment(first.info.experiment_id).name == EXPERIMENT


def test_a_server_that_does_not_answer_is_one_line(finished: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ClusterError, match="check --mlflow; the run itself is whole"):
        track(finished.folder, "http://127.0.0.1:9")

"""Tracking: a finished run as a run of MLflow, by MLflow's own client: settings, numbers, report; knows no stage."""

import os
import tempfile
from typing import Any

from codsa_ray.errors import ClusterError, SettingError
from codsa_ray.folder import Folder

EXPERIMENT = "codsa_ray"
FILES = ("report.html", "report.json", "verdict.json", "correction.json", "job.json")
LONGEST = 500  # characters of a parameter's value


def track(run_folder: str, uri: str, experiment: str = EXPERIMENT) -> str:
    """Logs settings as parameters, losses and seconds as metrics, the verdict as a tag, and the report's files.

    Args:
        run_folder: of a finished run.
        uri: of a tracking server or store, as MLflow takes it.
        experiment: made where there is none of that name.

    Returns:
        The id of MLflow's run.

    Raises:
        SettingError: mlflow is not installed. ClusterError: nothing answers at the address, or it refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise SettingError("the package mlflow for --mlflow", "none", "python -m pip install -c constraints.txt '.[mlflow]'") from error
    # Its default is five retries, each later than the one before: minutes for a wrong address.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    run = Folder(run_folder)
    facts = run.read_json("report.json")
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        made = client.create_run(known.experiment_id if known else client.create_experiment(experiment), run_name=facts["title"])
        for name, value in _parameters(facts).items():
            client.log_param(made.info.run_id, name, value)
        for name, number in _metrics(facts).items():
            client.log_metric(made.info.run_id, name, number)
        client.set_tag(made.info.run_id, "verdict", facts["verdict"]["kind"])
        client.set_tag(made.info.run_id, "mlflow.note.content", "\n".join(facts["verdict"]["sentences"]))
        with tempfile.TemporaryDirectory() as place:
            for name in FILES:
                Folder(place).write_bytes(name, run.read_bytes(name))
            client.log_artifacts(made.info.run_id, place)
        client.set_terminated(made.info.run_id)
    except (MlflowException, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ClusterError(
            "an MLflow store that takes runs", f"{Folder(uri).shown}: {first}", "check --mlflow; the run itself is whole"
        ) from error
    return str(made.info.run_id)


def _parameters(facts: dict[str, Any]) -> dict[str, str]:
    return {name: str(value)[:LONGEST] for name, value in facts["job"].items() if value not in (None, "", [])}


def _metrics(facts: dict[str, Any]) -> dict[str, float]:
    verdict, by_name = facts["verdict"], {c["name"]: c for c in facts["candidates"]}
    chosen = by_name[verdict["chosen"]]
    found = {"loss": verdict["loss"], "base_loss": verdict["base_loss"], "leave_loss": verdict["leave_loss"]}
    found |= {"test_loss": chosen["test_loss"], "test_se": chosen["test_se"]}
    found |= {f"gain_{key}": verdict["gain"][key] for key in ("mean", "low", "high")} if verdict["gain"] else {}
    found |= {f"seconds_{stage['name']}": stage["seconds"] for stage in facts["stages"]}
    return {name: float(value) for name, value in found.items() if value is not None}

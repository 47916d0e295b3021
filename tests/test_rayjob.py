"""jobs/rayjob.yaml is one that KubeRay takes, and does what its comments say; checked by KubeRay's own schema, without Kubernetes.

data/rayjob_crd.json.gz is the v1 schema of ray-operator/config/crd/bases/ray.io_rayjobs.yaml (ray-project/kuberay, Apache-2.0, commit
feeaf72f), without descriptions and without status.
"""

import copy
import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from codsa_ray.cli import job_of, parser

ROOT = Path(__file__).parent.parent
CRD = Path(__file__).parent / "data/rayjob_crd.json.gz"


def strict(schema: Any) -> Any:
    """Kubernetes' dialect as plain JSON Schema that also refuses what Kubernetes would silently drop."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(part) for key, part in schema.items()}
    if found.pop("x-kubernetes-int-or-string", False):
        found["type"] = ["integer", "string"]
    if "properties" in found and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(gzip.decompress(CRD.read_bytes()))
    # Metadata is every kind's own.
    schema["properties"]["metadata"] = {"type": "object", "additionalProperties": True}
    return Draft202012Validator(strict(schema))


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "jobs/rayjob.yaml").read_text())


def test_kuberay_takes_it(rayjob: dict[str, Any], validator: Draft202012Validator) -> None:
    validator.validate(rayjob)
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("backoffLimit",), "twice"),
        (("rayClusterSpec", "autoscaling"), True),
        (("rayClusterSpec", "autoscalerOptions", "upscalingMode"), "Sometimes"),
        (("rayClusterSpec", "workerGroupSpecs", 0, "maxReplicas"), None),
        (("rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "toleration"), []),
        (("rayClusterSpec", "headGroupSpec", "template"), None),
    ],
)
def test_kuberay_would_say_what_is_wrong(
    rayjob: dict[str, Any], validator: Draft202012Validator, place: tuple[str | int, ...], wrong: Any
) -> None:
    broken: Any = copy.deepcopy(rayjob)
    inside = broken["spec"]
    for step in place[:-1]:
        inside = inside[step]
    inside[place[-1]] = wrong
    with pytest.raises(ValidationError):
        validator.validate(broken)


def test_the_head_takes_no_task_and_spot_workers_come_from_none(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        spec = group["template"]["spec"]
        assert "SPOT" in spec["nodeSelector"].values()
        assert any(toleration["key"] == "spot" for toleration in spec["tolerations"])
    gpu = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu")["template"]["spec"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert any(toleration["key"] == "nvidia.com/gpu" for toleration in gpu["tolerations"])


def test_its_command_is_one_of_ours(rayjob: dict[str, Any]) -> None:
    python, script, *options = shlex.split(rayjob["spec"]["entrypoint"])
    assert (python, script) == ("python", "jobs/augment.py")
    assert (ROOT / script).exists()
    assert job_of(parser().parse_args(["augment", *options])).gpus == 1


def test_image_and_job_run_the_ray_that_is_pinned_and_install_as_pinned(rayjob: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"rayproject/ray:([\d.]+)-py311", dockerfile)) == {pinned[1]}
    assert all("-c constraints.txt" in line for line in dockerfile.splitlines() if "pip install" in line)

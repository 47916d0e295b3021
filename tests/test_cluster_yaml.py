"""cluster.yaml is one that `ray up` takes, and does what its comments say; checked by Ray's own schema, without a cloud."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def validated(config: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_takes_it(config: dict[str, Any]) -> None:
    assert set(validated(config)["available_node_types"]) == {"head", "cpu", "gpu"}


@pytest.mark.parametrize("wrong", [{"idle_timeout_minutes": "soon"}, {"head_node_type": "nobody"}, {"spot": True}])
def test_ray_would_say_what_is_wrong(config: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        validated({**config, **wrong})


def test_the_head_takes_no_task_and_workers_are_spot_nodes_that_all_go_away(config: dict[str, Any]) -> None:
    nodes = validated(config)["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"]["CPU"] == 0
    assert nodes[config["head_node_type"]]["max_workers"] == 0
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    for name in ("cpu", "gpu"):
        assert nodes[name]["min_workers"] == 0 < nodes[name]["max_workers"] <= config["max_workers"]
        assert nodes[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < config["idle_timeout_minutes"] <= 15


def test_the_page_s_commands_say_how_many_workers() -> None:
    """A cluster that begins without CPUs has no number to default to."""
    page = (ROOT / "docs" / "running-on-a-cluster.md").read_text()
    submitted = re.findall(r"^ray job submit .*$", page, re.MULTILINE)
    assert submitted
    assert all("--workers 64" in line for line in submitted)


def test_every_node_runs_the_ray_that_is_pinned_and_installs_the_project_as_pinned(config: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    images = [config["docker"]["image"], config["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert all(image.startswith(f"rayproject/ray:{pinned[1]}-py311") for image in images)
    assert any("-c constraints.txt" in command for command in config["setup_commands"])


def test_nothing_secret_stands_in_it(config: dict[str, Any]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|arn:aws:iam::\d|ssh_private_key", text)

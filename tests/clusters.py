"""Ray clusters of a test's own on this machine: several raylets, a head that takes jobs, one that autoscales; ended by process id."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PATIENCE = 240.0
GRACE = 5.0
NO_COMMANDS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands", "setup_commands", "head_setup_commands"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
)


def environment(**more: str) -> dict[str, str]:
    """This process's, for a Ray without tokens whose jobs find this Python first."""
    return {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PATH": f"{BIN}:{os.environ['PATH']}", **more}


def free_ports(many: int) -> list[int]:
    """Ports nobody listens on."""
    held = [socket.socket() for _ in range(many)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_for(reached: Callable[[], bool], process: subprocess.Popen | None = None, patience: float = PATIENCE) -> None:
    """Until `reached`, while the process runs."""
    until = time.monotonic() + patience
    while not reached():
        assert process is None or process.poll() is None, f"ended with {process.returncode} too soon"
        assert time.monotonic() < until, "never got there"
        time.sleep(0.01)


def codsa(arguments: list[str]) -> subprocess.Popen:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "codsa_ray.cli", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@contextmanager
def raylets(many: int, cpus: int) -> Iterator[Any]:
    """A ray.cluster_utils.Cluster: a head and so many less one further raylets."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False})
    try:
        for _ in range(many - 1):
            cluster.add_node(num_cpus=cpus)
        yield cluster
    finally:
        cluster.shutdown()


def at_work(node: Any) -> list[psutil.Process]:
    """Workers of the node that hold a task or an actor."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for child in psutil.Process(raylet.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name().startswith("ray::") and not child.name().endswith(("Agent", "IDLE")):
                found.append(child)
    return found


def kill_node(cluster: Any, node: Any) -> None:
    """SIGKILL for the raylet, its agents and its workers."""
    (raylet,) = node.all_processes["raylet"]
    workers = psutil.Process(raylet.process.pid).children(recursive=True)
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        if worker.is_running():
            worker.kill()


@dataclass(frozen=True)
class Head:
    """A head by `ray start`."""

    folder: str
    address: str
    api: str

    def processes(self) -> list[psutil.Process]:
        """Those whose command line names this head's own folder, and what they started."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and any(f"{self.folder}/" in word for word in process.cmdline()):
                    mine += [process, *process.children(recursive=True)]
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return list(dict.fromkeys(mine))

    def end(self) -> None:
        """SIGTERM, then SIGKILL."""
        alive = self.processes()
        for act in (psutil.Process.terminate, psutil.Process.kill):
            for process in alive:
                if process.is_running():
                    act(process)
            _, alive = psutil.wait_procs(alive, timeout=GRACE)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def head(options: Callable[[str], list[str]] | None = None, dashboard: bool = True, **variables: str) -> Iterator[Head]:
    """`ray start --head` with ports and a folder of its own.

    Args:
        options: further ones, given the address.
        dashboard: takes jobs.
        variables: of its environment.
    """
    folder = tempfile.mkdtemp(prefix="codsa-", dir="/tmp")
    port, api, agent, client = free_ports(4)
    found = Head(folder, f"127.0.0.1:{port}", f"http://127.0.0.1:{api}")
    more = options(found.address) if options else ["--num-cpus=4"]
    ports = [f"--port={port}", f"--dashboard-port={api}", f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    try:
        subprocess.run(
            [
                *(str(BIN / "ray"), "start", "--head", "--node-ip-address=127.0.0.1", *ports, f"--temp-dir={folder}"),
                *("--dashboard-host=127.0.0.1", f"--include-dashboard={str(dashboard).lower()}", "--disable-usage-stats", *more),
            ],
            env=environment(**variables),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        yield found
    finally:
        found.end()


@contextmanager
def autoscaling(cpus: int, most: int) -> Iterator[Head]:
    """A head without work, and nodes of so many CPUs that come while tasks wait, `most` of them, and go after six idle seconds."""

    def options(address: str) -> list[str]:
        kinds = {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": cpus, "object_store_memory": 150 * 2**20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": most,
            },
        }
        provider = {"type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True}
        config = {
            **{"cluster_name": "fake", "max_workers": most, "upscaling_speed": 100, "idle_timeout_minutes": 0.1},
            **{"docker": {}, "auth": {}, "file_mounts": {}, "file_mounts_sync_continuously": False},
            **{"head_node_type": "head", "available_node_types": kinds, **{name: [] for name in NO_COMMANDS}},
            "provider": {**provider, "disable_launch_config_check": True, "gcs_address": address},
        }
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(config, file)
        return [f"--autoscaling-config={file.name}", "--num-cpus=0", "--object-store-memory=200000000"]

    # The second version's monitor reads an example file that the wheel does not ship.
    with head(options, dashboard=False, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_enable_autoscaler_v2="0") as found:
        yield found


def alive(address: str) -> int:
    """Nodes of the cluster."""
    from ray._raylet import GcsClient

    nodes = GcsClient(address=address).get_all_node_info()
    return sum(node.state == 0 for node in nodes.values())

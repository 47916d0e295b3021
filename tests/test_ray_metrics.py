"""What a run draws can be read by Prometheus from the node that drew it."""

import os
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

PATIENCE = 60.0


def exported() -> str:
    import ray as library

    port = next(node["MetricsExportPort"] for node in library.nodes() if node["Alive"])
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()


def test_rows_blocks_and_rates_are_exported_by_generator(ray: None) -> None:
    from codsa_ray.stages.metrics import drew

    drew("trees-1", 2048, 1, 3, 0.5)
    drew("trees-1", 4096, 2, 0, 0.5)
    wanted = {"codsa_rows_drawn_total": 6144, "codsa_blocks_drawn_total": 3, "codsa_rows_redrawn_total": 3, "codsa_rows_per_second": 8192}
    found: dict[str, float] = {}
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and found != wanted:
        time.sleep(1)
        lines = re.findall(r'^ray_(codsa_\w+)\{[^}]*generator="trees-1"[^}]*\} ([\d.e+]+)$', exported(), re.MULTILINE)
        found = {name: float(value) for name, value in lines}
    assert found == wanted


@dataclass
class Deadly:
    """Ends its process where an item's file is not there yet, having made it."""

    place: str

    def __call__(self, item: int) -> int:
        died = Path(self.place) / str(item)
        if not died.exists():
            died.touch()
            os._exit(17)
        return item


def test_workers_that_died_are_counted(ray: None, tmp_path: Path) -> None:
    from codsa_ray.stages.cluster import spread

    assert dict(spread([0], lambda: Deadly(str(tmp_path)), 1)) == {0: 0}
    until, found = time.monotonic() + PATIENCE, ""
    while time.monotonic() < until and not found:
        time.sleep(1)
        found = "".join(re.findall(r'^ray_codsa_retries_total\{[^}]*what="worker"[^}]*\} (\S+)$', exported(), re.MULTILINE))
    assert float(found) == 1

"""What a run draws can be read by Prometheus from the node that drew it."""

import re
import time
import urllib.request

import pytest

pytestmark = pytest.mark.cluster

PATIENCE = 60.0


def test_rows_blocks_and_rates_are_exported_by_generator(ray: None) -> None:
    import ray as library

    from codsa_ray.stages.metrics import drew

    drew("trees-1", 2048, 1, 3, 0.5)
    drew("trees-1", 4096, 2, 0, 0.5)
    port = next(node["MetricsExportPort"] for node in library.nodes() if node["Alive"])
    wanted = {"codsa_rows_drawn_total": 6144, "codsa_blocks_drawn_total": 3, "codsa_rows_redrawn_total": 3, "codsa_rows_per_second": 8192}
    found: dict[str, float] = {}
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and found != wanted:
        time.sleep(1)
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        lines = re.findall(r'^ray_(codsa_\w+)\{[^}]*generator="trees-1"[^}]*\} ([\d.e+]+)$', text, re.MULTILINE)
        found = {name: float(value) for name, value in lines}
    assert found == wanted

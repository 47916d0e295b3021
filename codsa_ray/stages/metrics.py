"""Metrics: what Ray's dashboard and Prometheus show of a run's drawing and of work given again; knows no pool and no generator."""

from functools import cache
from typing import Any

TAGS = ("generator",)


@cache
def _counter(name: str, description: str, tags: tuple[str, ...] = TAGS) -> Any:
    from ray.util.metrics import Counter

    return Counter(name, description=description, tag_keys=tags)


@cache
def _gauge(name: str, description: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(name, description=description, tag_keys=TAGS)


def drew(generator: str, rows: int, blocks: int, redrawn: int, seconds: float) -> None:
    """Counts one shard that this process drew.

    Args:
        generator: identity, the tag of all of them.
        rows, blocks: of the shard.
        redrawn: rows drawn again because they broke a constraint or missed their region.
        seconds: what it took, writing included.
    """
    tags = {"generator": generator}
    _counter("codsa_rows_drawn", "synthetic rows written").inc(rows, tags)
    _counter("codsa_blocks_drawn", "blocks of synthetic rows written").inc(blocks, tags)
    if redrawn:
        _counter("codsa_rows_redrawn", "synthetic rows drawn again").inc(redrawn, tags)
    _gauge("codsa_rows_per_second", "synthetic rows a second of one worker, its last shard").set(rows / max(seconds, 1e-9), tags)


def retried(what: str, many: int = 1) -> None:
    """Counts what had to be done again because a worker died.

    Args:
        what: `worker`, begun anew in its place, or `item`, of those that Ray gave up and that are tried alone.
        many: of them.
    """
    _counter("codsa_retries", "workers begun anew, and items given again, after a worker died", ("what",)).inc(many, {"what": what})

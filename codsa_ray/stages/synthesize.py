"""Synthesize: pools of synthetic rows, drawn block by block by Ray Data actors and written once; knows no method."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.blame import why
from codsa_ray.contracts import FittedGenerator, Progress
from codsa_ray.draw import draw_block
from codsa_ray.errors import PLUGIN_FAILURES, InternalError, PluginError
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import log
from codsa_ray.partition import Partition
from codsa_ray.plugins import identity
from codsa_ray.pool import Pool, Segment, Shard
from codsa_ray.record import Record, write_recorded
from codsa_ray.rows import GROUP, Rows, region_of
from codsa_ray.seeds import seed_of
from codsa_ray.stages.cluster import ACTOR, room, spread
from codsa_ray.stages.fit import FitJob
from codsa_ray.stages.metrics import drew

REDRAWN = b"redrawn"
FEW_ROWS = 20_000
HERE = "drawn_here.json"
"""Lies among pools while the driver itself draws. Found there, a block may be what it died of: workers, which it outlives, draw then."""
KEEP_SECONDS = 2.0
"""How long shards of a large pool may go unrecorded: a driver that dies costs that much drawing, as only recorded ones are kept."""


@dataclass(frozen=True)
class ShardTask:
    """One shard and the fitted generator that draws it.

    Args:
        kept: written; else it is drawn only to see whether it can be.
    """

    shard: Shard
    fit: FitJob
    folder: Folder
    kept: bool = True

    def __str__(self) -> str:
        if self.kept:
            return f"shard {self.shard.name} of pool {self.shard.key.id}"
        first = self.shard.segments[0]
        return f"block {first.start} of region {first.region}"

    def blocks(self) -> "list[ShardTask]":
        """One for each block, which none of them keeps."""
        alone = [Segment(one.region, block, block + 1) for one in self.shard.segments for block in range(one.start, one.stop)]
        return [replace(self, shard=replace(self.shard, segments=(segment,)), kept=False) for segment in alone]


@dataclass
class Drawer:
    """Draws shards; keeps the fitted generators it has loaded."""

    rows: Rows
    partitions: dict[int, Partition]
    loaded: dict[str, FittedGenerator] = field(default_factory=dict)

    def __call__(self, task: ShardTask) -> dict[str, Any]:
        """Writes the shard; returns its record and seconds, or why it fell short. Drawn twice, it is the same bytes."""
        started = time.perf_counter()
        try:
            tables, reasons = self._draw(task)
        except PLUGIN_FAILURES as error:
            return {"short": why(error)}
        if not task.kept:
            return {}
        redrawn = reasons.total()
        table = pa.concat_tables(tables).replace_schema_metadata({REDRAWN: str(redrawn).encode()})
        record = write_recorded(task.folder / task.shard.key.id, task.shard.name, table)
        record, seconds = replace(record, redrawn=dict(sorted(reasons.items()))), time.perf_counter() - started
        drew(task.shard.key.generator, record.rows, task.shard.blocks, redrawn, seconds)
        return {"record": record, "seconds": round(seconds, 3)}

    def _draw(self, task: ShardTask) -> tuple[list[pa.Table], Counter[str]]:
        key, part = task.shard.key, self.partitions[task.shard.key.fold]
        fitted = self._fitted(task.fit)
        schema = self.rows.schema(key.fold)
        tables, redrawn = [], Counter[str]()
        for segment in task.shard.segments:
            for block in range(segment.start, segment.stop):
                seed = seed_of(key.seed, "draw", key.generator, key.share, key.fold, key.draw, segment.region, block)
                table, again = draw_block(fitted, schema, part.regions, segment.region, seed, self._assign(part))
                if len(table) != task.fit.generator.needs.block:
                    raise PluginError(f"wanted blocks of {task.fit.generator.needs.block} rows; got {len(table)}; check the generator")
                tables.append(table.append_column(REGION, pa.array(np.full(len(table), segment.region, dtype=np.int32))))
                redrawn.update(again)
        return tables, redrawn

    def _assign(self, part: Partition) -> Callable[[pa.Table], np.ndarray]:
        def assign(table: pa.Table) -> np.ndarray:
            groups = self.rows.groups.assign(table).astype(np.int32)
            return region_of(table.append_column(GROUP, pa.array(groups)), part.regions, part.rule)

        return assign

    def _fitted(self, fit: FitJob) -> FittedGenerator:
        name = f"{fit.fit} {identity(fit.generator)}"
        if name not in self.loaded:
            self.loaded[name] = fit.load()
        return self.loaded[name]


@dataclass(frozen=True)
class MakeDrawer:
    """Builds the drawer inside an actor."""

    rows: Rows
    partitions: dict[int, Partition]

    def __call__(self) -> Drawer:
        """A drawer with nothing loaded."""
        return Drawer(self.rows, self.partitions)


@dataclass(frozen=True)
class Drawn:
    """What was drawn now, and pools that fell short with the reason."""

    rows: int
    short: dict[str, str]


def synthesize(
    rows: Rows,
    partitions: dict[int, Partition],
    pools: list[tuple[Pool, FitJob]],
    workers: int,
    gpus: float,
    progress: Progress,
) -> Drawn:
    """Draws every shard that is not recorded and there; what lies there then is compared with what was asked for.

    Raises:
        InternalError: a worker died of one shard again and again (its block is named), or shards are missing after that; others are kept.
    """
    tasks = [(pool, ShardTask(shard, fit, pool.folder)) for pool, fit in pools for shard in pool.missing()]
    total, drawn = sum(task.shard.blocks * pool.block for pool, task in tasks), 0
    reasons: dict[int, str] = {}
    work = [task for _, task in tasks]
    places = {task.folder for task in work}
    here = total <= FEW_ROWS and not gpus and not any(place.exists(HERE) for place in places)
    for place in places if here else ():
        place.write_json(HERE, {})
    each = _resources(work, gpus)
    if not here:
        room("synthesize", progress, **each)
    ledger = Ledger(Counter(pool.key.id for pool, _ in tasks))
    with closing(ledger):
        for index, result in spread(work, MakeDrawer(rows, partitions), workers, here=here, pieces=ShardTask.blocks, **each):
            if "short" in result:
                reasons[index] = result["short"]
            else:
                ledger.add(tasks[index][0], work[index].shard, result["record"])
                drawn, shard = drawn + result["record"].rows, work[index].shard
                log("shard", pool=shard.key.id, shard=shard.name, rows=result["record"].rows, seconds=result["seconds"])
            progress("synthesize", drawn, total)
    for place in places:
        place.delete(HERE)
    # In the order of the tasks, not of their ends: the same run names the same reason.
    short = {work[index].shard.key.generator: reasons[index] for index in sorted(reasons, reverse=True)}
    _complete(pools, short)
    return Drawn(drawn, short)


@dataclass
class Ledger:
    """Records of shards as they come in, kept back until their pool is whole, but for KEEP_SECONDS at most.

    Args:
        left: shards to come, by pool.
    """

    left: Counter[str]
    waiting: dict[str, tuple[Pool, dict[str, Record]]] = field(default_factory=dict)
    last: float = field(default_factory=time.monotonic)

    def add(self, pool: Pool, shard: Shard, record: Record) -> None:
        """Takes one record."""
        self.waiting.setdefault(pool.key.id, (pool, {}))[1][shard.name] = record
        self.left[pool.key.id] -= 1
        if not self.left[pool.key.id] or time.monotonic() - self.last > KEEP_SECONDS:
            self.close()

    def close(self) -> None:
        """Writes what waits into its pools' records."""
        for pool, written in self.waiting.values():
            pool.record(written)
        self.waiting, self.last = {}, time.monotonic()


def _resources(tasks: list[ShardTask], gpus: float) -> dict[str, Any]:
    """One pool of actors draws for all generators: it has the most that any of them needs, and the device that they agree on."""
    needs = [task.fit.generator.needs for task in tasks]
    found: dict[str, Any] = {"num_cpus": ACTOR * max((need.cpus for need in needs), default=1.0)}
    if gpus and any(need.gpus for need in needs):
        found["num_gpus"] = max(need.gpus for need in needs)
    if any(need.memory for need in needs):
        found["memory"] = max(need.memory for need in needs)
    devices = {need.accelerator for need in needs if need.gpus} - {None}
    if "num_gpus" in found and len(devices) == 1:
        found["accelerator_type"] = devices.pop()
    return found


def _complete(pools: list[tuple[Pool, FitJob]], short: dict[str, str]) -> None:
    for pool, _ in pools:
        if pool.key.generator in short:
            continue
        if missing := pool.missing():
            raise InternalError(
                f"{len(missing)} shards of {pool.key.id} are missing, {missing[0].name} among them; run again, finished shards are kept"
            )

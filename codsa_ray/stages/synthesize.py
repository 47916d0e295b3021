"""Synthesize: pools of synthetic rows, drawn block by block by Ray Data actors and written once; knows no method."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import FittedGenerator, Progress
from codsa_ray.draw import draw_block
from codsa_ray.errors import PLUGIN_FAILURES, InternalError
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.partition import Partition
from codsa_ray.pool import Pool, Shard
from codsa_ray.rows import GROUP, Rows, region_of
from codsa_ray.seeds import seed_of
from codsa_ray.stages.cluster import spread
from codsa_ray.stages.fit import FitJob

REDRAWN = b"redrawn"
FEW_ROWS = 20_000


@dataclass(frozen=True)
class ShardTask:
    """One shard and the fitted generator that draws it."""

    shard: Shard
    fit: FitJob
    folder: Folder


@dataclass
class Drawer:
    """Draws shards; keeps the fitted generators it has loaded."""

    rows: Rows
    partitions: dict[int, Partition]
    loaded: dict[str, FittedGenerator] = field(default_factory=dict)

    def __call__(self, task: ShardTask) -> dict[str, Any]:
        """Writes the shard unless it is there; returns rows, redrawn rows, or why it could not be drawn."""
        shard, place = task.shard, task.folder / task.shard.key.id
        if place.exists(shard.name):
            return {"rows": 0, "redrawn": 0}
        try:
            tables, redrawn = self._draw(task)
        except PLUGIN_FAILURES as error:
            return {"rows": 0, "redrawn": 0, "short": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        table = pa.concat_tables(tables)
        place.write_table(shard.name, table.replace_schema_metadata({REDRAWN: str(redrawn).encode()}))
        return {"rows": len(table), "redrawn": redrawn}

    def _draw(self, task: ShardTask) -> tuple[list[pa.Table], int]:
        key, part = task.shard.key, self.partitions[task.shard.key.fold]
        fitted = self._fitted(task.fit)
        schema = self.rows.schema(key.fold)
        tables, redrawn = [], 0
        for segment in task.shard.segments:
            for block in range(segment.start, segment.stop):
                seed = seed_of(key.seed, "draw", key.generator, key.share, key.fold, key.draw, segment.region, block)
                table, again = draw_block(fitted, schema, part.regions, segment.region, seed, self._assign(part))
                tables.append(table.append_column(REGION, pa.array(np.full(len(table), segment.region, dtype=np.int32))))
                redrawn += again
        return tables, redrawn

    def _assign(self, part: Partition) -> Callable[[pa.Table], np.ndarray]:
        def assign(table: pa.Table) -> np.ndarray:
            groups = self.rows.groups.assign(table).astype(np.int32)
            return region_of(table.append_column(GROUP, pa.array(groups)), part.regions, part.rule)

        return assign

    def _fitted(self, fit: FitJob) -> FittedGenerator:
        if fit.fit not in self.loaded:
            self.loaded[fit.fit] = fit.generator.load(fit.folder)
        return self.loaded[fit.fit]


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
    redrawn: int
    short: dict[str, str]


def synthesize(
    rows: Rows,
    partitions: dict[int, Partition],
    pools: list[tuple[Pool, FitJob]],
    workers: int,
    gpus: float,
    progress: Progress,
) -> Drawn:
    """Draws every shard of every pool that is not there yet; the manifest of what was asked is checked against what lies there.

    Raises:
        InternalError: shards are missing afterwards.
    """
    tasks = [
        ShardTask(shard, fit, pool.folder)
        for pool, fit in pools
        for names in [set(pool.place.names())]
        for shard in pool.shards
        if shard.name not in names
    ]
    total, drawn, redrawn = sum(task.shard.blocks * task.fit.generator.needs.block for task in tasks), 0, 0
    reasons: dict[int, str] = {}
    found = spread(tasks, MakeDrawer(rows, partitions), workers, here=total <= FEW_ROWS and not gpus, **_resources(tasks, gpus))
    for index, result in found:
        drawn, redrawn = drawn + result["rows"], redrawn + result["redrawn"]
        if "short" in result:
            reasons[index] = result["short"]
        progress("synthesize", drawn, total)
    # In the order of the tasks, not of their ends: the same run names the same reason.
    short = {tasks[index].shard.key.generator: reasons[index] for index in sorted(reasons, reverse=True)}
    _complete(pools, short)
    return Drawn(drawn, redrawn, short)


def _resources(tasks: list[ShardTask], gpus: float) -> dict[str, Any]:
    """One pool of actors draws for all generators: it has the most that any of them needs."""
    needs = [task.fit.generator.needs for task in tasks]
    found: dict[str, Any] = {}
    if gpus and any(need.gpus for need in needs):
        found["num_gpus"] = max(need.gpus for need in needs)
    if any(need.memory for need in needs):
        found["memory"] = max(need.memory for need in needs)
    return found


def _complete(pools: list[tuple[Pool, FitJob]], short: dict[str, str]) -> None:
    for pool, _ in pools:
        if pool.key.generator in short:
            continue
        names = set(pool.place.names())
        missing = [shard.name for shard in pool.shards if shard.name not in names]
        if missing:
            raise InternalError(
                f"{len(missing)} shards of {pool.key.id} are missing, {missing[0]} among them; run again, finished shards are kept"
            )

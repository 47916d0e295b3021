"""Apply: the augmented data set, written part by part in DATA's own columns; decides nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Progress
from codsa_ray.fitdata import REGION, ROW
from codsa_ray.folder import Folder
from codsa_ray.manifest import Manifest
from codsa_ray.partition import Partition
from codsa_ray.plan import Plan
from codsa_ray.pool import Pool, prefix
from codsa_ray.rows import FINAL, FOLD, GROUP, Rows, region_of
from codsa_ray.shipped import real_weights
from codsa_ray.stages.cluster import spread

VERSION = 1
FEW_ROWS = 250_000
MARKS = ("_synthetic", "_region", "_weight", "_draw")


@dataclass(frozen=True)
class Output:
    """One file to write: a part of the real rows, or one shard's share of one draw.

    Args:
        name: file name.
        part: part of the real rows, or "".
        draw: index of the draw; -1 for real rows.
        shard: index of the shard in the draw's pool.
        start, take: per region, rows of the plan in earlier shards and how many of this shard's rows belong to it.
    """

    name: str
    part: str = ""
    draw: int = -1
    shard: int = 0
    start: tuple[int, ...] = ()
    take: tuple[int, ...] = ()


@dataclass(frozen=True)
class Writer:
    """Writes outputs. Real rows that are not on the partition's side weigh 0."""

    rows: Rows
    partition: Partition
    pools: tuple[Pool, ...]
    plan: Plan
    weights: tuple[float, ...]
    folder: Folder

    def __call__(self, output: Output) -> int:
        """Writes one file; returns its rows."""
        table = self._real(output.part) if output.part else self._drawn(output)
        self.folder.write_table(output.name, table)
        return len(table)

    def _real(self, part: str) -> pa.Table:
        rows, split = (self.rows.folder / "rows").read_table(part), (self.rows.folder / "split").read_table(part)
        keep = pa.array(split[FOLD].to_numpy() >= 0)
        rows, split = rows.filter(keep), split.filter(keep)
        canonical, _ = self.rows.schema(FINAL).canonical(rows)
        region = region_of(canonical.append_column(GROUP, split[GROUP]), self.partition.regions, self.partition.rule)
        weight = np.array(self.weights)[split[GROUP].to_numpy()]
        if self.partition.side is not None:
            weight = weight * self.partition.side(split.append_column(ROW, rows[ROW]).append_column(REGION, pa.array(region)))
        return self._marked(rows.drop_columns([ROW]), False, region, weight, -1)

    def _drawn(self, output: Output) -> pa.Table:
        pool = self.pools[output.draw]
        table = pool.place.read_table(pool.shards[output.shard].name)
        table = table.take(pa.array(prefix(table[REGION].to_numpy(), output.take)))
        region = table[REGION].to_numpy()
        weights = [part[start : start + take] for part, start, take in zip(self.plan.row_weights(), output.start, output.take, strict=True)]
        return self._marked(self.rows.schema(FINAL).original(table), True, region, np.concatenate(weights), output.draw)

    def _marked(self, table: pa.Table, synthetic: bool, region: np.ndarray, weight: np.ndarray, draw: int) -> pa.Table:
        names = pa.array([r.name for r in self.partition.regions.items], type=pa.string())
        columns: tuple[Any, ...] = (
            pa.array(np.full(len(table), synthetic)),
            names.take(pa.array(region)),
            pa.array(weight.astype(np.float64)),
            pa.array(np.full(len(table), draw, dtype=np.int32)),
        )
        for name, column in zip(MARKS, columns, strict=True):
            table = table.append_column(name, column)
        return table


def outputs(rows: Rows, pools: tuple[Pool, ...], plan: Plan) -> list[Output]:
    """Every file: real parts first, then each draw's shards; their rows are exactly the plan."""
    found = [Output(f"real-{part}", part) for part in rows.parts]
    for draw in range(plan.draws if plan.size else 0):
        left = plan.counts.copy()
        for index, shard in enumerate(pools[draw].shards):
            held = np.zeros(len(left), dtype=np.int64)
            for segment in shard.segments:
                held[segment.region] += (segment.stop - segment.start) * pools[draw].block
            start, take = plan.counts - left, np.minimum(held, left)
            left -= take
            if take.sum():
                name = f"draw-{draw:03d}-{index:06d}.parquet"
                found.append(Output(name, "", draw, index, tuple(map(int, start)), tuple(map(int, take))))
        assert not left.any(), "the pool was extended to the plan"
    return found


def _weights(rows: Rows, candidate: Candidate) -> tuple[float, ...]:
    found = real_weights(candidate, rows.group_counts(FINAL), rows.groups.labels(rows.schema(FINAL).classes))
    return tuple(map(float, found))


def apply(
    rows: Rows,
    partition: Partition,
    pools: tuple[Pool, ...],
    plan: Plan,
    candidate: Candidate,
    out: Folder,
    depends: Any,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Writes `augmented/`: real training rows as they came and the plan's synthetic rows, with MARKS.

    Returns:
        rows_in (real), rows_out (all), synthetic, generator (identity, "" where nothing was drawn).
    """
    folder = out / "augmented"
    manifest = Manifest(out / "apply", {"version": VERSION, "plan": plan.to_json(), "candidate": candidate.to_json(), "on": depends})
    stored = manifest.read()
    if stored:
        return {**stored, "reused": True}
    manifest.clear()
    folder.delete()
    left = partition.of_learner(candidate.share)
    work: Callable[[Output], int] = Writer(rows, left, pools, plan, _weights(rows, candidate), folder)
    files = outputs(rows, pools, plan)
    written: dict[int, int] = {}
    for index, count in spread(files, lambda: work, workers, here=sum(rows.group_counts(FINAL)) + plan.size * plan.draws <= FEW_ROWS):
        written[index] = count
        progress("apply", len(written), len(files))
    real = sum(count for index, count in written.items() if files[index].part)
    total = sum(written.values())
    assert total - real == plan.size * plan.draws, "exactly the plan was written"
    facts = {"rows_in": real, "rows_out": total, "synthetic": total - real, "generator": candidate.generator}
    return {**manifest.write(**facts), "reused": False}

"""Apply: the augmented data set, written part by part in DATA's own columns; decides nothing."""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.bench import Bench, keys_of
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Progress
from codsa_ray.density_ratio import Ratio
from codsa_ray.domain import OTHERS, POOLED, POWERS, TARGET
from codsa_ray.errors import InternalError
from codsa_ray.fitdata import REGION, ROW
from codsa_ray.folder import Folder
from codsa_ray.layout import Layout
from codsa_ray.manifest import Manifest
from codsa_ray.partition import Partition
from codsa_ray.plan import Plan
from codsa_ray.pool import Pool, prefix
from codsa_ray.record import Record
from codsa_ray.rows import AWAY, FINAL, FOLD, GROUP, Rows, region_of
from codsa_ray.shipped import real_counts, real_weights
from codsa_ray.stages.cluster import spread

VERSION = 2
FEW_ROWS = 250_000
FEW_BYTES = 256 * 2**20
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

    def __str__(self) -> str:
        return f"file {self.name} of augmented/"


@dataclass(frozen=True)
class Writer:
    """Writes outputs. Real rows that are not on the partition's side, or not of the domains trained on, weigh 0.

    Args:
        weights: (G,) of a real row of each group.
        domains: see Candidate.
        ratio: what rows of other domains are weighted by, where they are.
    """

    rows: Rows
    partition: Partition
    pools: tuple[Pool, ...]
    plan: Plan
    weights: tuple[float, ...]
    folder: Folder
    domains: str = POOLED
    ratio: Ratio | None = None

    def __call__(self, output: Output) -> Record:
        """Writes one file."""
        table = self._real(output.part) if output.part else self._drawn(output)
        return self.rows.layout.write(self.folder, posixpath.splitext(output.name)[0], table)

    def _real(self, part: str) -> pa.Table:
        rows, split = (self.rows.folder / "rows").read_table(part), (self.rows.folder / "split").read_table(part)
        fold, group = split[FOLD].to_numpy(), split[GROUP].to_numpy()
        keep = pa.array((fold >= 0) | ((fold == AWAY) & (group >= 0)))
        rows, split = rows.filter(keep), split.filter(keep)
        canonical, _ = self.rows.schema(FINAL).canonical(rows)
        region = region_of(canonical.append_column(GROUP, split[GROUP]), self.partition.regions, self.partition.rule)
        weight = np.array(self.weights)[split[GROUP].to_numpy()]
        told = split.append_column(ROW, rows[ROW]).append_column(REGION, pa.array(region))
        away = split[FOLD].to_numpy() == AWAY
        if self.partition.side is not None:
            weight = weight * (self.partition.side(told) | away)
        if self.rows.domain is not None:
            weight = weight * self._by_domain(canonical, told, away)
        return self._marked(rows.drop_columns([ROW]), False, region, weight, -1)

    def _by_domain(self, canonical: pa.Table, told: pa.Table, away: np.ndarray) -> np.ndarray:
        """(n,) factor of each real row's weight."""
        factor = np.where(away, float(self.domains != TARGET), float(self.domains != OTHERS))
        if self.ratio is not None and away.any():
            others = pa.array(away)
            factor[away] = self.ratio.weights(canonical.filter(others), keys_of(told.filter(others)), POWERS[self.domains])
        return factor

    def _drawn(self, output: Output) -> pa.Table:
        pool = self.pools[output.draw]
        (table,) = pool.tables(shards=[pool.shards[output.shard]])
        table = table.take(pa.array(prefix(table[REGION].to_numpy(), output.take)))
        region = table[REGION].to_numpy()
        weights = [self.plan.weights_of(k, start, take) for k, (start, take) in enumerate(zip(output.start, output.take, strict=True))]
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


@dataclass(frozen=True)
class Check:
    """Compares written files with their records."""

    folder: Folder
    records: dict[str, Record]
    layout: Layout

    def __call__(self, name: str) -> bool:
        """True when the file is as it was written."""
        return self.layout.whole(self.folder, name, self.records[name])


def outputs(rows: Rows, pools: tuple[Pool, ...], plan: Plan) -> list[Output]:
    """Every file: real parts first, then each draw's shards; their rows are exactly the plan."""
    ending = rows.layout.ending
    found = [Output(f"real-{posixpath.splitext(part)[0]}{ending}", part) for part in rows.parts]
    for draw in range(plan.draws if plan.size else 0):
        left = plan.counts.copy()
        for index, shard in enumerate(pools[draw].shards):
            held = np.zeros(len(left), dtype=np.int64)
            for segment in shard.segments:
                held[segment.region] += (segment.stop - segment.start) * pools[draw].block
            start, take = plan.counts - left, np.minimum(held, left)
            left -= take
            if take.sum():
                name = f"draw-{draw:03d}-{index:06d}{ending}"
                found.append(Output(name, "", draw, index, tuple(map(int, start)), tuple(map(int, take))))
        assert not left.any(), "the pool was extended to the plan"
    return found


def apply(
    bench: Bench,
    pools: tuple[Pool, ...],
    plan: Plan,
    candidate: Candidate,
    out: Folder,
    depends: Any,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Writes `augmented/`: real training rows, those of other domains too, as they came and the plan's synthetic rows, with MARKS.

    What was written before stays, if every file is still as it was recorded.

    Returns:
        rows_in (real), rows_out (all), synthetic, generator (identity, "" where nothing was drawn), files (name -> record).

    Raises:
        InternalError: what was written is not the plan.
    """
    folder = out / "augmented"
    manifest = Manifest.of(out / "apply", {"version": VERSION, "plan": plan.to_json(), "candidate": candidate.to_json(), "on": depends})
    stored = manifest.read()
    if stored and _whole(folder, stored["files"], bench.rows.layout, workers):
        return {**stored, "reused": True}
    manifest.clear()
    folder.delete()
    rows, left = bench.rows, bench.partitions[FINAL].of_learner(candidate.share)
    weights = real_weights(candidate, real_counts(bench, candidate), rows.groups.labels(rows.schema(FINAL).classes))
    ratio = bench.ratio(FINAL) if candidate.domains in POWERS else None
    work: Callable[[Output], Record] = Writer(rows, left, pools, plan, tuple(map(float, weights)), folder, candidate.domains, ratio)
    training = int(rows.group_counts(FINAL).sum()) + sum(rows.others)
    files = outputs(rows, pools, plan)
    written: dict[int, Record] = {}
    for index, record in spread(files, lambda: work, workers, here=training + plan.size * plan.draws <= FEW_ROWS):
        written[index] = record
        progress("apply", len(written), len(files))
    records = {files[index].name: record for index, record in sorted(written.items())}
    real = sum(records[output.name].rows for output in files if output.part)
    total = sum(record.rows for record in records.values())
    _compare(folder, rows.layout, records, (real, total - real), (training, plan.size * plan.draws))
    stored = {name: record.to_json() for name, record in records.items()}
    facts = {"rows_in": real, "rows_out": total, "synthetic": total - real, "generator": candidate.generator, "files": stored}
    return {**manifest.write(**facts), "reused": False}


def _compare(folder: Folder, layout: Layout, records: dict[str, Record], written: tuple[int, int], asked: tuple[int, int]) -> None:
    """(real, drawn) rows, and what lies there, against the plan."""
    if written != asked:
        raise InternalError(f"wanted {asked[0]} real and {asked[1]} drawn rows in {folder.shown}; wrote {written}; run again")
    # Pictures may lie beside their table.
    sizes = {name: size for name, size in folder.sizes().items() if name in records or not layout.columns}
    if sizes != {name: record.size for name, record in records.items()}:
        raise InternalError(f"wanted the {len(records)} files that were written in {folder.shown}; got others; run again")


def _whole(folder: Folder, files: dict[str, Any], layout: Layout, workers: int) -> bool:
    """True when every file is as it was recorded; sizes are compared first."""
    records, sizes = {name: Record(**value) for name, value in files.items()}, folder.sizes()
    if any(sizes.get(name) != record.size for name, record in records.items()):
        return False
    check: Callable[[str], bool] = Check(folder, records, layout)
    here = sum(record.size for record in records.values()) <= FEW_BYTES
    return all([same for _, same in spread(list(records), lambda: check, workers, here=here)])

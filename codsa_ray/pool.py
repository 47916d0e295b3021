"""Pools: synthetic rows drawn once in full blocks and taken by prefix; knows where blocks lie, not how they are drawn."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.errors import DamagedError, ShortOfRows
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.record import Record, read_recorded
from codsa_ray.seeds import fingerprint

SHARD_ROWS = 65_536
RECORDS = "shards.json"


@dataclass(frozen=True)
class PoolKey:
    """What a pool's rows depend on.

    Args:
        generator: plug-in name.
        fit: identity of the fitted folder (data, fold, settings, seed).
        fold: fold index, or -1 for the final generator.
        draw: index of the independent draw.
        seed: the job's seed.
        share: share of rows the generator was given (1.0: all of the fold-training rows).
    """

    generator: str
    fit: str
    fold: int
    draw: int
    seed: int
    share: float = 1.0

    @property
    def id(self) -> str:
        """Folder name."""
        return f"{self.generator}-{'final' if self.fold < 0 else self.fold}-{self.draw}-{fingerprint(asdict(self))}"


@dataclass(frozen=True)
class Segment:
    """Blocks [start, stop) of one region."""

    region: int
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """Segments written as one file by one task: the unit of work and of resuming."""

    key: PoolKey
    segments: tuple[Segment, ...]

    @property
    def name(self) -> str:
        """File name; equal work has an equal name, in any process."""
        first = self.segments[0]
        return f"{first.region:04d}-{first.start:08d}-{fingerprint([asdict(s) for s in self.segments])[:8]}.parquet"

    @property
    def blocks(self) -> int:
        """How many blocks it holds."""
        return sum(s.stop - s.start for s in self.segments)


@dataclass(frozen=True)
class Pool:
    """Rows of one key.

    Args:
        folder: run folder's `pools`.
        key: whose rows.
        block: rows per block.
        shards: in the order in which they were asked for.
    """

    folder: Folder
    key: PoolKey
    block: int
    shards: tuple[Shard, ...] = ()

    @property
    def place(self) -> Folder:
        """Where its shards lie."""
        return self.folder / self.key.id

    def ceiling(self, regions: int) -> np.ndarray:
        """(K,) int64 rows at hand per region."""
        rows = np.zeros(regions, dtype=np.int64)
        for shard in self.shards:
            for segment in shard.segments:
                rows[segment.region] = max(rows[segment.region], segment.stop * self.block)
        return rows

    def extend(self, counts: np.ndarray) -> "Pool":
        """The pool with shards for at least `counts` rows per region; blocks already asked for keep their shards."""
        have = self.ceiling(len(counts)) // self.block
        want = -(-np.asarray(counts) // self.block)
        return Pool(self.folder, self.key, self.block, (*self.shards, *self._cut(have, want)))

    def _cut(self, have: np.ndarray, want: np.ndarray) -> Iterator[Shard]:
        most, segments, held = max(1, SHARD_ROWS // self.block), [], 0
        for region in range(len(want)):
            start = int(have[region])
            while start < want[region]:
                stop = min(int(want[region]), start + most - held)
                segments.append(Segment(region, start, stop))
                held, start = held + stop - start, stop
                if held == most:
                    yield Shard(self.key, tuple(segments))
                    segments, held = [], 0
        if segments:
            yield Shard(self.key, tuple(segments))

    def records(self) -> dict[str, Record]:
        """What was written, by file name. Records that cannot be read vouch for nothing: what they named is drawn again."""
        if not self.place.exists(RECORDS):
            return {}
        try:
            return {name: Record(**value) for name, value in self.place.read_json(RECORDS).items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def redrawn(self) -> Counter[str]:
        """How many rows were dropped and drawn again for which reason, of the shards that lie there."""
        records = self.records()
        return sum((Counter(records[shard.name].redrawn) for shard in self.shards if shard.name in records), Counter[str]())

    def record(self, written: dict[str, Record]) -> None:
        """Adds to the records."""
        known = self.records() | written
        self.place.write_json(RECORDS, {name: record.to_json() for name, record in known.items()})

    def missing(self) -> list[Shard]:
        """Shards that do not lie there with the rows of the plan and the size that was recorded; bytes are compared on reading."""
        sizes, records = self.place.sizes(), self.records()

        def there(shard: Shard) -> bool:
            record = records.get(shard.name)
            return record is not None and (record.rows, record.size) == (shard.blocks * self.block, sizes.get(shard.name))

        return [shard for shard in self.shards if not there(shard)]

    def tables(self, columns: list[str] | None = None, shards: Iterable[Shard] | None = None) -> Iterator[pa.Table]:
        """Rows with `_region` of some shards, in their order; by default of all.

        Raises:
            DamagedError: a shard is not as it was written; it was taken away, so that a run which goes on draws it again.
        """
        records = self.records()
        for shard in self.shards if shards is None else shards:
            try:
                yield read_recorded(self.place, shard.name, records.get(shard.name), columns)
            except DamagedError:
                self.place.delete(shard.name)
                raise

    def take(self, counts: np.ndarray) -> pa.Table:
        """The first counts[k] rows of each region k, regions in order.

        Raises:
            ShortOfRows: the pool does not hold that many.
        """
        left, kept = np.array(list(counts), dtype=np.int64), []
        for shard in self.shards:
            if not any(left[segment.region] for segment in shard.segments):
                continue
            # A shard at a time: rows with pictures weigh more than a driver holds.
            (table,) = self.tables(shards=[shard])
            region = table[REGION].to_numpy()
            took = np.minimum(np.bincount(region, minlength=len(left))[: len(left)], left)
            kept.append(table.take(pa.array(np.sort(prefix(region, took)))))
            left -= took
        if not kept:
            (first,) = self.tables(shards=self.shards[:1])
            kept = [first.slice(0, 0)]
        table = pa.concat_tables(kept)
        return table.take(pa.array(prefix(table[REGION].to_numpy(), counts)))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"key": asdict(self.key), "block": self.block, "shards": [[asdict(s) for s in shard.segments] for shard in self.shards]}

    @staticmethod
    def from_json(folder: Folder, value: dict[str, Any]) -> "Pool":
        """The inverse of `to_json`."""
        key = PoolKey(**value["key"])
        shards = tuple(Shard(key, tuple(Segment(**s) for s in shard)) for shard in value["shards"])
        return Pool(folder, key, value["block"], shards)


def prefix(region: np.ndarray, counts: Iterable[int]) -> np.ndarray:
    """Positions of the first counts[k] rows of each region k, in region order.

    Raises:
        ShortOfRows: a region has fewer rows than asked for.
    """
    order = np.argsort(region, kind="stable")
    starts = np.searchsorted(region[order], np.arange(len(list(counts := list(counts))) + 1))
    taken = []
    for k, count in enumerate(counts):
        have = starts[k + 1] - starts[k]
        if have < count:
            raise ShortOfRows(f"wanted {count} rows of region {k}; the pool holds {have}; extend the pool first")
        taken.append(order[starts[k] : starts[k] + count])
    return np.concatenate(taken) if taken else np.zeros(0, dtype=np.int64)

"""Bench: encoded folds and pools, memory-mapped, from which every candidate is trained and scored; knows no cluster and draws nothing."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Allocator, Encoder, Learner
from codsa_ray.density_ratio import Ratio
from codsa_ray.domain import OTHERS, POOLED, TARGET
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.manifest import scratch_here
from codsa_ray.partition import Partition
from codsa_ray.pool import Pool, prefix
from codsa_ray.regions import Regions
from codsa_ray.rows import GROUP, UNIT, Rows
from codsa_ray.seeds import fingerprint, hash_rows

SEARCH_ROWS = 200_000


@dataclass(frozen=True)
class Real:
    """Encoded real rows.

    Args:
        X: (n, ...) encoded rows, read-only.
        y: (n,) class ids, or values.
        group: (n,) group ids, -1 unknown.
        weight: (n,) inverse inclusion weights (1 where nothing was thinned).
        cells: (n, C) observable group of each row under each label; empty for training rows.
        row: (n,) positions.
        unit: (n,) unit hashes, or None.
    """

    X: np.ndarray
    y: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    cells: np.ndarray
    row: np.ndarray
    unit: np.ndarray | None = None


@dataclass(frozen=True)
class Bench:
    """What candidates are tried on.

    Args:
        rows: the run's rows.
        partitions: per fold index (FINAL included), its regions.
        pools: (generator identity, fold, draw, share) -> pool.
        learner: as asked for; its variants share its encoding.
        allocator: shares out synthetic rows.
        cache: a folder on this machine, outside the run.
        cap: training rows at most; beyond, large regions are thinned and weighted by inverse inclusion.
        domains: whose rows are trained on and encoded by (see `within`); POOLED, where there are no domains, is all.
    """

    rows: Rows
    partitions: dict[int, Partition]
    pools: dict[tuple[str, int, int, float], Pool]
    learner: Learner
    allocator: Allocator
    cache: str
    cap: int = SEARCH_ROWS
    domains: str = POOLED
    memory: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "memory": {}}

    @property
    def classes(self) -> int:
        """C, or 0 for tasks without classes."""
        schema = self.rows.schema(-1)
        return len(schema.classes) if schema.task == "classification" else 0

    def within(self, domains: str) -> "Bench":
        """The same bench with training rows of the target domain alone, or of the others alone, and an encoding learned on them.

        Rows of all domains are the same whether they are weighted or not.
        """
        if domains not in (TARGET, OTHERS) or domains == self.domains:
            return self
        return self._once(("within", domains), lambda: replace(self, domains=domains, memory={}))

    def importance(self, fold: int, power: float, share: float = 1.0) -> np.ndarray:
        """(n,) importance weights of `training`'s rows: 1 in the target domain, a power of the density ratio in the others."""
        return self._once(("importance", fold, power, share), lambda: self._importance(fold, power, share))

    def ratio(self, fold: int) -> Ratio:
        """The density ratio of the fold's training rows."""
        return self._once(("ratio", fold), lambda: self._ratio(fold))

    def regions(self, fold: int, share: float = 1.0) -> Regions:
        """The fold's regions, with the real rows that a learner trains on beside a generator of this share."""
        return self.partitions[fold].of_learner(share).regions

    def training(self, fold: int, share: float = 1.0) -> Real:
        """Encoded training rows of the fold that are left to the learner; the encoding is learned on all of them."""
        return self._once(("training", fold, share), lambda: self._training(fold, share))

    def digests(self, fold: int, share: float = 1.0) -> list[bytes]:
        """Of the encoded rows of `training`, by which copies of them are found."""
        return self._once(("digests", fold, share), lambda: digests_of(self.training(fold, share).X))

    def held_out(self, fold: int) -> Real:
        """Encoded held-out rows of the fold; for the final fold, the test rows."""
        return self._once(("held out", fold), lambda: self._held_out(fold))

    def synthetic(
        self, generator: str, fold: int, draw: int, counts: np.ndarray, share: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(X, y, region) of the first counts[k] rows of each region k."""
        key = generator, fold, draw, share
        X, y, region = self._once(("pool", *key), lambda: self._pool(*key))
        taken = prefix(region, counts)
        return X[taken], y[taken], region[taken]

    def encode(self, table: pa.Table, fold: int) -> np.ndarray:
        """Any canonical rows, as the fold's learner sees them."""
        return np.asarray(self.encoder(fold).encode(table))

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self.memory:
            self.memory[key] = make()
        return self.memory[key]

    def encoder(self, fold: int) -> Encoder:
        """What the fold's learner sees rows by; learned on its training rows."""
        return self._once(("encoder", fold), lambda: self.learner.encoder(self._table(fold), self.rows.schema(fold)))

    def _table(self, fold: int) -> pa.Table:
        return pa.concat_tables(self._tables(fold, 1.0)).combine_chunks()

    def _sides(self, fold: int, share: float) -> dict[str, FitData]:
        """Training rows of the target domain and of the others, whichever are trained on."""
        part = self.partitions[fold].of_learner(share)
        sides = {}
        if self.domains != OTHERS:
            sides[TARGET] = self.rows.training(fold, part.regions, part.rule, side=part.side)
        if self.rows.domain is not None and self.domains != TARGET:
            sides[OTHERS] = self.rows.away(fold, part.regions, part.rule)
        return sides

    def _tables(self, fold: int, share: float) -> list[pa.Table]:
        sides = self._sides(fold, share).values()
        return [data.table(self.cap // len(sides)) for data in sides]

    def _training(self, fold: int, share: float) -> Real:
        tables, weights = [], []
        for data, table in zip(self._sides(fold, share).values(), self._tables(fold, share), strict=True):
            table = table.filter(pa.array(table[GROUP].to_numpy() >= 0))
            region, counts = table[REGION].to_numpy(), data.regions.counts
            kept = np.bincount(region, minlength=len(counts))
            weights.append((counts / np.maximum(kept, 1))[region])
            tables.append(table)
        table = pa.concat_tables(tables).combine_chunks()
        name = f"training-{fold}" + (f"-{share:g}" if share < 1 else "")
        X = self._stored(name, lambda: self.encoder(fold).encode(table))
        return self._real(fold, table, X, np.concatenate(weights), np.zeros((0, 0), dtype=np.int32))

    def _ratio(self, fold: int) -> Ratio:
        # Regions thinned alike: a ratio learned where rare ones are kept whole would be that of another mix.
        sides = self._sides(fold, 1.0).values()
        own, others = (data.table(self.cap // len(sides), alike=True) for data in sides)
        table = pa.concat_tables([own, others]).combine_chunks()
        return Ratio.of(table, np.arange(len(table)) < len(own), keys_of(table), self.rows.schema(fold), self.rows.seed)

    def _importance(self, fold: int, power: float, share: float) -> np.ndarray:
        ratio, (own, others) = self.ratio(fold), self._tables(fold, share)
        return np.concatenate([np.ones(len(own)), ratio.weights(others, keys_of(others), power)])

    def _held_out(self, fold: int) -> Real:
        table = self.rows.held_out(fold, self._scored(fold))
        X = self.encoder(fold).encode(table)
        return self._real(fold, table, X, np.ones(len(table)), self._cells(fold, table))

    def _scored(self, fold: int) -> Callable[[pa.Table], np.ndarray]:
        """Which held-out rows are: those of known truth and group, large groups thinned where there are more than `cap`."""
        schema = self.rows.schema(fold)

        def known(table: pa.Table) -> np.ndarray:
            found: np.ndarray = table[GROUP].to_numpy() >= 0
            return found & (schema.truth(table) >= 0) if self.classes else found

        if sum(self.rows.counts[fold]) <= self.cap:
            return known
        many = len(self.rows.groups.items)
        blocks = self.rows.blocks(fold, held_out=True)
        counts = np.sum([np.bincount(block[GROUP].to_numpy()[known(block)], minlength=many) for block in blocks], axis=0)
        if counts.sum() <= self.cap:
            return known
        # Within a group all rows have the same chance to stay, so group means keep their value.
        chance = np.minimum(1.0, self.cap / np.count_nonzero(counts) / np.maximum(counts, 1))

        def few(table: pa.Table) -> np.ndarray:
            keep, group = known(table), table[GROUP].to_numpy()
            hashed = hash_rows(table[ROW].to_numpy(), self.rows.seed, "held-out cap")
            return keep & (hashed < chance[np.where(keep, group, 0)] * 2.0**64)

        return few

    def _cells(self, fold: int, table: pa.Table) -> np.ndarray:
        if not self.classes:
            return np.zeros((len(table), 0), dtype=np.int32)
        schema = self.rows.schema(fold)
        coarse, _ = self.coarse(fold)
        return np.asarray(coarse.assign_each_label(table, schema.classes))

    def coarse(self, fold: int) -> tuple[Any, np.ndarray]:
        """The groups that are known when predicting, and the (G,) map onto them."""
        features = {column.name for column in self.rows.schema(fold).features}
        return self._once(("coarse", fold), lambda: self.rows.groups.observable(features))

    def _real(self, fold: int, table: pa.Table, X: np.ndarray, weight: np.ndarray, cells: np.ndarray) -> Real:
        unit = table[UNIT].to_numpy() if UNIT in table.column_names else None
        y = self.rows.schema(fold).truth(table)
        return Real(X, y, table[GROUP].to_numpy().astype(np.int64), weight, cells, table[ROW].to_numpy(), unit)

    def _pool(self, generator: str, fold: int, draw: int, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pool, schema = self.pools[generator, fold, draw, share], self.rows.schema(fold)
        columns = [schema.target, *(column.name for column in schema.features), REGION]
        slim = list(pool.tables(columns))
        y = np.concatenate([schema.truth(table) for table in slim])
        region = np.concatenate([table[REGION].to_numpy() for table in slim])
        name = f"pool-{pool.key.id}-{fingerprint([shard.name for shard in pool.shards])}"
        X = self._stored(name, lambda: np.concatenate([self.encoder(fold).encode(table) for table in slim]))
        return X, y, region

    def _stored(self, name: str, make: Any) -> np.ndarray:
        """An array of this machine's cache, memory-mapped; written whole by whoever comes first."""
        path = Path(self.cache) / f"{name}-{self._encoding}.npy"
        if not path.exists():
            scratch_here(path.parent)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as stream:
                np.save(stream, np.ascontiguousarray(make()), allow_pickle=False)
            os.replace(temporary, path)
        return np.load(path, mmap_mode="r", allow_pickle=False)

    @property
    def _encoding(self) -> str:
        depends = [repr(self.learner), self.rows.to_json(), self.cap, *([self.domains] if self.domains else [])]
        return self._once("encoding", lambda: fingerprint(depends))


def digests_of(X: np.ndarray) -> list[bytes]:
    """Of each encoded row; equal rows of one encoding have equal ones."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in X]


def keys_of(table: pa.Table) -> np.ndarray:
    """(n,) ids that rows are told apart by in a cross-fit: their unit's where they have one, else their position."""
    return table[UNIT if UNIT in table.column_names else ROW].to_numpy()

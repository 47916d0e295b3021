"""Real rows of the region drawn again, with optional jitter; knows no distribution.

Source: Efron 1979 (resampling with replacement); with jitter the smoothed bootstrap, by columns, each kept within its bounds and steps.

Cost: a sort by region to fit, linear in cells otherwise; memory that of the rows kept, min(rows, cap) x columns; a block its own cells.
Not for: regions of a handful of rows (a learner sees the same rows again, which re-weighting does for less), rows that nobody may pass on
(each drawn one is a real one), and with jitter columns tied by equations, which it breaks, or heaps, which it spreads.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.cells import Cells
from codsa_ray.contracts import TABLE_KINDS, Needs, Worker
from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.seeds import rng_of

SHAKEN = ("numeric", "integer")


@dataclass(frozen=True)
class Bootstrap:
    """Resampling with replacement.

    Args:
        jitter: standard deviation of the normal noise on numerics and integers, as a fraction of the column's own in the region.
        cap: rows kept at most; beyond it the larger regions are thinned.
        block: rows of one block.
    """

    jitter: float = 0.0
    cap: int = 1_000_000
    block: int = 4096

    @property
    def needs(self) -> Needs:
        """One core; texts and pictures are drawn as they are."""
        return Needs(block=self.block, kinds=TABLE_KINDS | {"text", "image"})

    def fit(self, data: FitData, worker: Worker) -> None:
        """Keeps the rows, sorted by region."""
        if worker.rank:
            return
        table = data.table(self.cap)
        region = table[REGION].to_numpy()
        fixed = data.regions.constant_columns
        columns = [c for c in data.schema.columns if c.name not in fixed]
        rows = _wide(table.select([c.name for c in columns])).take(pa.array(np.argsort(region, kind="stable")))
        starts = np.concatenate([[0], np.cumsum(np.bincount(region, minlength=len(data.regions)))])
        cells = [Cells.of(c, rows[c.name]) for c in columns if c.kind in SHAKEN]
        worker.folder.write_table("rows.parquet", rows)
        worker.folder.write_json("bootstrap.json", {"starts": starts.tolist(), "cells": [c.to_json() for c in cells]})

    def load(self, folder: Folder) -> "FittedBootstrap":
        """Reads the rows back."""
        meta = folder.read_json("bootstrap.json")
        cells = tuple(map(Cells.from_json, meta["cells"]))
        return FittedBootstrap(self, folder.read_table("rows.parquet"), tuple(meta["starts"]), cells)

    @classmethod
    def tiny(cls) -> Self:
        """Small blocks, some jitter."""
        return cls(jitter=0.1, block=256)


@dataclass(frozen=True)
class FittedBootstrap:
    """Rows sorted by region; region k is starts[k]:starts[k + 1]."""

    settings: Bootstrap
    rows: pa.Table
    starts: tuple[int, ...]
    cells: tuple[Cells, ...]

    def block(self, region: int, seed: int) -> pa.Table:
        """Rows of the region with replacement.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = self.starts[region : region + 2]
        if start == stop:
            raise ShortOfRows(f"wanted a row of region {region} to draw again; got none; leave the region out or merge it")
        if not self.rows.column_names:
            # A table of no column still has rows: every column may be fixed by the region.
            return pa.table({"": np.zeros(self.settings.block)}).select([])
        rng = rng_of(seed, "bootstrap", region)
        drawn = _canonical(self.rows.take(pa.array(rng.integers(start, stop, self.settings.block))))
        if not self.settings.jitter:
            return drawn
        own = self.rows.slice(start, stop - start)
        for cell in self.cells:
            name = cell.column.name
            shaken = _shaken(drawn[name], own[name], cell, self.settings.jitter, rng)
            drawn = drawn.set_column(drawn.column_names.index(name), name, shaken)
        return drawn


def _wide(table: pa.Table) -> pa.Table:
    """Texts and bytes as arrow's large ones: rows that weigh more than 2 GiB could not be taken in another order."""
    return _cast(table, {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()})


def _canonical(table: pa.Table) -> pa.Table:
    return _cast(table, {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()})


def _cast(table: pa.Table, kinds: dict[pa.DataType, pa.DataType]) -> pa.Table:
    return table.cast(pa.schema([(item.name, kinds.get(item.type, item.type)) for item in table.schema]))


def _shaken(values: pa.ChunkedArray, own: pa.ChunkedArray, cell: Cells, jitter: float, rng: np.random.Generator) -> pa.Array:
    """Values plus noise, within the column's bounds, in its places or whole steps; null stays null."""
    numbers, null = cell.encode(values)
    spread = pc.stddev(own).as_py() or 0.0
    noise = rng.normal(0.0, jitter * spread, len(numbers)) if spread else np.zeros(len(numbers))
    return cell.decode(cell.moved(numbers, noise / cell.unit), null)

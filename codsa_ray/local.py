"""Local: rows of one table in memory, drawn in this process; knows no run folder, no cluster and no search."""

import tempfile
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Allocator, FittedGenerator, Generator
from codsa_ray.draw import draw_block
from codsa_ray.errors import SchemaError
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.infer import infer
from codsa_ray.partition import measured
from codsa_ray.schema import Schema
from codsa_ray.seeds import seed_of
from codsa_ray.stages.fit import LocalWorker
from codsa_ray.summary import Summary

TARGET = "target"
LEAST_BLOCK = 256


@dataclass(frozen=True)
class Local:
    """Rows of numbered classes, a group each.

    Args:
        table: columns in the caller's types, and TARGET.
        schema: what all rows showed.
        group: (n,) int64 class of each row.
        groups: the classes, all of the same weight.
        seed: of everything random.
    """

    table: pa.Table
    schema: Schema
    group: np.ndarray
    groups: Groups
    seed: int

    @staticmethod
    def of(features: pa.Table, group: np.ndarray, seed: int) -> "Local":
        """From feature columns (none of them named TARGET) and classes 0 to C - 1, each with a row.

        Raises:
            SchemaError: a column that rows cannot be drawn for.
        """
        table = features.append_column(TARGET, pa.array(group.astype(str)))
        schema = infer(Summary.of(table, np.arange(len(table))), TARGET, keep=tuple(features.column_names))
        for name, reason in schema.left_out:
            if table[name].null_count < len(table):
                raise SchemaError("columns that rows can be drawn for", f"column {name}: {reason}", "drop or encode it")
        grouping = Grouping(TARGET)
        return Local(table, schema, group, Groups.of(grouping, grouping.cells(table), smallest=1), seed)

    def training(self, rows: np.ndarray, allocator: Allocator) -> FitData:
        """The rows at these positions as a fit sees them: schema and regions are theirs alone."""
        table = self.table.take(pa.array(rows))
        schema = self.schema.relearn(Summary.of(table, rows))
        counts = np.bincount(self.group[rows], minlength=len(self.groups))
        regions = self.groups.regions(counts[:, None], 1, {column.name: column.kind for column in schema.columns})
        canonical = schema.canonical(table)[0].append_column(REGION, pa.array(self.group[rows].astype(np.int32)))
        data = FitData.of(canonical.append_column(ROW, pa.array(rows)), schema, regions, self.seed)
        return replace(data, regions=measured(regions, data, allocator))


@dataclass(frozen=True)
class Drawn:
    """Rows of a fitted generator, drawn block by block as they are asked for.

    Args:
        fitted: the generator.
        data: what it was fitted on.
        seed: of the draw.
    """

    fitted: FittedGenerator
    data: FitData
    seed: int
    blocks: dict[int, list[pa.Table]] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def of(generator: Generator, data: FitData, most: int, seed: int) -> "Drawn":
        """Fits in this process.

        Args:
            most: rows of a region that will be asked for: larger blocks would be wasted.
        """
        generator = _sized(generator, most)
        with tempfile.TemporaryDirectory() as place:
            generator.fit(data, LocalWorker(Folder(place)))
            return Drawn(generator.load(Folder(place)), data, seed)

    def take(self, counts: np.ndarray) -> pa.Table:
        """The first counts[k] canonical rows of each region k with `_region`, regions in order; the same whatever was asked before.

        Raises:
            ShortOfRows: the generator could not draw them.
        """
        found = [self.data.schema.arrow.empty_table().append_column(REGION, pa.array([], pa.int32()))]
        for region in np.flatnonzero(counts):
            held = self.blocks.setdefault(int(region), [])
            while sum(map(len, held)) < counts[region]:
                seed = seed_of(self.seed, "draw", int(region), len(held))
                held.append(draw_block(self.fitted, self.data.schema, self.data.regions, int(region), seed)[0])
            rows = pa.concat_tables(held).slice(0, int(counts[region]))
            found.append(rows.append_column(REGION, pa.array(np.full(len(rows), region, dtype=np.int32))))
        return pa.concat_tables(found).combine_chunks()


def _sized(generator: Any, most: int) -> Any:
    if "block" not in {item.name for item in fields(generator)}:
        return generator
    return replace(generator, block=min(generator.needs.block, max(LEAST_BLOCK, 2 ** int(np.ceil(np.log2(max(most, 1)))))))

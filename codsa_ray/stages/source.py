"""Source: a related data set as a generator's pretraining rows, columns matched by name; knows no method."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.errors import InputError
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.formats import Fragment, fragments, load, probe
from codsa_ray.job import Job
from codsa_ray.partition import Partition
from codsa_ray.rows import FINAL, GROUP, Rows, region_of
from codsa_ray.schema import Schema
from codsa_ray.seeds import seed_of


@dataclass(frozen=True)
class SourceBlocks:
    """Reads the source anew each time it is asked for its rows: nobody holds it."""

    found: tuple[Fragment, ...]
    types: pa.Schema
    rows: Rows
    part: Partition
    wanted: pa.Schema

    def __call__(self) -> Iterator[pa.Table]:
        """Canonical blocks with `_row` and `_region`."""
        first = 0
        schema = self.rows.schema(FINAL)
        for fragment in self.found:
            for block in load(fragment, self.types):
                positions = np.arange(first, first + len(block), dtype=np.int64)
                first += len(block)
                table, _ = schema.canonical(_matched(block, self.wanted))
                group = self.rows.groups.assign(table).astype(np.int32)
                region = region_of(table.append_column(GROUP, pa.array(group)), self.part.regions, self.part.rule)
                table = table.append_column(ROW, pa.array(positions)).append_column(REGION, pa.array(region))
                # Rows of cells the target data do not have condition nothing.
                yield table.filter(pa.array(region >= 0))


def _matched(block: pa.Table, wanted: pa.Schema) -> pa.Table:
    """The wanted columns by name, null where the source has none."""
    columns = [block[item.name] if item.name in block.column_names else pa.nulls(len(block), item.type) for item in wanted]
    return pa.table(columns, names=wanted.names)


def source_data(job: Job, rows: Rows, part: Partition) -> FitData | None:
    """The job's source, or None.

    Raises:
        InputError: it shares no column but the target.
    """
    if job.source is None:
        return None
    found = fragments(job.source)
    probes = [probe(fragment) for fragment in found]
    total = probes[0]
    for other in probes[1:]:
        total = total.merge(other)
    schema: Schema = rows.schema(FINAL)
    shared = [column.name for column in schema.features if column.name in total.types.names]
    if not shared:
        raise InputError("a source that shares feature columns by name", f"{job.source} with none", "rename its columns")
    wanted = (rows.folder / "rows").read_table(rows.parts[0]).schema
    wanted = pa.schema([field for field in wanted if field.name != ROW])
    blocks = SourceBlocks(found, total.types, rows, part, wanted)
    return FitData(schema, part.regions, seed_of(job.seed, "source"), blocks)

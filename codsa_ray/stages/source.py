"""Source: rows that a generator pretrains on, of a related data set (columns matched by name) or of other domains; knows no method."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import InputError
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.formats import Fragment, fragments, load, picture_names, probe, with_pictures
from codsa_ray.job import Job
from codsa_ray.partition import Partition
from codsa_ray.picture_columns import Pictures
from codsa_ray.rows import FINAL, GROUP, Rows, region_of
from codsa_ray.schema import Schema
from codsa_ray.seeds import seed_of


@dataclass(frozen=True)
class Source:
    """Where the source lies and how its columns are read; its rows are read anew each time they are asked for: nobody holds them."""

    found: tuple[Fragment, ...]
    types: pa.Schema
    rows: Rows
    wanted: pa.Schema
    pictures: Pictures

    def data(self, fold: int, part: Partition) -> FitData:
        """The source's rows as the fold's schema and regions have them, with the source's own counts; those in no region are counted."""
        schema = self.rows.schema(fold)

        def blocks() -> Iterator[pa.Table]:
            # Rows of cells the target data do not have condition nothing.
            return (block.filter(pc.greater_equal(block[REGION], 0)) for block in self._read(schema, part))

        counts, rows = np.zeros(len(part.regions), dtype=np.int64), 0
        for block in self._read(schema, part):
            region = block[REGION].to_numpy()
            counts += np.bincount(region[region >= 0], minlength=len(counts))
            rows += len(block)
        seed = seed_of(self.rows.seed, "source", fold)
        return FitData(schema, part.regions.counted(counts), seed, blocks, aside=rows - int(counts.sum()))

    def _read(self, schema: Schema, part: Partition) -> Iterator[pa.Table]:
        first = 0
        for fragment in self.found:
            for block in load(fragment, self.types):
                positions = np.arange(first, first + len(block), dtype=np.int64)
                first += len(block)
                block, _ = self.pictures.read(block, fragment.shelf, positions.tolist())
                table, _ = schema.canonical(_matched(block, self.wanted))
                group = self.rows.groups.assign(table).astype(np.int32)
                region = region_of(table.append_column(GROUP, pa.array(group)), part.regions, part.rule)
                yield table.append_column(ROW, pa.array(positions)).append_column(REGION, pa.array(region))


def _matched(block: pa.Table, wanted: pa.Schema) -> pa.Table:
    """The wanted columns by name, null where the source has none."""
    columns = [block[item.name] if item.name in block.column_names else pa.nulls(len(block), item.type) for item in wanted]
    return pa.table(columns, names=wanted.names)


def source_identity(job: Job) -> list[Any] | None:
    """JSON value that changes when the source's rows may have changed; None without a source."""
    return [fragment.identity for fragment in fragments(job.source)] if job.source else None


@dataclass(frozen=True)
class Elsewhere:
    """The run's own rows of other domains as a source."""

    rows: Rows

    def data(self, fold: int, part: Partition) -> FitData:
        """As the fold's schema and regions have them; the same rows in every fold."""
        return self.rows.away(fold, part.regions, part.rule)


Related = Source | Elsewhere


def source_of(job: Job, rows: Rows) -> Related | None:
    """The job's source, or rows of other domains, or None.

    Raises:
        InputError: it shares no column but the target.
    """
    if rows.domain is not None:
        return Elsewhere(rows)
    if job.source is None:
        return None
    found = fragments(job.source)
    probes = [probe(fragment) for fragment in found]
    total = probes[0]
    for other in probes[1:]:
        total = total.merge(other)
    shared = [column.name for column in rows.schema(FINAL).features if column.name in total.types.names]
    if not shared:
        raise InputError("a source that shares feature columns by name", f"{job.source} with none", "rename its columns")
    wanted = (rows.folder / "rows").read_table(rows.parts[0]).schema
    stated = {column.name: {"kind": column.kind} for column in rows.schema(FINAL).columns if column.kind == "image"}
    found = tuple(
        part
        for fragment, seen in zip(found, probes, strict=True)
        for part in replace(fragment, images=picture_names(fragment, total.types, stated)).cut(seen, 0.0)
    )
    types = with_pictures(total.types, (name for fragment in found for name in fragment.images))
    pictures = Pictures(tuple(name for name in stated if name in types.names))
    return Source(found, types, rows, pa.schema([field for field in wanted if field.name != ROW]), pictures)

"""Parts: what a worker does with one part of DATA; knows neither the job nor the cluster."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.fitdata import ROW
from codsa_ray.folder import Folder
from codsa_ray.formats import Fragment, load
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.picture_columns import Pictures, Seen
from codsa_ray.rows import FINAL, FOLD, GROUP, UNIT
from codsa_ray.seeds import hash_rows
from codsa_ray.split import Split
from codsa_ray.summary import Summary
from codsa_ray.values import as_text


@dataclass(frozen=True)
class Part:
    """One fragment of DATA (or of the test set) and where its rows go."""

    fragment: Fragment
    name: str
    first: int
    rows: int
    test: bool


@dataclass(frozen=True)
class Written:
    """What one part was found to hold."""

    rows: int
    set_aside: int
    cells: tuple[tuple[Any, ...], ...]
    counts: tuple[int, ...]
    codes: np.ndarray | None
    positions: np.ndarray | None
    units: np.ndarray | None
    pictures: dict[str, Seen] = field(default_factory=dict)


def _unit_hash(table: pa.Table, unit: str) -> np.ndarray:
    # Rows whose unit is not known count as one unit: they might be.
    text = pc.fill_null(as_text(table[unit]), "").to_numpy(zero_copy_only=False).astype(object)
    return np.asarray(pd.util.hash_array(text, categorize=False).astype(np.uint64))


def _has_value(target: pa.ChunkedArray, numeric: bool) -> pa.ChunkedArray:
    """True where there is a label, or a finite number."""
    if numeric and pa.types.is_floating(target.type):
        return pc.fill_null(pc.is_finite(target), False)
    return pc.is_valid(as_text(target))


@dataclass(frozen=True)
class Targets:
    """Finite values of the target in one part, thinned to about `share` of its rows."""

    types: pa.Schema
    target: str
    share: float
    seed: int

    def __call__(self, part: Part) -> np.ndarray:
        """(n,) float64 values."""
        found, first = [], part.first
        for block in load(part.fragment, self.types):
            positions = np.arange(first, first + len(block), dtype=np.int64)
            first += len(block)
            values = block[self.target].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
            found.append(values[np.isfinite(values) & (hash_rows(positions, self.seed, "bins") < self.share * 2.0**64)])
        return np.concatenate(found) if found else np.zeros(0)


@dataclass(frozen=True)
class Normalise:
    """Writes one part's rows with their positions, rows without a target set aside, with the bytes of their pictures.

    Args:
        numeric: a target that is not finite is none.
        pictures: columns whose pictures are looked at; what cannot be read is null.
    """

    folder: Folder
    types: pa.Schema
    grouping: Grouping
    target: str
    unit: str | None
    exact: bool
    numeric: bool
    pictures: Pictures

    def __call__(self, part: Part) -> Written:
        """Writes the part; returns what it holds."""
        tables, first = [], part.first
        seen = dict.fromkeys(self.pictures.names, Seen())
        for block in load(part.fragment, self.types):
            positions = pa.array(np.arange(first, first + len(block), dtype=np.int64))
            first += len(block)
            block = block.append_column(ROW, positions)
            block = block.filter(_has_value(block[self.target], self.numeric))
            block, found = self.pictures.read(block, part.fragment.shelf, block[ROW].to_pylist())
            seen = {name: seen[name].merge(found[name]) for name in seen}
            tables.append(block)
        read = first - part.first
        empty = self.types.append(pa.field(ROW, pa.int64())).empty_table()
        table = self.grouping.relabel(pa.concat_tables(tables) if tables else empty)
        (self.folder / "rows").write_table(part.name, table)
        return replace(self._written(table, read), pictures=seen)

    def _written(self, table: pa.Table, read: int) -> Written:
        keys, codes = self.grouping.keys(table)
        counts = np.bincount(codes, minlength=len(keys))
        units = _unit_hash(table, self.unit) if self.unit else None
        kept, positions = (codes.astype(np.int32), table[ROW].to_numpy()) if self.exact else (None, None)
        return Written(len(table), read - len(table), tuple(keys), tuple(map(int, counts)), kept, positions, units)


@dataclass(frozen=True)
class Assign:
    """Writes one part's folds and groups; returns the summary and the group counts of each of its folds."""

    folder: Folder
    groups: Groups
    split: Split
    unit: str | None

    def __call__(self, part: Part) -> tuple[dict[int, Summary], dict[int, np.ndarray]]:
        """Writes the part's split; returns (summaries, counts) by fold."""
        table = (self.folder / "rows").read_table(part.name)
        group = self.groups.assign(table).astype(np.int32)
        positions = table[ROW].to_numpy()
        fold = np.full(len(table), FINAL, dtype=np.int8) if part.test else self.split.of(positions)
        columns = {FOLD: fold, GROUP: group, **({UNIT: _unit_hash(table, self.unit)} if self.unit else {})}
        (self.folder / "split").write_table(part.name, pa.table(columns))
        summaries, counts = {}, {}
        for f in np.unique(fold):
            mine = fold == f
            counts[int(f)] = np.bincount(group[mine & (group >= 0)], minlength=len(self.groups.items))
            if f != FINAL:
                summaries[int(f)] = Summary.of(table.filter(pa.array(mine)).drop_columns([ROW]), positions[mine])
        return summaries, counts

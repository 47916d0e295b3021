"""Parts: what a worker does with one part of DATA; knows neither the job nor the cluster."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.domain import Domain
from codsa_ray.fitdata import ROW
from codsa_ray.folder import Folder
from codsa_ray.formats import Fragment, load
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.picture_columns import Pictures, Seen
from codsa_ray.rows import AWAY, FINAL, FOLD, GROUP, UNIT
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
    """What one part was found to hold; where there is a target domain, cells and what follows are of its rows alone."""

    rows: int
    set_aside: int
    cells: tuple[tuple[Any, ...], ...]
    counts: tuple[int, ...]
    codes: np.ndarray | None
    positions: np.ndarray | None
    units: np.ndarray | None
    pictures: dict[str, Seen] = field(default_factory=dict)
    domains: Counter[str] = field(default_factory=Counter)


def _unit_hash(table: pa.Table, unit: str) -> np.ndarray:
    # Rows whose unit is not known count as one unit: they might be.
    text = pc.fill_null(as_text(table[unit]), "").to_numpy(zero_copy_only=False).astype(object)
    return np.asarray(pd.util.hash_array(text, categorize=False).astype(np.uint64))


def _has_value(target: pa.ChunkedArray, numeric: bool) -> pa.ChunkedArray:
    """True where there is a label, or a finite number."""
    if numeric and pa.types.is_floating(target.type):
        return pc.fill_null(pc.is_finite(target), False)
    return pc.is_valid(as_text(target))


def _of_domain(table: pa.Table, domain: Domain | None) -> np.ndarray:
    """(n,) bool; all rows where there is none."""
    return np.ones(len(table), dtype=bool) if domain is None else domain.mask(table)


@dataclass(frozen=True)
class Targets:
    """Finite values of the target in one part, thinned to about `share` of its rows."""

    types: pa.Schema
    target: str
    share: float
    seed: int
    domain: Domain | None = None

    def __call__(self, part: Part) -> np.ndarray:
        """(n,) float64 values."""
        found, first = [], part.first
        for block in load(part.fragment, self.types):
            positions = np.arange(first, first + len(block), dtype=np.int64)
            first += len(block)
            values = block[self.target].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
            kept = np.isfinite(values) & (hash_rows(positions, self.seed, "bins") < self.share * 2.0**64)
            found.append(values[kept & _of_domain(block, self.domain)])
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
    domain: Domain | None = None

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

    def _written(self, whole: pa.Table, read: int) -> Written:
        domains = self.domain.names(whole) if self.domain else Counter[str]()
        table = whole.filter(pa.array(self.domain.mask(whole))) if self.domain else whole
        keys, codes = self.grouping.keys(table)
        counts = np.bincount(codes, minlength=len(keys))
        units = _unit_hash(table, self.unit) if self.unit else None
        kept, positions = (codes.astype(np.int32), table[ROW].to_numpy()) if self.exact else (None, None)
        return Written(len(whole), read - len(whole), tuple(keys), tuple(map(int, counts)), kept, positions, units, domains=domains)


@dataclass(frozen=True)
class Assign:
    """Writes one part's folds and groups; returns what each of its folds holds.

    Args:
        domain: rows of another are AWAY from every fold; of a test set of its own they are in no group.
        units: hashes of the target domain's: a row of another domain that shares one is in no group, or it would tell of held-out rows.
    """

    folder: Folder
    groups: Groups
    split: Split
    unit: str | None
    domain: Domain | None = None
    units: np.ndarray | None = None

    def __call__(self, part: Part) -> "list[Told]":
        """Writes the part's split."""
        table = (self.folder / "rows").read_table(part.name)
        group = self.groups.assign(table).astype(np.int32)
        positions = table[ROW].to_numpy()
        away = ~_of_domain(table, self.domain)
        fold = np.full(len(table), FINAL, dtype=np.int8) if part.test else np.where(away, np.int8(AWAY), self.split.of(positions))
        columns = {FOLD: fold, GROUP: group, **({UNIT: _unit_hash(table, self.unit)} if self.unit else {})}
        if part.test:
            group[away] = -1
        elif self.domain and self.units is not None:
            group[away & np.isin(columns[UNIT], self.units)] = -1
        (self.folder / "split").write_table(part.name, pa.table(columns))
        return list(told(table, fold, group, len(self.groups.items)))


@dataclass(frozen=True)
class Told:
    """What one part's rows of one fold hold.

    Args:
        fold: FINAL and AWAY included.
        counts: (G,) rows of each group.
        rows: in all.
        summary: None of the test part, which nothing is learned from.
    """

    fold: int
    counts: np.ndarray
    rows: int
    summary: Summary | None


def told(table: pa.Table, fold: np.ndarray, group: np.ndarray, size: int) -> Iterator[Told]:
    """Every fold of a part; rows of other domains that are in no group are summed up by nobody.

    Args:
        table: as it came, with `_row`. fold, group: (n,). size: G.
    """
    positions = table[ROW].to_numpy()
    for f in map(int, np.unique(fold)):
        counts = np.bincount(group[(fold == f) & (group >= 0)], minlength=size)
        mine = (fold == f) & ((f != AWAY) | (group >= 0))
        known = f != FINAL and mine.any()
        summary = Summary.of(table.filter(pa.array(mine)).drop_columns([ROW]), positions[mine]) if known else None
        yield Told(f, counts, int((fold == f).sum()), summary)


@dataclass
class Held:
    """What the parts of all of DATA's rows hold, fold by fold."""

    counts: dict[int, np.ndarray] = field(default_factory=dict)
    rows: Counter[int] = field(default_factory=Counter)
    summaries: dict[int, Summary] = field(default_factory=dict)

    def add(self, part: Told) -> None:
        """One part's fold; parts come in order, since merging summaries does."""
        f, summary = part.fold, part.summary
        self.counts[f] = self.counts[f] + part.counts if f in self.counts else part.counts
        self.rows[f] += part.rows
        if summary is not None:
            self.summaries[f] = self.summaries[f].merge(summary) if f in self.summaries else summary

    def by_fold(self, folds: int, size: int) -> tuple[tuple[int, ...], ...]:
        """`Rows.counts`: of each fold, of rows never held out, of the test part."""
        nothing = np.zeros(size, dtype=np.int64)
        return tuple(tuple(map(int, self.counts.get(f, nothing))) for f in (*range(folds + 1), FINAL))

    def without(self, fold: int) -> Summary:
        """The summary of all rows but the fold's."""
        merged: Summary | None = None
        for f in sorted(self.summaries):
            if f != fold:
                merged = self.summaries[f] if merged is None else merged.merge(self.summaries[f])
        assert merged is not None, "there are training rows"
        return merged

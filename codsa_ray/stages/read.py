"""Read: DATA into the run's own rows, split by group and summed up per fold; knows no model."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.contracts import Progress
from codsa_ray.errors import GroupError, InputError, SchemaError
from codsa_ray.fitdata import ROW
from codsa_ray.folder import Folder
from codsa_ray.formats import Fragment, Probe, fragments, load, probe
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.infer import MOST_CLASSES, infer, near, refuse
from codsa_ray.job import Job
from codsa_ray.manifest import Manifest
from codsa_ray.rows import FINAL, FOLD, GROUP, UNIT, Rows
from codsa_ray.schema import Schema
from codsa_ray.seeds import hash_rows
from codsa_ray.split import EXACT_ROWS, Split, folds_for, split_exactly, split_units
from codsa_ray.stages.cluster import spread
from codsa_ray.stages.ranked import small_groups
from codsa_ray.summary import Summary
from codsa_ray.values import as_text

VERSION = 2
# Parts are at most 128k rows: so few are read sooner than actors start.
FEW_PARTS = 2
BINNED_ROWS = 2_000_000


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


def _unit_hash(table: pa.Table, unit: str) -> np.ndarray:
    # Rows whose unit is not known count as one unit: they might be.
    text = pc.fill_null(as_text(table[unit]), "").to_numpy(zero_copy_only=False).astype(object)
    return np.asarray(pd.util.hash_array(text, categorize=False).astype(np.uint64))


def _probe() -> Callable[[Fragment], Probe]:
    return probe


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
    """Writes one part's rows with their positions, rows without a target set aside.

    Args:
        numeric: a target that is not finite is none.
    """

    folder: Folder
    types: pa.Schema
    grouping: Grouping
    target: str
    unit: str | None
    exact: bool
    numeric: bool = False

    def __call__(self, part: Part) -> Written:
        """Writes the part; returns what it holds."""
        tables, first = [], part.first
        for block in load(part.fragment, self.types):
            positions = pa.array(np.arange(first, first + len(block), dtype=np.int64))
            first += len(block)
            block = block.append_column(ROW, positions)
            tables.append(block.filter(_has_value(block[self.target], self.numeric)))
        read = first - part.first
        empty = self.types.append(pa.field(ROW, pa.int64())).empty_table()
        table = self.grouping.relabel(pa.concat_tables(tables) if tables else empty)
        (self.folder / "rows").write_table(part.name, table)
        return self._written(table, read)

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


def read(job: Job, out: Folder, progress: Progress) -> tuple[Rows, dict[str, Any]]:
    """Reads, groups, splits and sums up DATA.

    Returns:
        The run's rows, and the manifest: rows, set_aside, notices, parts, seconds.

    Raises:
        InputError, SchemaError, GroupError: see errors.py.
    """
    parts_of = [(fragment, False) for fragment in fragments(job.data)]
    parts_of += [(fragment, True) for fragment in (fragments(job.test) if job.test else ())]
    folder = out / "read"
    manifest = Manifest(folder, _depends(job, parts_of))
    stored = manifest.read()
    if stored:
        rows = Rows.from_json(folder, stored["rows_json"])
        _check_kinds(job, rows)
        return rows, {**stored, "reused": True}
    manifest.clear()
    folder.delete()
    probes = dict(spread([fragment for fragment, _ in parts_of], _probe, job.workers, here=len(parts_of) <= FEW_PARTS))
    types, notices = _types(job, [probes[i] for i in range(len(parts_of))])
    parts = _parts(parts_of, [probes[i].rows for i in range(len(parts_of))])
    rows, facts = _divide(job, folder, parts, types, notices, manifest, progress)
    _check_kinds(job, rows)
    return rows, facts


def _check_kinds(job: Job, rows: Rows) -> None:
    """Plug-ins may change while the rows are kept, so this is no part of reading."""
    for plugin in (job.learner, *job.generator):
        refuse(rows.schema(FINAL), plugin.needs.kinds, type(plugin).__name__)  # type: ignore[union-attr]


def _depends(job: Job, found: list[tuple[Fragment, bool]]) -> dict[str, Any]:
    settings = {
        key: getattr(job, key)
        for key in (
            "target",
            "group",
            "region",
            "hide",
            "merge",
            "unit",
            "schema",
            "keep",
            "task",
            "folds",
            "seed",
            "smallest",
            "target_mix",
        )
    }
    # Named where it is used, so that runs without it are those of before.
    bins = {"bins": job.bins} if job.bins else {}
    return {"version": VERSION, "data": [[fragment.identity, test] for fragment, test in found], **settings, **bins}


def _types(job: Job, probes: list[Probe]) -> tuple[pa.Schema, list[str]]:
    data = probes[0]
    for other in probes[1:]:
        data = data.merge(other)
    if data.rows == 0:
        raise InputError("a table with rows", f"{Folder(job.data).shown} with none", "check the file")
    names = data.types.names
    for option, column in [
        ("--target", job.target),
        ("--unit", job.unit),
        *(("--group", c) for c in job.group),
        *(("--hide", c) for c in job.hide),
    ]:
        if column is not None and column not in names:
            raise SchemaError(f"a column for {option}", repr(column), f"did you mean {near(column, names)}?")
    return data.types, list(data.notices)


def _parts(found: list[tuple[Fragment, bool]], rows: list[int]) -> list[Part]:
    firsts = np.concatenate([[0], np.cumsum(rows)[:-1]]).astype(int)
    return [Part(fragment, f"{i:06d}.parquet", int(firsts[i]), rows[i], test) for i, (fragment, test) in enumerate(found)]


def _divide(
    job: Job, folder: Folder, parts: list[Part], types: pa.Schema, notices: list[str], manifest: Manifest, progress: Progress
) -> tuple[Rows, dict[str, Any]]:
    grouping = _grouping(job, parts, types)
    total = sum(part.rows for part in parts if not part.test)
    exact = total <= EXACT_ROWS or job.unit is not None
    work = Normalise(folder, types, grouping, job.target, job.unit, exact, job.task == "regression")
    written: dict[int, Written] = {}
    for index, result in spread(parts, lambda: work, job.workers, here=len(parts) <= FEW_PARTS):
        written[index] = result
        progress("read", len(written), 2 * len(parts))
    # A test set of its own makes no group: what training rows do not have, nothing can be learned of.
    training = [w for i, w in written.items() if not parts[i].test]
    counts = _count(training)
    _check_labels(job, counts, sum(w.rows for w in training), sum(w.set_aside for w in training))
    groups = Groups.of(grouping, counts, dict(job.target_mix) if job.target_mix else None, job.smallest)
    split, folds = _split(job, folder, groups, parts, written, notices)
    summaries: dict[int, Summary] = {}
    held = np.zeros((folds + 2, len(groups.items)), dtype=np.int64)
    assign = Assign(folder, groups, split, job.unit)
    for done, (_, (found, cells)) in enumerate(
        _in_order(spread(parts, lambda: assign, job.workers, here=len(parts) <= FEW_PARTS), len(parts))
    ):
        for fold, summary in found.items():
            summaries[fold] = summaries[fold].merge(summary) if fold in summaries else summary
        for fold, cell in cells.items():
            held[fold] += cell
        progress("read", len(parts) + done + 1, 2 * len(parts))
    schemas = _schemas(job, summaries, folds)
    counts_by_fold = tuple(tuple(map(int, row)) for row in held)
    rows = Rows(folder, tuple(part.name for part in parts), groups, tuple(schemas), counts_by_fold, job.seed)
    notices += [f"column {column!r} is left out: {reason}" for column, reason in schemas[-1].left_out]
    set_aside = sum(w.set_aside for w in written.values())
    if set_aside:
        notices.append(f"{set_aside} rows without a value of {job.target!r} were set aside")
    tested, known = sum(w.rows for i, w in written.items() if parts[i].test), int(held[FINAL].sum())
    if tested > known:
        notices.append(f"{tested - known} of {tested} test rows are in no group of the training rows and were left out")
    if job.test and not known:
        raise InputError("test rows in the groups of the training rows", f"none in {Folder(job.test).shown}", "check --test")
    facts = manifest.write(
        rows_json=rows.to_json(),
        rows_in=sum(w.rows + w.set_aside for w in written.values()),
        rows_out=sum(w.rows for w in written.values()),
        set_aside=set_aside,
        notices=notices,
    )
    return rows, {**facts, "reused": False}


def _grouping(job: Job, parts: list[Part], types: pa.Schema) -> Grouping:
    """As declared; bins of the target hold equally many of DATA's rows (of a sample of BINNED_ROWS where there are more)."""
    target = job.target if job.bins or job.task != "regression" else None
    merges = tuple(Grouping.parse_merge(text) for text in job.merge)
    grouping = Grouping(target, columns=job.group, predicates=job.region, merges=merges, bins=job.bins)
    if not job.bins:
        return grouping
    own = [part for part in parts if not part.test]
    kind = types.field(job.target).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise SchemaError(f"a numeric target {job.target!r} for --bins", str(kind), "cast the column first")
    work = Targets(types, job.target, BINNED_ROWS / max(sum(part.rows for part in own), 1), job.seed)
    values = dict(spread(own, lambda: work, job.workers, here=len(own) <= FEW_PARTS))
    return grouping.binned(np.concatenate([values[index] for index in range(len(own))]))


def _in_order(results: Iterator[tuple[int, Any]], total: int) -> Iterator[tuple[int, Any]]:
    waiting: dict[int, Any] = {}
    following = 0
    for index, result in results:
        waiting[index] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1


def _count(written: Any) -> dict[tuple[Any, ...], int]:
    total: Counter[tuple[Any, ...]] = Counter()
    for part in written:
        total.update(dict(zip(part.cells, part.counts, strict=True)))
    return dict(total)


def _check_labels(job: Job, counts: dict[tuple[Any, ...], int], rows: int, set_aside: int) -> None:
    if rows == 0:
        raise SchemaError(f"values in the target {job.target!r}", f"{set_aside} rows, all null", "name another --target")
    if job.task != "classification":
        return
    labels = sorted({str(cell[0]) for cell in counts})
    if len(labels) < 2:
        raise SchemaError(f"two or more classes in {job.target!r}", f"one: {labels[0]!r}", "name another --target")
    if len(labels) > MOST_CLASSES:
        got = f"{len(labels)} distinct values"
        raise SchemaError(f"at most {MOST_CLASSES} classes in {job.target!r}", got, "name another --target, or give --task regression")


def _split(
    job: Job, folder: Folder, groups: Groups, parts: list[Part], written: dict[int, Written], notices: list[str]
) -> tuple[Split, int]:
    mine = [i for i in range(len(parts)) if not parts[i].test]
    total = sum(written[i].rows for i in mine)
    folds = folds_for(total, min(group.rows for group in groups.items), job.folds, notices)
    if written[mine[0]].codes is None:
        positions, group, notice = small_groups(folder, [parts[i].name for i in mine], groups, job.workers, len(parts) <= FEW_PARTS)
        notices.append(notice)
    else:
        index = {group: g for g, group in enumerate(groups.keys)}
        group = np.concatenate([np.array([index[cell] for cell in written[i].cells], dtype=np.int32)[written[i].codes] for i in mine])
        positions = np.concatenate([written[i].positions for i in mine])
    if job.unit:
        fold = _by_unit(job, positions, group, np.concatenate([written[i].units for i in mine]), folds, notices)
    else:
        fold = split_exactly(positions, group, folds, job.seed, test=job.test is None)
    return Split(job.seed, folds, job.test is None, positions, fold), folds


def _by_unit(job: Job, positions: np.ndarray, group: np.ndarray, units: np.ndarray, folds: int, notices: list[str]) -> np.ndarray:
    fold, deviation = split_units(positions, group, units, folds, job.seed, test=job.test is None)
    wanted = max(folds, 2) + (job.test is None)
    if len(np.unique(fold)) < wanted:
        got = f"{len(np.unique(units))} of very different sizes" if len(np.unique(units)) >= wanted else str(len(np.unique(units)))
        raise GroupError(f"units of {job.unit!r} for {wanted} parts", got, "give fewer --folds, or a --test set of its own")
    notices.append(f"rows of one {job.unit!r} stay together: a group's share of a part is off by at most {deviation:.1%} of its rows")
    return fold


def _schemas(job: Job, summaries: dict[int, Summary], folds: int) -> list[Schema]:
    def total(without: int) -> Summary:
        merged: Summary | None = None
        for fold in sorted(summaries):
            if fold != without:
                merged = summaries[fold] if merged is None else merged.merge(summaries[fold])
        assert merged is not None
        return merged

    options: dict[str, Any] = {"task": job.task, "hidden": job.hide, "group_columns": job.group, "keep": job.keep}
    final = infer(total(FINAL), job.target, overrides=dict(job.schema or {}), **options)
    return [final.relearn(total(fold)) for fold in range(folds)] + [final]

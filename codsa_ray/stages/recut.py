"""Recut: the same training rows cut into other folds, so that a candidate is judged by more than one cut; reads no test row."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Progress
from codsa_ray.fitdata import ROW
from codsa_ray.manifest import Manifest
from codsa_ray.rows import FINAL, FOLD, GROUP, UNIT, Rows
from codsa_ray.seeds import seed_of
from codsa_ray.split import split_exactly, split_units
from codsa_ray.stages.parts import Held, told

VERSION = 1
THIN = 30  # training rows of a group under which one cut says too little
REPEATS = 3
MOST_ROWS = 200_000


def repeats_for(asked: int | None, rows: Rows) -> int:
    """How many cuts: as asked, or REPEATS where a group of the target mix is thin; one where there is one hold-out or rows are many."""
    counts, mix = rows.group_counts(FINAL), np.array(rows.groups.mix)
    if rows.folds == 1 or counts.sum() > MOST_ROWS:
        return 1
    if asked is not None:
        return asked
    return REPEATS if counts[mix > 0].min(initial=THIN) < THIN else 1


def cut_again(rows: Rows, repeat: int, mark: str, progress: Progress) -> tuple[Rows, str]:
    """The rows under their `repeat`-th cut (from 1), stratified like the first, and what that cut's fits depend on.

    Args:
        rows: of the first cut.
        mark: fingerprint of the read stage.
    """
    place = f"split-{repeat}"
    manifest = Manifest.of(rows.folder / place, {"version": VERSION, "rows": mark, "repeat": repeat})
    stored = manifest.read()
    if stored is None:
        stored = manifest.write(rows_json=_cut(rows, place, repeat).to_json())
        progress("read", repeat, repeat, f"cut {repeat + 1}")
    return Rows.from_json(rows.folder, stored["rows_json"]), manifest.fingerprint


def _cut(rows: Rows, place: str, repeat: int) -> Rows:
    splits = {part: (rows.folder / rows.split).read_table(part) for part in rows.parts}
    fold = _folds(rows, splits, repeat)
    held = Held()
    start = 0
    for part, split in splits.items():
        mine = fold[start : start + len(split)]
        start += len(split)
        moved = split.set_column(split.column_names.index(FOLD), FOLD, pa.array(mine))
        (rows.folder / place).write_table(part, moved)
        table = (rows.folder / "rows").read_table(part)
        for one in told(table, mine, split[GROUP].to_numpy(), len(rows.groups.items)):
            held.add(one)
    schemas = tuple(rows.schema(FINAL).relearn(held.without(f)) for f in range(rows.folds))
    counts = held.by_fold(rows.folds, len(rows.groups.items))
    return replace(rows, schemas=(*schemas, rows.schema(FINAL)), counts=counts, split=place)


def _folds(rows: Rows, splits: dict[str, pa.Table], repeat: int) -> np.ndarray:
    """(n,) int8 fold of every row of every part; test rows and those of other domains stay where they are."""

    def column(name: str, tables: Iterator[pa.Table]) -> np.ndarray:
        return np.concatenate([table[name].to_numpy() for table in tables])

    fold = column(FOLD, iter(splits.values())).astype(np.int8)
    group = column(GROUP, iter(splits.values()))
    positions = np.concatenate([(rows.folder / "rows").read_table(part, [ROW])[ROW].to_numpy() for part in splits])
    training = (fold >= 0) & (group >= 0)
    seed = seed_of(rows.seed, "repeat", repeat)
    if any(UNIT in split.column_names for split in splits.values()):
        units = column(UNIT, iter(splits.values()))[training]
        fold[training], _ = split_units(positions[training], group[training], units, rows.folds, seed, test=False)
    else:
        fold[training] = split_exactly(positions[training], group[training], rows.folds, seed, test=False)
    return fold

"""The run's own rows, by fold, as the read stage wrote them; knows neither generators nor learners."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import StrataRule
from codsa_ray.domain import Domain
from codsa_ray.fitdata import REGION, ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.groups import Groups
from codsa_ray.layout import PLAIN, Layout
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema
from codsa_ray.seeds import seed_of

FOLD = "_fold"
GROUP = "_group"
UNIT = "_unit"
FINAL = -1
AWAY = -2
"""`_fold` of a row of another domain: trained on in every fold, held out in none."""


@dataclass(frozen=True)
class Rows:
    """Normalised rows and their split.

    Fold f >= 0 trains on every training row outside f and holds f out; FINAL trains on all training rows and holds
    the test rows out. Where there is a target domain, these are rows of it; those of other domains (`away`) have the groups that
    theirs would have, are in no count but `others`, and are trained on in every fold.

    Args:
        folder: the run's `read` folder.
        parts: file names, in row order.
        groups: declared cells.
        schemas: one per fold, then the final one.
        counts: (folds + 2, G) rows per group: of each fold's held-out part, of rows never held out (one hold-out only), of the test part.
        seed: the job's.
        split: folder of the folds and groups, beside the rows: a repeat cuts the same rows anew (stages/recut.py).
        layout: how DATA lies, and so how rows are written.
        domain: the target's, or None where all rows are of it.
        others: (G,) rows of other domains per group.
        left: rows of other domains that are in no group or share a unit with the target's, and so take no part.
    """

    folder: Folder
    parts: tuple[str, ...]
    groups: Groups
    schemas: tuple[Schema, ...]
    counts: tuple[tuple[int, ...], ...]
    seed: int
    split: str = "split"
    layout: Layout = PLAIN
    domain: Domain | None = None
    others: tuple[int, ...] = ()
    left: int = 0

    @property
    def folds(self) -> int:
        """How many folds are scored."""
        return len(self.schemas) - 1

    def schema(self, fold: int) -> Schema:
        """What the fold's training rows showed."""
        return self.schemas[fold if fold >= 0 else self.folds]

    def group_counts(self, fold: int) -> np.ndarray:
        """(G,) int64 training rows of the fold per group."""
        counts = np.array(self.counts, dtype=np.int64)
        return np.asarray(counts[:-1].sum(axis=0) - (counts[fold] if fold >= 0 else 0))

    def folds_of(self, positions: np.ndarray) -> np.ndarray:
        """(n,) int64 the fold that holds each of these training rows out; `folds` or more for one that is never held out."""
        order, found = np.argsort(positions), np.full(len(positions), FINAL, dtype=np.int64)
        ordered = positions[order]
        for part in self.parts:
            place = (self.folder / "rows").read_table(part, [ROW])[ROW].to_numpy()
            mine = np.flatnonzero(np.isin(place, ordered))
            fold = (self.folder / self.split).read_table(part, [FOLD])[FOLD].to_numpy()
            found[order[np.searchsorted(ordered, place[mine])]] = fold[mine]
        return found

    def blocks(self, fold: int, held_out: bool) -> Iterator[pa.Table]:
        """Canonical rows of the fold with `_row` and `_group`."""
        if held_out:
            return self._canonical(fold, lambda split: split[FOLD].to_numpy() == fold)
        return self._canonical(fold, lambda split: (split[FOLD].to_numpy() >= 0) & (split[FOLD].to_numpy() != fold))

    def _canonical(self, fold: int, kept: Callable[[pa.Table], np.ndarray]) -> Iterator[pa.Table]:
        """Rows whose `_fold` and `_group` are `kept`, as the fold's schema has them."""
        schema = self.schema(fold)
        for part in self.parts:
            split = (self.folder / self.split).read_table(part)
            keep = kept(split)
            if not keep.any():
                continue
            rows, split = (self.folder / "rows").read_table(part).filter(pa.array(keep)), split.filter(pa.array(keep))
            table, _ = schema.canonical(rows)
            for name, column in ((ROW, rows[ROW]), *((c, split[c]) for c in split.column_names if c != FOLD)):
                table = table.append_column(name, column)
            yield table

    def held_out(self, fold: int, keep: Callable[[pa.Table], np.ndarray] | None = None) -> pa.Table:
        """The fold's held-out rows (the test rows for FINAL), or those of them to `keep`: the one place where they are scored from."""
        blocks = self.blocks(fold, held_out=True)
        kept = blocks if keep is None else (block.filter(pa.array(keep(block))) for block in blocks)
        return pa.concat_tables(kept).combine_chunks()

    def unseen(self, fold: int, regions: Regions, rule: StrataRule, cap: int) -> pa.Table:
        """About `cap` of the fold's held-out rows at most, with `_region`, small regions kept whole; those in no region are left out."""

        def blocks() -> Iterator[pa.Table]:
            for block in self.blocks(fold, held_out=True):
                region = region_of(block, regions, rule)
                yield block.append_column(REGION, pa.array(region)).filter(pa.array(region >= 0))

        counts = np.sum([np.bincount(block[REGION].to_numpy(), minlength=len(regions)) for block in blocks()], axis=0)
        return FitData(self.schema(fold), regions.counted(counts), seed_of(self.seed, "unseen", fold), blocks).table(cap)

    def training(
        self,
        fold: int,
        regions: Regions,
        rule: StrataRule,
        source: "FitData | None" = None,
        side: Callable[[pa.Table], np.ndarray] | None = None,
    ) -> FitData:
        """The fold's training rows with `_region`; only those of `side` (cut.py) where there is one, which `regions` then count."""

        def blocks() -> Iterator[pa.Table]:
            for block in self.blocks(fold, held_out=False):
                block = block.append_column(REGION, pa.array(region_of(block, regions, rule)))
                yield block if side is None else block.filter(pa.array(side(block)))

        return FitData(self.schema(fold), regions, seed_of(self.seed, "fit", fold), blocks, source)

    def away(self, fold: int, regions: Regions, rule: StrataRule) -> FitData:
        """Rows of the other domains in the regions that theirs would be, with their own counts: the same rows in every fold."""

        def blocks() -> Iterator[pa.Table]:
            for block in self._canonical(fold, lambda split: (split[FOLD].to_numpy() == AWAY) & (split[GROUP].to_numpy() >= 0)):
                yield block.append_column(REGION, pa.array(region_of(block, regions, rule)))

        counts = np.sum([np.bincount(block[REGION].to_numpy(), minlength=len(regions)) for block in blocks()], axis=0)
        return FitData(self.schema(fold), regions.counted(counts), seed_of(self.seed, "other domains"), blocks, aside=self.left)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "parts": list(self.parts),
            "groups": self.groups.to_json(),
            "schemas": [schema.to_json() for schema in self.schemas],
            "counts": [list(row) for row in self.counts],
            "seed": self.seed,
            "split": self.split,
            # Named where it is used, so that encoded rows of runs without it keep their names.
            **({"layout": self.layout.to_json()} if self.layout != PLAIN else {}),
            **({"domain": self.domain.to_json(), "others": list(self.others), "left": self.left} if self.domain else {}),
        }

    @staticmethod
    def from_json(folder: Folder, value: dict[str, Any]) -> "Rows":
        """The inverse of `to_json`."""
        return Rows(
            folder,
            tuple(value["parts"]),
            Groups.from_json(value["groups"]),
            tuple(Schema.from_json(schema) for schema in value["schemas"]),
            tuple(map(tuple, value["counts"])),
            value["seed"],
            value["split"],
            Layout.from_json(value["layout"]) if "layout" in value else PLAIN,
            Domain(**value["domain"]) if "domain" in value else None,
            tuple(value.get("others", ())),
            value.get("left", 0),
        )


def region_of(table: pa.Table, regions: Regions, rule: StrataRule) -> np.ndarray:
    """(n,) int32 region of rows that carry `_group`; -1 where the group is unknown."""
    group = table[GROUP].to_numpy().astype(np.int64)
    stratum = rule.assign(table, group)
    ids = np.full((max(regions.groups, default=0) + 1, rule.strata), -1, dtype=np.int32)
    for index, region in enumerate(regions.items):
        ids[region.group, region.stratum] = index
    return np.asarray(np.where(group >= 0, ids[group, stratum], -1), dtype=np.int32)

"""Regions: group x stratum, what generators condition on and allocators weigh; knows no row."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# Below this share of the rows a deficit is a rounding error of the balance, not a lack.
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Region:
    """One cell of the partition.

    Args:
        name: shown to people and taken by `codsa synthesize --region`.
        group: index into Groups.items.
        stratum: index of the stratum inside the group (0 where there is only one).
        rows: training rows of the fold in it.
        constants: column -> value that every row of the region has (canonical Python values, None for null).
        factors: one level per conditioning factor (label, each group column, predicate, stratum), see Regions.levels.
    """

    name: str
    group: int
    stratum: int
    rows: int
    constants: tuple[tuple[str, Any], ...] = ()
    factors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Regions:
    """The partition of one fold's training rows.

    Args:
        items: the regions, ordered by (group, stratum); a region's index in it is its id in the `_region` column.
        mix: target mix over groups, >= 0, summing to 1.
        levels: how many levels each conditioning factor has.
        measure: what the allocator measured of each on the fold's training rows (`Allocator.measure`); empty where it measures nothing.
        aided: rows of other domains that sizes relative to the rows count beside these (domain.py).
    """

    items: tuple[Region, ...]
    mix: tuple[float, ...]
    levels: tuple[int, ...] = ()
    measure: tuple[float, ...] = ()
    aided: int = field(default=0, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def counts(self) -> np.ndarray:
        """(K,) int64 training rows per region."""
        return np.array([region.rows for region in self.items], dtype=np.int64)

    @property
    def rows(self) -> int:
        """What sizes relative to the rows are relative to."""
        return int(self.counts.sum()) + self.aided

    def counted(self, counts: np.ndarray) -> "Regions":
        """The same regions with other rows in them: counts (K,)."""
        return replace(self, items=tuple(replace(item, rows=int(count)) for item, count in zip(self.items, counts, strict=True)))

    @property
    def groups(self) -> np.ndarray:
        """(K,) int32 group of each region."""
        return np.array([region.group for region in self.items], dtype=np.int32)

    @property
    def group_counts(self) -> np.ndarray:
        """(G,) int64 training rows per group."""
        return np.bincount(self.groups, weights=self.counts, minlength=len(self.mix)).astype(np.int64)

    @property
    def conditions(self) -> tuple[np.ndarray, list[int]]:
        """(K, F) int64 levels of each region's factors, the region itself last, and how many levels each of them has."""
        rows = [(*region.factors, index) for index, region in enumerate(self.items)]
        return np.array(rows, dtype=np.int64), [*self.levels, len(self)]

    @property
    def constant_columns(self) -> tuple[str, ...]:
        """Columns whose value the region fixes; generators draw the others."""
        return tuple(dict(self.items[0].constants)) if self.items else ()

    def labels(self, target: str) -> np.ndarray:
        """(K,) int64 label of each region: the target's value where regions fix it, else its group."""
        values = [dict(item.constants).get(target, item.group) for item in self.items]
        return np.unique(np.array(values, dtype=str), return_inverse=True)[1]

    @property
    def deficits(self) -> np.ndarray:
        """(K,) float64 rows that full balance to the target mix adds to each region (a group's share split by its regions' rows)."""
        counts, mix = self.group_counts.astype(float), np.array(self.mix)
        held = mix > 0
        total = np.max(counts[held] / mix[held])
        # The fullest group's own difference may round to just under 0.
        missing = np.maximum(np.where(held, total * mix - counts, 0.0), 0.0)
        share = self.counts / np.maximum(counts[self.groups], 1)
        return missing[self.groups] * share

    @property
    def shares(self) -> np.ndarray:
        """(K,) float64 target mix over regions: a group's share split by its regions' rows (evenly where it has none)."""
        sizes = np.bincount(self.groups, minlength=len(self.mix))
        rows = self.group_counts[self.groups]
        within = np.where(rows > 0, self.counts / np.maximum(rows, 1), 1.0 / sizes[self.groups])
        shares = np.array(self.mix)[self.groups] * within
        return np.asarray(shares / shares.sum())

    @property
    def lacking(self) -> np.ndarray:
        """(K,) float64 summing to 1: in proportion to deficit x measure; to share x measure where nothing is lacking.

        Without a measure, or where it is 0 wherever rows are lacking, deficits or shares alone.
        """
        deficits = self.deficits
        base = deficits if deficits.sum() > NEGLIGIBLE * self.counts.sum() else self.shares
        weighed = base * np.array(self.measure) / max(self.measure) if any(self.measure) else base
        weighed = weighed if weighed.sum() > 0 else base
        return np.asarray(weighed / weighed.sum())

    @property
    def gap(self) -> float:
        """Rows that full balance to the target mix would add in all."""
        return float(self.deficits.sum())

    def to_json(self) -> dict[str, Any]:
        """Plain data; measure and aid are left out, since no fit depends on them."""
        items = [{**vars(item), "constants": list(map(list, item.constants))} for item in self.items]
        return {"items": items, "mix": list(self.mix), "levels": list(self.levels)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Regions":
        """The inverse of `to_json`, but for measure and aid."""
        items = tuple(
            Region(**{**item, "constants": tuple(map(tuple, item["constants"])), "factors": tuple(item["factors"])})
            for item in value["items"]
        )
        return Regions(items, tuple(value["mix"]), tuple(value["levels"]))

"""Fold-training rows as a fit sees them: canonical tables with their region; knows neither held-out nor test rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.regions import Regions
from codsa_ray.schema import Schema
from codsa_ray.seeds import hash_rows
from codsa_ray.summary import Summary

REGION = "_region"
ROW = "_row"


@dataclass(frozen=True)
class FitData:
    """What a generator or a stratum rule may learn from.

    Args:
        schema: of these rows.
        regions: of these rows, with their counts.
        seed: of everything random in the fit.
        blocks: yields canonical tables (the schema's columns, `_region` int32, `_row` int64 position), in a fixed order.
        source: rows of a related data set to pretrain on, or None.
        aside: rows of the data set that lie in no region and are not among these.
    """

    schema: Schema
    regions: Regions
    seed: int
    blocks: Callable[[], Iterator[pa.Table]]
    source: "FitData | None" = None
    aside: int = 0

    @staticmethod
    def of(table: pa.Table, schema: Schema, regions: Regions, seed: int, source: "FitData | None" = None) -> "FitData":
        """From one canonical table with a `_region` column (`_row` is added when it is missing)."""
        if ROW not in table.column_names:
            table = table.append_column(ROW, pa.array(np.arange(len(table), dtype=np.int64)))
        return FitData(schema, regions, seed, lambda: iter([table]), source)

    def table(self, cap: int | None = None, alike: bool = False) -> pa.Table:
        """All rows, or at most about `cap` of them: regions below their even share are kept whole, the others thinned by row hash.

        Args:
            alike: all regions are thinned alike, so that the rows are a sample of all.
        """
        total = self.regions.counts.sum()
        if cap is None or total <= cap:
            return pa.concat_tables(list(self.blocks())).combine_chunks()
        keep = np.full(len(self.regions), cap / total) if alike else self._shares(cap)
        kept = []
        for block in self.blocks():
            region = block[REGION].to_numpy()
            chance = hash_rows(block[ROW].to_numpy(), self.seed, "cap") / 2.0**64
            kept.append(block.filter(pa.array(chance < keep[region])))
        return pa.concat_tables(kept).combine_chunks()

    def _shares(self, cap: int) -> np.ndarray:
        counts = np.sort(self.regions.counts)
        even = float(cap)
        for index, count in enumerate(counts):
            even = (cap - counts[:index].sum()) / (len(counts) - index)
            if count > even:
                break
        return np.minimum(1.0, even / np.maximum(self.regions.counts, 1))

    def split(self, share: float, least: int = 10, cap: int | None = None) -> tuple[pa.Table, pa.Table]:
        """(train, held_out) for early stopping: of a region of at least `least` rows, the `share` of smallest hash is held out, not all."""
        table = self.table(cap)
        region = table[REGION].to_numpy()
        order = np.lexsort((hash_rows(table[ROW].to_numpy(), self.seed, "early stopping"), region))
        held = np.zeros(len(table), dtype=bool)
        for k in range(len(self.regions)):
            rows = order[region[order] == k]
            if len(rows) >= least:
                held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
        return table.filter(pa.array(~held)), table.filter(pa.array(held))

    def split_by_region(self, share: float, cap: int | None = None) -> tuple[pa.Table, pa.Table]:
        """The same, each sorted by region."""
        train, held_out = (part.sort_by(REGION) for part in self.split(share, cap=cap))
        return train, held_out

    def summary(self) -> Summary:
        """The summary of all rows, the same however they are cut into blocks."""
        total: Summary | None = None
        for block in self.blocks():
            part = Summary.of(block.select([c.name for c in self.schema.columns]), block[ROW].to_numpy())
            total = part if total is None else total.merge(part)
        assert total is not None, "a fit always has rows"
        return total


def known_share(table: pa.Table, column: str, regions: int) -> np.ndarray:
    """(K,) share of each region's rows whose cell of the column is not null; 0 of a region without rows."""
    region, known = table[REGION].to_numpy(), np.asarray(table[column].is_valid())
    return np.bincount(region[known], minlength=regions) / np.maximum(np.bincount(region, minlength=regions), 1)

"""Partition: the regions of a fold and the stratum rule that made them; knows rows only through the fold's training rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from codsa_ray.contracts import Strata, StrataRule
from codsa_ray.regions import Regions
from codsa_ray.rows import GROUP, Rows


@dataclass(frozen=True)
class Partition:
    """Regions of one fold with the rule that assigns rows to them."""

    regions: Regions
    rule: StrataRule


def partition(rows: Rows, strata: Strata, fold: int) -> Partition:
    """Fits the stratum rule on the fold's training rows and counts the regions; only the rule crosses folds, never its vector."""
    schema = rows.schema(fold)
    kinds = {column.name: column.kind for column in schema.columns}
    by_group = rows.group_counts(fold)[:, None]
    whole = rows.groups.regions(by_group, 1, kinds)
    rule = strata.fit(rows.training(fold, whole, _Whole()))
    if rule.strata == 1:
        return Partition(whole, rule)
    counts = np.zeros((len(by_group), rule.strata), dtype=np.int64)
    for block in rows.blocks(fold, held_out=False):
        group = block[GROUP].to_numpy().astype(np.int64)
        known = group >= 0
        np.add.at(counts, (group[known], rule.assign(block, group)[known]), 1)
    return Partition(rows.groups.regions(counts, rule.strata, kinds), rule)


@dataclass(frozen=True)
class _Whole:
    """One stratum per group, for the data a rule is fitted on."""

    strata: int = 1

    def assign(self, table: Any, groups: np.ndarray) -> np.ndarray:
        """(n,) zeros."""
        return np.zeros(len(groups), dtype=np.int32)

    def save(self, folder: Any) -> None:
        """Nothing to write."""

"""Partition: the regions of a fold and the stratum rule that made them; knows rows only through the fold's training rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codsa_ray.contracts import Allocator, Strata, StrataRule
from codsa_ray.cut import Cut, Side, cuts
from codsa_ray.domain import sized
from codsa_ray.errors import PluginError
from codsa_ray.fitdata import FitData
from codsa_ray.groups import Groups
from codsa_ray.regions import Regions
from codsa_ray.rows import GROUP, Rows
from codsa_ray.schema import Schema


@dataclass(frozen=True)
class Partition:
    """Regions of one fold with the rule that assigns rows to them.

    Args:
        regions: with their training rows; of one side, with that side's.
        rule: cuts groups into strata.
        cuts: where training rows are shared between generator and learner.
        side: which of the two this is; None where all training rows are meant.
    """

    regions: Regions
    rule: StrataRule
    cuts: tuple[Cut, ...] = ()
    side: Side | None = None

    def of_generator(self, share: float) -> "Partition":
        """The training rows that a generator of this share learns from; all of them at 1."""
        return self if share == 1 else self._of(Side(self._cut(share), True), np.array(self._cut(share).given))

    def of_learner(self, share: float) -> "Partition":
        """The training rows that are left to the learner; at 1, where they are used twice, all of them."""
        return self if share == 1 else self._of(Side(self._cut(share), False), self.regions.counts - self._cut(share).given)

    def _cut(self, share: float) -> Cut:
        return next(cut for cut in self.cuts if cut.share == share)

    def _of(self, side: Side, counts: np.ndarray) -> "Partition":
        return Partition(self.regions.counted(counts), self.rule, (), side)


def partition(rows: Rows, strata: Strata, fold: int, shares: Sequence[float] = (), allocator: Allocator | None = None) -> Partition:
    """Fits the stratum rule on the fold's training rows and counts the regions; only the rule crosses folds, never its vector.

    Args:
        shares: at which the training rows are cut between generator and learner; 1 cuts nothing.
        allocator: measures the regions, where it is one that does.
    """
    whole = _partition(rows, strata, fold)
    data = rows.training(fold, whole.regions, whole.rule)
    whole = replace(whole, regions=measured(whole.regions, data, allocator))
    shares = [share for share in shares if share < 1]
    if not shares:
        return whole
    return replace(whole, cuts=cuts(data.blocks(), whole.regions.counts, shares, rows.seed))


def measured(regions: Regions, data: FitData, allocator: Allocator | None) -> Regions:
    """The regions with what the allocator measures of each (`Allocator.measure`); as they are for one that measures nothing.

    Args:
        data: the fold's training rows.

    Raises:
        PluginError: it measured something else than a finite number >= 0 per region.
    """
    measure = getattr(allocator, "measure", None)
    if measure is None:
        return regions
    found = np.asarray(measure(data), dtype=np.float64)
    if found.shape != (len(regions),) or not np.isfinite(found).all() or found.min(initial=0) < 0:
        raise PluginError(f"wanted a finite measure >= 0 of each of {len(regions)} regions; got {found}; check the allocator")
    return replace(regions, measure=tuple(map(float, found)))


def _partition(rows: Rows, strata: Strata, fold: int) -> Partition:
    schema = rows.schema(fold)
    kinds = {column.name: column.kind for column in schema.columns}
    by_group, domain = rows.group_counts(fold)[:, None], rows.domain
    fixed = {domain.column: domain.value} if domain else {}
    told: dict[str, Any] = {"mix": drawn_mix(rows.groups, schema), "aided": sized(int(by_group.sum()), sum(rows.others))}
    whole = replace(rows.groups.regions(by_group, 1, kinds, fixed), **told)
    rule = strata.fit(rows.training(fold, whole, _Whole()))
    if rule.strata == 1:
        return Partition(whole, rule)
    counts = np.zeros((len(by_group), rule.strata), dtype=np.int64)
    for block in rows.blocks(fold, held_out=False):
        group = block[GROUP].to_numpy().astype(np.int64)
        known = group >= 0
        np.add.at(counts, (group[known], rule.assign(block, group)[known]), 1)
    return Partition(replace(rows.groups.regions(counts, rule.strata, kinds, fixed), **told), rule)


def drawn_mix(groups: Groups, schema: Schema) -> tuple[float, ...]:
    """The target mix that rows are drawn towards: of usual rows (the first class) where anomalies are to be told, as only those teach."""
    usual = [group.label == schema.classes[0] for group in groups.items] if schema.task == "anomaly" else [True] * len(groups)
    kept = [share if mine else 0.0 for share, mine in zip(groups.mix, usual, strict=True)]
    return tuple(share / sum(kept) for share in kept) if sum(kept) > 0 and not all(usual) else groups.mix


@dataclass(frozen=True)
class _Whole:
    """One stratum per group, for the data a rule is fitted on."""

    strata: int = 1

    def assign(self, table: Any, groups: np.ndarray) -> np.ndarray:
        """(n,) zeros."""
        return np.zeros(len(groups), dtype=np.int32)

    def save(self, folder: Any) -> None:
        """Nothing to write."""

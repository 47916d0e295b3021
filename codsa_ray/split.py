"""Which rows are trained on, held out and tested: exact within groups, by unit, or by plain hash; knows positions, not values."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.rows import FINAL
from codsa_ray.seeds import hash_rows

TEST_SHARE = 0.2
HOLD_OUT_SHARE = 0.2
EXACT_ROWS = 1_000_000
"""Rows that are ranked within their groups at most: about 60 bytes each in the driver. Of more, the smallest groups are."""
# (rows under which, folds): beyond the last, one hold-out.
FOLDS_BY_ROWS = ((20_000, 5), (200_000, 3))


def folds_for(rows: int, smallest: int, asked: int | None, notices: list[str]) -> int:
    """How many folds: as asked or by size, lowered so that the smallest group has two rows a fold (but never under two folds by that)."""
    folds = asked or next((k for limit, k in FOLDS_BY_ROWS if rows < limit), 1)
    most = max(2, smallest // 2)
    if folds > most:
        notices.append(f"{folds} folds lowered to {most}: the smallest group has {smallest} rows")
        folds = most
    return folds


def ranked(counts: np.ndarray) -> np.ndarray:
    """(G,) bool groups whose rows are ranked: all, or the smallest with EXACT_ROWS rows together at most.

    The parts of a group that a hash cuts differ from their exact shares by about the root of its rows, which only small ones feel.

    Args:
        counts: (G,) rows of each group.
    """
    order = np.argsort(counts, kind="stable")
    found = np.zeros(len(counts), dtype=bool)
    found[order] = np.cumsum(counts[order]) <= EXACT_ROWS
    return found


def split_exactly(positions: np.ndarray, group: np.ndarray, folds: int, seed: int, test: bool) -> np.ndarray:
    """Stratified by group, by rank of hash(seed, position) within the group.

    Args:
        positions: (n,) global row positions.
        group: (n,) group of each row.
        folds: K; 1 means one hold-out: fold 0 is held out and fold 1 never.
        seed: the job's.
        test: whether a test part is cut off.

    Returns:
        (n,) int8: FINAL for test rows, else the fold that holds the row out.
    """
    order = np.lexsort((positions, hash_rows(positions, seed, "split"), group))
    counts = np.bincount(group)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = np.arange(len(group)) - starts[group[order]]
    tested = np.maximum(np.round(counts * TEST_SHARE), 1).astype(np.int64) if test else np.zeros(len(counts), dtype=np.int64)
    rest = rank - tested[group]
    if folds == 1:
        held = np.maximum(np.round((counts - tested) * HOLD_OUT_SHARE), 1)[group]
        fold = np.where(rest < held, 0, 1)
    else:
        # Each group starts at its own fold, so that small groups do not all leave their spare rows in fold 0.
        fold = (rest + group) % folds
    return np.where(rest < 0, FINAL, fold).astype(np.int8)


def split_units(positions: np.ndarray, group: np.ndarray, units: np.ndarray, folds: int, seed: int, test: bool) -> tuple[np.ndarray, float]:
    """Whole units, each put where the groups it holds are shortest of rows, units with rare rows first.

    Returns:
        (n,) int8 as `split_exactly`, and the largest deviation of a group's count in a part from its exact share, over the group's rows.
    """
    names, unit = np.unique(units, return_inverse=True)
    shares = _shares(folds, test)
    totals = np.bincount(group).astype(float)
    rarity = np.full(len(names), np.inf)
    np.minimum.at(rarity, unit, totals[group])
    order = np.lexsort((hash_rows(names, seed, "units"), rarity))
    by_unit = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[by_unit], np.arange(len(names) + 1))
    held = np.zeros((len(shares), len(totals)))
    part_of = np.empty(len(names), dtype=np.int64)
    wanted = shares[:, None] * totals[None, :]
    for u in order:
        cells, rows = np.unique(group[by_unit[starts[u] : starts[u + 1]]], return_counts=True)
        before = (held[:, cells] - wanted[:, cells]) / totals[cells]
        cost = ((before + rows / totals[cells]) ** 2 - before**2).sum(axis=1)
        part_of[u] = int(np.argmin(cost))
        held[part_of[u], cells] += rows
    fold = part_of[unit] - (1 if test else 0)
    return fold.astype(np.int8), float(np.max(np.abs(held - wanted) / totals))


def _shares(folds: int, test: bool) -> np.ndarray:
    train = np.array([HOLD_OUT_SHARE, 1 - HOLD_OUT_SHARE]) if folds == 1 else np.full(folds, 1 / folds)
    return np.concatenate([[TEST_SHARE], (1 - TEST_SHARE) * train]) if test else train


@dataclass(frozen=True)
class Split:
    """Where each row goes: by a table of exact folds, or else by a plain hash of the position.

    Args:
        seed: the job's.
        folds: K.
        test: whether a test part is cut off.
        positions, fold: exact folds of these (ascending) positions; None where every row goes by the hash.
    """

    seed: int
    folds: int
    test: bool
    positions: np.ndarray | None = None
    fold: np.ndarray | None = None

    def of(self, positions: np.ndarray) -> np.ndarray:
        """(n,) int8 fold of each row, FINAL for the test part."""
        edges = np.cumsum(_shares(self.folds, self.test))
        part = np.searchsorted(edges[:-1], hash_rows(positions, self.seed, "split") / 2.0**64, side="right")
        fold = (part - (1 if self.test else 0)).astype(np.int8)
        if self.positions is None or self.fold is None or not len(self.positions):
            return np.asarray(fold)
        place = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
        return np.where(self.positions[place] == positions, self.fold[place], fold)

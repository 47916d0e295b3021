"""Which rows an audit looks at: thinned by seed, rare regions kept; knows no measure."""

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import REGION
from codsa_ray.seeds import hash_rows


def region_of(table: pa.Table) -> np.ndarray:
    """(n,) int64 region of each row; one region when the table does not say."""
    if REGION not in table.column_names:
        return np.zeros(len(table), dtype=np.int64)
    return np.asarray(table[REGION].to_numpy(), dtype=np.int64)


def even(counts: np.ndarray, cap: int) -> np.ndarray:
    """(K,) the most level counts that stay within `counts` and sum to at most `cap`: small regions are kept whole."""
    counts = np.asarray(counts, dtype=np.int64)
    if counts.sum() <= cap:
        return counts
    left, level = cap, 0
    ordered = np.sort(counts)
    for index, count in enumerate(ordered):
        level = left // (len(ordered) - index)
        if count > level:
            break
        left -= int(count)
    return np.minimum(counts, level)


def pick(region: np.ndarray, counts: np.ndarray, seed: int, use: str) -> np.ndarray:
    """Positions, ascending, of counts[k] rows of each region k: those with the smallest seeded hash of their position."""
    order = np.lexsort((hash_rows(np.arange(len(region)), seed, "audit", use), region))
    start = np.searchsorted(region[order], np.arange(len(counts)))
    chosen = [order[start[k] : start[k] + count] for k, count in enumerate(counts)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)


def thin(table: pa.Table, cap: int, seed: int, use: str) -> pa.Table:
    """At most `cap` rows, regions as level as their rows allow."""
    region = region_of(table)
    if len(table) <= cap:
        return table
    return table.take(pa.array(pick(region, even(np.bincount(region), cap), seed, use)))


def mixed_like(region: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(n,) weights, mean 1 over rows that count, that give `region`'s rows the region shares of `wanted`'s rows.

    Drawn rows sit where data are rare. Without these weights every measure would report that difference of mix.
    Regions without wanted rows weigh 0.
    """
    k = int(max(region.max(initial=0), wanted.max(initial=0))) + 1
    have, want = np.bincount(region, minlength=k), np.bincount(wanted, minlength=k)
    weight = (want / np.maximum(have, 1))[region]
    return weight * (np.count_nonzero(weight) / weight.sum()) if weight.sum() > 0 else weight

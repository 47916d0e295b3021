"""Privacy: are drawn rows closer to training rows than fresh real rows are?; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.copies import copies
from codsa_ray.audit.nearest import Space
from codsa_ray.audit.picks import even, mixed_like, pick, region_of, thin
from codsa_ray.schema import Schema

MOST_POINTS = 10_000
MOST_QUERIES = 2_000


def privacy(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any]:
    """Three signs that drawn rows repeat training rows, each against what held-out rows show.

    Distances are `Space`'s. Held-out rows are weighted to the drawn rows' regions. Rows beyond 10,000 training and 2,000 drawn rows are
    left out by seed, rare regions last. Where `real` is a sample, distances are to the sample; copies of other rows are known by `_copy`
    (copies.py).

    Args:
        real: canonical training rows with `_region`.
        held_out: canonical rows nothing was fitted on, with `_region` (without it, all count as one region).
        drawn: canonical drawn rows with `_region`.

    Returns:
        dcr_ratio: median distance of drawn rows to their nearest training row over that of held-out rows (1: as far as
        fresh real rows; towards 0: copies; None: held-out rows are at no distance themselves or there are none);
        closer_share: share of drawn rows nearer to training rows than to as many held-out rows of each region (0.5 is no sign of copying);
        copies, copies_held_out: shares of rows that equal a training row in every column; rows: drawn rows looked at for copies;
        points: training rows that distances are to.
    """
    if len(real) == 0 or len(drawn) == 0:
        return {}
    if "_region" not in held_out.column_names:
        real, drawn = (t.drop_columns("_region") if "_region" in t.column_names else t for t in (real, drawn))
    space, queries = Space.of(real, schema), thin(drawn, MOST_QUERIES, seed, "queries")
    points = thin(real, MOST_POINTS, seed, "points")
    weight = mixed_like(region_of(held_out), region_of(drawn))
    return {
        "dcr_ratio": _ratio(space, points, held_out, queries, seed),
        "closer_share": _closer(space, real, held_out, queries, seed),
        "copies": float(copies(drawn, real, schema).mean()),
        "copies_held_out": _share(copies(held_out, real, schema), weight),
        "rows": len(drawn),
        "points": len(points),
    }


def _ratio(space: Space, points: pa.Table, held_out: pa.Table, queries: pa.Table, seed: int) -> float | None:
    fresh = thin(held_out, MOST_QUERIES, seed, "fresh")
    weight = mixed_like(region_of(fresh), region_of(queries))
    if weight.sum() == 0:
        return None
    # A region that held no test row cannot be compared, so its drawn rows are left out of the ratio as well.
    known = queries.filter(pa.array(np.isin(region_of(queries), region_of(fresh))))
    theirs = weighted_median(space.nearest(fresh, points)[1], weight)
    return float(np.median(space.nearest(known, points)[1]) / theirs) if theirs > 0 else None


def _closer(space: Space, real: pa.Table, held_out: pa.Table, queries: pa.Table, seed: int) -> float | None:
    """Ties count half."""
    first, second = region_of(real), region_of(held_out)
    k = int(max(first.max(initial=0), second.max(initial=0))) + 1
    both = even(np.minimum(np.bincount(first, minlength=k), np.bincount(second, minlength=k)), MOST_POINTS // 2)
    if both.sum() == 0:
        return None
    sides = real.take(pa.array(pick(first, both, seed, "closer"))), held_out.take(pa.array(pick(second, both, seed, "closer")))
    mine, theirs = (space.nearest(queries, side)[1] for side in sides)
    return float(((mine < theirs) + 0.5 * (mine == theirs)).mean())


def weighted_median(values: np.ndarray, weight: np.ndarray) -> float:
    """The value at which half of the weight is reached; the middle of two where a half is hit exactly."""
    order = np.argsort(values, kind="stable")
    mass = np.cumsum(weight[order]) / weight.sum()
    low, high = np.searchsorted(mass, [0.5 - 1e-12, 0.5 + 1e-12])
    return float((values[order][low] + values[order][min(high, len(values) - 1)]) / 2)


def _share(marks: np.ndarray, weight: np.ndarray) -> float | None:
    return float(np.average(marks, weights=weight)) if weight.sum() > 0 else None

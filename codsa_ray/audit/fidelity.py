"""Fidelity: how like real rows the drawn ones are, column by column, pair by pair and row by row; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.association import association
from codsa_ray.audit.columns import compared
from codsa_ray.audit.marginals import marginal
from codsa_ray.audit.picks import mixed_like, region_of, thin
from codsa_ray.audit.two_sample import two_sample
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

MOST_ROWS = 10_000
MOST_TESTED = 8


def fidelity(real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int) -> dict[str, Any]:
    """Distances between real and drawn rows, real rows weighted to the drawn rows' regions.

    Args:
        real: canonical training rows with `_region`.
        drawn: canonical drawn rows with `_region`.
        seed: of which rows are looked at beyond 10,000 a side, rare regions being kept whole first.

    Returns:
        {columns: marginal distances and histograms, correlation, c2st, regions: [{name, real, drawn, distance, c2st}]};
        empty when one side has no rows.
    """
    if len(real) == 0 or len(drawn) == 0:
        return {}
    counts = [np.bincount(region_of(table), minlength=len(regions)) for table in (real, drawn)]
    real, drawn = thin(real, MOST_ROWS, seed, "real"), thin(drawn, MOST_ROWS, seed, "drawn")
    weight = mixed_like(region_of(real), region_of(drawn))
    if weight.sum() == 0:
        return {}
    return {
        "columns": [marginal(real, weight, drawn, column) for column in compared(schema)],
        "correlation": association(real, weight, drawn, schema),
        "c2st": two_sample(real, drawn, schema, seed),
        "regions": _by_region(real, drawn, schema, regions, counts, seed),
    }


def _by_region(
    real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, counts: list[np.ndarray], seed: int
) -> list[dict[str, Any]]:
    """One line per region that has drawn rows, rarest first; the two-sample test for the rarest few that have the rows for it."""
    first, second = region_of(real), region_of(drawn)
    found, tested = [], 0
    for k in np.argsort(counts[0], kind="stable"):
        mine, theirs = real.filter(pa.array(first == k)), drawn.filter(pa.array(second == k))
        if len(theirs) == 0:
            continue
        test = two_sample(mine, theirs, schema, seed) if tested < MOST_TESTED else None
        tested += test is not None
        found.append(
            {
                "name": regions.items[k].name,
                "real": int(counts[0][k]),
                "drawn": int(counts[1][k]),
                "distance": _mean_distance(mine, theirs, schema),
                "c2st": test,
            }
        )
    return found


def _mean_distance(real: pa.Table, drawn: pa.Table, schema: Schema) -> float | None:
    if len(real) == 0:
        return None
    return float(np.mean([marginal(real, np.ones(len(real)), drawn, column)["distance"] for column in compared(schema)]))

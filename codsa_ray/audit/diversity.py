"""Diversity: how many different rows were drawn and how evenly their values are spread; knows no generator.

What Nguyen et al. 2025 (ImbLLM) mean by it: distinct rows, the entropy of columns, and how far drawn rows are from real ones.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.columns import ORDERED, compared, named, ordered
from codsa_ray.audit.nearest import Space
from codsa_ray.audit.picks import thin
from codsa_ray.schema import Column, Schema

CELLS = 20
"""Quantiles of real values that ordered columns are cut at."""
MOST = 2_000


def diversity(real: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any]:
    """Distinct rows, entropy and distance, each beside what real rows show.

    Args:
        real, drawn: canonical rows, of one region or alike mixed; at most 2,000 of each are looked at for distances.

    Returns:
        distinct, distinct_real: shares of rows that differ from all others before them (real ones: as many as there are);
        entropy, entropy_real: mean over columns, in nats, of the entropy of categories or of twentieths of the real values, nulls one more;
        columns: [{name, drawn, real}] of the same; distance: median Gower-like distance of a drawn row to its nearest real row (DCR);
        distance_real: that of a real row to its nearest other. Empty when a side has fewer than two rows.
    """
    if len(real) < 2 or len(drawn) < 2:
        return {}
    columns = [_entropies(real, drawn, column) for column in compared(schema)]
    space, points = Space.of(real, schema), thin(real, MOST, seed, "points")
    halves = points.slice(0, len(points) // 2), points.slice(len(points) // 2)
    apart = np.concatenate([space.nearest(a, b)[1] for a, b in (halves, halves[::-1])])
    return {
        "distinct": _distinct(drawn, schema),
        "distinct_real": _distinct(real, schema),
        "entropy": float(np.mean([column["drawn"] for column in columns])) if columns else 0.0,
        "entropy_real": float(np.mean([column["real"] for column in columns])) if columns else 0.0,
        "columns": columns,
        # To half of the real rows, as theirs is to the other half: a distance falls with the rows there are.
        "distance": float(np.median(space.nearest(thin(drawn, MOST, seed, "queries"), halves[0])[1])),
        "distance_real": float(np.median(apart)),
    }


def _distinct(table: pa.Table, schema: Schema) -> float:
    names = [column.name for column in schema.columns]
    return len(table.select(names).group_by(names).aggregate([])) / len(table) if names else 1 / len(table)


def _entropies(real: pa.Table, drawn: pa.Table, column: Column) -> dict[str, Any]:
    found = []
    known = ordered(real, column) if column.kind in ORDERED else np.zeros(0)
    known = known[~np.isnan(known)]
    cuts = np.unique(np.quantile(known, np.arange(1, CELLS) / CELLS)) if len(known) else np.zeros(0)
    for table in (drawn, real):
        if column.kind in ORDERED:
            values = ordered(table, column)
            codes = np.where(np.isnan(values), -1, np.searchsorted(cuts, values, side="right"))
        else:
            codes = named(table, column)[0]
        share = np.unique(codes, return_counts=True)[1] / len(codes)
        found.append(float(-(share * np.log(share)).sum()))
    return {"name": column.name, "drawn": found[0], "real": found[1]}

"""How strongly pairs of columns hang together, in real and in drawn rows; one measure for every kind of pair."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.columns import ORDERED, compared, named, ordered
from codsa_ray.schema import Column, Schema

CUTS = 6
MOST_LEVELS = 12
MOST_COLUMNS = 64


def association(real: pa.Table, weight: np.ndarray, drawn: pa.Table, schema: Schema) -> dict[str, Any]:
    """Cramer's V of every pair of columns, corrected for chance (Bergsma 2013), ordered columns cut at real sextiles, nulls as a level.

    One measure serves every pair of kinds and sees bent relations too; it has no sign. At most 64 columns take part, the first.

    Args:
        real, drawn: canonical rows.
        weight: (n,) of the real rows.

    Returns:
        {names, real: (d, d), drawn: (d, d), error: mean absolute difference over pairs, or None with fewer than two columns}.
    """
    columns = compared(schema)[:MOST_COLUMNS]
    pairs = [_levels(real, drawn, column) for column in columns]
    first = matrix([a for a, _ in pairs], weight).round(4)
    second = matrix([b for _, b in pairs], np.ones(len(drawn))).round(4)
    upper = np.triu_indices(len(columns), 1)
    error = float(np.abs(first - second)[upper].mean()) if len(columns) > 1 else None
    return {"names": [c.name for c in columns], "real": first.tolist(), "drawn": second.tolist(), "error": error}


def _levels(real: pa.Table, drawn: pa.Table, column: Column) -> tuple[np.ndarray, np.ndarray]:
    if column.kind not in ORDERED:
        return _few(named(real, column)[0]), _few(named(drawn, column)[0])
    a, b = ordered(real, column), ordered(drawn, column)
    known = a[~np.isnan(a)]
    edges = np.unique(np.quantile(known, np.arange(1, CUTS) / CUTS)) if len(known) else np.zeros(0)
    return _cut(a, edges), _cut(b, edges)


def _few(codes: np.ndarray) -> np.ndarray:
    return np.minimum(codes, MOST_LEVELS - 2) + 1


def _cut(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    # A column that is mostly one value (a pixel at 0) has that value as an edge: it must fall on one side, alone if it is the least.
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(edges, values, side="left"))


def matrix(codes: list[np.ndarray], weight: np.ndarray) -> np.ndarray:
    """(d, d) corrected Cramer's V of columns of level codes; 1 on the diagonal, 0 where a column has one level only."""
    sizes = [int(c.max(initial=0)) + 1 for c in codes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    marks = np.zeros((len(weight), int(starts[-1])))
    for start, code in zip(starts, codes, strict=False):
        marks[np.arange(len(code)), start + code] = 1.0
    joint = marks.T @ (marks * weight[:, None])
    rows = weight.sum() ** 2 / max((weight**2).sum(), np.finfo(float).tiny)
    result = np.eye(len(codes))
    for i in range(len(codes)):
        for j in range(i + 1, len(codes)):
            block = joint[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
            result[i, j] = result[j, i] = cramer(block, rows)
    return result


def cramer(table: np.ndarray, rows: float) -> float:
    """Cramer's V of a contingency table of shares or weights that rest on `rows` independent rows, corrected for chance."""
    share = table / max(table.sum(), np.finfo(float).tiny)
    share = share[share.sum(axis=1) > 0][:, share.sum(axis=0) > 0]
    r, c = share.shape
    if min(r, c) < 2 or rows <= 2:
        return 0.0
    expected = np.outer(share.sum(axis=1), share.sum(axis=0))
    phi2 = float(((share - expected) ** 2 / expected).sum())
    phi2 = max(0.0, phi2 - (r - 1) * (c - 1) / (rows - 1))
    least = min(r - (r - 1) ** 2 / (rows - 1), c - (c - 1) ** 2 / (rows - 1)) - 1
    return float(min(1.0, np.sqrt(phi2 / least))) if least > 0 else 0.0

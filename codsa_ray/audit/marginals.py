"""How far one column of drawn rows is from the same column of real rows; knows one column at a time."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.columns import ORDERED, named, ordered
from codsa_ray.schema import Column

BINS = 16
MOST_LABELS = 10


def marginal(real: pa.Table, weight: np.ndarray, drawn: pa.Table, column: Column) -> dict[str, Any]:
    """Distance and histogram of one column.

    Args:
        real, drawn: canonical rows.
        weight: (n,) of the real rows.

    Returns:
        {name, kind, distance in [0, 1], bins: labels, real: shares, drawn: shares}. The distance is Kolmogorov-Smirnov's for
        ordered columns, nulls counted as one value below all others, and total variation for categories, nulls being one.
    """
    equal = np.ones(len(drawn))
    if column.kind in ORDERED:
        a, b = ordered(real, column), ordered(drawn, column)
        distance = kolmogorov(_null_first(a), weight, _null_first(b), equal)
        edges, labels = _edges(np.concatenate([a[weight > 0], b]), a[weight > 0], column.kind)
        codes, other = _binned(a, edges), _binned(b, edges)
    else:
        (codes, labels), (other, _) = named(real, column), named(drawn, column)
        distance = 0.5 * float(np.abs(_shares(codes, weight, len(labels)) - _shares(other, equal, len(labels))).sum())
    shares = _shares(codes, weight, len(labels)), _shares(other, equal, len(labels))
    labels, first, second = _shown([*labels, "null"], *shares, keep=len(labels) if column.kind in ORDERED else MOST_LABELS)
    return {"name": column.name, "kind": column.kind, "distance": distance, "bins": labels, "real": first, "drawn": second}


def kolmogorov(a: np.ndarray, a_weight: np.ndarray, b: np.ndarray, b_weight: np.ndarray) -> float:
    """The largest difference between two weighted empirical distribution functions."""
    points = np.unique(np.concatenate([a, b]))
    return float(np.abs(_below(a, a_weight, points) - _below(b, b_weight, points)).max(initial=0.0))


def _below(values: np.ndarray, weight: np.ndarray, points: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    mass = np.concatenate([[0.0], np.cumsum(weight[order])])
    return np.asarray(mass[np.searchsorted(values[order], points, side="right")] / mass[-1])


def _null_first(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -np.inf, values)


def _edges(every: np.ndarray, real: np.ndarray, kind: str) -> tuple[np.ndarray, list[str]]:
    """Inner edges of the histogram and a label per bin: one bin per value where values are few, else equal widths, open at both ends."""
    values = np.unique(every[~np.isnan(every)])
    if len(values) <= BINS:
        return (values[1:] + values[:-1]) / 2, [_label(v, kind, 0.0) for v in values]
    known = real[~np.isnan(real)] if np.any(~np.isnan(real)) else values
    low, high = np.quantile(known, [0.01, 0.99])
    low, high = (low, high) if high > low else (values[0], values[-1])
    cuts = np.linspace(low, high, BINS + 1)
    cuts = np.unique(np.round(cuts)) if kind == "integer" else cuts
    width = cuts[1] - cuts[0]
    labels = [f"{_label(a, kind, width)} to {_label(b, kind, width)}" for a, b in pairwise(cuts)]
    labels[0], labels[-1] = f"up to {_label(cuts[1], kind, width)}", f"{_label(cuts[-2], kind, width)} and up"
    return cuts[1:-1], labels


def _label(value: float, kind: str, width: float) -> str:
    if kind == "datetime":
        stamp = str(np.datetime64(int(value), "us"))
        return stamp[:10] if width >= 86_400_000_000 or stamp.endswith("T00:00:00.000000") else stamp[:16].replace("T", " ")
    return f"{value:.0f}" if kind == "integer" else f"{value:.4g}"


def _binned(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))


def _shares(codes: np.ndarray, weight: np.ndarray, labels: int) -> np.ndarray:
    """(labels + 1,) shares; nulls (code -1) come last."""
    mass = np.bincount(np.where(codes < 0, labels, codes), weights=weight, minlength=labels + 1)
    return np.asarray(mass / max(mass.sum(), np.finfo(float).tiny))


def _shown(labels: list[str], real: np.ndarray, drawn: np.ndarray, keep: int) -> tuple[list[str], list[float], list[float]]:
    """The first `keep` labels that occur, the others as one, and nulls."""
    *body, null = range(len(labels))
    there = [i for i in body if real[i] + drawn[i] > 0]
    if len(there) > keep:
        there = sorted(sorted(there, key=lambda i: -real[i] - drawn[i])[:keep])
    rest = [i for i in body if i not in set(there)]
    rows = [(labels[i], float(real[i]), float(drawn[i])) for i in there]
    if real[rest].sum() + drawn[rest].sum() > 0:
        rows.append((f"{sum(bool(real[i] + drawn[i] > 0) for i in rest)} others", float(real[rest].sum()), float(drawn[rest].sum())))
    if real[null] + drawn[null] > 0:
        rows.append((labels[null], float(real[null]), float(drawn[null])))
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]

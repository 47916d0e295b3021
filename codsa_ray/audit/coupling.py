"""Coupling: whether the table, the pictures and the texts of a drawn row belong to each other; knows no generator.

A classifier learns to tell true pairs of real rows (a row's picture and its text) from pairs shuffled inside the region, so that what the
region says of both does not count; its log-odds estimate ln p(a, b) / p(a) p(b) there (Gutmann & Hyvarinen 2010). Rows that it has not
seen, drawn rows, and drawn rows shuffled (what independent draws would be) are then judged alike: by the area under its ROC curve, by how
often a row's own partner is likeliest among CANDIDATES, and by the mutual information that follows (van den Oord et al. 2018: a lower
bound, ln CANDIDATES at most).

Each side is its AXES leading principal components and the classifier is bilinear in them: what it cannot see it does not count, on either
side alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from codsa_ray.audit.picks import region_of, thin
from codsa_ray.audit.texts import vectors
from codsa_ray.encode import OneHot
from codsa_ray.picture import decoded, fitted
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of

TABLE = "table"
MOST_ROWS, LEAST_ROWS = 4000, 100
"""Rows looked at of each side; with fewer nothing is said."""
AXES = 16
SLOTS, SIDE = 512, 8
"""Of a text's vector; of the grey square that a picture is looked at as."""
SHUFFLES = 3
"""Shuffled pairs for each true one that the classifier learns from."""
CANDIDATES = 20
PENALTY = 0.03
"""Inverse of the ridge penalty on the classifier's coefficients, of inputs of unit variance."""

Look = Callable[[pa.Table], np.ndarray]
"""Rows to (n, d) numbers."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Leading principal components, of unit variance: (d,) mean and (d, k) directions."""

    middle: np.ndarray
    directions: np.ndarray

    @staticmethod
    def of(values: np.ndarray) -> "Axes":
        """Of (n, d) numbers; directions that hardly move are left out."""
        middle = values.mean(axis=0)
        _, lengths, directions = np.linalg.svd(values - middle, full_matrices=False)
        # A constant's distance from its own mean is what rounding leaves.
        least = max(1e-3 * float(lengths[0]), 1e-9 * float(np.linalg.norm(values)))
        kept = min(AXES, int((lengths > least).sum()))
        return Axes(middle, directions[:kept].T * (np.sqrt(len(values)) / lengths[:kept]))

    def along(self, values: np.ndarray) -> np.ndarray:
        """(n, k)."""
        return np.asarray((values - self.middle) @ self.directions)


def coupling(real: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> list[dict[str, Any]]:
    """What is told of each two modalities (the table's columns together, each picture and each text).

    Args:
        real, drawn: canonical rows with `_region`.
        schema: of both.
        seed: of which rows are looked at, of shuffles and of candidates.

    Returns:
        [{a, b, real, drawn, independent}], each of the last three {auc, retrieved, information}: of real rows that the classifier has not
        seen, of drawn rows, of drawn rows whose modalities are shuffled inside their region. Chances of independent modalities: .5, 1 /
        CANDIDATES, 0. Empty with one modality that varies, or with fewer than LEAST_ROWS rows.
    """
    real, drawn = thin(real, MOST_ROWS, seed, "coupling"), thin(drawn, MOST_ROWS, seed, "coupling")
    if min(len(real), len(drawn)) < LEAST_ROWS:
        return []
    order = rng_of(seed, "coupling", "split").permutation(len(real))
    learned, fresh = (real.take(pa.array(np.sort(part))) for part in np.split(order, [2 * len(real) // 3]))
    looks = _looks(learned, schema)
    seen = {name: Axes.of(look(learned)) for name, look in looks.items()} if len(looks) > 1 else {}
    # What is the same in every row belongs to each as much as to any other.
    seen = {name: axes for name, axes in seen.items() if axes.directions.shape[1]}
    sides = {name: [axes.along(looks[name](table)) for table in (learned, fresh, drawn)] for name, axes in seen.items()}
    regions = [region_of(table) for table in (learned, fresh, drawn)]
    return [{"a": a, "b": b, **_pair(sides[a], sides[b], regions, seed)} for a, b in combinations(sides, 2)]


def coupled(real: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any]:
    """{coupled, coupled_real} mean AUC over pairs of drawn rows and of real ones, None with few rows; {} with one modality."""
    if not any(column.kind in ("text", "image") for column in schema.columns):
        return {}
    pairs = coupling(real, drawn, schema, seed)
    sides = (("coupled", "drawn"), ("coupled_real", "real"))
    return {key: float(np.mean([pair[side]["auc"] for pair in pairs])) if pairs else None for key, side in sides}


def _pair(a: list[np.ndarray], b: list[np.ndarray], regions: list[np.ndarray], seed: int) -> dict[str, Any]:
    random = rng_of(seed, "coupling", "pairs")
    with threadpool_limits(1):
        weights = _learned(a[0], b[0], regions[0], random)
    apart = b[2][shuffled(regions[2], random)]
    judged = {"real": (a[1], b[1], regions[1]), "drawn": (a[2], b[2], regions[2]), "independent": (a[2], apart, regions[2])}
    return {name: _judged(*side, weights, random) for name, side in judged.items()}


def _learned(a: np.ndarray, b: np.ndarray, region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(k, l) coefficients W of log-odds a' W b that a pair is a true one."""
    others = [_crossed(a, b[shuffled(region, random)]) for _ in range(SHUFFLES)]
    X = np.vstack([_crossed(a, b), *others])
    y = np.repeat([1, 0], [len(a), SHUFFLES * len(a)])
    model = LogisticRegression(C=PENALTY, max_iter=500).fit(X, y, sample_weight=np.where(y == 1, 1.0, 1 / SHUFFLES))
    return np.asarray(model.coef_.reshape(a.shape[1], b.shape[1]))


def _judged(a: np.ndarray, b: np.ndarray, region: np.ndarray, weights: np.ndarray, random: np.random.Generator) -> dict[str, float]:
    asked = a @ weights
    true = np.sum(asked * b, axis=1)
    false = np.stack([np.sum(asked * b[shuffled(region, random)], axis=1) for _ in range(CANDIDATES - 1)], axis=1)
    auc = roc_auc_score(np.repeat([1, 0], [len(true), len(true)]), np.concatenate([true, false[:, 0]]))
    # A candidate that is the row's own partner again, or its equal, is no better than a coin's throw.
    rank = (false > true[:, None]).sum(1) + 0.5 * (false == true[:, None]).sum(1)
    scores = np.column_stack([true, false])
    top = scores.max(axis=1)
    information = true - top - np.log(np.exp(scores - top[:, None]).mean(axis=1))
    return {"auc": float(auc), "retrieved": float((rank < 1).mean()), "information": float(information.mean())}


def shuffled(region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(n,) positions: another order of the rows of each region, none in its own place where a region has two rows or more."""
    order = np.lexsort((random.random(len(region)), region))
    first = np.searchsorted(region[order], region[order], "left")
    many = np.searchsorted(region[order], region[order], "right") - first
    # Each row of a random order is given the next one's partner.
    partner = order[first + (np.arange(len(order)) - first + 1) % many]
    found = np.empty(len(region), dtype=np.int64)
    found[order] = partner
    return found


def _crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), -1)


def _looks(real: pa.Table, schema: Schema) -> dict[str, Look]:
    """What each modality is looked at as; learned from real rows."""
    coded = [column for column in schema.columns if column.kind in ("text", "image")]
    plain = tuple(column for column in schema.columns if column not in coded)
    found: dict[str, Look] = {}
    if any(len(real[column.name].unique()) > 1 for column in plain):
        # A target is a column like any other here.
        columns = OneHot.learn(real, replace(schema, columns=plain, target="", hidden=()))
        found[TABLE] = lambda table: _bent(columns.encode(table).astype(np.float64))
    for column in coded:
        if column.kind == "text":
            found[column.name] = lambda table, column=column: vectors(table, column, SLOTS).astype(np.float64)  # type: ignore[misc]
        else:
            found[column.name] = lambda table, name=column.name: _greys(table, name)  # type: ignore[misc]
    return {name: look for name, look in found.items() if name == TABLE or real[name].null_count < len(real)}


def _bent(values: np.ndarray) -> np.ndarray:
    """Numbers and their squares, so that a middle differs from both ends."""
    return np.hstack([values, np.minimum(values**2, 9.0)])


def _greys(table: pa.Table, name: str) -> np.ndarray:
    """(n, SIDE^2) shares of white; a null is black."""
    found = np.zeros((len(table), SIDE * SIDE))
    for row, picture in enumerate(table[name].to_pylist()):
        if picture is not None:
            found[row] = fitted(decoded(picture, 1), SIDE, SIDE).ravel() / 255
    return found

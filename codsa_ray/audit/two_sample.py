"""Classifier two-sample test: can a boosted classifier tell real rows from drawn ones?; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa
import xgboost as xgb
from sklearn.metrics import roc_auc_score

from codsa_ray.audit.columns import ORDERED, compared, named, ordered
from codsa_ray.audit.images import CELLS, contrasts, images
from codsa_ray.audit.picks import even, pick, region_of
from codsa_ray.audit.texts import texts, vectors, words
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of

FOLDS = 5
TREES = 60
# One thread: the trees must not depend on how many cores the machine has.
BOOSTED = {"objective": "binary:logistic", "tree_method": "hist", "max_depth": 5, "eta": 0.1, "min_child_weight": 3, "nthread": 1}
SLOTS = 64  # that the words of a text column fall into
LEAST = 50
MOST = 5_000
MOST_CATEGORIES = 250


def two_sample(real: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any] | None:
    """Cross-fitted AUC (Lopez-Paz & Oquab 2017) of telling as many real as drawn rows of each region apart.

    0.5: it cannot; 1: always; well under 0.5: drawn rows repeat real ones, whose label the classifier has learned.

    Args:
        real, drawn: canonical rows with `_region`.

    Returns:
        {auc, se (Hanley & McNeil 1982), rows of each side}, or None with fewer than 50 rows a side.
    """
    first, second = region_of(real), region_of(drawn)
    k = int(max(first.max(initial=0), second.max(initial=0))) + 1
    both = even(np.minimum(np.bincount(first, minlength=k), np.bincount(second, minlength=k)), MOST)
    rows = int(both.sum())
    if rows < LEAST:
        return None
    tables = real.take(pa.array(pick(first, both, seed, "c2st"))), drawn.take(pa.array(pick(second, both, seed, "c2st")))
    X = np.vstack([_encoded(table, schema) for table in tables])
    y = np.repeat([0, 1], rows)
    auc = float(roc_auc_score(y, _cross_fitted(X, y, _types(schema), seed)))
    return {"auc": auc, "se": auc_error(auc, rows), "rows": rows}


def _types(schema: Schema) -> list[str]:
    known = ["q" if c.kind in ORDERED or len(c.categories) > MOST_CATEGORIES else "c" for c in compared(schema)]
    return known + ["q"] * ((SLOTS + 1) * len(texts(schema)) + 4 * CELLS * CELLS * len(images(schema)))


def _encoded(table: pa.Table, schema: Schema) -> np.ndarray:
    columns = []
    for column in compared(schema):
        if column.kind in ORDERED:
            columns.append(ordered(table, column))
        else:
            codes = named(table, column)[0]
            columns.append(np.where(codes < 0, np.nan, codes.astype(np.float64)))
    for column in texts(schema):
        columns += [words(table, column), *vectors(table, column, SLOTS).T]
    for column in images(schema):
        columns += [*contrasts(table, column).T]
    return np.column_stack(columns)


def _cross_fitted(X: np.ndarray, y: np.ndarray, types: list[str], seed: int) -> np.ndarray:
    fold = folds(y, FOLDS, seed)
    scores = np.zeros(len(y))
    for k in range(FOLDS):
        train, test = (xgb.DMatrix(X[rows], y[rows], feature_types=types, nthread=1) for rows in (fold != k, fold == k))
        scores[fold == k] = xgb.train(BOOSTED, train, TREES).predict(test)
    return scores


def folds(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(n,) fold of each row, every fold with its share of either side."""
    fold = np.empty(len(y), dtype=np.int64)
    rng = rng_of(seed, "c2st folds")
    for label in (0, 1):
        mine = rng.permutation(np.flatnonzero(y == label))
        fold[mine] = np.arange(len(mine)) % count
    return fold


def auc_error(auc: float, rows: int) -> float:
    """Standard error of an AUC of as many rows a side (Hanley & McNeil 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    return float(np.sqrt((auc * (1 - auc) + (rows - 1) * (q1 + q2 - 2 * auc**2)) / rows**2))

"""Texts as vectors that an audit can compare, hashed words, and drawn ones beside the real ones like them; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.picks import pick, region_of, thin
from codsa_ray.embedding import hashed
from codsa_ray.regions import Regions
from codsa_ray.schema import Column, Schema
from codsa_ray.words import words as words_of

SLOTS = 2048
MOST_REAL = 10_000
MOST_REGIONS, PER_REGION = 6, 3
MOST_COLUMNS = 3
MOST_SHOWN = 600  # characters


def texts(schema: Schema) -> tuple[Column, ...]:
    """The text columns."""
    return tuple(column for column in schema.columns if column.kind == "text")


def vectors(table: pa.Table, column: Column, slots: int) -> np.ndarray:
    """(n, slots) float32 of length 1: 1 + log of how often words fall into each slot (hashing trick: Weinberger et al. 2009).

    A null, and a text without a word, is all 0.
    """
    found = hashed(table[column.name].to_pylist(), slots).toarray().astype(np.float32)
    np.log1p(found, out=found)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, length, out=found, where=length > 0)


def words(table: pa.Table, column: Column) -> np.ndarray:
    """(n,) float64 how many words each text has; null is NaN."""
    counts = [np.nan if text is None else float(len(words_of(text))) for text in table[column.name].to_pylist()]
    return np.array(counts, dtype=np.float64)


def beside(real: pa.Table, drawn: pa.Table, schema: Schema, regions: Regions, seed: int, rows: bool = True) -> list[dict[str, Any]]:
    """Drawn texts of the rarest regions beside the training text with the most like words, of any region.

    Args:
        real, drawn: canonical rows with `_region`.
        rows: False leaves real texts out; distances stay.

    Returns:
        Per column {column, regions: [{name, rows: [{drawn, nearest, distance}]}]}; distance is one less the cosine of their words, 0 to 1;
        texts are cut after MOST_SHOWN characters.
    """
    if len(real) == 0 or len(drawn) == 0:
        return []
    points = thin(real, MOST_REAL, seed, "texts' points")
    mine = region_of(drawn)
    rarest = [int(k) for k in np.argsort(regions.counts, kind="stable") if (mine == k).any()][:MOST_REGIONS]
    told = []
    for column in texts(schema)[:MOST_COLUMNS]:
        held, said = vectors(points, column, SLOTS), points[column.name].to_pylist()
        shown = []
        for k in rarest:
            counts = np.zeros(k + 1, dtype=np.int64)
            counts[k] = min(PER_REGION, int((mine == k).sum()))
            some = drawn.take(pa.array(pick(mine, counts, seed, "texts")))
            far = np.clip(1.0 - vectors(some, column, SLOTS) @ held.T, 0.0, 1.0)
            pairs = zip(some[column.name].to_pylist(), far.argmin(axis=1), far.min(axis=1), strict=True)
            found = [
                {"drawn": _cut(text), "nearest": _cut(said[near]) if rows else None, "distance": round(float(gap), 4)}
                for text, near, gap in pairs
            ]
            shown.append({"name": regions.items[k].name, "rows": found})
        told.append({"column": column.name, "regions": shown})
    return told


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= MOST_SHOWN:
        return text
    return f"{text[:MOST_SHOWN]} ... ({len(text):,} characters)"

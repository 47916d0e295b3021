"""Texts as vectors that an audit can compare: hashed words; knows no measure."""

import numpy as np
import pyarrow as pa

from codsa_ray.embedding import WORD, hashed
from codsa_ray.schema import Column, Schema


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
    counts = [np.nan if text is None else float(len(WORD.findall(text))) for text in table[column.name].to_pylist()]
    return np.array(counts, dtype=np.float64)

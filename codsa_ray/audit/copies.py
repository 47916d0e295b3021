"""Copies: rows that equal a training row in every column, found by hashes of their values; knows no region and no generator."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.embedding import thumbnail
from codsa_ray.schema import Column, Schema
from codsa_ray.values import as_text

COPY = "_copy"
"""Column of rows that were looked up among all training rows: whether one of them is the same."""
NUMBERS = ("numeric", "integer", "datetime")
MIX, NULL = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03)


def marked(tables: Sequence[pa.Table], training: Iterable[pa.Table], schema: Schema) -> list[pa.Table]:
    """The tables with `_copy`: rows that equal one of the training rows, of pictures their bytes.

    One pass over blocks of training rows, of which nothing is kept; of the tables' rows a hash each is held.
    """
    keys = [_keys(table, schema) for table in tables]
    marks = [np.zeros(len(own), dtype=bool) for own in keys]
    for block in training:
        theirs = _keys(block, schema)
        for own, found in zip(keys, marks, strict=True):
            found |= np.isin(own, theirs)
    return [table.append_column(COPY, pa.array(found)) for table, found in zip(tables, marks, strict=True)]


def copies(table: pa.Table, real: pa.Table, schema: Schema) -> np.ndarray:
    """(n,) bool rows of `table` that equal a row of `real` in every column, of pictures their thumbnails, or that `marked` found."""
    found = np.isin(_keys(table, schema, thumbs=True), _keys(real, schema, thumbs=True))
    return found | table[COPY].to_numpy() if COPY in table.column_names else found


def _keys(table: pa.Table, schema: Schema, thumbs: bool = False) -> np.ndarray:
    """(n,) uint64 hash of each row's values, with a fixed key: the same in every process."""
    keys = np.zeros(len(table), dtype=np.uint64)
    for column in schema.columns:
        keys = keys * MIX + _hashed(table[column.name].combine_chunks(), column, thumbs)
    return keys


def _hashed(values: pa.Array, column: Column, thumbs: bool) -> np.ndarray:
    if column.kind in NUMBERS:
        numbers = values.cast(pa.int64()) if column.kind == "datetime" else values
        # 0 more makes 0.0 of -0.0.
        hashed = pd.util.hash_array(pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False) + 0)
        return np.where(values.is_null(), NULL, hashed)
    if column.kind == "image":
        return np.asarray(pd.util.hash_array(_thumbs(values) if thumbs else _files(values)))
    return np.asarray(pd.util.hash_array(pc.fill_null(as_text(values), "\0").to_numpy(zero_copy_only=False)))


def _thumbs(values: pa.Array) -> np.ndarray:
    """(n,) pixels of thumbnails as bytes: the same picture in another file, or a shade apart, is a copy."""
    small = [thumbnail(value) for value in values.to_pylist()]
    return _plain([b"" if pixels is None else pixels.tobytes() for pixels in small])


def _files(values: pa.Array) -> np.ndarray:
    return _plain([value or b"" for value in values.to_pylist()])


def _plain(values: list[bytes]) -> np.ndarray:
    """(n,) objects; numpy would make fixed widths of bytes, and cut zeros off their ends."""
    return np.array([*values, None], dtype=object)[:-1]

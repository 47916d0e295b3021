"""Columns as numbers an audit can compare: ordered values and category codes; knows no measure."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.contracts import TABLE_KINDS
from codsa_ray.schema import Column, Schema

ORDERED = frozenset({"numeric", "integer", "datetime"})


def compared(schema: Schema) -> tuple[Column, ...]:
    """The columns that table audits compare; texts and pictures as files have audits of their own."""
    return tuple(column for column in schema.columns if column.kind in TABLE_KINDS)


def ordered(table: pa.Table, column: Column) -> np.ndarray:
    """(n,) float64 values of a numeric, integer or datetime (microseconds) column; null is NaN."""
    values = table[column.name].combine_chunks()
    if column.kind == "datetime":
        values = values.cast(pa.int64())
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def named(table: pa.Table, column: Column) -> tuple[np.ndarray, list[str]]:
    """(n,) int64 codes into the labels of a categorical or boolean column; null is -1, a value the schema lacks is the last label."""
    labels = ["false", "true"] if column.kind == "boolean" else list(column.categories)
    text = table[column.name].combine_chunks().cast(pa.string())
    codes = pc.fill_null(pc.index_in(text, value_set=pa.array(labels, pa.string())), len(labels))
    codes = pc.if_else(pc.is_null(text), -1, codes)
    return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64), [*labels, "(other)"]

"""Arrays and frames of features as tables, and drawn rows in the caller's own form; knows no target and no generator."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.errors import InputError

Features = np.ndarray | pd.DataFrame


def table_of(X: Features) -> pa.Table:
    """Columns named by their position: the same values under other names are the same rows.

    Args:
        X: (n, d). Object columns hold values of one type each; NaN and None are null.

    Raises:
        InputError: a column of mixed or unknown types, or with an infinite number.
    """
    return pa.table({str(place): _column(X, place) for place in range(X.shape[1])})


def _column(X: Features, place: int) -> pa.Array:
    values: Any = X.iloc[:, place] if isinstance(X, pd.DataFrame) else np.ascontiguousarray(X[:, place])
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.SparseDtype):
        values = pd.Series(np.asarray(values))
    try:
        found = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError("values of one type in every column", f"column {place}: {error}", "make its values numbers or text") from error
    if pa.types.is_floating(found.type) and pc.any(pc.is_inf(found)).as_py():
        raise InputError("finite numbers, or none, in every column", f"column {place}: infinity", "make it a number or a missing value")
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def joined(X: Features, drawn: pa.Table) -> Features:
    """(n + m, d) rows of X as they are, then the drawn ones in its dtypes.

    Args:
        X: (n, d).
        drawn: m rows of `table_of(X)`'s columns and types.
    """
    if isinstance(X, pd.DataFrame):
        found = drawn.to_pandas(integer_object_nulls=True)
        found.columns = X.columns
        return pd.concat([X, found.astype(X.dtypes.to_dict())], ignore_index=True)
    rows = np.empty((len(drawn), X.shape[1]), dtype=X.dtype)
    for place, column in enumerate(drawn.columns):
        if X.dtype != object:
            rows[:, place] = column.to_numpy()
            continue
        # As Python's own values: beside a NaN, numpy would make floats of whole numbers and of truth values.
        values = column.to_pandas(integer_object_nulls=True).astype(object).to_numpy()
        rows[:, place] = values
        rows[pd.isna(values), place] = np.nan
    return np.vstack([X, rows])

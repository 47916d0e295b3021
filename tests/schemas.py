"""Schemas of small tables with a target `y`, which tests share; knows no run."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.infer import infer
from codsa_ray.schema import Schema
from codsa_ray.summary import Summary

ROWS = 60


def target(rows: int = ROWS) -> list[str]:
    return ["no", "yes"] * (rows // 2)


def schema_of(columns: pa.Table | dict[str, Any], name: str = "y", **options: Any) -> Schema:
    table = columns if isinstance(columns, pa.Table) else pa.table({"y": target(), **columns})
    return infer(Summary.of(table, np.arange(len(table))), name, **options)


def one(values: Any, kind: pa.DataType | None = None, **options: Any) -> Schema:
    return schema_of({"a": pa.array(values, kind)}, **options)

"""A table, groupings of it and its groups, which tests share; knows no run."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.groups import Grouping, Groups

LABELS = ("no", "yes", "may be")
KINDS = {"y": "categorical", "sex": "categorical", "age": "integer", "member": "boolean", "wage": "numeric"}


def table(n: int = 400, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "y": rng.choice(LABELS, n, p=[0.6, 0.3, 0.1]),
            "sex": pa.array(rng.choice(["F", "M", "x"], n, p=[0.45, 0.45, 0.1]), mask=rng.random(n) < 0.1),
            "age": rng.integers(18, 22, n),
            "member": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.1),
            "wage": rng.choice([1.5, 2.0, 40.25], n),
        }
    )


def groups(grouping: Grouping, data: pa.Table | None = None, **options: Any) -> Groups:
    return Groups.of(grouping, grouping.cells(table() if data is None else data), **{"smallest": 1, **options})


GROUPINGS = [
    Grouping("y"),
    Grouping("y", ("sex",)),
    Grouping("y", ("sex", "age", "member")),
    Grouping("y", (), ("age < 20", "wage > 2 AND sex = 'F'")),
    Grouping("y", ("sex",), ("age < 20",), (("sex", "x", "M"), ("y", "may be", "no"))),
    Grouping(None, ("sex",), ("wage > 2",)),
    Grouping(None, (), ("y = 'yes'",)),
    Grouping("wage", ("sex",), bins=3, edges=(2.0, 40.0)),
    Grouping("member", ("wage",), ("age IN (18, 19)",)),
]

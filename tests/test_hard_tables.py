"""Bad input for trees, diffusion and language models: few, constant, null, wide, huge, equal rows; valid rows are drawn of each."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from test_hard_rows import TABLES, cases, drawn, labels

from codsa_ray.generators.language_model import LanguageModel
from codsa_ray.generators.sequential_trees import SequentialTrees
from codsa_ray.generators.tabular_diffusion import TabularDiffusion

GENERATORS = {
    "sequential_trees": SequentialTrees(leaf=5, block=64),
    "language_model": LanguageModel(steps=5, width=16, heads=2, blocks=1, batch=32, bins=20, rows=1500, block=64),
    "tabular_diffusion": replace(TabularDiffusion.tiny(), steps=5, batch=32, rows=1500, block=64),
}
MORE = {
    **TABLES,
    "50 rows": lambda: pa.table({"a": np.arange(50.0), "b": [f"v{i % 7}" for i in range(50)], "label": labels(30, 20)}),
    "outliers": lambda: pa.table({"a": np.where(np.arange(60) % 20, np.arange(60.0), 1e30), "label": labels(40, 20)}),
    "integers beyond 2^53": lambda: pa.table({"a": 2**53 + 1 + 2 * np.arange(60), "label": labels(40, 20)}),
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("table", cases(MORE))
def test_hard_tables_are_drawn(name: str, table: str, tmp_path: object) -> None:
    rows = drawn(GENERATORS[name], tmp_path, MORE[table]())
    if table == "integers beyond 2^53":
        assert all(value % 2 for value in rows[0]["a"].to_pylist()) or name != "sequential_trees"
        assert all(2**53 < value <= 2**53 + 119 for block in rows for value in block["a"].to_pylist())
    # Five steps teach a network no categories: its rows are valid, and may be all of one.
    if table == "10,000 categories" and name == "sequential_trees":
        assert len(set(rows[0]["c"].to_pylist())) > 10

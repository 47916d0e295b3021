"""Filled: holes get the region's usual value, whole numbers stay exact, and drawn numbers stay within what training showed."""

import numpy as np
import pyarrow as pa

from codsa_ray.filled import Filled, drawn_table
from codsa_ray.fitdata import REGION

from tables import BIG, mixed_table, with_regions


def filled(table: pa.Table) -> tuple[Filled, pa.Table]:
    found, schema, regions = with_regions(table, "label", ("label",))
    return Filled.of(found, schema, regions), found


def test_a_hole_is_the_lower_median_or_the_commonest_of_its_region() -> None:
    table = pa.table(
        {
            "a": pa.array([1.0, 5.0, 9.0, 7.0, None, None, 2.0], pa.float64()),
            "b": ["x", "y", "y", None, None, "z", "z"],
            "label": ["p", "p", "p", "p", "p", "q", "q"],
        }
    )
    rows, _ = filled(table)
    assert rows.table()["a"].to_pylist() == [1, 5, 9, 7, 5, 2, 2]
    assert rows.table()["b"].to_pylist() == ["x", "y", "y", "y", "y", "z", "z"]
    assert rows.nulls.tolist() == [[False, False]] * 3 + [[False, True], [True, True], [True, False], [False, False]]


def test_a_region_without_any_value_takes_the_table_s_and_a_column_without_any_stays_null() -> None:
    table = pa.table({"a": pa.array([None, 1.0, 2.0, 3.0], pa.float64()), "none": pa.nulls(4, pa.string()), "label": ["p", "q", "q", "q"]})
    rows, _ = filled(table)
    assert rows.table()["a"].to_pylist() == [2, 1, 2, 3]
    assert rows.table()["none"].null_count == 4


def test_rows_are_sorted_by_region_and_known_cells_are_as_they_were() -> None:
    table, schema, regions = mixed_table()
    rows = Filled.of(table, schema, regions)
    order = np.argsort(table[REGION].to_numpy(), kind="stable")
    assert np.array_equal(rows.region, table[REGION].to_numpy()[order])
    assert np.array_equal(rows.starts, np.cumsum([0, *regions.counts]))
    for index, cell in enumerate(rows.cells):
        known = pa.array(~rows.nulls[:, index])
        before = table[cell.column.name].take(pa.array(order)).filter(known)
        assert rows.table()[cell.column.name].filter(known).to_pylist() == before.to_pylist()
    assert min(rows.table()["big"].to_pylist()) == BIG


def test_drawn_numbers_are_kept_within_what_training_showed() -> None:
    table, schema, regions = mixed_table()
    rows = Filled.of(table, schema, regions)
    wild = np.where(rows.ordered, np.where(np.arange(len(rows))[:, None] % 2, 1e300, -1e300), rows.matrix())
    schema_rows = drawn_table(rows.cells, wild, rows.nulls)
    for column in ("age", "wage", "since", "big"):
        known = schema_rows[column].drop_null().to_pylist()
        real = table[column].drop_null().to_pylist()
        assert {min(known), max(known)} == {min(real), max(real)}

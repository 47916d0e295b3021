"""Cells: numbers and back without loss, for every kind of column and any integer."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.cells import Cells

from tables import mixed_table, schema_of

INT64 = st.integers(-(2**63), 2**63 - 1)


def cells_of(values: pa.ChunkedArray) -> Cells:
    return Cells.of(schema_of(pa.table({"x": values}), "x")["x"], values)


@given(st.lists(st.none() | INT64, min_size=1, max_size=30))
def test_any_integers_come_back(values: list[int | None]) -> None:
    column = pa.chunked_array([pa.array(values, pa.int64())])
    cells = cells_of(column)
    assert cells.decode(*cells.encode(column)).to_pylist() == values
    assert Cells.from_json(cells.to_json()) == cells


@pytest.mark.parametrize("name", mixed_table()[1].order)
def test_every_kind_comes_back_in_its_own_type(name: str) -> None:
    table, schema, _ = mixed_table()
    cells = Cells.of(schema[name], table[name])
    back = cells.decode(*cells.encode(table[name]))
    assert back.type == table[name].type
    assert back.equals(table[name].combine_chunks())


@given(st.lists(INT64, min_size=2, max_size=30, unique=True), st.floats(-1e30, 1e30))
def test_moved_integers_stay_within_what_was_seen(values: list[int], by: float) -> None:
    column = pa.chunked_array([pa.array(values, pa.int64())])
    cells = cells_of(column)
    numbers, _ = cells.encode(column)
    moved = cells.decode(cells.moved(numbers, np.full(len(values), by))).to_pylist()
    assert min(values) <= min(moved) <= max(moved) <= max(values)
    assert all((value - min(values)) % cells.unit == 0 for value in moved)


def test_whole_steps_are_the_greatest_that_fit() -> None:
    cells = cells_of(pa.chunked_array([pa.array([10, 16, 28], pa.int64())]))
    assert (cells.base, cells.unit, cells.top) == (10, 6, 3)


def test_a_value_outside_the_categories_is_the_code_after_the_last() -> None:
    schema = mixed_table()[1]
    numbers, null = Cells(schema["job"]).encode(pa.chunked_array([["clerk", "pope", None]]))
    assert numbers[:2].tolist() == [0, len(schema["job"].categories)]
    assert null.tolist() == [False, False, True]

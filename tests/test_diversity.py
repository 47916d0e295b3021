"""Diversity: repeated rows, lost categories and copies are seen, and fresh rows are as diverse as real ones."""

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.audit.diversity import diversity
from codsa_ray.fitdata import REGION

from tables import mixed_table, schema_of

TABLE, SCHEMA, _ = mixed_table(1_000)
FRESH = mixed_table(1_000, 1)[0]


def test_fresh_rows_are_as_diverse_as_real_ones() -> None:
    found = diversity(TABLE, FRESH, SCHEMA, 0)
    assert found["distinct"] == found["distinct_real"] == 1.0
    assert found["entropy"] == pytest.approx(found["entropy_real"], rel=0.02)
    assert found["distance"] == pytest.approx(found["distance_real"], rel=0.1)


def test_entropy_is_that_of_its_definition() -> None:
    table = pa.table({"c": ["a", "b", "b", None], "x": [0.0, 0.0, 1.0, 1.0]})
    found = diversity(table, table, schema_of(table, "c"), 0)
    assert [column["drawn"] for column in found["columns"]] == pytest.approx([1.5 * np.log(2), np.log(2)])
    assert found["distinct"] == 1.0


def test_few_rows_again_and_again_are_less_diverse() -> None:
    repeated = TABLE.take(pa.array(np.arange(1_000) % 10))
    found = diversity(TABLE, repeated, SCHEMA, 0)
    assert found["distinct"] == 0.01
    assert found["entropy"] < 0.8 * found["entropy_real"]


def test_copies_are_at_half_the_distance_or_less() -> None:
    found = diversity(TABLE, TABLE, SCHEMA, 0)
    assert found["distance"] < 0.9 * found["distance_real"]


def test_a_side_of_one_row_has_no_diversity() -> None:
    assert diversity(TABLE.slice(0, 1), FRESH, SCHEMA, 0) == {}
    assert diversity(TABLE, FRESH.drop_columns(REGION).slice(0, 1), SCHEMA, 0) == {}

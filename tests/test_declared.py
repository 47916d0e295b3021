"""What users declare of columns holds over what rows show; what cannot be is refused by name; rows that break it are counted and named."""

from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import SchemaError
from codsa_ray.summary import Summary

from schemas import ROWS, schema_of, target


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({}, {"name": "Y2"}, r"'Y2'; did you mean y\?"),
        ({"a": pa.nulls(ROWS, pa.int8())}, {"name": "a"}, "target 'a'; got no value in 60 rows"),
        ({"a": ["x"] * ROWS}, {"name": "a"}, "'a'; got one: 'x'"),
        ({"a": np.linspace(0, 1, ROWS).repeat(2)[:ROWS]}, {"name": "a", "task": "anomaly"}, "30 distinct values"),
        ({"a": [b"x"] * ROWS}, {"name": "a"}, "image"),
        ({"a": ["x", "z"] * 30}, {"name": "a", "task": "regression"}, "numeric target 'a'"),
        ({"a": [1] * ROWS}, {"name": "a", "task": "regression"}, "one: 1"),
        ({}, {"hidden": ("nope",)}, "hidden that is a column"),
        ({}, {"hidden": ("y",)}, "not hidden"),
        ({}, {"group_columns": ("nope",)}, "group column"),
        ({"a": pa.nulls(ROWS)}, {"group_columns": ("a",)}, "group column 'a'; got no value"),
        ({"a": pa.array([2**63] * ROWS, pa.uint64())}, {}, "'a' of type uint64 with 60 larger"),
        ({"a": [Decimal(10**30)] * ROWS}, {}, "larger"),
    ],
)
def test_columns_that_cannot_be_used_are_named(columns, options, said):
    with pytest.raises(SchemaError, match=said):
        schema_of(columns, **options)


def test_a_numeric_target_of_many_values_points_to_regression():
    table = pa.table({"y": np.arange(10_000), "a": [1] * 10_000})
    with pytest.raises(SchemaError, match=r"'y'; got 10000 distinct values; .*--task regression"):
        schema_of(table)


def test_declared_fields_hold_over_what_rows_show():
    overrides = {
        "a": {"low": -5, "high": 500, "places": 1},
        "b": {"categories": ["x"]},
        "c": {"kind": "categorical"},
        "d": {"leave_out": True},
        "e": {"low": "2024-01-01", "high": "2024-12-31T12:00:00"},
        "f": {"kind": "boolean"},
        "g": {"kind": "numeric"},
    }
    columns = {
        "a": np.linspace(0, 1, ROWS),
        "b": ["x", "z"] * 30,
        "c": [1, 2] * 30,
        "d": [1, 2] * 30,
        "e": [datetime(2024, 6, 1)] * ROWS,
        "f": [0, 1] * 30,
        "g": ["1.5", "unknown"] * 30,
    }
    schema = schema_of(columns, overrides=overrides)
    assert (schema["a"].low, schema["a"].high, schema["a"].places) == (-5.0, 500.0, 1)
    assert (schema["b"].categories, schema["b"].other) == (("x",), True)
    assert (schema["c"].kind, schema["c"].categories) == ("categorical", ("1", "2"))
    assert dict(schema.left_out) == {"d": "left out by --schema"}
    assert schema["e"].bound(schema["e"].high) == "2024-12-31 12:00:00"
    assert schema["f"].kind == "boolean"
    assert (schema["g"].low, schema["g"].high, schema["g"].nulls) == (1.5, 1.5, 0.5)
    table = pa.table({"y": target(), **columns})
    canonical, lost = schema.canonical(table)
    assert lost == {"g": 30}
    assert canonical.schema == schema.arrow
    half = Summary.of(table.slice(0, 10), np.arange(10))
    assert schema.relearn(half)["a"] == schema["a"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"Age ": {}}, "did you mean age"),
        ({"age": 3}, "for column 'age'; got 3"),
        ({"age": {"hihg": 3}}, r"'hihg'; did you mean high\?"),
        ({"age": {"kind": "float"}}, "'float'"),
        ({"age": {"kind": "datetime"}}, "datetime for type int64"),
        ({"age": {"places": 2}}, "low or high for integer column 'age'; got places"),
        ({"age": {"low": "x"}}, "low = 'x'"),
        ({"age": {"low": 1.5}}, "low = 1.5"),
        ({"age": {"low": 9, "high": 1}}, "9 > 1"),
        ({"sex": {"categories": ["F", "X"]}}, "'X'; did you mean"),
        ({"sex": {"categories": "F"}}, "categories = 'F'"),
        ({"y": {"leave_out": True}}, "target 'y'"),
        ({"y": {"categories": ["no"]}}, "every class of 'y' once"),
        ({"constraints": ["age <= "]}, "age <="),
        ({"constraints": ["agee <= 3"]}, "agee"),
        ({"constraints": ["age > 1000"]}, "some training row keeps"),
    ],
)
def test_declarations_that_cannot_be_are_refused(overrides, said):
    with pytest.raises(SchemaError, match=said):
        schema_of({"age": [20, 30, 40] * 20, "sex": ["F", "M"] * 30}, overrides=overrides)


def test_violations_count_every_rule_and_nulls_keep_constraints():
    columns = {"a": [1, 2, 3] * 20, "b": [2, 3, None] * 20, "c": [0.5, 1.25, 0.75] * 20, "d": ["x", "z"] * 30}
    schema = schema_of(columns, overrides={"constraints": ["a <= b"]})
    rows = pa.table(
        {
            "y": ["yes"] * 7,
            "a": [1, 4, 2, 3, 1, 1, 3],
            "b": [2, 3, 3, None, 2, 2, 2],
            "c": [0.5, 0.5, 0.333, 0.5, 9.0, float("nan"), 0.5],
            "d": ["x", "x", "x", "z", "w", None, "x"],
        }
    )
    broken, reasons = schema.violations(rows)
    assert broken.tolist() == [False, True, True, False, True, True, True]
    assert reasons == {
        "'a' wants at most 3": 1,
        "'c' wants at most 2 decimals": 2,
        "'c' wants at least 0.5": 1,
        "'c' wants at most 1.25": 1,
        "'c' wants finite numbers": 1,
        "'d' wants a known category": 1,
        "'d' wants a value in every row": 1,
        "the constraint a <= b": 2,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"a": pa.array([7])}, "column 'a': at most 3; got a = 7"),
        ({"a": pa.array([1], pa.int32())}, "column 'a' of type int64; got int32"),
        ({"d": pa.array(["w"])}, "column 'd': a known category; got d = 'w'"),
        ({"b": pa.array([0])}, "column 'b': at least 2"),
        ({"a": pa.array([3])}, "rows with a <= b; got a = 3, b = 2"),
        ({"d": None}, "column 'd' .categorical.; got 3 columns without it"),
    ],
)
def test_check_names_the_column_what_was_wanted_and_what_there_was(change, said):
    schema = schema_of({"a": [1, 2, 3] * 20, "b": [2, 3, 4] * 20, "d": ["x", "z"] * 30}, overrides={"constraints": ["a <= b"]})
    good = {"y": pa.array(["no"]), "a": pa.array([1]), "b": pa.array([2]), "d": pa.array(["x"])}
    schema.check(pa.table(good))
    with pytest.raises(SchemaError, match=said):
        schema.check(pa.table({name: values for name, values in {**good, **change}.items() if values is not None}))

"""Claims about schemas: the kinds that training rows show and that rows survive the change of types."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.column import type_of
from codsa_ray.contracts import TABLE_KINDS
from codsa_ray.errors import SchemaError
from codsa_ray.infer import near, refuse
from codsa_ray.schema import Schema
from codsa_ray.summary import Summary

from schemas import ROWS, one, schema_of, target

KINDS = [
    ("numeric", np.linspace(0, 1, ROWS), None),
    ("numeric", [1.0, None, 3.0] * 20, None),
    ("integer", [0, 1] * 30, None),
    ("integer", [1, 2, None] * 20, pa.uint64()),
    ("integer", [n % 7 for n in range(ROWS)], pa.time32("s")),
    ("integer", [timedelta(hours=h % 7) for h in range(ROWS)], pa.duration("us")),
    ("integer", [Decimal(n % 9) for n in range(ROWS)], pa.decimal128(9, 0)),
    ("numeric", [Decimal(n).scaleb(-2) for n in range(ROWS)], pa.decimal128(9, 2)),
    ("categorical", ["x", "y", None] * 20, None),
    ("categorical", pa.array([3, 4] * 30).dictionary_encode(), None),
    ("boolean", [True, False] * 30, None),
    ("datetime", [date(2024, 1, 1)] * ROWS, None),
    ("datetime", [datetime(2024, 1, 1, tzinfo=UTC)] * ROWS, pa.timestamp("ns", "UTC")),
    ("datetime", [f"2024-01-{d % 28 + 1:02d}" for d in range(ROWS)], None),
    ("text", [f"the patient number {n} feels well" for n in range(ROWS)], None),
    ("image", [bytes([n]) for n in range(ROWS)], None),
]


@pytest.mark.parametrize(("kind", "values", "type_"), KINDS)
def test_kinds_follow_from_types_and_values(kind, values, type_):
    schema = one(values, type_)
    assert schema["a"].kind == kind
    assert schema["a"].type == str(pa.array(values, type_).type)


@pytest.mark.parametrize(("kind", "values", "type_"), [case for case in KINDS if case[0] in TABLE_KINDS])
def test_training_rows_pass_the_schema_they_made_and_come_back_whole(kind, values, type_):
    table = pa.table({"y": target(), "a": pa.array(values, type_)})
    schema = schema_of(table)
    canonical, lost = schema.canonical(table)
    schema.check(canonical)
    assert lost == {}
    assert canonical.schema == schema.arrow
    assert schema.original(canonical).equals(table)
    assert schema.canonical(canonical)[0].equals(canonical)


CELLS = {
    "double": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "float": (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "half": (pa.float16(), st.floats(width=16, allow_nan=False, allow_infinity=False)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "price": (pa.decimal128(12, 3), st.integers(-(10**8), 10**8).map(lambda n: Decimal(n).scaleb(-3))),
    "flag": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=4)),
    "day": (pa.date32(), st.dates()),
    "clock": (pa.time64("us"), st.times()),
    "moment": (pa.timestamp("us", "Europe/Berlin"), st.datetimes(timezones=st.just(UTC))),
}


@given(st.data(), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_original_is_the_inverse_of_canonical(data, half):
    """For every type that rows may have, nulls included; -0.0 comes back as 0.0, which equals it."""
    rows = {name: data.draw(st.lists(st.none() | cells, min_size=half, max_size=half)) * 2 for name, (_, cells) in CELLS.items()}
    arrays = {name: pa.array(values, CELLS[name][0]) for name, values in rows.items()}
    named = arrays["text"].dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
    table = pa.table({**arrays, "named": named, "y": ["no"] * half + ["yes"] * half})
    schema = schema_of(table)
    canonical, lost = schema.canonical(table)
    schema.check(canonical)
    assert lost == {}
    back = schema.original(canonical)
    assert all(reason.startswith("no value") for _, reason in schema.left_out)
    assert back.schema.types == table.schema.types
    assert back.to_pylist() == table.to_pylist()


def test_left_out_columns_come_back_as_nulls_of_their_type():
    schema = schema_of(
        {"id": pa.array(range(ROWS), pa.int16()), "nothing": pa.nulls(ROWS, pa.float32()), "name": [f"n{i}" for i in range(ROWS)]}
    )
    assert [name for name, _ in schema.left_out] == ["id", "nothing", "name"]
    back = schema.original(pa.table({"y": ["yes"]}))
    assert back.schema == pa.schema([("y", pa.string()), ("id", pa.int16()), ("nothing", pa.float32()), ("name", pa.string())])
    assert back.to_pylist() == [{"y": "yes", "id": None, "nothing": None, "name": None}]


@pytest.mark.parametrize(
    ("values", "id_like"),
    [
        (np.random.default_rng(0).permutation(ROWS) + 10**6, True),
        (np.random.default_rng(0).permutation(ROWS).astype(float), True),
        (np.random.default_rng(0).choice(3 * ROWS, ROWS, replace=False), True),
        (np.random.default_rng(0).choice(10**6, ROWS, replace=False), False),
        ([*range(ROWS - 1), 0], False),
        (np.linspace(0, 1, ROWS), False),
        ([f"{i:08x}" for i in range(ROWS)], True),
        ([f"{i % 50:08x}" for i in range(ROWS)], False),
    ],
)
def test_an_integer_is_an_id_where_random_draws_from_its_range_would_repeat(values, id_like):
    schema = one(values)
    assert ("like an id" in dict(schema.left_out).get("a", "")) == id_like


def test_ids_stay_when_kept_declared_or_grouped_by_or_few():
    values = list(range(ROWS))
    for options in ({"keep": ("a",)}, {"overrides": {"a": {"kind": "integer"}}}, {"group_columns": ("a",)}):
        assert one(values, **options)["a"].kind == "integer"
    assert schema_of(pa.table({"y": target(20), "a": list(range(20))}))["a"].kind == "integer"


def test_constant_columns_take_part():
    schema = schema_of({"a": [5] * ROWS, "b": ["x"] * ROWS, "c": [None, 1.5] * 30})
    assert [column.name for column in schema.columns] == ["y", "a", "b", "c"]
    assert all(schema[name].constant for name in "abc")
    assert schema["c"].nulls == 0.5


def test_categories_beyond_the_cap_are_other_and_are_never_drawn():
    values = [f"c{i:03d}" for i in range(250) for _ in range(5 + i % 2)] + [f"rare{i}" for i in range(25)]
    values += ["c000"] * (len(values) % 2)
    schema = schema_of(pa.table({"y": target(len(values)), "a": values}))
    column = schema["a"]
    assert column.other
    assert len(column.categories) == 200
    assert list(column.categories[:2]) == ["c001", "c003"]
    assert not any(value.startswith("rare") for value in column.categories)
    broken, _ = schema.violations(pa.table({"y": ["yes", "yes"], "a": ["c001", "rare1"]}))
    assert broken.tolist() == [False, True]
    grouped = schema_of(pa.table({"y": target(len(values)), "a": values}), group_columns=("a",))
    assert len(grouped["a"].categories) == 275
    assert (
        len(grouped.relearn(Summary.of(pa.table({"y": target(len(values)), "a": values}), np.arange(len(values))))["a"].categories) == 275
    )


def test_a_column_of_rare_categories_only_is_left_out():
    assert "none of them" in dict(schema_of(pa.table({"y": target(600), "a": [f"c{i % 300}" for i in range(600)]})).left_out)["a"]


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([10, 9, -1], None, ("-1", "9", "10")),
        (["10", "9", "-1"], None, ("-1", "9", "10")),
        (["10", "9", "x"], None, ("10", "9", "x")),
        ([0.1, 2.0, 10.0], pa.float32(), ("0.1", "2", "10")),
        ([True, False, True], None, ("false", "true")),
        (["nan", "b", "a"], None, ("a", "b", "nan")),
    ],
)
def test_classes_are_ordered_by_number_or_else_by_text_whatever_their_type(values, kind, classes):
    table = pa.table({"y": pa.array(values, kind), "a": [1, 2, 3]})
    schema = schema_of(table)
    assert schema["y"].kind == "categorical"
    assert schema.classes == classes
    assert [classes[i] for i in schema.truth(table)] == schema.canonical(table)[0]["y"].to_pylist()
    assert schema.original(schema.canonical(table)[0])["y"].equals(table["y"])


def test_truth_of_other_tasks_is_a_number():
    table = pa.table({"y": [1, None, 3] * 10, "a": ["normal", "normal", "fault"] * 10})
    np.testing.assert_array_equal(schema_of(table, task="regression").truth(table)[:3], [1.0, np.nan, 3.0])
    anomaly = schema_of(table, "a", task="anomaly")
    assert anomaly.classes == ("normal", "fault")
    np.testing.assert_array_equal(anomaly.truth(pa.table({"a": ["fault", "normal", "other", None]})), [1.0, 0.0, np.nan, np.nan])


def test_unseen_and_null_labels_are_minus_one():
    schema = one([1, 2] * 30)
    truth = schema.truth(pa.table({"y": pa.array(["yes", "maybe", None, "no"]).dictionary_encode()}))
    assert truth.dtype == np.int64
    assert truth.tolist() == [1, -1, -1, 0]


def test_what_cannot_be_read_is_null_and_counted():
    schema = schema_of({"a": [1, 2, 3] * 20, "b": [0.5, None, 2.0] * 20, "c": [datetime(2024, 1, 1, tzinfo=UTC)] * ROWS})
    rows = pa.table(
        {
            "y": ["yes"] * 4,
            "a": ["7", " 8", "x", None],
            "b": [float("inf"), float("nan"), None, 1.0],
            "c": ["2024-01-01T00:00:00Z", "yesterday", None, "2024-01-01T00:00:00+02:00"],
        }
    )
    canonical, lost = schema.canonical(rows)
    assert lost == {"a": 1, "b": 1, "c": 1}
    assert canonical["a"].to_pylist() == [7, 8, None, None]
    assert canonical["b"].to_pylist() == [None, None, None, 1.0]
    assert canonical["c"].cast(pa.int64()).to_pylist()[3] == int(datetime(2023, 12, 31, 22, tzinfo=UTC).timestamp()) * 10**6
    fractions, lost = schema.canonical(pa.table({"y": ["no"], "a": [2.5], "b": [True], "c": [date(2024, 1, 1)]}))
    assert lost == {"a": 1}
    assert fractions["b"].to_pylist() == [1.0]


def test_unseen_categories_stay_as_they_are():
    schema = schema_of({"a": ["x", "z"] * 30})
    assert schema.canonical(pa.table({"y": ["no"], "a": ["new"]}))[0]["a"].to_pylist() == ["new"]


def test_integers_beyond_2_to_the_53_are_kept_exactly():
    values = [2**60 + i % 7 for i in range(ROWS)]
    schema = one(values)
    assert (schema["a"].low, schema["a"].high) == (2**60, 2**60 + 6)
    broken, _ = schema.violations(pa.table({"y": ["no"] * 2, "a": [2**60 + 6, 2**60 + 7]}))
    assert broken.tolist() == [False, True]


def test_values_that_datas_type_cannot_hold_are_refused():
    schema = one([1, 2] * 30, pa.int8(), overrides={"a": {"high": 1000}})
    with pytest.raises(SchemaError, match="'a' that fit int8"):
        schema.original(pa.table({"y": ["no"], "a": [1000]}))


def test_relearning_sees_the_folds_rows_only():
    table = pa.table({"y": [*["no", "yes"] * 10, "rare"], "a": [*range(0, 40, 2), 1000], "b": [*["x", "z"] * 10, None]})
    final = schema_of(table)
    fold = final.relearn(Summary.of(table.slice(0, 20), np.arange(20)))
    assert (fold["a"].high, fold["b"].nulls) == (38, 0.0)
    assert fold.classes == final.classes == ("no", "rare", "yes")
    assert fold.left_out == final.left_out


def test_json_gives_the_schema_back_exactly():
    columns = {'a "b" ÿ': [2**60 + i % 3 for i in range(ROWS)], "c": np.random.default_rng(0).normal(size=ROWS), "id": list(range(ROWS))}
    schema = schema_of(columns, hidden=("c",), overrides={"c": {"low": -9}, "constraints": ["c <= 9"]})
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    assert [column.name for column in schema.features] == ['a "b" ÿ']


def test_every_column_of_data_is_shown():
    schema = schema_of({"id": list(range(ROWS)), "a": [1, None, 3] * 20, "b": [f"{i % 5}x" for i in range(ROWS)]}, hidden=("b",))
    shown = {row["column"]: row for row in schema.shown()}
    assert list(shown) == ["y", "id", "a", "b"]
    assert shown["y"]["note"] == "target"
    assert shown["id"]["kind"] == "left out"
    assert "like an id" in shown["id"]["note"]
    assert (shown["a"]["range"], shown["a"]["nulls"]) == ("1 to 3", "33.33%")
    assert shown["b"]["range"] == "5: 0x, 1x, 2x, 3x, ..."
    assert shown["b"]["note"] == "hidden from learners"


def test_kinds_that_a_plug_in_does_not_handle_are_refused_by_column():
    schema = one([f"the patient number {n} feels well" for n in range(ROWS)])
    refuse(schema, frozenset({"text", "categorical"}), "anything")
    with pytest.raises(SchemaError, match=r"for boosted; got column 'a' of kind text; .*leave_out"):
        refuse(schema, TABLE_KINDS, "boosted")


def test_near_offers_the_likeliest_names_or_all_there_are():
    assert near("Incom", ["income", "age"]) == "income"
    assert near("zzz", ["income", "age"]) == "one of income, age"


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("us", "Europe/Berlin"),
        pa.timestamp("s"),
        pa.decimal128(38, -2),
        pa.decimal32(5, 2),
        pa.binary(3),
        pa.dictionary(pa.int8(), pa.timestamp("us", "UTC")),
        pa.float16(),
        pa.duration("ns"),
        pa.time64("ns"),
        pa.date64(),
        pa.large_string(),
        pa.string_view(),
        pa.null(),
    ],
)
def test_a_type_is_read_back_from_its_text(kind):
    assert type_of(str(kind)) == kind


def test_times_of_day_keep_their_unit():
    table = pa.table({"y": target(), "a": pa.array([time(1, 2, 3), time(4, 5, 6)] * 30, pa.time32("ms"))})
    schema = schema_of(table)
    assert (schema["a"].low, schema["a"].high) == (3_723_000, 14_706_000)
    assert pc.all(pc.equal(schema.original(schema.canonical(table)[0])["a"], table["a"])).as_py()

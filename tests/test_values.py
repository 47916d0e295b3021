import datetime as dt
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.values import as_text

DAYS = st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))


def text(values: list, kind: pa.DataType | None = None) -> list:
    return as_text(pa.array(values, kind)).to_pylist()


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-100, 100))))
def test_equal_numbers_have_one_spelling_whatever_type_holds_them(values: list) -> None:
    wanted = [None if value is None else str(value) for value in values]
    for kind in (pa.int8(), pa.int64(), pa.float16(), pa.float32(), pa.float64()):
        assert text(values, kind) == wanted
    assert text([None if value is None else Decimal(value) for value in values], pa.decimal128(9, 3)) == wanted
    assert (
        as_text(pa.chunked_array([pa.array(values, pa.int16()), pa.array(values, pa.int16())]).dictionary_encode()).to_pylist()
        == wanted * 2
    )


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))))
def test_the_text_of_a_float_is_the_float(values: list) -> None:
    again = as_text(pa.array(values, pa.float64())).cast(pa.float64()).to_pylist()
    assert again == values


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False))))
def test_the_text_of_a_narrow_float_gives_it_back(values: list) -> None:
    again = as_text(pa.array(values, pa.float32())).cast(pa.float64()).cast(pa.float32()).to_pylist()
    assert again == values


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))))
def test_the_text_of_an_integer_is_exact(values: list) -> None:
    assert as_text(pa.array(values, pa.int64())).cast(pa.int64()).to_pylist() == values


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.decimals(-1000, 1000, places=3))))
def test_the_text_of_a_decimal_is_the_decimal(values: list) -> None:
    spelled = text(values, pa.decimal128(9, 3))
    assert [None if value is None else Decimal(value) for value in spelled] == values
    assert all("." not in value or not value.endswith(("0", ".")) for value in spelled if value)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), DAYS)))
def test_days_have_one_spelling(values: list) -> None:
    wanted = [None if value is None else value.isoformat() for value in values]
    for kind in (pa.date32(), pa.date64(), pa.timestamp("s"), pa.timestamp("us")):
        assert as_text(pa.array(values, pa.date32()).cast(kind)).to_pylist() == wanted


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)))))
def test_the_text_of_a_moment_is_the_moment(values: list) -> None:
    column = pa.array(values, pa.timestamp("us"))
    spelled = as_text(column)
    assert spelled.cast(pa.timestamp("us")).to_pylist() == values
    assert as_text(column.cast(pa.timestamp("ns"))).to_pylist() == spelled.to_pylist()


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text())))
def test_text_is_left_alone(values: list) -> None:
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert text(values, kind) == values


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([True, False, None], ["true", "false", None]),
        ([float("nan"), float("inf"), -float("inf"), -0.0, 1e10, 2.5], [None, None, None, "0", "10000000000", "2.5"]),
        ([None, None], [None, None]),
        ([dt.datetime(2024, 12, 31, 10), dt.datetime(2024, 12, 31, 0, 0, 0, 500_000)], ["2024-12-31 10:00:00", "2024-12-31 00:00:00.5"]),
    ],
)
def test_spellings(values: list, wanted: list) -> None:
    assert text(values) == wanted


def test_narrow_floats_are_spelled_as_people_wrote_them() -> None:
    assert as_text(pa.array(np.array([0.1, 2.5, 1 / 3], np.float32))).to_pylist()[:2] == ["0.1", "2.5"]

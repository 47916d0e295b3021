"""Claims about summaries: what they say of rows, and that no cut of the rows changes it."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from itertools import pairwise
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray import summary as module
from codsa_ray.errors import SchemaError
from codsa_ray.seeds import hash_rows
from codsa_ray.summary import KEY, Summary

TYPES = {
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "float": (pa.float64(), st.floats() | st.sampled_from([0.0, -0.0, 0.5, 2.0])),
    "narrow": (pa.float32(), st.floats(width=32)),
    "half": (pa.float16(), st.floats(width=16)),
    "text": (pa.string(), st.text(max_size=3) | st.sampled_from(["a", "b c d"])),
    "named": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["x", "y", "z"])),
    "flag": (pa.bool_(), st.booleans()),
    "moment": (pa.timestamp("us", "Europe/Berlin"), st.integers(-(2**50), 2**50)),
    "day": (pa.date32(), st.integers(-20000, 20000)),
    "clock": (pa.time32("s"), st.integers(0, 86399)),
    "price": (pa.decimal128(12, 2), st.integers(-(10**9), 10**9).map(lambda n: Decimal(n).scaleb(-2))),
    "bytes": (pa.binary(), st.binary(max_size=2)),
    "nothing": (pa.null(), st.none()),
}


def summary_of(values, kind=None):
    table = pa.table({"a": pa.array(values, kind)})
    return Summary.of(table, np.arange(len(table)))


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 25))
    arrays = {}
    for name, (kind, values) in TYPES.items():
        cells = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        whole = kind.value_type if pa.types.is_dictionary(kind) else kind
        array = pa.array(cells, whole)
        arrays[name] = array.dictionary_encode() if pa.types.is_dictionary(kind) else array
    return pa.table(arrays)


@given(tables(), st.data(), st.sampled_from([3, 100]))
@settings(max_examples=40, deadline=None)
def test_any_cut_and_any_order_of_merging_gives_the_same_summary(table, data, cap):
    """Also where the caps on distinct values and on sampled rows are met in some blocks only."""
    positions = np.array(data.draw(st.permutations(range(1000, 1000 + len(table)))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=4)))
    caps = {"DISTINCT": cap, "DISTINCT_FLOATS": cap, "SAMPLE": cap, "DISTINCT_BYTES": 4 * cap}
    with mock.patch.multiple(module, **caps):
        whole = Summary.of(table, positions)
        edges = [0, *cuts, len(table)]
        parts = [Summary.of(table.slice(a, b - a), positions[a:b]) for a, b in pairwise(edges)]
        shuffled = data.draw(st.permutations(parts))
        left = reduce(Summary.merge, shuffled)
        right = reduce(lambda total, part: part.merge(total), shuffled)
        assert left == whole
        assert right == whole


@given(tables())
@settings(max_examples=12, deadline=None)
def test_json_gives_the_summary_back_exactly(table):
    whole = Summary.of(table, np.arange(len(table)))
    assert Summary.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_missing_values_are_told_apart():
    column = summary_of([1.0, None, float("nan"), float("inf"), float("-inf"), -0.0])["a"]
    assert (column.rows, column.nulls, column.nans, column.infinities, column.unreadable, column.known) == (6, 1, 1, 2, 0, 2)
    assert (column.low, column.high, column.values.to_pylist()) == (0.0, 1.0, [0.0, 1.0])


def test_a_null_inside_a_dictionary_is_a_null():
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["x", None]))
    column = Summary.of(pa.table({"a": array}), np.arange(3))["a"]
    assert (column.nulls, column.known) == (2, 1)


def test_integers_beyond_2_to_the_53_stay_exact():
    column = summary_of([2**53 + 1, -(2**63), 2**63 - 1])["a"]
    assert (column.low, column.high, column.distinct) == (-(2**63), 2**63 - 1, 3)
    assert column.values.to_pylist()[1] == 2**53 + 1


@pytest.mark.parametrize(
    ("kind", "values", "unreadable"),
    [
        (pa.uint64(), [2**63, 5], 1),
        (pa.decimal128(38, 2), [Decimal(2**53 + 1).scaleb(-2), Decimal("-0.01")], 1),
        (pa.decimal128(38, 0), [Decimal(2**63), Decimal(2**63 - 1)], 1),
        (pa.timestamp("s"), [2**60, 0], 1),
        (pa.date64(), [86_400_000, 0], 0),
    ],
)
def test_values_too_large_for_the_plain_type_are_counted(kind, values, unreadable):
    assert summary_of(values, kind)["a"].unreadable == unreadable


@pytest.mark.parametrize(
    ("values", "kind", "places"),
    [
        ([1.0, 2.0], pa.float64(), 0),
        ([0.1, 2.25, 1e6], pa.float64(), 2),
        ([0.1, 0.7], pa.float32(), 1),
        ([0.123456], pa.float64(), 6),
        ([1 / 3], pa.float64(), None),
    ],
)
def test_places_are_the_decimals_that_every_value_keeps(values, kind, places):
    """float32 0.1 is one decimal, though its nearest double has many."""
    assert summary_of(values, kind)["a"].places == places


def test_counts_are_exact_below_the_cap_and_distinct_is_estimated_above():
    values = np.random.default_rng(0).integers(0, 20_000, 60_000)
    exact = summary_of(values)["a"]
    uniques, counts = np.unique(values, return_counts=True)
    assert exact.exact
    assert exact.values.to_numpy().tolist() == uniques.tolist()
    assert exact.counts.to_numpy().tolist() == counts.tolist()
    with mock.patch.object(module, "DISTINCT", 2000):
        capped = summary_of(values)["a"]
    assert not capped.exact
    assert len(capped.values) == 2000
    # The standard error of a bottom-k estimate is 1 / sqrt(k): 2.2 % here.
    assert capped.distinct == pytest.approx(len(uniques), rel=0.09)
    assert capped.counts.to_pylist() == counts[np.searchsorted(uniques, capped.values.to_numpy())].tolist()


def test_long_texts_are_kept_up_to_a_number_of_bytes():
    values = [f"{i:04d}" * 25 for i in range(200)]
    with mock.patch.object(module, "DISTINCT_BYTES", 10_000):
        column = summary_of(values)["a"]
    assert len(column.values) == 100
    assert not column.exact
    assert column.distinct == pytest.approx(200, rel=0.4)


def test_the_sample_is_the_rows_whose_positions_hash_smallest():
    table = pa.table({"a": np.arange(500)})
    positions = np.arange(500) + 10**9
    with mock.patch.object(module, "SAMPLE", 50):
        found = Summary.of(table, positions)
    keys = hash_rows(positions, KEY)
    assert found.sample["a"].to_numpy().tolist() == np.argsort(keys)[:50].tolist()
    assert found.keys.to_numpy().tolist() == np.sort(keys)[:50].tolist()


def test_quantiles_are_exact_for_few_rows_and_close_for_many():
    values = np.random.default_rng(1).exponential(size=40_000)
    shares = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    few = summary_of([*values[:5000], None, float("nan")])
    np.testing.assert_array_equal(few.quantiles("a", shares), np.quantile(values[:5000], shares))
    many = summary_of(values).quantiles("a", shares[1:-1])
    # 10,000 sampled rows: a share's standard error is at most 0.005.
    assert np.all(np.abs(np.mean(values[:, None] <= many, axis=0) - shares[1:-1]) < 0.02)
    assert np.isnan(summary_of([None], pa.float64()).quantiles("a", shares)).all()


def test_dates_are_bounded_in_microseconds():
    moment = datetime(2024, 12, 31, tzinfo=UTC)
    assert summary_of([moment, None], pa.timestamp("us", "UTC"))["a"].low == int(moment.timestamp()) * 10**6
    assert summary_of([20088], pa.date32())["a"].high == 20088 * 86_400 * 10**6


def test_unique_means_that_no_value_comes_twice():
    assert summary_of(["a", "b", None, None])["a"].unique
    assert not summary_of(["a", "b", "a"])["a"].unique
    assert not summary_of([None], pa.string())["a"].unique


def test_words_and_characters_are_totals_over_rows():
    column = summary_of(["two words", "two words", "é", None])["a"]
    assert (column.words, column.characters) == (5, 19)


def test_nested_columns_are_refused_by_name():
    with pytest.raises(SchemaError, match=r"'a' of type list<"):
        summary_of([[1], [2]])


def test_blocks_of_different_columns_do_not_merge():
    with pytest.raises(SchemaError, match="'a'"):
        summary_of([1]).merge(summary_of(["x"]))
    with pytest.raises(SchemaError, match=r"\['b'\]"):
        summary_of([1]).merge(Summary.of(pa.table({"b": [1]}), np.arange(1)))

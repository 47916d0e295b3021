"""Columns to latents and back: what must be exact is exact."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.nn.quantiles import KNOTS, Quantiles
from codsa_ray.nn.table_codec import TableCodec
from codsa_ray.schema import Column

COLUMNS = (
    Column("n", "numeric", "double"),
    Column("i", "integer", "int64"),
    Column("c", "categorical", "string", categories=("a", "b", "never", "z")),
    Column("b", "boolean", "bool"),
    Column("d", "datetime", "timestamp[us, tz=UTC]"),
    Column("gone", "numeric", "double"),
    Column("flat", "integer", "int64"),
)


def rows(n: int = 400) -> pa.Table:
    rng = np.random.default_rng(0)
    null = rng.random((4, n)) < 0.1
    stamps = pa.array(rng.integers(-(10**15), 10**15, n), mask=null[3]).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "n": pa.array(np.where(rng.random(n) < 0.5, 0.0, rng.normal(size=n)), mask=null[0]),
            "i": pa.array(2**53 + rng.integers(0, 1000, n)),
            "c": pa.array(rng.choice(["a", "b", "rest", "z"], n), mask=null[1]),
            "b": pa.array(rng.random(n) < 0.3, mask=null[2]),
            "d": stamps,
            "gone": pa.nulls(n, pa.float64()),
            "flat": pa.array(np.full(n, 2**62)),
        }
    )


def test_training_rows_come_back_exactly_in_their_types() -> None:
    table = rows().filter(pa.compute.not_equal(rows()["c"].fill_null(""), "rest"))
    codec = TableCodec.of(COLUMNS, table)
    back = codec.decode(codec.encode(table))
    assert back.schema == table.schema
    for name in ("c", "b", "gone", "flat"):
        assert back[name].to_pylist() == table[name].to_pylist()
    for name in ("n", "i", "d"):  # float32 latents: between two values seen once, a rank may be off by a rounding
        assert back[name].is_null().equals(table[name].is_null())
    zero = np.array([value == 0.0 for value in table["n"].to_pylist()])
    assert set(back["n"].filter(pa.array(zero)).to_pylist()) == {0.0}


def test_values_with_much_of_the_mass_nulls_and_single_values_cost_no_quantiles() -> None:
    codec = TableCodec.of(COLUMNS, rows())
    by = {column.name: column for column in codec.columns}
    assert by["n"].values.to_pylist() == [0.0, None]
    assert (by["gone"].levels, by["flat"].levels) == (1, 1)
    # n: 0, null, rest; c: a, b, z, null, rest; b: false, true, null; d: null, rest; i: quantiles only
    assert codec.layout.reals == 3
    assert codec.layout.runs == ((1, 2), (2, 3), (1, 5))


def test_a_category_without_a_code_or_without_rows_is_never_drawn() -> None:
    codec = TableCodec.of(COLUMNS, rows())
    noise = np.random.default_rng(1).normal(size=(5000, codec.layout.width)).astype(np.float32)
    assert set(codec.decode(noise)["c"].to_pylist()) == {"a", "b", "z", None}


def test_the_codec_survives_json_to_the_byte() -> None:
    codec = TableCodec.of(COLUMNS, rows())
    plain, arrays = codec.to_json()
    again = TableCodec.from_json(json.loads(json.dumps(plain)), arrays)
    noise = np.random.default_rng(1).normal(size=(300, codec.layout.width)).astype(np.float32)
    assert again.decode(noise).equals(codec.decode(noise))
    assert np.array_equal(again.encode(rows()), codec.encode(rows()))


def test_a_table_whose_columns_are_all_fixed_still_has_rows() -> None:
    codec = TableCodec.of((), rows())
    assert len(codec.decode(codec.encode(rows()))) == len(rows())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60))
def test_whole_numbers_come_back_exactly_over_all_of_int64(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    quantiles = Quantiles.of(array)
    assert quantiles.decode(quantiles.encode(array)).tolist() == values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=60))
def test_floats_come_back_exactly(values: list[float]) -> None:
    array = np.array(values)
    quantiles = Quantiles.of(array)
    assert np.array_equal(quantiles.decode(quantiles.encode(array)), array)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), st.lists(st.floats(-9, 9), min_size=1, max_size=20))
def test_drawn_whole_numbers_keep_the_bounds_and_rise_with_the_score(values: list[int], scores: list[float]) -> None:
    drawn = Quantiles.of(np.array(values, dtype=np.int64)).decode(np.sort(scores)).tolist()
    assert min(values) <= drawn[0]
    assert drawn[-1] <= max(values)
    assert drawn == sorted(drawn)


def test_odd_numbers_beyond_two_to_the_53_are_drawn() -> None:
    values = 2**53 + np.arange(1, 200, 2)
    drawn = Quantiles.of(values).decode(np.random.default_rng(0).normal(size=1000))
    assert {value % 2 for value in drawn.tolist()} == {0, 1}


def test_quantiles_of_a_sample_are_standard_normal() -> None:
    scores = Quantiles.of(np.random.default_rng(0).exponential(size=3000)).encode(np.random.default_rng(0).exponential(size=3000))
    assert scores.mean() == pytest.approx(0.0, abs=1e-9)
    assert scores.std() == pytest.approx(1.0, abs=0.01)


def test_beside_a_heap_nothing_new_appears_and_places_are_kept() -> None:
    heaped = np.repeat([10, 40, 60], [30, 200, 30])
    assert set(Quantiles.of(heaped).decode(np.linspace(-4, 4, 999)).tolist()) == {10, 40, 60}
    drawn = Quantiles.of(np.array([0.25, 1.5, 9.75]), places=2).decode(np.linspace(-4, 4, 999))
    assert np.array_equal(np.round(drawn, 2), drawn)
    assert len(np.unique(drawn)) > 100


def test_many_values_are_thinned_with_both_ends_kept() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    quantiles = Quantiles.of(values)
    assert len(quantiles.knots) == KNOTS
    assert (quantiles.knots[0], quantiles.knots[-1]) == (values.min(), values.max())
    assert np.abs(quantiles.decode(quantiles.encode(values)) - values).max() < 1e-6

"""Encodings: what learners may rely on."""

import pickle

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.encode import KNOTS, SOFT, OneHot, Ordinal
from codsa_ray.errors import SchemaError
from codsa_ray.schema import Column, Schema

from tables import mixed_table, schema_of

ENCODERS = (OneHot, Ordinal)


def table_of(**columns: list) -> tuple[pa.Table, Schema]:
    """A canonical table with a target beside the given columns, and its schema."""
    table = pa.table(columns | {"y": ["a"] * len(next(iter(columns.values())))})
    return table, schema_of(table, "y")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_rows_are_encoded_one_by_one(encoder):
    """However a table is cut, chunked or pickled around, the same row has the same code."""
    table, schema, _ = mixed_table()
    learned = encoder.learn(table, schema)
    whole = learned.encode(table)
    parts = np.concatenate([pickle.loads(pickle.dumps(learned)).encode(table.slice(start, 97)) for start in range(0, len(table), 97)])
    chunked = learned.encode(pa.concat_tables([table.slice(0, 10), table.slice(10)]))
    assert whole.dtype == np.float32
    assert np.array_equal(whole, parts, equal_nan=True)
    assert np.array_equal(whole, chunked, equal_nan=True)
    assert learned.encode(table.slice(0, 0)).shape == (0, whole.shape[1])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_neither_target_nor_order_of_rows_matters(encoder):
    """Law 3's first half: nothing of the target enters; and a permutation of the training rows gives the same encoder."""
    table, schema, _ = mixed_table()
    flipped = table.set_column(table.column_names.index("label"), "label", pa.array(["no"] * len(table)))
    order = pa.array(np.random.default_rng(1).permutation(len(table)))
    assert encoder.learn(table, schema) == encoder.learn(flipped, schema) == encoder.learn(table.take(order), schema)


def test_one_hot_is_standardised_and_has_no_nan():
    """Median 0, middle half as wide as a standard normal's, nothing beyond SOFT, nulls at the median with a flag."""
    rng = np.random.default_rng(0)
    values = rng.normal(100, 30, 4000)
    values[:3] = [1e308, -1e308, 1e30]
    table, schema = table_of(x=pa.array(values, mask=np.arange(4000) % 10 == 9))
    X = OneHot.learn(table, schema).encode(table)
    inside = X[np.arange(4000) % 10 != 9, 0]
    assert X.shape == (4000, 2)
    assert np.abs(X[:, 0]).max() <= SOFT
    assert abs(np.median(inside)) < 1e-2
    assert np.subtract(*np.quantile(inside, [0.75, 0.25])) == pytest.approx(1.349, rel=0.03)
    assert np.array_equal(X[:, 1], np.arange(4000) % 10 == 9)
    assert not X[X[:, 1] == 1, 0].any()


def test_one_hot_keeps_the_order_of_a_heavy_tail():
    """Robust is not flat: a greater value has a greater code, far beyond the middle half too."""
    table, schema = table_of(x=np.exp(np.linspace(-3, 6, 200)).tolist())
    X = OneHot.learn(table, schema).encode(table)
    assert np.all(np.diff(X[:, 0]) > 0)


def test_one_hot_scales_by_the_values_beside_a_spike():
    """With 80 % zeros the middle half has no width; a typical other value is then one unit away."""
    table, schema = table_of(x=[0.0] * 80 + [500.0] * 19 + [1e9])
    X = OneHot.learn(table, schema).encode(table)
    assert X[0, 0] == 0
    assert X[85, 0] == pytest.approx(1, rel=0.05)
    assert X[99, 0] == pytest.approx(SOFT, rel=1e-3)


def test_one_hot_rows_have_one_level_each():
    """Unseen values and untrained nulls are "other", trained nulls have a flag; each feature sums to 1."""
    table, schema = table_of(c=["u", "u", "v", None], d=["p", "q", "q", "q"])
    test, _ = table_of(c=["v", "new", None], d=["q", None, "new"])
    learned = OneHot.learn(table, schema)
    assert learned.encode(table).tolist() == [[1, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0]]
    assert learned.encode(test).tolist() == [[0, 1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 1]]


def test_one_hot_width_is_capped_by_frequency_over_all_features():
    """With room for three levels the three most frequent of any feature stay, the others share their feature's column."""
    table, schema = table_of(c=["a"] * 5 + ["b"] * 3 + ["c"] * 2, d=["p"] * 9 + ["q"])
    X = OneHot.learn(table, schema, width=3).encode(table)
    assert X.shape == (10, 3 + 2)
    assert X.sum(axis=0).tolist() == [5, 3, 2, 9, 1]


def test_levels_the_schema_does_not_list_are_other():
    """A value beyond the schema's cap has no code of its own, even when training rows hold it."""
    table, _ = table_of(c=["a", "a", "rare"])
    listed = Column("c", "categorical", "string", categories=("a",), other=True)
    schema = Schema((listed, Column("y", "categorical", "string", categories=("a",))), "y", "classification")
    assert OneHot.learn(table, schema).encode(table).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert Ordinal.learn(table, schema).encode(table)[:, 0].tolist() == [0, 0, 1]


def test_ordinal_codes_by_frequency():
    """0 for the most frequent level, ties by value, then other; NaN for null."""
    table, schema = table_of(c=["z", "z", "b", "a", None])
    test, _ = table_of(c=["a", "b", "z", "new", None])
    codes = Ordinal.learn(table, schema).encode(test)[:, 0]
    assert np.array_equal(codes, [1, 2, 0, 3, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    "values",
    [
        [-(2**63), 2**63 - 1, 0, 1, 2],
        [2**60 + i for i in range(100)],
        [2**53 + i for i in range(5)],
        [1.0, 1.0 + 1e-12, 1.0 + 2e-12],
        [-1.7e308, 0.0, 1e-300, 1.7e308],
    ],
    ids=["whole int64", "beyond 2^60", "beyond 2^53", "near floats", "whole float64"],
)
def test_ordinal_keeps_what_float32_would_merge(values):
    """Every training value has its own code, in order: trees can cut wherever float64 or int64 could."""
    table, schema = table_of(x=values)
    learned = Ordinal.learn(table, schema)
    codes = learned.encode(table.take(pa.array(np.argsort(np.array(values)))))[:, 0]
    assert np.all(np.diff(codes) > 0)
    assert np.isfinite(OneHot.learn(table, schema).encode(table)).all()


def test_ordinal_ranks_are_bounded_and_monotone():
    """With more values than KNOTS the encoder stays small and order is kept, values between training ones included."""
    rng = np.random.default_rng(0)
    train, schema = table_of(x=(rng.integers(0, 2**62, 3 * KNOTS)).tolist())
    test, _ = table_of(x=np.sort(rng.integers(0, 2**62, 5000)).tolist())
    learned = Ordinal.learn(train, schema)
    codes = learned.encode(test)[:, 0]
    assert np.all(np.diff(codes) >= 0)
    assert len(np.unique(codes)) > KNOTS / 2
    assert len(pickle.dumps(learned)) < 100_000


@pytest.mark.parametrize("encoder", ENCODERS)
def test_values_beyond_training_bounds_read_as_the_bound(encoder):
    """A test row cannot reach where no training row was, and int64 differences cannot overflow."""
    table, schema = table_of(i=[10, 20, 30], x=[-1.0, 0.0, 1.0])
    far, _ = table_of(i=[-(2**63), 2**63 - 1], x=[-1e308, 1e308])
    near, _ = table_of(i=[10, 30], x=[-1.0, 1.0])
    learned = encoder.learn(table, schema)
    assert np.array_equal(learned.encode(far), learned.encode(near))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_columns_without_any_value_are_harmless(encoder):
    """All null in training, then filled; and nulls in a column that had none."""
    table = pa.table({"x": pa.array([None, None], pa.float64()), "c": pa.array([None, None], pa.string()), "i": [1, 1], "y": ["a", "b"]})
    test = pa.table({"x": [5.0, -5.0], "c": ["u", None], "i": pa.array([None, 1], pa.int64()), "y": ["a", "b"]})
    learned = encoder.learn(table, schema_of(table, "y"))
    X = learned.encode(test)
    assert X.shape[1] == learned.encode(table).shape[1]
    assert np.isfinite(X).all() or encoder is Ordinal


@pytest.mark.parametrize("encoder", ENCODERS)
def test_text_is_refused_by_name(encoder):
    table, schema = table_of(note=["a", "b"])
    columns = tuple(Column("note", "text", "string") if c.name == "note" else c for c in schema.columns)
    with pytest.raises(SchemaError, match="'note' of kind text"):
        encoder.learn(table, Schema(columns, "y", "classification"))

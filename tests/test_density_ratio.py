"""Density ratio: weights of two known normals, of one law twice, cross-fitted, cut, and the same for whoever asks."""

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.density_ratio import LEAST_ROWS, Ratio
from codsa_ray.errors import CandidateError
from codsa_ray.infer import infer
from codsa_ray.schema import Schema
from codsa_ray.summary import Summary


def rows(own: np.ndarray, others: np.ndarray) -> tuple[pa.Table, Schema, np.ndarray]:
    """Canonical rows of d normals, those of the target domain first; the schema; which are the target's."""
    values = np.concatenate([own, others])
    table = pa.table(
        {**{f"x{i}": column for i, column in enumerate(values.T)}, "y": pa.array(np.arange(len(values)) % 2).cast(pa.string())}
    )
    schema = infer(Summary.of(table, np.arange(len(table))), "y")
    return schema.canonical(table)[0], schema, np.arange(len(values)) < len(own)


def fitted(own: np.ndarray, others: np.ndarray, seed: int = 0) -> tuple[Ratio, pa.Table, np.ndarray]:
    """The ratio, and the other domains' rows with their positions."""
    table, schema, mine = rows(own, others)
    keys = np.arange(len(table))
    return Ratio.of(table, mine, keys, schema, seed), table.filter(pa.array(~mine)), keys[~mine]


def test_weights_of_two_normals_are_the_ratio_of_their_densities() -> None:
    rng = np.random.default_rng(0)
    others = rng.normal(0, 1, (6000, 2))
    ratio, table, keys = fitted(rng.normal([0.8, -0.4], 1, (4000, 2)), others)
    # p_target / p_others = exp(m x - m^2 / 2) for unit normals whose means differ by m.
    truth = others @ np.array([0.8, -0.4]) - (0.8**2 + 0.4**2) / 2
    found = np.log(ratio.weights(table, keys))
    inside = np.abs(others).max(axis=1) < 2
    assert np.abs(found - truth)[inside].mean() < 0.1
    assert np.average(others, axis=0, weights=np.exp(found)) == pytest.approx([0.8, -0.4], abs=0.1)


def test_rows_of_one_law_weigh_about_the_same() -> None:
    rng = np.random.default_rng(1)
    ratio, table, keys = fitted(rng.normal(size=(40, 5)), rng.normal(size=(2000, 5)))
    weights = ratio.weights(table, keys)
    assert weights.mean() == pytest.approx(1.0)
    assert weights.std() < 0.35
    assert ratio.sizes[1.0] > 0.85 * len(weights)


def test_no_weight_is_above_the_root_of_the_rows() -> None:
    rng = np.random.default_rng(2)
    ratio, table, keys = fitted(rng.normal(4, 1, (200, 1)), rng.normal(0, 1, (400, 1)))
    weights = ratio.weights(table, keys)
    assert ratio.cut > 0
    assert weights.max() == pytest.approx(ratio.limit / ratio.means[1.0])
    assert weights.mean() == pytest.approx(1.0)
    assert str(ratio.cut) in ratio.notice
    flat = ratio.weights(table, keys, 0.5)
    assert flat.mean() == pytest.approx(1.0)
    assert np.allclose(flat**2 / np.mean(flat**2), weights)
    assert ratio.sizes[0.5] > 2 * ratio.sizes[1.0]


def test_a_row_is_judged_by_a_classifier_that_has_not_seen_it() -> None:
    rng = np.random.default_rng(3)
    ratio, _, _ = fitted(rng.normal(size=(100, 15)), rng.normal(size=(200, 15)))
    assert ratio.classifiers.shape == (5, 16)
    # One law: equal weights are right. A classifier that had seen the rows finds differences, and makes 200 of them worth 131.
    assert ratio.sizes[1.0] > 0.9 * ratio.rows


def test_the_same_rows_weigh_the_same_in_any_company() -> None:
    rng = np.random.default_rng(4)
    ratio, table, keys = fitted(rng.normal(1, 1, (50, 3)), rng.normal(0, 1, (300, 3)))
    some = np.array([5, 17, 200])
    assert np.allclose(ratio.weights(table, keys)[some], ratio.weights(table.take(pa.array(some)), keys[some]), rtol=1e-9)


def test_few_rows_are_refused_in_words() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(CandidateError, match=f"want {LEAST_ROWS}"):
        fitted(rng.normal(size=(LEAST_ROWS - 1, 2)), rng.normal(size=(50, 2)))


def test_words_tell_domains_apart() -> None:
    rows = {"text": ["the plot of a chapter drags", "the lens of a model is sharp"] * 2, "y": ["a", "b"] * 2}
    schema = infer(Summary.of(pa.table(rows), np.arange(4)), "y", overrides={"text": {"kind": "text"}})
    books = pa.table({"text": [f"the plot of chapter {i} drags" for i in range(40)], "y": ["a", "b"] * 20})
    goods = pa.table({"text": [f"the lens of model {i} is sharp" for i in range(60)], "y": ["a", "b"] * 30})
    table = schema.canonical(pa.concat_tables([books, goods]))[0]
    ratio = Ratio.of(table, np.arange(100) < 40, np.arange(100), schema, 0)
    alike = pa.table({"text": ["the plot of chapter 3 drags", "the lens of model 3 is sharp"], "y": ["a", "b"]})
    weights = ratio.weights(schema.canonical(alike)[0], np.array([1000, 1001]))
    assert weights[0] > weights[1]

"""sequential_trees: trees as arrays, donors of a leaf, nulls by region, and what a region borrows."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp, spearmanr
from sklearn.tree import DecisionTreeRegressor

from codsa_ray.cells import Cells
from codsa_ray.draw import TRIES, draw_block
from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.sequential_trees import FittedTrees, SequentialTrees, Turn, _donors, _gaps, _nodes, _ranks
from codsa_ray.schema import Column

from tables import LocalWorker, half_rare, mixed_table, with_regions

SIGMAS = 5.0


def fitted(settings: SequentialTrees, path: object, table: pa.Table | None = None, by: tuple[str, ...] = ("label", "sex")) -> FittedTrees:
    found, schema, regions = mixed_table(3000) if table is None else with_regions(table, "label", by)
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(found, schema, regions, 1), worker)
    return settings.load(worker.folder)


def descend(arrays: dict[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    """The plain rule: left when the value is at most the threshold."""
    node = np.zeros(len(X), dtype=np.int64)
    while (inner := arrays["left"][node] >= 0).any():
        at = node[inner]
        left = X[inner, arrays["feature"][at]] <= arrays["threshold"][at]
        node[inner] = np.where(left, arrays["left"][at], arrays["right"][at])
    return node


def test_the_tree_built_from_arrays_takes_every_row_where_the_plain_rule_takes_it() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 5)).astype(np.float32)
    grown = DecisionTreeRegressor(min_samples_leaf=7, random_state=0).fit(X, X[:, 0] * X[:, 1]).tree_
    cell = Cells(Column("a", "numeric", "double", 0.0, 1.0))
    arrays = _nodes(grown) | {"ranks": np.empty(0, np.float32)} | _donors(cell, rng.random(2000), grown.apply(X), grown.node_count)
    turn = Turn.of(cell, -1, arrays, [0] * 5)
    fresh = rng.normal(size=(5000, 5)).astype(np.float32)
    assert turn.tree is not None
    assert np.array_equal(turn.tree.apply(fresh), descend(arrays, fresh))
    assert np.array_equal(turn.tree.apply(fresh), grown.apply(fresh))


def test_values_come_from_the_donors_of_the_row_s_own_leaf() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 2)).astype(np.float32)
    y = rng.integers(0, 10, 500).astype(float)
    grown = DecisionTreeRegressor(min_samples_leaf=20, random_state=0).fit(X, y).tree_
    cell = Cells(Column("a", "numeric", "double", 0.0, 9.0))
    arrays = _nodes(grown) | {"ranks": np.empty(0, np.float32)} | _donors(cell, y, grown.apply(X), grown.node_count)
    turn = Turn.of(cell, -1, arrays, [0, 0])
    fresh = rng.normal(size=(4000, 2)).astype(np.float32)
    values, leaf = turn.draw(fresh, [], rng.random(4000)), grown.apply(fresh)
    for node in np.unique(leaf):
        donors = y[grown.apply(X) == node]
        assert set(values[leaf == node]) <= set(donors)
        error = donors.std() / np.sqrt((leaf == node).sum())
        assert abs(values[leaf == node].mean() - donors.mean()) <= SIGMAS * error + 1e-9


def test_level_order_is_that_of_the_mean_for_two_classes_and_for_numbers() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, 4000)
    yes = rng.random(4000) < rng.random(8)[codes]
    mean = np.array([yes[codes == level].mean() for level in range(8)])
    by_number, by_class = _ranks(codes, 8, yes.astype(float), 0.0), _ranks(codes, 8, yes.astype(np.int64), 0.0)
    assert np.array_equal(np.argsort(by_number), np.argsort(mean))
    assert abs(spearmanr(by_class, mean).statistic) == pytest.approx(1.0)


def test_a_level_without_rows_lies_at_the_mean() -> None:
    ranks = _ranks(np.array([0, 0, 2, 2]), 3, np.array([0.0, 0.0, 1.0, 1.0]), 1.0)
    assert ranks.tolist() == [1.0, 2.0, 3.0]


def test_half_gaps_by_hand() -> None:
    donors, leaf = np.array([0.0, 1.0, 4.0, 4.5, 10.0]), np.array([1, 1, 1, 2, 2])
    assert _gaps(donors, leaf).tolist() == [0.0, 0.5, 1.5, 0.0, 2.75, 0.0]


def test_nothing_is_drawn_between_an_atom_and_its_neighbour() -> None:
    donors = np.concatenate([np.zeros(50), [1.0, 2.0, 4.0]])
    assert _gaps(donors, np.zeros(53)).tolist() == [0.0] * 51 + [0.5, 1.0, 0.0]
    assert _gaps(-donors[::-1], np.zeros(53)).tolist() == [0.0, 1.0, 0.5] + [0.0] * 51


def test_each_donor_spreads_its_share_evenly_up_to_half_way_to_its_neighbours() -> None:
    cell = Cells(Column("a", "numeric", "double", -100.0, 100.0))
    leaf = {"left": [-1], "right": [-1], "feature": [-2], "threshold": [-2.0], "ranks": [], "start": [0], "count": [3]}
    arrays = {name: np.array(values) for name, values in leaf.items()} | {"donors": np.array([0.0, 1.0, 4.0])}
    turn = Turn.of(cell, -1, arrays | {"gap": np.array([0.0, 0.5, 1.5, 0.0])}, [0])
    u = (np.arange(60_000) + 0.5) / 60_000
    values = turn.draw(np.zeros((len(u), 1), dtype=np.float32), [], u)
    edges = [0.0, 0.5, 1.0, 2.5, 4.0]
    at_zero, at_four = (values == 0.0).mean(), (values == 4.0).mean()
    assert (at_zero, at_four) == (pytest.approx(1 / 6), pytest.approx(1 / 6)), "outward of the last donors there is no room"
    shares = [((values > low) & (values < high)).mean() for low, high in pairwise(edges)]
    assert shares == pytest.approx([1 / 6] * 4, abs=1e-3)


def test_a_region_without_factors_is_told_apart_by_its_id(tmp_path: object) -> None:
    table, schema, regions = with_regions(
        pa.table({"x": np.repeat([1.0, 9.0], 50), "label": np.repeat(["a", "b"], 50)}), "label", ("label",)
    )
    bare = replace(regions, items=tuple(replace(item, factors=()) for item in regions.items), levels=())
    worker = LocalWorker(Folder(str(tmp_path)))
    SequentialTrees().fit(FitData.of(table, schema, bare, 1), worker)
    generator = SequentialTrees().load(worker.folder)
    assert [set(generator.block(region, 1)["x"].to_pylist()) for region in (0, 1)] == [{1.0}, {9.0}]


def test_values_between_donors_leave_the_mean_where_it_is_and_are_no_copies(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    x = rng.lognormal(size=800)
    table = pa.table({"x": x, "label": ["a", "b"] * 400})
    settings = SequentialTrees(leaf=800, block=40_000)
    values = fitted(settings, tmp_path, table, ("label",)).block(0, 1)["x"].to_numpy()
    assert abs(values.mean() - x.mean()) <= SIGMAS * x.std() / np.sqrt(len(values))
    assert np.isin(values, x).mean() < 0.05
    assert ks_2samp(values, x).statistic < 0.03
    assert x.min() <= values.min() <= values.max() <= x.max()


def test_a_spike_keeps_its_share_and_its_value(tmp_path: object) -> None:
    table = mixed_table(3000)[0]
    generator = fitted(SequentialTrees(), tmp_path)
    for region in (0, 1, 3):
        real = table.filter(pa.array(table[REGION].to_numpy() == region))["gain"].to_numpy() == 0
        drawn = generator.block(region, 1)["gain"].to_numpy() == 0
        assert abs(drawn.mean() - real.mean()) <= SIGMAS * np.sqrt(0.25 / len(real) + 0.25 / len(drawn))


def test_a_region_s_draw_differs_where_the_data_say_so(tmp_path: object) -> None:
    table = mixed_table(3000)[0]
    generator = fitted(SequentialTrees(), tmp_path)
    for region in (1, 3):
        real = table.filter(pa.array(table[REGION].to_numpy() == region))
        drawn = generator.block(region, 1)
        for column, value in (("job", "judge"), ("member", True)):
            shares = [np.mean([v == value for v in rows[column].drop_null().to_pylist()]) for rows in (real, drawn)]
            assert abs(shares[0] - shares[1]) < 0.06, (region, column)


def test_a_region_of_three_rows_borrows_values_but_not_nulls(tmp_path: object) -> None:
    table = mixed_table(3000)[0]
    own = table.filter(pa.array(table[REGION].to_numpy() == 2))
    drawn = fitted(SequentialTrees(), tmp_path).block(2, 1)
    assert len(set(drawn["age"].to_pylist())) > 10
    names = drawn.column_names
    seen = {tuple(own[name][row].is_valid for name in names) for row in range(len(own))}
    bits = np.column_stack([drawn[name].is_valid().to_numpy() for name in names])
    assert set(map(tuple, bits.tolist())) == seen


def test_dependence_between_columns_is_kept(tmp_path: object) -> None:
    table = mixed_table(3000)[0]
    drawn = fitted(SequentialTrees(), tmp_path).block(1, 1)
    real = table.filter(pa.array(table[REGION].to_numpy() == 1))

    def correlation(rows: pa.Table) -> float:
        pairs = rows.select(["age", "wage"]).drop_null()
        return float(spearmanr(pairs["age"].to_numpy(), pairs["wage"].to_numpy()).statistic)

    assert abs(correlation(drawn) - correlation(real)) < 0.1


def test_whole_days_stay_whole(tmp_path: object) -> None:
    drawn = fitted(SequentialTrees(), tmp_path).block(1, 1)["since"].drop_null()
    assert (drawn.cast(pa.int64()).to_numpy() % 86_400_000_000 == 0).all()


def test_the_cap_bounds_the_donors(tmp_path: object) -> None:
    generator = fitted(replace(SequentialTrees(), cap=500), tmp_path)
    assert 300 < len(generator.pattern) < 700
    assert all(len(turn.donors) <= len(generator.pattern) for turn in generator.turns if turn.donors is not None)


def test_trees_are_the_same_grown_one_by_one_or_side_by_side(tmp_path: object) -> None:
    files = []
    for cores in (1, 3):
        fitted(SequentialTrees(cores=cores), f"{tmp_path}/{cores}")
        files.append([Path(f"{tmp_path}/{cores}/trees.{kind}").read_bytes() for kind in ("safetensors", "json")])
    assert files[0] == files[1]
    assert SequentialTrees(cores=3).needs.cpus == 3


def test_three_thousand_levels_keep_what_goes_with_each(tmp_path: object) -> None:
    """Columns after a category lean on its level where that has rows, and every drawn level is one that was seen."""
    rng = np.random.default_rng(0)
    code = np.where(rng.random(20_000) < 0.5, rng.integers(0, 10, 20_000), rng.integers(10, 3000, 20_000))
    x = np.where(code < 10, 10.0 * code, -5.0) + rng.normal(size=20_000)
    table = pa.table({"c": np.char.add("c", code.astype(str)), "x": x, "label": ["a", "b"] * 10_000})
    rows = fitted(SequentialTrees(block=8192), tmp_path, table, ("label",)).block(0, 1)
    drawn = np.array([int(value[1:]) for value in rows["c"].to_pylist()])
    values = rows["x"].to_numpy()
    assert set(drawn) <= set(code)
    assert len(set(drawn[drawn >= 10])) > 1000
    for level in range(10):
        assert (drawn == level).mean() == pytest.approx(0.05, abs=0.015)
        assert values[drawn == level].mean() == pytest.approx(10.0 * level, abs=1.0)
    assert values[drawn >= 10].mean() == pytest.approx(-5.0, abs=1.0)


def test_what_goes_with_categories_that_are_not_kept_is_drawn_as_often_as_it_is(tmp_path: object) -> None:
    """Half of the rows have rare codes and x near -5: so have half of those drawn, under a kept code, by what the leaf has of each."""
    worker = LocalWorker(Folder(str(tmp_path)))
    SequentialTrees(block=8192).fit(FitData.of(*half_rare(), seed=1), worker)
    rows = SequentialTrees(block=8192).load(worker.folder).block(0, 1)
    assert (rows["x"].to_numpy() < 0).mean() == pytest.approx(0.5, abs=0.05)
    known = rows["code"].drop_null().to_pylist()
    assert set(known) == {"often", "seldom"}
    assert np.mean([code == "often" for code in known]) == pytest.approx(0.7, abs=0.05)
    assert rows["code"].null_count / len(rows) == pytest.approx(0.1, abs=0.02)


def test_a_leaf_without_a_kept_category_takes_those_of_the_whole_column() -> None:
    cell = Cells(Column("c", "categorical", "string", categories=("u", "v"), other=True))
    split = {"left": [1, -1, -1], "right": [2, -1, -1], "feature": [0, -2, -2], "threshold": [0.5, -2.0, -2.0], "ranks": []}
    donors = {"start": [0, 0, 4], "count": [7, 4, 3], "donors": np.array([0, 0, 1, 2, 2, 2, 2])}
    turn = Turn.of(cell, -1, {name: np.array(values) for name, values in (split | donors).items()}, [0])
    X = np.repeat([[0.0], [1.0]], 3000, axis=0).astype(np.float32)
    u = np.tile((np.arange(3000) + 0.5) / 3000, 2)
    drawn = turn.draw(X, [], u)
    shown = turn.shown(drawn, X, u)
    assert [np.bincount(part, minlength=3).tolist() for part in (drawn[:3000], drawn[3000:])] == [[1500, 750, 750], [0, 0, 3000]]
    assert [np.bincount(part, minlength=3).tolist() for part in (shown[:3000], shown[3000:])] == [[2000, 1000, 0], [2000, 1000, 0]]


def test_constraints_hold_by_counted_redraw_and_impossible_ones_end(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    low = rng.random(600)
    table = pa.table({"low": low, "high": low + rng.random(600), "label": ["a", "b"] * 300})
    generator = fitted(SequentialTrees(block=512), tmp_path, table, ("label",))
    _, schema, regions = with_regions(table, "label", ("label",))
    free, none = draw_block(generator, schema, regions, 0, 1)
    rows, redrawn = draw_block(generator, replace(schema, constraints=("low <= high",)), regions, 0, 1)
    broken = int((free["low"].to_numpy() > free["high"].to_numpy()).sum())
    assert not none
    assert redrawn["the constraint low <= high"] == redrawn.total() >= broken > 0
    assert (rows["low"].to_numpy() <= rows["high"].to_numpy()).all()
    assert len(rows) == 512
    with pytest.raises(ShortOfRows, match=f"in {TRIES} tries; mostly the constraint low > high \\+ 5"):
        draw_block(generator, replace(schema, constraints=("low > high + 5",)), regions, 0, 1)


def test_memory_grows_no_faster_than_rows(tmp_path: object) -> None:
    """What numpy holds at the peak of a fit; scikit-learn's own nodes come with the leaves, which are as many here."""
    rng, peaks = np.random.default_rng(0), []
    for rows in (5_000, 20_000):
        columns = {f"x{i}": rng.normal(size=rows) for i in range(5)} | {"c": rng.choice(["u", "v", "w"], rows)}
        data = FitData.of(*with_regions(pa.table({**columns, "label": ["a", "b"] * (rows // 2)}), "label", ("label",)), seed=1)
        tracemalloc.start()
        SequentialTrees(leaf=rows // 20).fit(data, LocalWorker(Folder(f"{tmp_path}/{rows}")))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.5 * peaks[0]

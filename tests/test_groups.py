"""Every row is in exactly the group that its values say, whatever its types; regions are groups times strata."""

import datetime as dt
import json
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.groups import Group, Grouping, Groups
from codsa_ray.infer import infer
from codsa_ray.predicate import Predicate
from codsa_ray.summary import Summary
from codsa_ray.values import as_text

from groupings import GROUPINGS, KINDS, LABELS, groups, table


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
def test_every_row_is_in_exactly_the_group_that_its_values_say(grouping: Grouping) -> None:
    """Against a slow reading row by row."""
    data = table()
    found, ids = groups(grouping), groups(grouping).assign(data)
    merges = {(column, source): into for column, source, into in grouping.merges}
    masks = [Predicate.parse(text).mask(data) for text in grouping.predicates]
    texts = {name: as_text(data[name]).to_pylist() for name in data.column_names}
    for i in range(len(data)):
        text = {name: merges.get((name, column[i]), column[i]) for name, column in texts.items()}
        item = found.items[ids[i]]
        if grouping.target and not grouping.bins:
            assert item.label == text[grouping.target]
        assert item.values == tuple(text[column] for column in grouping.columns)
        assert item.predicate == next((p for p, mask in enumerate(masks) if mask[i]), len(masks))
    assert np.bincount(ids, minlength=len(found)).tolist() == [item.rows for item in found.items]
    assert sum(item.rows for item in found.items) == len(data)


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
def test_counts_of_parts_add_up_to_counts_of_the_whole(grouping: Grouping) -> None:
    data, total = table(), Counter()
    for start in range(0, len(data), 37):
        total.update(grouping.cells(data.slice(start, 37)))
    assert total == grouping.cells(data)
    assert grouping.cells(data.slice(0, 0)) == {}
    assert groups(grouping).assign(data.slice(0, 0)).shape == (0,)


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
def test_groups_do_not_depend_on_row_order_or_process(grouping: Grouping) -> None:
    data = table()
    shuffled = data.take(np.random.default_rng(1).permutation(len(data)))
    assert groups(grouping, shuffled) == groups(grouping, data)


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
def test_json_gives_the_groups_back(grouping: Grouping) -> None:
    found = groups(grouping)
    again = Groups.from_json(json.loads(json.dumps(found.to_json())))
    assert again == found
    assert again.assign(table()).tolist() == found.assign(table()).tolist()


ORIGINALS = {
    "int8": pa.array([1, 2, None, 3] * 5, pa.int8()),
    "float": pa.array([1.0, 2.0, float("nan"), 3.5] * 5),
    "float32": pa.array([0.1, 2.0, float("inf"), 3.5] * 5, pa.float32()),
    "decimal": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("3.10")] * 5, pa.decimal128(9, 2)),
    "bool": pa.array([True, False, None, True] * 5),
    "date": pa.array([dt.date(2020, 1, 1), dt.date(2021, 1, 1), None, dt.date(2020, 1, 1)] * 5),
    "nanoseconds": pa.array([0, 10**9, None, 5 * 10**8] * 5, pa.timestamp("ns")),
    "dictionary": pa.array(["a", "b", None, "a"] * 5).dictionary_encode(),
    "large text": pa.array(["a", "b", None, "a"] * 5, pa.large_string()),
}


@pytest.mark.parametrize("kind", ORIGINALS)
def test_original_and_canonical_tables_fall_into_the_same_groups(kind: str) -> None:
    """Canonical: categories as text, narrow numbers as float64 or int64, moments as timestamp[us]."""
    column = ORIGINALS[kind]
    grouping = Grouping("y", ("g",))
    original = pa.table({"y": ["a", "b"] * 10, "g": column})
    found = groups(grouping, original)
    ids = found.assign(original).tolist()
    casts = {"float32": [], "date": [pa.timestamp("us")], "nanoseconds": [pa.timestamp("us")], "int8": [pa.int64(), pa.float64()]}
    canonical = [as_text(column), *(column.cast(target) for target in casts.get(kind, []))]
    for values in canonical:
        assert found.assign(pa.table({"y": ["a", "b"] * 10, "g": values})).tolist() == ids
    assert -1 not in ids


def everything(n: int = 300) -> pa.Table:
    """Group columns of every type, nulls in most."""
    rng = np.random.default_rng(0)

    def holes(values: np.ndarray) -> pa.Array:
        return pa.array(values, mask=rng.random(n) < 0.1)

    days, moments = np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"), np.array(["2020-01-01", "2020-01-01T10:00"], "datetime64[ns]")
    return pa.table(
        {
            "y": rng.choice([1, 2, 3], n),
            "int8": holes(rng.integers(0, 4, n).astype(np.int8)),
            "float": holes(rng.choice([0.5, 1.0, 2.25], n)),
            "float32": holes(rng.choice([0.1, 1.0, 2.7], n).astype(np.float32)),
            "flag": holes(rng.random(n) < 0.5),
            "text": holes(rng.choice(["a", "b", "1"], n)),
            "day": holes(days[rng.integers(0, 2, n)]),
            "moment": holes(moments[rng.integers(0, 2, n)]),
            "zoned": pa.array(rng.integers(0, 2, n) * 10**6, pa.timestamp("us", "Europe/Berlin")),
            "decimal": pa.array([Decimal(int(v)) / 4 for v in rng.integers(0, 4, n)], pa.decimal128(9, 2)),
            "dictionary": holes(rng.choice(["x", "z"], n)).dictionary_encode(),
            "uint64": pa.array(rng.integers(0, 3, n), pa.uint64()),
        }
    )


def test_rows_keep_their_groups_through_the_schema_and_back() -> None:
    """DATA's rows, the schema's canonical rows and the original rows made of them agree, by column and by predicate."""
    data = everything()
    columns = tuple(data.column_names[1:])
    schema = infer(Summary.of(data, np.arange(len(data))), "y", group_columns=columns)
    canonical, _ = schema.canonical(data)
    conditions = ["int8 > 1", "float32 = 0.1", "flag", "text = 1", "day > '2020-06-01'", "zoned > '1970-01-01 01:00:00.5'"]
    conditions += ["decimal = 0.25", "dictionary = 'x'", "uint64 IN (1, 2)", "y <= 2 AND y < uint64", "moment > '2020-01-01 05:00'"]
    for grouping in [*(Grouping("y", (column,)) for column in columns), *(Grouping("y", (), (text,)) for text in conditions)]:
        found = groups(grouping, data)
        ids = found.assign(data)
        assert ids.min() == 0
        assert found.assign(canonical).tolist() == ids.tolist()
        assert found.assign(schema.original(canonical)).tolist() == ids.tolist()
        kinds = {column.name: column.kind for column in schema.columns}
        for item in found.regions(np.ones((len(found), 1), int), 1, kinds).items:
            rows = canonical.filter(pa.array(ids == item.group))
            for name, value in item.constants:
                assert [(type(held), held) for held in rows[name].unique().to_pylist()] == [(type(value), value)]


def test_a_cell_that_is_not_there_is_no_group() -> None:
    found = groups(Grouping("y", ("sex",)))
    rows = pa.table({"y": ["no", "new", None, "no"], "sex": ["F", "F", "F", "other"]})
    assert (found.assign(rows) >= 0).tolist() == [True, False, False, False]


@pytest.mark.parametrize("grouping", [g for g in GROUPINGS if g.target == "y" or g.target is None], ids=str)
def test_the_group_under_each_label_is_the_group_of_the_row_with_that_label(grouping: Grouping) -> None:
    """Closed form: put the label into the target column, then assign; predicates may read the target."""
    grouping = Grouping(grouping.target, grouping.columns, ("y = 'yes' AND age > 20", *grouping.predicates), grouping.merges)
    found, data = groups(grouping), table()
    each = found.assign_each_label(data, LABELS)
    assert each.shape == (len(data), len(LABELS))
    assert each.dtype == np.int32
    if grouping.target is None:
        assert np.array_equal(each, np.tile(found.assign(data)[:, None], (1, 3)))
        return
    for place, label in enumerate(LABELS):
        replaced = data.set_column(0, "y", pa.array([label] * len(data)))
        assert each[:, place].tolist() == found.assign(replaced).tolist()
    own = each[np.arange(len(data)), [LABELS.index(y) for y in data["y"].to_pylist()]]
    assert own.tolist() == found.assign(data).tolist()


@pytest.mark.parametrize("predicates", [(), ("age < 20",)])
def test_the_target_need_not_be_there_to_try_labels(predicates: tuple[str, ...]) -> None:
    found, data = groups(Grouping("y", ("sex",), predicates)), table()
    slow = np.stack([found.assign(data.set_column(0, "y", pa.array([label] * len(data)))) for label in LABELS], axis=1)
    assert np.array_equal(found.assign_each_label(data.drop_columns(["y"]), LABELS), slow)
    assert found.assign_each_label(data, ()).shape == (len(data), 0)
    assert found.assign_each_label(data.slice(0, 0), LABELS).shape == (0, 3)


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
@pytest.mark.parametrize("features", [set(), {"sex"}, {"sex", "age"}, {"age", "wage", "member", "sex"}], ids=lambda f: "+".join(sorted(f)))
def test_observable_groups_are_a_coarsening(grouping: Grouping, features: set[str]) -> None:
    """Fine group, then the map, is the coarse group of every row; the mix and the rows add up; only features are read."""
    fine, data = groups(grouping, mix=None), table()
    coarse, onto = fine.observable(features)
    seen = [name for name in data.column_names if name in features or name == grouping.target]
    assert onto[fine.assign(data)].tolist() == coarse.assign(data.select(seen) if seen else data.select(["y"])).tolist()
    assert np.allclose(np.bincount(onto, weights=fine.mix, minlength=len(coarse)), coarse.mix)
    assert [group.rows for group in coarse.items] == np.bincount(onto, weights=[g.rows for g in fine.items]).tolist()
    assert len({group.name for group in coarse.items}) == len(coarse)


def test_a_hidden_predicate_hides_those_after_it() -> None:
    """Rows that a hidden condition takes away cannot be told from those that it leaves."""
    fine = groups(Grouping("y", (), ("age < 19", "wage > 2", "age < 20")))
    coarse, _ = fine.observable({"age"})
    assert coarse.grouping.predicates == ("age < 19",)


def test_labels_are_class_ids() -> None:
    found = groups(Grouping("y", ("sex",)))
    assert [found.items[g].label for g in range(len(found))] == [
        ("yes", "no")[c] if c >= 0 else "may be" for c in found.labels(("yes", "no"))
    ]
    assert set(groups(Grouping(None, ("sex",))).labels(("yes", "no"))) == {-1}


def test_names_are_unique_and_read_well() -> None:
    found = groups(Grouping("y", ("sex",), ("age < 20",)))
    names = [group.name for group in found.items]
    assert "y=no, sex=F, age < 20" in names
    assert "y=no, sex=null, rest" in names
    odd = pa.table({"y": ["a"] * 8, "g": ["null", None, "", "p, q"] * 2, "h": ["x"] * 8})
    assert len({group.name for group in groups(Grouping("y", ("g", "h")), odd).items}) == 4


def test_groups_are_ordered_by_label_values_predicate_with_numbers_by_size() -> None:
    data = pa.table({"y": [10, 9, 2, 2, 2, None], "g": ["b", "b", "nan", "10", None, "x"]})
    keys = groups(Grouping("y", ("g",)), data).keys
    assert [key[:2] for key in keys] == [("2", ("10",)), ("2", ("nan",)), ("2", (None,)), ("9", ("b",)), ("10", ("b",)), (None, ("x",))]


def test_bins_hold_equal_counts() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    grouping = Grouping("price", bins=4).binned(values)
    found = groups(grouping, pa.table({"price": values}))
    assert [group.rows for group in found.items] == [250, 250, 250, 250]
    assert found.items[0].name.startswith("price < ")
    assert [group.name.split()[1] for group in found.items] == ["<", "in", "in", ">="]
    assert found.assign(pa.table({"price": [None, np.nan, np.inf, -9.0, 9.0]})).tolist() == [-1, -1, -1, 0, 3]
    assert len(Grouping("price", bins=4).binned(np.ones(9)).edges) == 1
    assert groups(Grouping("price", bins=4).binned(np.zeros(0)), pa.table({"price": values})).items[0].name == "price any"


# --- regions


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
@pytest.mark.parametrize("strata", [1, 3])
def test_regions_are_groups_times_strata(grouping: Grouping, strata: int) -> None:
    found = groups(grouping)
    cells = np.random.default_rng(0).integers(0, 5, (len(found), strata))
    regions = found.regions(cells, strata, KINDS)
    assert len(regions) == len(found) * strata
    assert regions.counts.reshape(cells.shape).tolist() == cells.tolist()
    assert [(item.group, item.stratum) for item in regions.items] == [(g, s) for g in range(len(found)) for s in range(strata)]
    assert regions.mix == found.mix
    assert len({item.name for item in regions.items}) == len(regions)
    factors = np.array([item.factors for item in regions.items]).reshape(len(regions), -1)
    assert factors.shape[1] == len(regions.levels)
    assert (factors >= 0).all()
    assert (factors < np.array(regions.levels)).all()
    assert len({item.factors for item in regions.items}) == len(regions)


@pytest.mark.parametrize("grouping", [g for g in GROUPINGS if g.target == "y"], ids=str)
def test_constants_are_what_every_row_of_the_region_holds(grouping: Grouping) -> None:
    data = grouping.relabel(table())
    found = groups(grouping, data)
    ids = found.assign(data)
    regions = found.regions(np.array([[group.rows] for group in found.items]), 1, KINDS)
    merged = {column for column, _, _ in grouping.merges} - {"y"}
    assert set(regions.constant_columns) == {"y", *grouping.columns} - merged
    for index, item in enumerate(regions.items):
        rows = data.filter(pa.array(ids == index))
        for column, value in item.constants:
            held = rows[column].unique().to_pylist()
            assert held == [value]
            assert type(held[0]) is type(value)


def test_dates_left_out_columns_and_bins_are_no_constants() -> None:
    counted = np.array([[1]])
    group = (Group("g", "1", ("2020-01-01", "x"), 0, 1),)
    found = Groups(Grouping("y", ("d", "gone")), group, (1.0,))
    regions = found.regions(counted, 1, {"y": "numeric", "d": "datetime"})
    assert regions.items[0].constants == (("y", 1.0),)
    binned = Groups(Grouping("y", bins=2, edges=(1.0,)), (Group("g", "< 1.0", (), 0, 1),), (1.0,))
    assert binned.regions(counted, 1, {"y": "numeric"}).constant_columns == ()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.text(max_size=3)), st.one_of(st.none(), st.text(max_size=3)), st.integers(-3, 3)),
        min_size=1,
        max_size=30,
    )
)
def test_any_text_groups_and_comes_back(rows: list[tuple]) -> None:
    """Names stay unique, ids cover the rows and JSON gives everything back, whatever the values hold."""
    data = pa.table(dict(zip("abc", (list(column) for column in zip(*rows, strict=True)), strict=True)), ABC)
    grouping = Grouping("a", ("b", "c"), ("c > 0",))
    cells = grouping.cells(data)
    if not any(predicate == 0 for _, _, predicate in cells):
        return
    found = Groups.of(grouping, cells, smallest=1)
    ids = found.assign(data)
    assert ids.min() >= 0
    assert np.bincount(ids).tolist() == [group.rows for group in found.items]
    assert len({group.name for group in found.items}) == len(found)
    assert Groups.from_json(json.loads(json.dumps(found.to_json()))) == found


ABC = pa.schema([("a", pa.string()), ("b", pa.string()), ("c", pa.int64())])

import datetime as dt
import json
import shlex
from collections import Counter
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.errors import GroupError
from codsa_ray.grouping import merge_option
from codsa_ray.groups import Group, Grouping, Groups
from codsa_ray.infer import infer
from codsa_ray.predicate import Predicate
from codsa_ray.summary import Summary
from codsa_ray.values import as_text

LABELS = ("no", "yes", "may be")
KINDS = {"y": "categorical", "sex": "categorical", "age": "integer", "member": "boolean", "wage": "numeric"}


def table(n: int = 400, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "y": rng.choice(LABELS, n, p=[0.6, 0.3, 0.1]),
            "sex": pa.array(rng.choice(["F", "M", "x"], n, p=[0.45, 0.45, 0.1]), mask=rng.random(n) < 0.1),
            "age": rng.integers(18, 22, n),
            "member": pa.array(rng.random(n) < 0.5, mask=rng.random(n) < 0.1),
            "wage": rng.choice([1.5, 2.0, 40.25], n),
        }
    )


def groups(grouping: Grouping, data: pa.Table | None = None, **options) -> Groups:
    return Groups.of(grouping, grouping.cells(table() if data is None else data), **{"smallest": 1, **options})


GROUPINGS = [
    Grouping("y"),
    Grouping("y", ("sex",)),
    Grouping("y", ("sex", "age", "member")),
    Grouping("y", (), ("age < 20", "wage > 2 AND sex = 'F'")),
    Grouping("y", ("sex",), ("age < 20",), (("sex", "x", "M"), ("y", "may be", "no"))),
    Grouping(None, ("sex",), ("wage > 2",)),
    Grouping(None, (), ("y = 'yes'",)),
    Grouping("wage", ("sex",), bins=3, edges=(2.0, 40.0)),
    Grouping("member", ("wage",), ("age IN (18, 19)",)),
]


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


# --- merges


@pytest.mark.parametrize(
    ("text", "merge"),
    [
        ("sex:x=M", ("sex", "x", "M")),
        ('income:"<=50K"=">50K"', ("income", "<=50K", ">50K")),
        ("when:10:30=11:00", ("when", "10:30", "11:00")),
        ("sex:null=M", ("sex", None, "M")),
        ('sex:"null"=M', ("sex", "null", "M")),
        ('"a:b":x=', ("a:b", "x", "")),
        ('q:"say ""hi"""=x', ("q", 'say "hi"', "x")),
        ("größe:mittel groß=klein", ("größe", "mittel groß", "klein")),
    ],
)
def test_merge_options_are_read(text: str, merge: tuple) -> None:
    assert Grouping.parse_merge(text) == merge


WORDS = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["null", "a=b", "c:d", '"', "it's", "<=50K", "a\nb"]))


@settings(max_examples=300, deadline=None)
@given(st.text(min_size=1, max_size=8), WORDS, WORDS)
def test_offered_merge_options_can_be_typed_and_are_read_back(column: str, source: str | None, into: str | None) -> None:
    """Through a real shell's quoting rules."""
    option = merge_option((column, source, into))
    words = shlex.split(option)
    assert words[0] == "--merge"
    assert Grouping.parse_merge(words[1]) == (column, source, into)


@pytest.mark.parametrize("text", ["", "a", "a=b", "a:b", "income:<=50K=>50K", ":x=y"])
def test_merges_that_do_not_read_are_refused(text: str) -> None:
    with pytest.raises(GroupError, match="--merge 'COL:FROM=INTO'"):
        Grouping.parse_merge(text)


@pytest.mark.parametrize(
    "merges", [(("y", "a", "b"), ("y", "b", "a")), (("y", "a", "b"), ("y", "a", "c")), (("y", "a", "a"),), (("z", "a", "b"),)], ids=str
)
def test_merges_in_circles_twice_or_of_other_columns_are_refused(merges: tuple) -> None:
    with pytest.raises(GroupError):
        Grouping("y", merges=merges)


TYPES = [pa.string(), pa.large_string(), pa.int64(), pa.int8(), pa.float32(), pa.float64(), pa.decimal128(5, 2),
         pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64())]  # fmt: skip


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_merging_labels_changes_those_labels_only_and_keeps_the_type(kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    column = pa.array(["1", "2", None, "3", "4"]).cast(plain)
    column = (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 3, 4], kind.index_type), column) if pa.types.is_dictionary(kind) else column
    )
    data = pa.table({"a": range(5), "y": pa.chunked_array([column.slice(0, 2), column.slice(2)]), "z": range(5)})
    grouping = Grouping("y", merges=(("y", "1", "2"), ("y", "2", "4")))
    found = grouping.relabel(data)
    assert found.schema == data.schema
    assert as_text(found["y"]).to_pylist() == ["4", "4", None, "3", "4"]
    assert grouping.relabel(found).equals(found)
    assert grouping.cells(found) == grouping.cells(data)


def test_truth_values_and_dates_are_merged_too() -> None:
    data = pa.table({"y": [True, False], "d": [dt.date(2020, 1, 1), dt.date(2021, 1, 1)]})
    assert Grouping("y", merges=(("y", "true", "false"),)).relabel(data)["y"].to_pylist() == [False, False]
    assert Grouping("d", merges=(("d", "2020-01-01", "2021-01-01"),)).relabel(data)["d"].to_pylist() == [dt.date(2021, 1, 1)] * 2


def test_a_label_that_the_type_cannot_hold_is_refused() -> None:
    with pytest.raises(GroupError, match="int64"):
        Grouping("y", merges=(("y", "1", "few"),)).relabel(pa.table({"y": [1, 2]}))


def test_merging_a_group_column_leaves_the_table_alone() -> None:
    grouping, data = Grouping("y", ("sex",), merges=(("sex", None, "x"),)), table()
    assert grouping.relabel(data) is data
    assert {group.values[0] for group in groups(grouping).items} == {"F", "M", "x"}


# --- refusals


def counts(**rows: int) -> dict:
    return {(label, (), 0): n for label, n in rows.items()}


def refusal(grouping: Grouping, cells: dict, **options) -> GroupError:
    with pytest.raises(GroupError) as caught:
        Groups.of(grouping, cells, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_small_label_is_named_with_the_option_that_merges_it() -> None:
    error = refusal(Grouping("y"), counts(a=100, b=50, c=2))
    assert "2 rows in group 'y=c'" in error.got
    assert error.do.endswith("--merge 'y:c=a'")


def test_a_label_that_is_small_as_a_whole_is_merged_as_a_label() -> None:
    """Merging its values among themselves would not be enough."""
    cells = {("a", ("F",), 0): 100, ("b", ("M",), 0): 100, ("c", ("F",), 0): 1, ("c", ("M",), 0): 2}
    assert refusal(Grouping("y", ("sex",)), cells).do.endswith("--merge 'y:c=a'")


def test_a_small_number_is_merged_into_the_nearest() -> None:
    assert refusal(Grouping("y"), {("1", (), 0): 99, ("3", (), 0): 50, ("4", (), 0): 2}).do.endswith("--merge 'y:4=3'")


def test_one_of_two_labels_is_not_merged_away() -> None:
    assert "--merge" not in refusal(Grouping("y"), counts(a=100, b=2)).do


def test_a_small_value_is_merged_into_the_most_frequent_of_its_label() -> None:
    cells = {
        ("a", ("F",), 0): 100,
        ("a", ("M",), 0): 10,
        ("b", ("F",), 0): 9,
        ("b", ("M",), 0): 40,
        ("b", (None,), 0): 99,
        ("b", ("x:1",), 0): 3,
    }
    error = refusal(Grouping("y", ("sex",)), cells)
    assert "'y=b, sex=x:1'" in error.got
    assert error.do.endswith("""--merge 'sex:"x:1"=M'""")


def test_of_several_columns_the_rarest_value_is_merged() -> None:
    cells = {("a", ("F", "p"), 0): 100, ("a", ("M", "p"), 0): 100, ("a", ("F", "rare"), 0): 2, ("a", ("M", "rare"), 0): 5}
    assert refusal(Grouping("y", ("sex", "race")), cells).do.endswith("--merge 'race:rare=p'")


def test_the_offered_merges_mend_the_groups() -> None:
    """Each is typed as it is offered; after at most one for each small cell the same data pass."""
    data = pa.concat_tables([table().select(["y", "sex"]), pa.table({"y": ["no"], "sex": ["it's = odd"]})])
    grouping, merges = Grouping("y", ("sex",)), []
    for _ in range(sum(rows < 4 for rows in grouping.cells(data).values())):
        with pytest.raises(GroupError) as caught:
            Groups.of(grouping, grouping.cells(data))
        merges.append(Grouping.parse_merge(shlex.split(caught.value.do.partition(": ")[2])[1]))
        grouping = Grouping("y", ("sex",), merges=tuple(merges))
        if min(grouping.cells(data).values()) >= 4:
            break
    assert min(group.rows for group in Groups.of(grouping, grouping.cells(data)).items) >= 4
    assert ("sex", "it's = odd") in [merge[:2] for merge in merges]


@pytest.mark.parametrize(("key", "verb"), [(0, "widen"), (1, "narrow")])
def test_a_small_predicate_is_changed_not_merged(key: int, verb: str) -> None:
    cells = {("a", (), 0): 50, ("a", (), 1): 50, ("b", (), key): 3, ("b", (), 1 - key): 30}
    assert refusal(Grouping("y", (), ("age < 20",)), cells).do == f"{verb} --region 'age < 20'"


def test_a_predicate_that_no_row_matches_is_named() -> None:
    grouping = Grouping("y", (), ("age < 20", "age < 19"))
    error = refusal(grouping, grouping.cells(table()))
    assert "'age < 19', which no row that earlier conditions leave matches" in error.got
    nothing = Grouping("y", (), ("age < 0",))
    assert "'age < 0', which no row matches" in refusal(nothing, nothing.cells(table())).got


@pytest.mark.parametrize("values", [np.arange(60), np.array([f"it's {i}" for i in range(60)])], ids=["numbers", "text"])
def test_a_column_of_many_values_is_refused_with_a_predicate_that_works(values: np.ndarray) -> None:
    data = pa.table({"y": ["a"] * 600, 'my "col"': np.tile(values, 10)})
    grouping = Grouping("y", ('my "col"',))
    error = refusal(grouping, grouping.cells(data))
    assert error.got == "60"
    region = shlex.split(error.do.rpartition("such as ")[2])[1]
    assert 0 < Predicate.parse(region).mask(data).sum() < 600


@pytest.mark.parametrize(
    ("grouping", "says"),
    [
        (Grouping("y", ("sexx",)), "did you mean sex?"),
        (Grouping("why", ()), "no column 'why'"),
        (Grouping("y", (), ("agee < 3",)), "did you mean age"),
    ],
)
def test_absent_columns_are_named_with_the_nearest(grouping: Grouping, says: str) -> None:
    with pytest.raises(GroupError) as caught:
        grouping.cells(table())
    assert says in str(caught.value)


def test_declarations_that_make_no_sense_are_refused() -> None:
    for make in (lambda: Grouping("y", ("y",)), lambda: Grouping("y", ("a", "a")), lambda: Grouping("y", (), ("a >",))):
        with pytest.raises(GroupError):
            make()
    with pytest.raises(GroupError, match="list"):
        Grouping("y", ("g",)).cells(pa.table({"y": ["a"], "g": [[1]]}))


# --- mix


def test_the_mix_is_uniform_unless_given_and_always_sums_to_one() -> None:
    assert Groups.of(Grouping("y"), counts(a=9, b=5)).mix == (0.5, 0.5)
    assert Groups.of(Grouping("y"), counts(a=9, b=5), {"y=b": 3, "y=a": 1}).mix == (0.25, 0.75)
    assert Groups.of(Grouping("y"), counts(a=9, b=5), {"y=b": 0, "y=a": 7}).mix == (1.0, 0.0)


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ({"y=a": 1}, "none for ['y=b']"),
        ({"y=a": 1, "y=b": 1, "y=c": 1}, "unknown 'y=c'"),
        ({"y=a": 1, "y = b": 1}, "did you mean 'y=b'?"),
        ({"y=a": 1, "y=b": -1}, "-1"),
        ({"y=a": 0, "y=b": 0}, "0"),
        ({"y=a": 1, "y=b": float("nan")}, "nan"),
        ({"y=a": 1, "y=b": float("inf")}, "inf"),
        ({"y=a": 1, "y=b": "3"}, "3"),
        ({"y=a": 1, "y=b": 1e-9}, "1e-09"),
        ({"y=a": 1, "y=b": None}, "None"),
    ],
)
def test_a_mix_that_does_not_fit_is_refused(mix: dict, says: str) -> None:
    assert says in refusal(Grouping("y"), counts(a=9, b=5), mix=mix).got


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

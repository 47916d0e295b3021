"""Merges are read as they are typed and offered, refused where they cannot be, and change those values only."""

import datetime as dt
import shlex

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.errors import GroupError
from codsa_ray.grouping import merge_option
from codsa_ray.groups import Grouping
from codsa_ray.values import as_text

from groupings import groups, table


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

"""Groups that cannot be are refused in one line that names them and the option that mends them; so are mixes that do not fit."""

import shlex

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.errors import GroupError
from codsa_ray.groups import Grouping, Groups
from codsa_ray.predicate import Predicate

from groupings import table


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

"""Spelling and grammar: what can be reached token by token is the texts of the values that there are, no more and no fewer."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.errors import SettingError
from codsa_ray.nn.grammar import ValueGrammar
from codsa_ray.nn.spelling import END, EPOCH, Lattice
from codsa_ray.nn.table_text import ColumnText
from codsa_ray.schema import Column

DAY = 86_400_000_000


def reachable(lattice: Lattice, text: str = "") -> set[str]:
    """Every text that `following` leads to."""
    found: set[str] = set()
    for character in lattice.following(text):
        found |= {text} if character == END else reachable(lattice, text + character)
    return found


def numbers(lattice: Lattice) -> range:
    return range(lattice.base, lattice.last + 1, lattice.unit)


@settings(max_examples=60, deadline=None)
@given(base=st.integers(-150, 150), unit=st.integers(1, 7), top=st.integers(0, 60), places=st.integers(0, 3))
def test_the_texts_that_can_be_reached_are_those_of_the_numbers_one_each(base: int, unit: int, top: int, places: int) -> None:
    lattice = Lattice(base, unit, top, places)
    texts = [lattice.spell(number) for number in numbers(lattice)]
    assert reachable(lattice) == set(texts)
    assert [lattice.read(text) for text in texts] == list(numbers(lattice))
    assert [round(float(text) * 10**places) for text in texts] == list(numbers(lattice))


@pytest.mark.parametrize("first", ["2024-02-25", "1999-12-28", "0001-01-01", "2023-02-27", "1969-12-30"])
@pytest.mark.parametrize("unit", [DAY, 7 * DAY])
def test_days_are_spelled_as_the_calendar_has_them(first: str, unit: int) -> None:
    start = (datetime.fromisoformat(first) - EPOCH) // timedelta(microseconds=1)
    lattice = Lattice(start, unit, 40, -1)
    texts = {str(np.datetime64(number, "us"))[:10] for number in numbers(lattice)}
    assert reachable(lattice) == texts
    assert {lattice.read(text) for text in texts} == set(numbers(lattice))


@pytest.mark.parametrize(("unit", "shown"), [(60_000_000, 16), (1_000_000, 19), (1, 26)])
def test_times_are_spelled_as_far_as_they_go(unit: int, shown: int) -> None:
    start = (datetime(2020, 2, 29, 23, 58) - EPOCH) // timedelta(microseconds=1)
    lattice = Lattice(start, unit, 4, -1)
    texts = {str(np.datetime64(number, "us")).replace("T", " ")[:shown] for number in numbers(lattice)}
    assert reachable(lattice) == texts


def test_whole_numbers_beyond_two_to_the_53_are_spelled_exactly() -> None:
    lattice = Lattice(2**53 + 1, 2, 3)
    assert reachable(lattice) == {str(2**53 + 1 + 2 * k) for k in range(4)}
    assert reachable(Lattice(-(2**63), 1, 2)) == {str(-(2**63) + k) for k in range(3)}


def column_text(column: Column, values: list[object], kind: pa.DataType) -> tuple[ColumnText, pa.ChunkedArray]:
    array = pa.chunked_array([pa.array(values, kind)])
    return ColumnText.of(column, array), array


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        (Column("x", "numeric", "double", -1.5, 12.25, places=2), [12.25, -1.5, None, 0.0, 3.07], pa.float64()),
        (Column("x", "numeric", "double", 7.0, 7.0, places=0), [7.0, 7.0], pa.float64()),
        (Column("x", "integer", "int64", -(2**63), 2**63 - 1), [-(2**63), 2**63 - 1, 0, None], pa.int64()),
        (Column("x", "boolean", "bool"), [True, None, False], pa.bool_()),
        (
            Column("x", "categorical", "string", categories=("a, b", "null", "größe", '"', " x")),
            ["a, b", "null", None, '"', " x"],
            pa.string(),
        ),
        (Column("x", "datetime", "timestamp[us]", 0, DAY), [datetime(1970, 1, 1), datetime(1970, 1, 2), None], pa.timestamp("us")),
    ],
)
def test_values_come_back_from_their_texts(column: Column, values: list[object], kind: pa.DataType) -> None:
    text, array = column_text(column, values, kind)
    texts = text.texts(array)
    assert text.values(texts).equals(array.combine_chunks())
    assert len(set(texts)) == len(set(values)), "no two values share a text"


@pytest.mark.parametrize("ends", [(1e-9, 2e-9), (-1e308, 1e308), (0.1, 1e17), (1e6, 1e6 + 1e-7), (3.3, 3.3)])
def test_numbers_of_any_size_are_spelled_in_few_characters_and_come_back_near(ends: tuple[float, float]) -> None:
    values = [ends[0], ends[1], ends[0] / 2 + ends[1] / 2]
    text, array = column_text(Column("x", "numeric", "double", *ends), values, pa.float64())
    texts = text.texts(array)
    back = text.values(texts).to_numpy()
    assert max(map(len, texts)) <= 17
    assert ((ends[0] <= back) & (back <= ends[1])).all()
    assert np.abs(back / 2 - np.array(values) / 2).max() <= 1e-3 * max(ends[1] / 2 - ends[0] / 2, 1e-300)


def grammar_of(words: list[str], lattice: Lattice | None = None) -> ValueGrammar:
    """Characters as tokens; the comma ends."""
    marks = {character: ord(character) for character in "0123456789-.: "}
    return ValueGrammar.of({word: tuple(map(ord, word)) for word in words}, lattice, marks, ord(","))


def sequences(grammar: ValueGrammar, begun: tuple[int, ...] = ()) -> set[tuple[int, ...]]:
    """Every value and end that `allowed` leads to."""
    found: set[tuple[int, ...]] = set()
    for token in grammar.allowed(begun):
        ended = token == grammar.end and grammar.whole(begun)
        found |= {(*begun, token)} if ended else sequences(grammar, (*begun, token))
    return found


WORDS = st.lists(st.text("ab,", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@settings(max_examples=100, deadline=None)
@given(words=WORDS)
def test_the_sequences_that_can_be_reached_are_the_words_or_the_words_are_refused(words: list[str]) -> None:
    mixed = any((b + ",").startswith(a + ",") for a in words for b in words if a != b)
    if mixed:
        with pytest.raises(SettingError):
            grammar_of(words)
        return
    grammar = grammar_of(words)
    reached = sequences(grammar)
    assert {grammar.text(tokens[:-1]) for tokens in reached} == set(words)
    assert reached == {(*grammar.tokens(word), grammar.end) for word in words}
    assert all(grammar.accepts(tokens) for tokens in reached)


def test_null_and_numbers_live_side_by_side() -> None:
    grammar = grammar_of(["null"], Lattice(-3, 1, 15))
    assert {grammar.text(tokens[:-1]) for tokens in sequences(grammar)} == {"null", *map(str, range(-3, 13))}
    assert not grammar.accepts(tuple(map(ord, "13,")))
    assert not grammar.accepts(tuple(map(ord, "03,")))
    assert not grammar.accepts(tuple(map(ord, "nul,")))


def test_words_of_one_spelling_are_refused_in_one_line() -> None:
    with pytest.raises(SettingError) as error:
        ValueGrammar.of({"a": (1,), "b": (1,)}, None, {}, 9)
    assert "\n" not in str(error.value)

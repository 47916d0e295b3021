"""Measures of drawn texts: each against a closed form, a reference, or texts of which it is known what is wrong with them."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.audit.text_quality import Bytes, distinct, text_quality
from codsa_ray.fitdata import REGION
from codsa_ray.report.inspection import TEXTS, lines, render, sentences
from codsa_ray.schema import Column, Schema

SCHEMA = Schema((Column("said", "text", "string"), Column("y", "categorical", "string", categories=("a", "b"))), "y", "classification")
WORDS = ["the", "room", "bed", "staff", "view", "food", "was", "very", "clean", "dirty", "kind", "rude", "warm", "cold", "big", "old"]
OTHERS = ["zebra", "yacht", "quiz", "jazz", "fox", "vex"]


def said(n: int, seed: int, words: list[str] = WORDS, length: int = 12) -> list[str | None]:
    """Texts of a chain of words: each word is one of three that may follow the one before."""
    rng = np.random.default_rng(seed)
    chain = np.random.default_rng(0).integers(0, len(words), (len(words), 3))
    texts: list[str | None] = []
    for _ in range(n):
        word, told = int(rng.integers(len(words))), []
        for _ in range(rng.integers(length // 2, length)):
            told.append(words[word])
            word = int(rng.choice(chain[word]))
        texts.append(" ".join(told))
    return texts


def rows(texts: list[str | None]) -> pa.Table:
    region = np.zeros(len(texts), dtype=np.int32)
    return pa.table({"said": pa.array(texts, pa.string()), "y": pa.array(["a"] * len(texts)), REGION: region})


def measured(drawn: list[str | None], seed: int = 0) -> dict[str, float]:
    found = text_quality(rows(said(300, 1)), rows(said(150, 2)), rows(drawn), SCHEMA, seed)
    return {key: value for key, value in found.items() if value is not None}


def test_texts_of_the_truth_are_as_real_ones_by_every_measure() -> None:
    found = measured(said(300, 3))
    assert abs(found["text_c2st"] - 0.5) < 3 * found["text_c2st_se"]
    assert found["perplexity"] == pytest.approx(found["perplexity_real"], rel=0.05)
    assert found["pairs"] == pytest.approx(found["pairs_real"], abs=0.03)
    assert found["copied"] == pytest.approx(found["copied_fresh"], abs=0.1)


def test_words_in_random_order_are_less_fluent_and_other_words_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    mixed = measured([" ".join(rng.permutation((text or "").split())) for text in said(300, 3)])
    assert mixed["perplexity"] > 1.15 * mixed["perplexity_real"]
    other = measured(said(300, 3, [*WORDS[:10], *OTHERS]))
    assert other["text_c2st"] > 0.8


def test_copies_and_one_text_over_and_over_are_seen() -> None:
    copies = measured(list(said(300, 1)))
    assert copies["copied"] > 0.95 > copies["copied_fresh"]
    dull = measured([*said(3, 3)] * 100)
    assert dull["pairs"] < 0.5 * dull["pairs_real"]


def test_the_model_of_bytes_is_witten_and_bell_s() -> None:
    """Order 1 by hand: each probability is (count + kinds x shorter) / (total + kinds), the shortest uniform over bytes and the end."""
    learned, text = ["abab", "ac"], "aba"
    lines_ = [f"^{one}$" for one in learned]
    expected = 0.0
    for before, byte in zip("^" + text, text + "$", strict=True):
        single = Counter(c for line in lines_ for c in line[1:])
        shorter = (single[byte] + len(single) / 257) / (sum(single.values()) + len(single))
        after = Counter(b for line in lines_ for a, b in pairwise(line) if a == before)
        expected -= np.log((after[byte] + len(after) * shorter) / (sum(after.values()) + len(after)))
    model = Bytes.learn(learned)
    short = Bytes(model.grams[:2], model.contexts[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.audit.text_quality.ORDER", 1)
        assert short.perplexity([text]) == pytest.approx(np.exp(expected / 4))


def test_distinct_pairs_are_counted_in_as_many_words() -> None:
    assert distinct([["a", "b", "a", "b"]], 4) == pytest.approx(2 / 3)
    assert distinct([["a", "b", "a", "b"]], 2) == 1.0
    assert distinct([["a"], ["b"]], 2) is None


def test_few_texts_and_no_texts_say_nothing() -> None:
    few = text_quality(rows(said(10, 1)), rows(said(10, 2)), rows(said(10, 3)), SCHEMA, 0)
    assert set(few.values()) == {None}
    assert text_quality(rows([None] * 30), rows([]), rows([None] * 30), SCHEMA, 0).keys() == few.keys()
    some = text_quality(rows(said(40, 1)), rows([]), rows(["", "👩‍👩‍👧", *said(40, 3)]), SCHEMA, 0)
    assert some["perplexity"] is None
    assert some["copied"] is not None
    table = Schema(SCHEMA.columns[1:], "y", "classification")
    assert text_quality(rows(said(30, 1)), rows([]), rows(said(30, 2)), table, 0) == {}


def test_the_inspection_shows_them_where_there_are_texts() -> None:
    region = {"name": "y=a", "rows": 40, "looked_at": 40, "held_out": 20, "closer": 0.5, "c2st": 0.5, "c2st_se": 0.05}
    told = region | {
        "text_c2st": 0.9,
        "text_c2st_se": 0.02,
        "perplexity": 6.0,
        "perplexity_real": 4.0,
        "pairs": 0.4,
        "copied": 0.5,
        "copied_fresh": 0.1,
    }
    plain, texts = ({"target": "y", "folds": 2, "generators": [{"name": "g", "regions": [one]}], "notices": []} for one in (region, told))
    assert TEXTS[1].head not in "\n".join(lines(plain))
    assert "6 (4)" in "\n".join(lines(texts))
    said = sentences(texts["generators"])  # type: ignore[arg-type]
    assert any("tells drawn texts" in one for one in said)
    assert any("copied more often" in one for one in said)
    assert "Perplexity of texts" in render({**texts, "sentences": said})
    assert "Perplexity of texts" not in render({**plain, "sentences": []})

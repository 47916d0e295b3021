"""Words: real sentences of many scripts are cut where their script allows, and every measure that counts words sees them."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codsa_ray.audit.text_quality import text_quality
from codsa_ray.audit.texts import words as counted
from codsa_ray.embedding import Embedding
from codsa_ray.fitdata import REGION
from codsa_ray.infer import kind_of
from codsa_ray.learners.sentence import Topics
from codsa_ray.learners.tfidf import Tfidf
from codsa_ray.nn.text_gate import TextGate, runs_of
from codsa_ray.schema import Column, Schema
from codsa_ray.summary import ColumnSummary
from codsa_ray.words import terms, words

CHINESE = "这家酒店的房间非常干净，服务员也很热情，下次还会再来。"  # noqa: RUF001
SENTENCES = {
    "Chinese": (CHINESE, "房间很脏，隔壁整夜都在吵闹，早餐也是冷的，不推荐。"),  # noqa: RUF001
    "Japanese": ("部屋はとても清潔で、スタッフも親切でした。また泊まりたいです。", "シャワーの水が冷たくて、夜は隣がうるさかったです。"),
    "Thai": ("ห้องพักสะอาดมากและพนักงานใจดี อาหารเช้าอร่อย", "ห้องสกปรกและมีเสียงดังทั้งคืน น้ำไม่อุ่นเลย"),
    "Hindi": ("कमरा बहुत साफ था और कर्मचारी बहुत दयालु थे", "कमरा गंदा था और रात भर शोर होता रहा"),
}


def test_words_are_cut_where_their_script_puts_spaces_and_keep_their_vowel_signs() -> None:
    assert words("कर्मचारी दयालु थे") == ["कर्मचारी", "दयालु", "थे"]
    assert words("שָׁלוֹם עולם") == ["שָׁלוֹם", "עולם"]
    assert words("방이 깨끗해요") == ["방이", "깨끗해요"]


def test_where_there_are_no_spaces_each_character_with_its_marks_is_a_unit() -> None:
    assert words("这家iPhone 12很好。") == ["这", "家", "iPhone", "12", "很", "好"]
    assert words("ホテルは、清潔") == list("ホテルは清潔")
    assert words("ห้องที่") == ["ห้", "อ", "ง", "ที่"]
    assert terms("很好 ok") == ["很", "好", "ok", "很 好"]


@given(st.text(st.characters(max_codepoint=0x58F) | st.characters(min_codepoint=0x1E00, max_codepoint=0x20FF)))
def test_latin_greek_and_cyrillic_words_are_those_of_a_plain_expression(text: str) -> None:
    assert words(text.lower()) == re.findall(r"\w+", text.lower())


def test_a_run_of_words_is_five_of_them_or_ten_characters() -> None:
    assert len(runs_of("the room was clean and warm")) == 2
    assert len(runs_of("这家酒店的房间非常干净")) == 2
    assert len(runs_of("这家酒店")) == 0


@pytest.mark.parametrize("script", SENTENCES)
def test_a_verbatim_copy_is_refused_in_every_script_and_counted(script: str) -> None:
    mine, other = SENTENCES[script]
    gate = TextGate.learn([mine], np.zeros(1, dtype=np.int64), [], 1, 0.99)
    assert gate.refused([mine, other], 0)[0].tolist() == [True, False]
    schema = Schema((Column("said", "text", "string"), Column("y", "categorical", "string", categories=("a",))), "y", "classification")

    def rows(text: str) -> pa.Table:
        return pa.table({"said": [f"{text} {i}" for i in range(25)], "y": ["a"] * 25, REGION: np.zeros(25, dtype=np.int32)})

    found = text_quality(rows(mine), rows(other), rows(mine), schema, 0)
    assert (found["copied"], found["copied_fresh"]) == (1.0, 0.0)
    assert counted(rows(mine), schema["said"]).min() > 8


@pytest.mark.parametrize("script", SENTENCES)
def test_texts_of_every_script_are_told_apart_by_what_they_share(script: str) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    said: list[str | None] = []
    for k in y:
        # Half of a sentence's units, another half in each text: no two are alike, and none holds a clause of another.
        own = words(SENTENCES[script][k])
        kept = np.sort(rng.permutation(len(own))[: len(own) // 2 + 2])
        said.append((" " if script == "Hindi" else "").join(own[place] for place in kept))
    schema = Schema((Column("said", "text", "string"), Column("y", "categorical", "string", categories=("a", "b"))), "y", "classification")
    table = pa.table({"said": said, "y": np.array(["a", "b"])[y]})
    encoder = Tfidf().encoder(table.slice(0, 60), schema)
    fitted = Tfidf().fit(encoder.encode(table.slice(0, 60)), y[:60], np.ones(60), classes=2, seed=0)
    assert (fitted.scores(encoder.encode(table.slice(60))).argmax(axis=1) == y[60:]).all()
    topics = Topics.learn(said[:60], 5).read(said[60:])
    place = Embedding.learn("said", "text", table["said"]).place(table["said"])[60:]
    for told in (topics, place):
        middles = np.stack([told[y[60:] == k].mean(axis=0) for k in (0, 1)])
        near = ((told[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
        assert (near == y[60:]).mean() > 0.9


def test_a_column_of_chinese_sentences_is_text_and_one_of_names_is_not() -> None:
    said = [f"{CHINESE}{i}" for i in range(60)]
    names = [f"王小{chr(0x4E00 + i)}" for i in range(60)]
    kinds = [kind_of(ColumnSummary.of("c", pa.chunked_array([pa.array(values)]))) for values in (said, names)]
    assert kinds == ["text", "categorical"]

"""Rows that hold texts: told and drawn as one line of tokens, gated, learned from by words, and carried through a whole pass."""

import timeit
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from codsa_ray import Job, run
from codsa_ray.allocators.balanced import Balanced
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.generators.text_lm import COPIED, UNREADABLE, TextLm
from codsa_ray.inspection import inspect_run
from codsa_ray.learners.tfidf import Tfidf, opened
from codsa_ray.local import Drawn, Local
from codsa_ray.nn.row_sequences import END, NULL, RowSequences
from codsa_ray.nn.text_gate import GRAM, TextGate, runs_of, share_of
from codsa_ray.nn.text_words import BROKEN, TextWords
from codsa_ray.nn.word_drawing import picks
from codsa_ray.schema import Column, Schema

import runs
from tables import half_rare

KIND = ["the room was clean and the staff was kind", "we loved the breakfast and the view", "the pool was warm and the food was good"]
RUDE = ["the room was dirty and the staff was rude", "never again the bed was broken", "noise all night and a cold shower"]


def reviews(n: int = 240, seed: int = 0) -> pa.Table:
    """n rows of stars, an arrival and a text, a fifth of them complaints in other words; some texts null, some empty."""
    rng = np.random.default_rng(seed)
    bad = rng.random(n) < 0.2
    texts = [" ".join(rng.choice(" ".join(RUDE if b else KIND).split(), rng.integers(9, 14))) for b in bad]
    null = rng.random(n) < 0.05
    return pa.table({
        "stars": np.where(bad, rng.integers(1, 3, n), rng.integers(3, 6, n)),
        "alone": rng.random(n) < 0.3,
        "review": pa.array([text + f" {i}" for i, text in enumerate(texts)], mask=null),
        "verdict": np.where(bad, "bad", "good"),
    })  # fmt: skip


def learned() -> FitData:
    table = reviews()
    group = (np.asarray(table["verdict"]) == "bad").astype(np.int64)
    return Local.of(table.drop_columns(["verdict"]), group, 0).training(np.arange(len(table)), Balanced())


def sequences(data: FitData, longest: int = 40) -> RowSequences:
    columns = tuple(c for c in data.schema.columns if c.name not in data.regions.constant_columns)
    return RowSequences.of(columns, data.table(), data.regions, bins=10, vocabulary=400, longest=longest)


# words


@given(st.lists(st.text(max_size=40), max_size=5))
@settings(max_examples=50)
def test_every_text_comes_back_whatever_was_learned(texts: list[str]) -> None:
    words = TextWords.learn([*KIND, "größe 😀"], 300)
    assert words.decode(words.encode(texts)) == texts
    assert TextWords.from_json(words.to_json()).encode(texts) == words.encode(texts)


# rows as lines


def test_a_told_row_comes_back_from_its_tokens() -> None:
    data = learned()
    rows, table = sequences(data), data.table()
    lines = rows.told(table)
    tokens, _ = lines.rows(np.arange(len(table)))
    columns = tokens[:, rows.given : rows.given + len(rows.tokens.moving)].astype(np.int64)
    texts = []
    for row in tokens[:, rows.given + columns.shape[1] :].tolist():
        texts.append(None if row[0] == NULL else row[: row.index(END)])
    back = rows.table(columns, [texts], np.random.default_rng(0))
    assert back["review"].to_pylist() == table["review"].to_pylist()
    assert back["alone"].to_pylist() == table["alone"].to_pylist()


def test_the_region_is_given_and_a_cut_text_does_not_teach_an_end() -> None:
    data = learned()
    short = sequences(data, longest=5)
    lines = short.told(data.table())
    starts = lines.starts[:-1]
    assert all(lines.open[starts + place].all() for place in range(short.given))
    ends = lines.tokens[lines.starts[1:] - 1]
    cut = np.array([text is not None for text in data.table()["review"].to_pylist()])
    assert set(ends.tolist()) == {END, NULL}
    assert (lines.open[lines.starts[1:] - 1] == cut).all()


def test_lines_of_a_block_are_padded_with_what_is_not_learned() -> None:
    data = learned()
    lines = sequences(data).told(data.table())
    tokens, told = lines.rows(np.array([0, 1, 2]))
    lengths = np.diff(lines.starts)[:3]
    for row, length in enumerate(lengths):
        assert not told[row, length:].any()
        assert (tokens[row, length:] == END).all()


# the gate


def test_a_copy_is_refused_and_words_of_one_s_own_are_not() -> None:
    rng = np.random.default_rng(0)
    said = [" ".join(rng.choice(" ".join(KIND).split(), 12)) for _ in range(120)]
    fresh = [" ".join(rng.choice(" ".join(KIND).split(), 12)) for _ in range(120)]
    gate = TextGate.learn(said, np.zeros(120, dtype=np.int64), fresh, 1, 0.99)
    copies, strange = gate.refused([*said[:20], *fresh[:20], None, "ok"], 0)
    assert copies[:20].all()
    assert not copies[20:].any()
    assert not strange.any(), "one region has no other to be taken for"


def test_what_another_region_says_is_refused_and_the_share_of_real_texts_that_pass_is_as_asked() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(" ".join(RUDE if k else KIND).split(), 10)) for k in (0, 1) for _ in range(400)]
    region = np.repeat([0, 1], 400)
    gate = TextGate.learn(texts, region, [], 2, 0.95)
    more = [[" ".join(rng.choice(" ".join(RUDE if k else KIND).split(), 10)) for _ in range(400)] for k in (0, 1)]
    for k in (0, 1):
        assert gate.refused(more[k], k)[1].mean() < 0.1
        assert gate.refused(more[1 - k], k)[1].mean() > 0.9


def test_regions_of_few_texts_share_where_strangers_are_cut_or_say_that_none_is() -> None:
    rng = np.random.default_rng(2)

    def said(kind: int, n: int) -> list[str | None]:
        return [" ".join(rng.choice(" ".join(RUDE if kind else KIND).split(), 10)) for _ in range(n)]

    texts, region = said(0, 300) + said(1, 90), np.repeat([0, 1, 2, 3], [300, 30, 30, 30])
    gate = TextGate.learn(texts, region, [], 4, 0.95)
    assert len(set(gate.margin[1:].tolist())) == 1
    assert gate.refused(said(0, 200), 1)[1].mean() > 0.9
    assert gate.refused(said(1, 200), 1)[1].mean() < 0.2
    assert gate.notice("review") == ()
    fewer = TextGate.learn(texts[:330], region[:330], [], 2, 0.95)
    assert not fewer.refused(said(0, 200), 1)[1].any()
    (told,) = fewer.notice("review")
    assert told.startswith("'review': 1 of 2 regions have under 50 texts")
    alone = TextGate.learn(texts[:30], region[:30], [], 1, 0.95)
    assert alone.notice("review") == (), "there is no other region"


def test_rows_without_a_text_do_not_move_where_strangers_are_cut() -> None:
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(" ".join(RUDE if k else KIND).split(), 10)) for k in (0, 1) for _ in range(100)]
    region = np.repeat([0, 1], 100)
    plain = TextGate.learn(texts, region, [], 2, 0.9)
    silent = TextGate.learn([*texts, *[None] * 200], np.concatenate([region, region]), [], 2, 0.9)
    assert np.array_equal(silent.margin, plain.margin)
    assert (plain.margin > 0).all()


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=30))
def test_the_share_of_runs_is_counted_as_in_a_set(said: list[str], others: list[str]) -> None:
    own, known = runs_of(" ".join(said)), set(runs_of(" ".join(others)).tolist())
    wanted = np.mean([run in known for run in own.tolist()]) if len(own) else 0.0
    assert share_of(" ".join(said), np.array(sorted(known), dtype=np.uint64)) == wanted


def test_a_text_costs_hardly_more_against_a_thousand_times_the_runs() -> None:
    text, runs = " ".join(KIND), np.sort(np.random.default_rng(0).integers(0, 2**63, 1_000_000).astype(np.uint64))
    few, many = (min(timeit.repeat(lambda some=some: share_of(text, some), number=5, repeat=5)) for some in (runs[::1000], runs))
    assert many < 50 * few


def test_a_gate_of_few_texts_refuses_none_as_strange_and_comes_back_from_its_arrays() -> None:
    gate = TextGate.learn([*KIND, *RUDE], np.array([0, 0, 0, 1, 1, 1]), [], 2, 0.99)
    again = TextGate.from_arrays(gate.to_arrays())
    for one in (gate, again):
        copies, strange = one.refused([KIND[0], RUDE[0], "well"], 0)
        assert copies.tolist() == [True, True, False]
        assert not strange.any()
    assert GRAM > 1


# the generator


def test_drawn_rows_keep_the_schema_hold_their_region_s_words_and_copies_are_counted() -> None:
    data = learned()
    drawn = Drawn.of(TextLm(steps=150, batch=16, rate=5e-3, width=32, heads=2, blocks=1, vocabulary=400, longest=24, block=64), data, 64, 0)
    rows = drawn.take(np.array([64, 64]))
    data.schema.check(rows)
    rude = {word for text in RUDE for word in text.split()} - {word for text in KIND for word in text.split()}
    share = [
        np.mean(
            [
                len(rude & set((text or "").split())) > 0
                for text in rows.filter(pa.array(rows[REGION].to_numpy() == k))["review"].to_pylist()
            ]
        )
        for k in (0, 1)
    ]
    assert share[1] > share[0] + 0.3
    said = data.table().select(["review"]).filter(data.table()["review"].is_valid())
    # A tenth of them was kept for early stopping and is no training text.
    assert 0.8 < drawn.fitted.refused(said, 0)[f"'review' {COPIED}"].mean() < 1


def test_texts_with_the_mark_of_broken_ones_are_drawn_where_training_texts_hold_it() -> None:
    said = [f"{text[:12]} {BROKEN} {i}" for i, text in enumerate([*KIND, *RUDE] * 20)]
    group = np.repeat([0, 1], [100, 20])
    data = Local.of(pa.table({"review": said, "n": np.arange(120) % 7}), group, 0).training(np.arange(120), Balanced())
    few = TextLm(steps=120, batch=16, rate=1e-2, width=32, heads=2, blocks=1, vocabulary=300, longest=20, block=16)
    drawn = Drawn.of(few, data, 16, 0)
    held = [BROKEN in (text or "") for text in drawn.take(np.array([0, 16]))["review"].to_pylist()]
    assert any(held)
    plain = Drawn.of(TextLm.tiny(), learned(), 16, 0).fitted
    one = learned().table().slice(0, 1)
    odd = one.set_column(one.column_names.index("review"), "review", pa.array([BROKEN]))
    assert plain.refused(odd, 0)[f"'review' {UNREADABLE}"].all()
    assert not drawn.fitted.refused(pa.table({"review": [BROKEN]}), 0)[f"'review' {UNREADABLE}"].any()


def test_a_place_for_a_category_that_is_not_kept_is_drawn_and_shown_as_a_kept_one() -> None:
    table, schema, regions = half_rare(400)
    rows = RowSequences.of(schema.columns[:2], table, regions, bins=10, vocabulary=400, longest=4)
    first, past = rows.column(0)
    assert (past - first, rows.tokens.moving[0].stand) == (4, 2), "often, seldom, null and the rest, for which the first two stand"
    scores, chance = torch.zeros(1000, 4), (np.arange(1000, dtype=np.float32) + 0.5) / 1000
    assert np.bincount(picks(scores, 1.0, chance, 2)).tolist() == [375, 375, 250]


def test_drawing_with_a_cache_is_drawing_without() -> None:
    from codsa_ray.nn.line_drawing import LineDrawing

    data = learned()
    fitted = Drawn.of(TextLm.tiny(), data, 16, 0).fitted
    both = [LineDrawing(fitted.network, fitted.rows, cached=cached).drawn(1, 8, np.random.default_rng(0)) for cached in (True, False)]
    assert (both[0][0] == both[1][0]).all()
    assert both[0][1] == both[1][1]


# the learner


def test_encoded_texts_are_scikit_learn_s_weights_as_long_as_all_words_are_kept() -> None:
    data = learned()
    table = data.table()
    learner = Tfidf(kept=64, pairs=False)
    X = learner.encoder(table, data.schema).encode(table)
    texts = [text or "" for text in table["review"].to_pylist()]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b", dtype=np.float32)
    wanted = words.fit_transform(texts)
    found = opened(X, learner.kept)
    assert sparse.csr_array(found[:, -wanted.shape[1] :]).toarray() == pytest.approx(wanted.toarray())


def test_only_the_commonest_words_are_kept_with_the_weights_that_they_had() -> None:
    data = learned()
    table = data.table()
    encoder = Tfidf(kept=4).encoder(table, data.schema)
    words, rows = encoder.texts[0].words, [Tfidf(kept=kept).encoder(table, data.schema).encode(table) for kept in (4, 64)]
    assert words is not None
    seen, dense = np.exp(1 - words.idf_), rows[0].shape[1] - 8
    few, all_ = (opened(X, kept, dense + len(seen)).toarray()[:, dense:] for X, kept in zip(rows, (4, 64), strict=True))
    for row, whole in zip(few, all_, strict=True):
        kept, there = np.flatnonzero(row), np.flatnonzero(whole)
        assert len(kept) == min(4, len(there))
        assert np.array_equal(row[kept], whole[kept])
        assert (np.sort(seen[kept]) == np.sort(seen[there])[::-1][: len(kept)][::-1]).all()


def test_long_texts_are_told_apart_by_common_words() -> None:
    """500 words of a thousand, as often as in a language; a class says some common ones twice as often as the other."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, 1001)
    y = np.arange(160) % 2
    leaning = [np.where(np.arange(1000) % 40 == 20 + k, 2.0, 1.0) * often for k in (0, 1)]
    said = [" ".join(f"w{i}" for i in rng.choice(1000, 500, p=leaning[k] / leaning[k].sum())) for k in y]
    schema = Schema((Column("said", "text", "string"), Column("y", "categorical", "string", categories=("a", "b"))), "y", "classification")
    table = pa.table({"said": said, "y": np.array(["a", "b"])[y]})
    losses = []
    for learner in (Tfidf(), Tfidf(kept=2048)):
        encoder = learner.encoder(table.slice(0, 100), schema)
        fitted = learner.fit(encoder.encode(table.slice(0, 100)), y[:100], np.ones(100), classes=2, seed=0)
        losses.append(-fitted.scores(encoder.encode(table.slice(100)))[np.arange(60), y[100:]].mean())
    assert losses[0] <= losses[1], "what is left out is rare, and taught no more than noise"


def test_words_tell_the_classes_apart_and_words_never_seen_count_nothing() -> None:
    data = learned()
    table = data.table()
    learner = Tfidf()
    encoder, y = learner.encoder(table, data.schema), data.schema.truth(table)
    fitted = learner.fit(encoder.encode(table), y, np.ones(len(y)), classes=2, seed=0)
    assert (fitted.scores(encoder.encode(table)).argmax(axis=1) == y).mean() > 0.95
    plain = table.slice(0, 1).set_column(table.column_names.index("review"), "review", pa.array(["zzz qqq"]))
    empty = table.slice(0, 1).set_column(table.column_names.index("review"), "review", pa.array([None], pa.string()))
    assert np.allclose(fitted.scores(encoder.encode(plain)), fitted.scores(encoder.encode(empty)))


# the whole pass


def test_a_table_with_a_text_goes_through_the_whole_pass(ray: None, tmp_path: Path) -> None:
    data = runs.written(tmp_path, reviews(300), "reviews.parquet")
    job = Job(
        data,
        "verdict",
        out=str(tmp_path / "run"),
        generator=(TextLm.tiny(),),
        learner="tfidf",
        trials=2,
        draws=1,
        **runs.ONE_CUT,
        force=True,
    )
    report = run(job)
    real, drawn = runs.augmented(report)
    assert real.schema.field("review").type == drawn.schema.field("review").type == pa.string()
    assert len(drawn) > 0
    shown = report.facts["sample"][0]
    assert isinstance(shown["drawn"]["review"], str | None)
    assert shown["distance"] >= 0
    assert 0 <= report.facts["text_quality"]["text_c2st"] <= 1
    regions = inspect_run(report.folder)["generators"][0]["regions"]
    assert all(region["perplexity"] > 1 for region in regions if region["held_out"] > 50)

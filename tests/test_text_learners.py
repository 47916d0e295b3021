"""Learners of texts by an encoder: what it says of a text is transformers' own word, classes follow from it, what is none is refused."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from test_texts import learned
from test_texts import reviews as rows_of
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from codsa_ray.cli import main
from codsa_ray.errors import SettingError
from codsa_ray.learners.sentence import Sentence, Topics
from codsa_ray.learners.transformer import Transformer, joined
from codsa_ray.nn.sentences import embedded
from codsa_ray.schema import Schema

from bases import base

ODD = ["", "مرحبا بالعالم", "👩‍👩‍👧 größe 大", "word " * 200_000, "\0\t\n", None]
SIZES: dict[str, Any] = {
    **{"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    "max_position_embeddings": 64,
}


def written(kind: Callable[[BertConfig], Any], folder: Path | None = None, tokenizer: str | None = None) -> str:
    """A BERT of random weights with the small GPT-2's tokenizer."""
    place = folder or Path(mkdtemp(prefix="bert-"))
    words = AutoTokenizer.from_pretrained(tokenizer or base())
    words.save_pretrained(place)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(BertConfig(**SIZES)).save_pretrained(place)
    return str(place)


@cache
def bert() -> str:
    return written(BertModel)


def reviews() -> tuple[pa.Table, Schema, np.ndarray]:
    data = learned()
    table = data.table()
    return table, data.schema, data.schema.truth(table)


def accuracy(learner: Any, rows: int = 160) -> float:
    """On rows not fitted on."""
    table, schema, y = reviews()
    encoder = pickle.loads(pickle.dumps(learner.encoder(table.slice(0, rows), schema)))
    fitted = learner.fit(encoder.encode(table.slice(0, rows)), y[:rows], np.ones(rows), classes=2, seed=0)
    scores = fitted.scores(encoder.encode(table.slice(rows)))
    return float((scores.argmax(axis=1) == y[rows:]).mean())


# what an encoder says


def test_a_text_is_the_mean_of_its_tokens_whatever_texts_come_with_it() -> None:
    texts = ["the room was clean", "a bad one", None, "the room was clean and the staff was kind and the view was good", "x"]
    found = embedded(bert(), texts, 64, 2, gpu=False)
    model, words = AutoModel.from_pretrained(bert()).eval(), AutoTokenizer.from_pretrained(bert())
    for text, row in zip(texts, found, strict=True):
        if text is None:
            assert not row.any()
            continue
        with torch.no_grad():
            states = model(**{"input_ids": torch.tensor([words(text)["input_ids"]])}).last_hidden_state[0].mean(0)
        assert row == pytest.approx((states / states.norm()).numpy(), abs=1e-6)


def test_a_tokenizer_without_padding_and_a_decoder_are_read_too() -> None:
    assert AutoTokenizer.from_pretrained(base()).pad_token is None
    found = embedded(base(), ["age is 39", "job", "age is 39"], 16, 3, gpu=False)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.array_equal(found[0], found[2])


def test_special_tokens_of_the_tokenizer_are_among_what_is_read(tmp_path: Path) -> None:
    words = AutoTokenizer.from_pretrained(base())
    backend = words.backend_tokenizer
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "words")
    place = written(BertModel, tmp_path / "bert", str(tmp_path / "words"))
    plain, marked = (embedded(place_, ["age is 39"], 16, 1, gpu=False) for place_ in (bert(), place))
    assert np.abs(plain - marked).max() > 1e-3


# sentence


@pytest.mark.parametrize("learner", [Sentence(topics=20), Sentence(base=bert(), longest=32)], ids=["topics", "base"])
def test_embeddings_tell_the_classes_apart(learner: Sentence) -> None:
    assert accuracy(learner) > 0.9


def test_topics_are_of_length_one_and_the_same_in_any_order() -> None:
    texts: list[str | None] = list(reviews()[0]["review"].to_pylist())
    topics = Topics.learn(texts, 12)
    found = topics.read([*texts[:5], None, "", "zzz qqq"])
    assert np.linalg.norm(found, axis=1) == pytest.approx([float(text is not None) for text in texts[:5]] + [0.0] * 3, abs=1e-5)
    again = Topics.learn(texts, 12).read(texts[:5])
    assert np.array_equal(found[:5], again)


@pytest.mark.parametrize("texts", [[None, None], ["", ""], ["one"] * 3, ["one word", "two words"]])
def test_topics_of_hardly_any_text(texts: list[str | None]) -> None:
    assert np.isfinite(Topics.learn(texts, 5).read(texts)).all()


# transformer


@pytest.mark.parametrize(
    "learner",
    [
        replace(Transformer.tiny(), longest=24),
        Transformer(base=bert(), longest=32, lora=4, rate=2e-2, least=150, most=150, patience=20),
        Transformer(base=bert(), longest=32, lora=0, rate=2e-2, least=150, most=150, patience=20),
    ],
    ids=["small", "adapters", "all weights"],
)
def test_a_tuned_encoder_tells_the_classes_apart(learner: Transformer) -> None:
    assert accuracy(learner) > 0.9


def test_a_sequence_classifier_s_own_head_is_left_aside() -> None:
    place = written(BertForSequenceClassification)
    assert accuracy(Transformer(base=place, longest=32, lora=4, rate=2e-2, least=150, most=150, patience=20)) > 0.9


def test_the_predictor_travels_without_its_base_and_the_base_stays_as_it_was() -> None:
    table, schema, y = reviews()
    before = {p.name: p.read_bytes() for p in Path(bert()).iterdir()}
    learner = Transformer(base=bert(), longest=16, lora=2, least=5, most=5)
    X = learner.encoder(table, schema).encode(table)
    fitted = learner.fit(X, y, np.ones(len(y)), classes=2, seed=0)
    scores = fitted.scores(X)
    data = pickle.dumps(fitted)
    assert len(data) < 50_000
    assert np.array_equal(pickle.loads(data).scores(X), scores)
    assert {p.name: p.read_bytes() for p in Path(bert()).iterdir()} == before
    assert np.array_equal(learner.fit(X, y, np.ones(len(y)), classes=2, seed=0).scores(X), scores)
    assert not np.array_equal(learner.fit(X, y, np.ones(len(y)), classes=2, seed=1).scores(X), scores)


def test_weights_count_in_the_loss() -> None:
    """Texts that say nothing: what is predicted is the weighted share of the classes."""
    table, schema, y = reviews()
    silent = table.set_column(table.column_names.index("review"), "review", pa.array(["same"] * len(table)))
    silent = silent.set_column(silent.column_names.index("stars"), "stars", pa.array([3] * len(table)))
    learner = replace(Transformer.tiny(), rate=1e-2, longest=2, least=120, most=120)
    encoder = learner.encoder(silent, schema)
    X = encoder.encode(silent)
    for weight in (np.ones(len(y)), np.where(y == 0, 4.0, 1.0)):
        share = weight[y == 0].sum() / weight.sum()
        assert np.exp(learner.fit(X, y, weight, classes=2, seed=0).scores(X))[:, 0].mean() == pytest.approx(share, abs=0.06)


def test_texts_of_several_columns_are_read_one_after_the_other() -> None:
    table = pa.table({"title": ["a", None, None], "body": ["b c", "d", None]})
    assert joined(table, ("title", "body")) == ["a\nb c", "d", None]


# bad input


@pytest.mark.parametrize(
    "learner",
    [Sentence(topics=4), Sentence(base=bert(), longest=16), Transformer.tiny(), Transformer(base=bert(), longest=16, least=2, most=2)],
    ids=["topics", "sentence", "small", "transformer"],
)
def test_odd_texts_are_read(learner: Any) -> None:
    table, schema, y = reviews()
    texts = ODD + table["review"].to_pylist()[len(ODD) :]
    odd = table.set_column(table.column_names.index("review"), "review", pa.array(texts))
    encoder = learner.encoder(odd, schema)
    X = encoder.encode(odd)
    assert np.isfinite(learner.fit(X, y, np.ones(len(y)), classes=2, seed=0).scores(X)).all()


def refusal(learner: Any) -> str:
    table, schema, _ = reviews()
    with pytest.raises(SettingError) as error:
        learner.encoder(table, schema)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("learner", [Sentence(), Transformer()], ids=["sentence", "transformer"])
def test_what_is_no_encoder_is_refused_in_one_line(learner: Any, tmp_path: Path) -> None:
    assert "name a folder that holds one" in refusal(replace(learner, base=str(tmp_path / "nowhere")))
    assert "lower it" in refusal(replace(learner, base=bert(), longest=65))
    pickled = Path(written(BertModel, tmp_path / "pickled"))
    (pickled / "model.safetensors").unlink()
    torch.save(BertModel(BertConfig(**SIZES)).state_dict(), pickled / "pytorch_model.bin")
    assert "safetensors" in refusal(replace(learner, base=str(pickled)))
    half = Path(written(BertModel, tmp_path / "half"))
    config = (half / "config.json").read_text()
    (half / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    assert "another architecture" in refusal(replace(learner, base=str(half)))
    (half / "tokenizer.json").unlink()
    (half / "tokenizer_config.json").unlink()
    assert refusal(replace(learner, base=str(half)))


@pytest.mark.parametrize("settings", [{"penalty": 0.0}, {"topics": 0}])
def test_settings_of_sentence_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Sentence(**settings)


@pytest.mark.parametrize("settings", [{"width": 30, "heads": 4}, {"longest": 0}, {"held": 0.0}])
def test_settings_of_transformer_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Transformer(**settings)


@pytest.mark.parametrize("plugin", ["--generator text_lm", "--generator language_model", "--learner sentence", "--learner transformer"])
def test_a_base_that_is_not_there_ends_a_run_before_it_begins(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(rows_of(60), tmp_path / "rows.parquet")
    code = main(
        [
            "augment",
            str(tmp_path / "rows.parquet"),
            "--target",
            "verdict",
            "--out",
            str(tmp_path / "run"),
            *f"{plugin}:base=/no/where".split(),
        ]
    )
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert "'/no/where', where there is none; name a folder that holds one" in said[-1]
    assert not (tmp_path / "run" / "read").exists()

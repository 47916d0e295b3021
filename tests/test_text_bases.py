"""Texts of a pretrained base: told in words after a row's columns, gated like any others; what is no base is refused in one line."""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_texts import learned
from transformers import AutoTokenizer, BertConfig, BertLMHeadModel, T5Config, T5ForConditionalGeneration

from codsa_ray.draw import draw_block
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.text_lm import COPIED, FittedTextLm, TextLm
from codsa_ray.nn.prose_drawing import ProseDrawing
from codsa_ray.nn.row_prose import RowProse
from codsa_ray.nn.text_words import BROKEN

from bases import base, small_gpt2
from failing import Died, Mortal
from tables import LocalWorker, digest

ODD = ["", "   ", "مرحبا بالعالم", "👩‍👩‍👧 größe 大", "null", "a, b is <|endoftext|> c", "x" * 2000, "line\nline\ttab\0"]


def large(**settings: object) -> TextLm:
    """Adapters on the small GPT-2, a few steps."""
    given = {"base": base(), "steps": 2, "batch": 4, "block": 16, "held_out": 0.0, "lora": 4, "longest": 24, **settings}
    return replace(TextLm.tiny(), **given)  # type: ignore[arg-type]


def fitted(settings: TextLm, data: FitData) -> FittedTextLm:
    worker = LocalWorker(Folder(mkdtemp(prefix="texts-")))
    settings.fit(data, worker)
    return settings.load(worker.folder)


def odd() -> FitData:
    """The reviews with texts that look like the grammar's own words, in other scripts, empty and null."""
    data = learned()
    table, rng = data.table(), np.random.default_rng(0)
    texts = pa.array([None if rng.random() < 0.2 else str(rng.choice(ODD)) for _ in range(len(table))])
    return FitData.of(table.set_column(table.column_names.index("review"), "review", texts), data.schema, data.regions, 1)


def test_every_row_of_a_base_that_was_hardly_tuned_keeps_the_schema_and_its_texts_have_an_end() -> None:
    data = odd()
    generator = fitted(large(temperature=5.0, longest=9), data)
    for region in (0, 1):
        rows = draw_block(_Ungated(generator), data.schema, data.regions, region, 3)  # type: ignore[arg-type]
        data.schema.check(rows[0])
        assert (len(rows[0]), rows[1].total()) == (16, 0)
        assert max(len(generator.rows.prose.encode([text])[0]) for text in rows[0]["review"].drop_null().to_pylist()) <= 9 * 4


class _Ungated:
    """A drawer that judges none of its rows."""

    def __init__(self, fitted: FittedTextLm) -> None:
        self.block = fitted.block


def test_told_texts_come_back_from_their_tokens_and_only_what_is_not_given_is_learned() -> None:
    data = odd()
    table = data.table()
    rows = fitted(large(steps=1, longest=64), data).rows
    assert isinstance(rows, RowProse)
    lines, given = rows.told(table), len(rows.text.conditions)
    texts = table["review"].to_pylist()
    for row in range(len(table)):
        own = slice(*lines.starts[row : row + 2])
        tokens, learned = lines.tokens[own].tolist(), ~lines.open[own]
        told = rows.text.texts(_with_flag(table), table[REGION].to_numpy())
        first = len(rows.text.row([column[row] for column in told], range(given))[0])
        assert not learned[:first].any()
        opening = list(rows.openings[0])
        starts = [i for i in range(len(tokens)) if tokens[i : i + len(opening)] == opening]
        if texts[row] is None:
            assert starts == []
            continue
        body = tokens[starts[-1] + len(opening) :]
        assert not learned[starts[-1] : starts[-1] + len(opening)].any()
        assert learned[starts[-1] + len(opening) :][:-1].all()
        if len(texts[row]) < 60 and "<|" not in texts[row]:
            assert body[-1] == rows.prose.end
            assert rows.prose.decode([body[:-1]]) == [texts[row]]


def _with_flag(table: pa.Table) -> pa.Table:
    return table.append_column("review there", table["review"].is_valid())


def test_drawing_with_the_cache_is_drawing_without() -> None:
    data = odd()
    generator = fitted(large(steps=1), data)
    with torch.inference_mode():
        both = [
            ProseDrawing(generator.network, generator.rows, cached=cached).table(1, 8, np.random.default_rng(0)) for cached in (True, False)
        ]
    assert both[0].equals(both[1])


def test_texts_are_null_as_often_as_in_the_region() -> None:
    data = learned()
    table = data.table()
    bad = table[REGION].to_numpy() == 1
    texts = [None if on else text for on, text in zip(bad, table["review"].to_pylist(), strict=True)]
    data = FitData.of(table.set_column(table.column_names.index("review"), "review", pa.array(texts)), data.schema, data.regions, 1)
    generator = fitted(large(steps=30, batch=16, rate=5e-3, lora=0), data)
    assert generator.block(1, 0)["review"].null_count == 16
    assert generator.block(0, 0)["review"].null_count < 8


def test_a_tuned_base_says_what_its_region_says() -> None:
    data = learned()
    table = data.table()
    texts = np.where(table[REGION].to_numpy() == 1, "a a", "is is")
    data = FitData.of(table.set_column(table.column_names.index("review"), "review", pa.array(texts)), data.schema, data.regions, 1)
    generator = fitted(large(steps=160, batch=8, rate=1e-2, lora=0), data)
    said = ["".join(generator.block(region, 0)["review"].to_pylist()) for region in (0, 1)]
    assert said[0].count("s") > 5 * said[0].count("a")
    assert said[1].count("a") > 5 * said[1].count("s")


def test_copies_are_drawn_again_and_counted() -> None:
    """Of words that the base has a token for, so that some steps teach it to spell."""
    data, rng = learned(), np.random.default_rng(0)
    table = data.table()
    texts = pa.array([" ".join(rng.choice(["age", "is", "job", "sex", "wage", "clerk", "yes"], 9)) for _ in range(len(table))])
    data = FitData.of(table.set_column(table.column_names.index("review"), "review", texts), data.schema, data.regions, 1)
    generator = fitted(large(steps=200, batch=8, rate=1e-2, lora=0, held_out=0.1, block=48), data)
    said = data.table().select(["review"])
    assert 0.8 < generator.refused(said, 0)[f"'review' {COPIED}"].mean() < 1
    drawn, redrawn = draw_block(_Copying(generator, said["review"].to_pylist()), data.schema, data.regions, 1, 5)  # type: ignore[arg-type]
    assert redrawn.total() >= 12
    assert len(drawn) == 48
    assert not generator.refused(drawn, 1)[f"'review' {COPIED}"].any()


def test_rows_without_a_text_are_as_frequent_however_many_texts_are_refused() -> None:
    data = odd()
    generator = fitted(large(block=200, temperature=3.0), data)
    before = generator.block(0, 1)
    refused = generator.refused(before, 0)
    assert sum(rows.sum() for rows in refused.values()) > 20
    passed = before.filter(pa.array(~np.any([*refused.values()], axis=0)))
    shares = [table["review"].null_count / len(table) for table in (before, passed)]
    assert 0 < shares[0] < 1
    assert shares[1] == pytest.approx(shares[0], abs=0.02)


class _Copying:
    """A drawer that repeats training texts in every other row of its first block."""

    def __init__(self, fitted: FittedTextLm, texts: list[str]) -> None:
        self.fitted, self.texts, self.asked = fitted, texts, 0
        self.refused = fitted.refused

    def block(self, region: int, seed: int) -> pa.Table:
        table = self.fitted.block(region, seed)
        self.asked += 1
        if self.asked > 1:
            return table
        mixed = [self.texts[i] if i % 2 else text for i, text in enumerate(table["review"].to_pylist())]
        return table.set_column(table.column_names.index("review"), "review", pa.array(mixed))


@pytest.mark.parametrize("lora", [4, 0])
def test_same_seed_same_bytes_and_other_seeds_other_bytes(lora: int) -> None:
    data = odd()
    first, again = (fitted(large(lora=lora), data) for _ in range(2))
    assert digest(first.block(1, 4)) == digest(again.block(1, 4))
    assert digest(first.block(1, 4)) != digest(first.block(1, 5))


def test_a_fit_that_died_ends_with_the_bytes_of_one_that_did_not(tmp_path: Path) -> None:
    settings, data = large(steps=64, batch=1, checkpoint=30), odd()
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_at=64))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    for name in ("model.safetensors", "rows.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


# what is no base


def refusal(place: Path | str, **settings: object) -> str:
    with pytest.raises(SettingError) as error:
        large(base=str(place), **settings).fit(odd(), LocalWorker(Folder(mkdtemp(prefix="texts-"))))
    assert "\n" not in str(error.value)
    return str(error.value)


def other(folder: Path, model: object) -> Path:
    AutoTokenizer.from_pretrained(base()).save_pretrained(folder)
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    small = {"vocab_size": 320, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    bert = other(tmp_path / "bert", BertLMHeadModel(BertConfig(**small)))
    assert "reads what comes after" in refusal(bert)
    t5 = other(
        tmp_path / "t5", T5ForConditionalGeneration(T5Config(vocab_size=320, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    )
    assert "causal language model" in refusal(t5)
    half = small_gpt2(tmp_path / "half")
    config = (half / "config.json").read_text()
    (half / "config.json").write_text(config.replace('"n_layer": 2', '"n_layer": 3'))
    assert "another architecture" in refusal(half)


def test_pickled_broken_and_missing_weights_are_refused(tmp_path: Path) -> None:
    assert "safetensors" in refusal(small_gpt2(tmp_path / "pickled", pickled=True))
    broken = small_gpt2(tmp_path / "broken")
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert "name a folder that holds one" in refusal(broken)
    assert "name a folder that holds one" in refusal(tmp_path / "nowhere")


def test_rows_longer_than_the_base_reads_are_refused_with_what_to_do(tmp_path: Path) -> None:
    assert "lower longest" in refusal(small_gpt2(tmp_path / "short", longest=64), longest=100)


def test_a_tokenizer_without_padding_needs_none_and_one_without_an_end_is_refused(tmp_path: Path) -> None:
    assert AutoTokenizer.from_pretrained(base()).pad_token is None
    endless = small_gpt2(tmp_path / "endless")
    words = AutoTokenizer.from_pretrained(endless)
    words.eos_token = None
    words.save_pretrained(endless)
    assert "token that ends texts" in refusal(endless)


def test_a_text_of_a_megabyte_costs_no_more_than_its_beginning() -> None:
    data = odd()
    table = data.table()
    texts = ["word " * 200_000, *table["review"].to_pylist()[1:]]
    long = FitData.of(table.set_column(table.column_names.index("review"), "review", pa.array(texts)), data.schema, data.regions, 1)
    for settings in (large(steps=1), replace(TextLm.tiny(), steps=1)):
        generator = fitted(settings, long)
        assert all(BROKEN in (text or "") or len(text or "") < 5000 for text in generator.block(0, 1)["review"].to_pylist())

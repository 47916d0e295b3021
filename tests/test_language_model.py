"""The language model generator: whatever its weights are every row parses, fits go on where they died, bases are left as they were."""

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from codsa_ray.draw import draw_block
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.language_model import FittedLanguageModel, LanguageModel
from codsa_ray.nn.between_rows import between_rows
from codsa_ray.nn.orders import MODES
from codsa_ray.nn.rows_as_text import RowsAsText
from codsa_ray.nn.rows_as_tokens import RowsAsTokens
from codsa_ray.nn.text_drawing import TextDrawing
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

from bases import base, small_gpt2
from failing import Died, Mortal
from tables import LocalWorker, digest, half_rare, mixed_table, schema_of, with_regions

Data = tuple[pa.Table, Schema, Regions]
TINY = replace(LanguageModel.tiny(), block=40)


def large(**settings: object) -> LanguageModel:
    """Adapters on the small GPT-2, a few steps."""
    return replace(TINY, **{"base": base(), "steps": 2, "batch": 4, "block": 16, "held_out": 0.0, "lora": 4, **settings})  # type: ignore[arg-type]


def fitted(settings: LanguageModel, data: Data, seed: int = 1) -> FittedLanguageModel:
    worker = LocalWorker(Folder(mkdtemp(prefix="language-")))
    settings.fit(FitData.of(*data, seed), worker)
    return settings.load(worker.folder)


def odd_table(n: int = 120) -> Data:
    """Texts that look like the grammar's own words, names in other scripts, numbers of every size."""
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "größe, 大": pa.array(rng.choice(["a, b", "a", "null", '"q"', "naïve 大", "is", " x", "-3"], n)),
            "big": pa.array(2**53 + 1 + 2 * rng.integers(0, 50, n)),
            "wild": pa.array(np.where(rng.random(n) < 0.1, 1e300, rng.normal(size=n))),
            "least": pa.array(np.where(rng.random(n) < 0.5, -(2**63), 2**63 - 1)),
            "when": pa.array(rng.integers(-(10**15), 10**15, n)).cast(pa.timestamp("us")),
            "may": pa.array([None if r < 0.3 else bool(r < 0.6) for r in rng.random(n)]),
            "label": pa.array(np.where(rng.random(n) < 0.2, "yes", "no")),
        }
    )
    return with_regions(table, "label", ("label",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", [mixed_table, odd_table])
def test_every_row_of_an_untrained_text_model_parses_and_keeps_the_schema(mode: str, table: object) -> None:
    data = table(120)  # type: ignore[operator]
    # Every row of imbllm starts from another column, with an order of its own.
    generator = fitted(large(mode=mode, steps=1, temperature=20.0, block=3 if mode == "imbllm" else 16), data)
    for region in range(len(data[2])):
        rows, redrawn = draw_block(generator, data[1], data[2], region, 3)
        data[1].check(rows)
        assert (len(rows), redrawn.total()) == (generator.settings.block, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("table", [mixed_table, odd_table])
def test_every_row_of_a_small_decoder_of_random_weights_keeps_the_schema(mode: str, table: object) -> None:
    data = table(150)  # type: ignore[operator]
    generator = fitted(replace(TINY, mode=mode, steps=1, held_out=0.0), data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for weight in generator.network.parameters():
            torch.nn.init.normal_(weight, std=2.0)
    for region in range(len(data[2])):
        rows, redrawn = draw_block(generator, data[1], data[2], region, 3)
        data[1].check(rows)
        assert (len(rows), redrawn.total()) == (40, 0)


def test_the_text_of_a_row_reads_back_and_no_other_text_does() -> None:
    table, _, _ = data = mixed_table(120)
    form = fitted(large(steps=1), data).form
    assert isinstance(form, RowsAsText)
    text, rng = form.text, np.random.default_rng(0)
    texts = text.texts(table, table[REGION].to_numpy())
    for row in range(20):
        order = rng.permutation(len(text.names)).tolist()
        own = [column[row] for column in texts]
        tokens, _ = text.row(own, order)
        assert text.read(tokens, order) == [own[place] for place in order]
        for changed in (tokens[:-1], tokens[1:], [*tokens, tokens[-1]], [*tokens[:7], tokens[7] + 1, *tokens[8:]]):
            again = text.read(changed, order)
            assert again is None or text.row([dict(zip(order, again, strict=True))[p] for p in range(len(order))], order)[0] == changed
    assert text.longest >= max(len(text.row([c[r] for c in texts], range(len(texts)))[0]) for r in range(len(table)))
    assert text.table(texts[form.conditions :], len(table)).select(["since", "job", "big"]).equals(table.select(["since", "job", "big"]))


def test_drawing_texts_with_the_cache_equals_drawing_without() -> None:
    form_and_model = fitted(large(steps=1), mixed_table(120))
    text, network = form_and_model.form, form_and_model.network
    assert isinstance(text, RowsAsText)
    given = {place: [texts[0]] * 12 for place, (_, texts) in enumerate(text.text.conditions)}
    jobs = next(p for p, c in enumerate(text.text.columns, text.conditions) if c.cells.column.name == "job")
    given[jobs] = ["clerk", "nurse", "judge", "null"] * 3
    order = [*range(text.conditions), jobs, *(p for p in range(text.conditions, len(text.text.names)) if p != jobs)]
    with torch.inference_mode():
        both = [TextDrawing(network, text.text, cached=c).texts(12, given, order, np.random.default_rng(0)) for c in (True, False)]
    assert both[0] == both[1]


def test_tuning_leaves_the_base_as_it_was() -> None:
    def marks() -> dict[str, str]:
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(Path(base()).iterdir())}

    before = marks()
    generator = fitted(large(steps=3), mixed_table(120))
    assert marks() == before
    own = AutoModelForCausalLM.from_pretrained(base()).state_dict()
    tuned = {name.replace(".base_layer", ""): weight for name, weight in generator.network.state_dict().items() if "lora_" not in name}
    assert tuned.keys() == own.keys()
    assert all(torch.equal(own[name], tuned[name]) for name in own)
    assert any(weight.abs().sum() > 0 for name, weight in generator.network.state_dict().items() if "lora_B" in name)


def test_all_weights_are_tuned_where_no_adapters_are_asked_for() -> None:
    generator = fitted(large(steps=2, lora=0), mixed_table(120))
    own = AutoModelForCausalLM.from_pretrained(base()).state_dict()
    assert any(not torch.equal(own[name], weight) for name, weight in generator.network.state_dict().items())


def test_tuning_lowers_the_loss_and_learns_what_follows_from_the_region() -> None:
    rng = np.random.default_rng(0)
    label = np.where(rng.random(200) < 0.5, "yes", "no")
    data = with_regions(pa.table({"job": np.where(label == "yes", "judge", "clerk"), "label": label}), "label", ("label",))
    generator = fitted(large(steps=120, batch=8, rate=2e-2, lora=0, block=24), data)
    drawn = [generator.block(region, 0)["job"].to_pylist() for region in (0, 1)]
    assert min(drawn[0].count("clerk"), drawn[1].count("judge")) >= 20


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    pickled = small_gpt2(tmp_path, pickled=True)
    with pytest.raises(SettingError, match="safetensors"):
        large(base=str(pickled)).fit(FitData.of(*mixed_table(120), 1), LocalWorker(Folder(str(tmp_path / "out"))))


def test_no_such_base_and_rows_too_long_are_refused_in_one_line(tmp_path: Path) -> None:
    worker = LocalWorker(Folder(str(tmp_path / "out")))
    for bad in (str(tmp_path / "nowhere"), str(small_gpt2(tmp_path / "short", longest=16))):
        with pytest.raises(SettingError) as error:
            large(base=bad).fit(FitData.of(*mixed_table(120), 1), worker)
        assert "\n" not in str(error.value)


def test_another_base_than_the_tuned_one_is_refused(tmp_path: Path) -> None:
    worker = LocalWorker(Folder(str(tmp_path / "out")))
    large(steps=1).fit(FitData.of(*mixed_table(120), 1), worker)
    other = small_gpt2(tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        model.lm_head.weight += 1.0
    model.save_pretrained(other)
    with pytest.raises(SettingError, match="other weights"):
        large(base=str(other)).load(worker.folder)


@pytest.mark.parametrize("settings", [{"mode": "any"}, {"width": 30, "heads": 4}, {"temperature": 0.0}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        LanguageModel(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("adapters", [False, True])
def test_a_fit_that_died_ends_with_the_bytes_of_one_that_did_not(tmp_path: Path, adapters: bool) -> None:
    data = FitData.of(*mixed_table(150), 3)
    settings = replace(TINY, steps=30, batch=16, checkpoint=10, mode="imbllm")
    settings = replace(settings, base=base(), batch=1, held_out=0.0) if adapters else settings
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_at=25))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    for name in ("model.safetensors", "rows.json", "starts.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


@pytest.mark.parametrize("settings", [{"mode": "great"}, {"mode": "imbllm"}, {"mode": "imbllm", "base": ""}])
def test_same_seed_same_bytes_whatever_the_caller_s_threads(settings: dict[str, object]) -> None:
    own = large(mode="imbllm", block=3) if "base" in settings else replace(TINY, steps=5, held_out=0.0, **settings)  # type: ignore[arg-type]
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2):
            torch.set_num_threads(1)
            generator = fitted(own, mixed_table(120))
            torch.set_num_threads(threads)
            digests.add(digest(generator.block(1, 4)))
            assert torch.get_num_threads() == threads
            assert digest(generator.block(1, 5)) not in digests
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_imbllm_starts_from_observed_and_interpolated_values() -> None:
    data = mixed_table(200)
    generator = fitted(replace(TINY, mode="imbllm", steps=1), data)
    starts = generator.starts
    assert starts is not None
    assert starts.made.any()
    assert isinstance(generator.form, RowsAsTokens)
    wanted = np.ceil(data[2].deficits)
    assert [int((starts.region[starts.made] == k).sum()) for k in range(len(wanted))] == np.minimum(wanted, 1000).astype(int).tolist()
    for run in generator.orders.drawn(40, np.random.default_rng(0)):
        given = generator._given(1, run, np.random.default_rng(0))
        assert run.start is not None
        pool = starts.told[run.start][(starts.region == 1) & (~starts.made | generator.orders.ordered[run.start])]
        assert set(given[run.start]) <= set(pool)


def test_interpolated_rows_lie_between_rows_of_their_region() -> None:
    table, schema, _ = mixed_table(300)
    wanted = np.array([5, 0, 7, 400])
    made = between_rows(table, schema.columns, wanted, 1)
    region = made[REGION].to_numpy()
    assert np.bincount(region, minlength=4).tolist() == wanted.tolist()
    for k in (0, 2, 3):
        mine = table.filter(pa.array(table[REGION].to_numpy() == k))
        own = made.filter(pa.array(region == k))
        for name in ("age", "wage", "big", "gain"):
            low, high = min(mine[name].drop_null().to_pylist()), max(mine[name].drop_null().to_pylist())
            assert all(low <= value <= high for value in own[name].drop_null().to_pylist())
    assert made["job"].null_count == len(made)
    assert len(set(made.filter(pa.array(region == 3))["wage"].to_pylist())) > 100


def crossed(n: int = 900) -> Data:
    """x ~ N(3 [b], 1), z = x + N(0, .3^2), a colour that follows the sign of x - 1.5."""
    rng = np.random.default_rng(0)
    label = np.where(rng.random(n) < 0.4, "b", "a")
    x = rng.normal(3 * (label == "b"), 1)
    colour = np.where(x > 1.5, "red", "blue")
    return with_regions(pa.table({"x": x, "z": x + rng.normal(0, 0.3, n), "colour": colour, "label": label}), "label", ("label",))


@pytest.mark.parametrize("mode", MODES)
def test_regions_and_dependence_between_columns_are_drawn(mode: str) -> None:
    settings = replace(TINY, mode=mode, steps=150, batch=128, block=1000, bins=32)
    generator = fitted(settings, crossed())
    for region, centre in ((0, 0.0), (1, 3.0)):
        rows = generator.block(region, 0)
        x, z = rows["x"].to_numpy(), rows["z"].to_numpy()
        assert np.mean(x) == pytest.approx(centre, abs=0.35)
        assert np.corrcoef(x, z)[0, 1] > 0.5
        assert np.mean((x > 1.5) == (np.array(rows["colour"].to_pylist()) == "red")) > 0.85


@pytest.mark.parametrize("mode", MODES)
def test_what_goes_with_categories_that_are_not_kept_is_drawn_as_often_as_it_is(mode: str) -> None:
    """Half of the rows have rare codes and x near -5: so have half of those drawn, under a kept code, and nulls stay a tenth."""
    found = fitted(replace(LanguageModel.tiny(), mode=mode, steps=300, block=4096), half_rare()).block(0, 1)
    assert (found["x"].to_numpy() < 0).mean() == pytest.approx(0.5, abs=0.12)
    assert set(found["code"].drop_null().to_pylist()) == {"often", "seldom"}
    assert mode == "imbllm" or found["code"].null_count / len(found) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("rows", [50, 1])
@pytest.mark.parametrize("mode", MODES)
def test_few_rows_of_one_column_are_enough(rows: int, mode: str) -> None:
    data = with_regions(pa.table({"x": np.arange(float(rows)), "label": ["a"] * rows}), "label", ("label",))
    drawn = fitted(replace(TINY, mode=mode, steps=20), data).block(0, 0)
    assert drawn.column_names == ["x"]
    assert 0 <= min(drawn["x"].to_pylist()) <= max(drawn["x"].to_pylist()) < rows


@pytest.mark.parametrize("settings", [TINY, replace(TINY, mode="imbllm"), None])
def test_a_table_whose_columns_the_region_fixes_has_rows_and_no_column(settings: LanguageModel | None) -> None:
    data = with_regions(pa.table({"label": ["a", "b"] * 20}), "label", ("label",))
    drawn = fitted(settings or large(), data).block(1, 0)
    assert (len(drawn), drawn.column_names) == (len(drawn), [])
    assert len(drawn) == (settings or large()).block


def test_many_columns_and_many_categories_are_drawn() -> None:
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.normal(size=60) for i in range(300)} | {"many": [f"v{i}" for i in rng.permutation(60)]}
    data = with_regions(pa.table({**columns, "label": ["a", "b"] * 30}), "label", ("label",))
    schema = data[1]
    wide = replace(schema["many"], categories=tuple(f"v{i}" for i in range(10_000)))
    schema = replace(schema, columns=tuple(wide if c.name == "many" else c for c in schema.columns))
    rows, _ = draw_block(fitted(replace(TINY, steps=2, batch=16), (data[0], schema, data[2])), schema, data[2], 0, 1)
    schema.check(rows)


def test_the_schema_of_the_tables_above_is_as_odd_as_it_looks() -> None:
    table, schema, _ = odd_table()
    assert schema_of(table, "label") == schema
    assert schema["least"].high == 2**63 - 1

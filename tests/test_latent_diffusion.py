"""Rows of tables, pictures and texts drawn together: their parts belong to each other, a source teaches, a fit that died ends alike."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pytest
import torch

from codsa_ray.audit.coupling import Axes, coupling, shuffled
from codsa_ray.draw import draw_block
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.latent_diffusion import UNREADABLE, LatentDiffusion
from codsa_ray.nn.codec_lessons import Lesson
from codsa_ray.nn.joined_codec import JoinedCodec
from codsa_ray.nn.picture_codec import PictureCodec, halvings
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.text_codec import TextCodec, TextForm
from codsa_ray.nn.text_words import BROKEN
from codsa_ray.nn.train import Training
from codsa_ray.nn.vector_codecs import arrays_of, carried, settled
from codsa_ray.nn.vectors import Scaling, uneven
from codsa_ray.picture import decoded
from codsa_ray.regions import Regions
from codsa_ray.schema import Column, Schema

from failing import Died, Mortal
from tables import LocalWorker, digest, with_regions
from triples import triples

TINY = replace(LatentDiffusion.tiny(), gate=False, steps=20, codec_steps=20, pretrain=20, checkpoint=10, block=32)
LEARNS = replace(TINY, size=16, steps=500, width=192, blocks=2, batch=256, rate=4e-3, codec_steps=400, codec_batch=64, codec_rate=5e-3)
LEARNS = replace(LEARNS, text_width=64, text_blocks=2, drop=0.1, evaluations=12, checkpoint=5000, block=256)


def regioned(table: pa.Table, columns: tuple[str, ...] = ("scan", "remark", "ink")) -> tuple[pa.Table, Schema, Regions]:
    table, schema, regions = with_regions(table.select([*columns, "parity"]), "parity", ("parity",))
    told = tuple(replace(c, kind="text", categories=()) if c.name == "remark" else c for c in schema.columns)
    return table, replace(schema, columns=told), regions


def fit(settings: LatentDiffusion, table: pa.Table, schema: Schema, regions: Regions, source: FitData | None = None) -> Folder:
    worker = LocalWorker(Folder(mkdtemp(prefix="latent-")))
    settings.fit(FitData.of(table, schema, regions, 1, source), worker)
    return worker.folder


def rows_of(settings: LatentDiffusion, folder: Folder, schema: Schema, regions: Regions) -> pa.Table:
    found = []
    for region in range(len(regions)):
        rows, _ = draw_block(settings.load(folder), schema, regions, region, 3)
        found.append(rows.append_column(REGION, pa.array(np.full(len(rows), region, dtype=np.int32))))
    return pa.concat_tables(found)


@cache
def learned() -> tuple[Folder, tuple[pa.Table, Schema, Regions]]:
    problem = regioned(triples(600))
    return fit(LEARNS, *problem), problem


# what is drawn belongs together


def test_drawn_pictures_texts_and_numbers_belong_to_each_other_as_real_ones_do() -> None:
    """A classifier of true and shuffled pairs, which never saw drawn rows: within a region it is right about as often as of real rows."""
    folder, (table, schema, regions) = learned()
    drawn = rows_of(LEARNS, folder, schema, regions)
    schema.check(drawn)
    pairs = {(pair["a"], pair["b"]): pair for pair in coupling(table, drawn, schema, 0)}
    assert set(pairs) == {("table", "scan"), ("table", "remark"), ("scan", "remark")}
    for pair in pairs.values():
        assert pair["real"]["auc"] > 0.65
        assert abs(pair["independent"]["auc"] - 0.5) < 0.06
        assert pair["drawn"]["auc"] - 0.5 > 0.6 * (pair["real"]["auc"] - 0.5)
        assert pair["drawn"]["information"] > pair["independent"]["information"] + 0.2
    told = pairs["scan", "remark"]
    assert told["drawn"]["retrieved"] > 2.5 * told["independent"]["retrieved"]


def test_rows_come_back_from_their_latents() -> None:
    folder, (table, _, _) = learned()
    codec = LEARNS.load(folder).codec
    latents = codec.encode(table)
    reals = codec.layout.reals
    assert np.abs(latents[:, 1:reals].std(axis=0) - 1).max() < 0.15
    back = codec.decode(latents, np.random.default_rng(0), temperature=0.1)
    assert np.mean([a == b for a, b in zip(back["remark"].to_pylist(), table["remark"].to_pylist(), strict=True)]) > 0.8
    assert np.allclose(back["ink"], table["ink"], atol=1)
    pixels = [np.array([decoded(picture, 1).ravel() for picture in side["scan"].to_pylist()], dtype=float) for side in (back, table)]
    assert np.square(pixels[0] - pixels[1]).sum() < 0.15 * np.square(pixels[1] - pixels[1].mean(axis=0)).sum()


def test_another_process_draws_the_same_pictures_and_texts() -> None:
    folder, _ = learned()
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from tables import Folder, digest\n"
        "from test_latent_diffusion import LEARNS\n"
        "print(digest(LEARNS.load(Folder(sys.argv[1])).block(1, 11)))\n"
    )
    root = Path(__file__).parent
    command = [sys.executable, "-c", code, folder.local(), str(root), str(root.parent)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PATH": ""}).stdout.strip()
    assert told == digest(LEARNS.load(folder).block(1, 11))


@pytest.mark.parametrize("columns", [("ink", "remark"), ("ink", "scan"), ("scan", "remark"), ("scan",), ("remark",), ("ink",)])
def test_any_modalities_are_drawn(columns: tuple[str, ...]) -> None:
    table, schema, regions = regioned(triples(120), columns)
    rows = rows_of(TINY, fit(TINY, table, schema, regions), schema, regions)
    schema.check(rows)
    assert len(rows) == 2 * TINY.block
    assert all(decoded(picture, 1).shape == (8, 8, 1) for picture in (rows["scan"].to_pylist() if "scan" in columns else ()))


def test_nulls_are_drawn_and_a_column_of_nothing_else_too() -> None:
    table = triples(300)
    scans = [None if place % 3 == 0 else picture for place, picture in enumerate(table["scan"].to_pylist())]
    table = table.set_column(0, "scan", pa.array(scans, pa.binary())).set_column(1, "remark", pa.nulls(300, pa.string()))
    table, schema, regions = regioned(table)
    settings = replace(TINY, steps=150, rate=1e-2)
    rows = rows_of(settings, fit(settings, table, schema, regions), schema, regions)
    assert rows["remark"].null_count == len(rows)
    assert 0.1 < rows["scan"].null_count / len(rows) < 0.6


# a source


def related(data: tuple[pa.Table, Schema, Regions], source: pa.Table) -> FitData:
    found, _, regions = regioned(source)
    return FitData.of(found, data[1], replace(data[2], items=regions.items), 9)


def test_a_source_teaches_codecs_which_are_then_frozen_or_tuned() -> None:
    few, many = regioned(triples(60)), triples(400, first=100)
    settings = replace(TINY, pretrain=60)
    weights = {}
    for tune in (0.0, 0.5):
        folder = fit(replace(settings, tune=tune), *few, related(few, many))
        meta, arrays = folder.read_json("latents.json"), folder.read_arrays("latents.safetensors")
        assert meta["source"] == {"rows": 400, "columns": ["scan", "remark"]}
        assert sorted(meta["lessons"]) == (["0-source", "1-source"] if not tune else ["0-own", "0-source", "1-own", "1-source"])
        taught = folder.read_arrays("codecs/0-source.safetensors")
        weights[tune] = max(np.abs(arrays[f"codec0/{name}"] - taught[name]).max() for name in taught if name.startswith("network/"))
        assert np.abs(settings.load(folder).codec.encode(few[0])[:, 1:17].std(axis=0) - 1).max() < 0.4
        assert settings.load(folder).notice == ("codecs of scan, remark taught by 400 rows of the source",)
    assert weights[0.0] == 0.0
    assert weights[0.5] > 0.0


def test_a_lesson_holds_regions_as_often_as_their_rows_have_a_value() -> None:
    """However many of a region's rows are null, and however many were kept to learn from."""
    table, _, regions = regioned(triples(200))
    rare = table[REGION].to_numpy() == 1
    gone = rare & (np.cumsum(rare) % 4 > 0)
    remark = pa.array([None if no else text for no, text in zip(gone, table["remark"].to_pylist(), strict=True)], pa.string())
    table = table.set_column(table.column_names.index("remark"), "remark", remark).sort_by(REGION)
    kept = table.filter(pa.array((table[REGION].to_numpy() == 1) | (np.arange(len(table)) % 2 == 0)))
    lesson = Lesson.of("own", "remark", (kept, kept), regions, Training(1, 1e-3), 0)
    assert lesson is not None
    values, mass = lesson.learned
    common = int(kept.filter(pa.array(kept[REGION].to_numpy() == 0))["remark"].is_valid().to_numpy().sum())
    said = int((rare & ~gone).sum())
    assert len(values) == common + said
    assert float(mass[common - 1]) == pytest.approx(regions.counts[0] / (regions.counts[0] + said))


def test_a_codec_is_put_on_the_worker_s_device_whether_it_was_taught_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, seen = PictureCodec.untrained("scan", Frame(8, 8, 1, 0.0, 1.0, (8, 8), (8, 8, 1)), 8, 16, seed=0), list[str]()
    pictures = triples(20)["scan"].combine_chunks()
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: seen.append(device) or module)
    weights = {name: value.numpy() for name, value in codec.network.state_dict().items()}
    taught = settled(codec, weights, pictures, "cuda:1")
    carried(codec, arrays_of(taught), "cuda:1")
    assert seen == ["cuda:1"] * 2


def test_a_column_that_the_source_lacks_is_taught_by_the_target() -> None:
    few = regioned(triples(60))
    source = triples(200, first=100)
    source = source.set_column(1, "remark", pa.nulls(200, pa.string()))
    meta = fit(TINY, *few, related(few, source)).read_json("latents.json")
    assert sorted(meta["lessons"]) == ["0-source", "1-own"]
    assert meta["source"]["columns"] == ["scan"]


def test_without_pretraining_a_source_changes_no_byte() -> None:
    few, settings = regioned(triples(60)), replace(TINY, pretrain=0)
    alone, beside = (settings.load(fit(settings, *few, source)) for source in (None, related(few, triples(200, first=100))))
    assert digest(alone.block(1, 3)) == digest(beside.block(1, 3))
    assert not settings.needs.source
    assert TINY.needs.source


@cache
def undisturbed() -> tuple[FitData, Folder]:
    few = regioned(triples(60))
    data, worker = FitData.of(*few, 1, related(few, triples(100, first=100))), LocalWorker(Folder(mkdtemp(prefix="whole-")))
    replace(TINY, tune=0.5).fit(data, worker)
    return data, worker.folder


@pytest.mark.parametrize("step", [10, 30, 70, 90])
def test_a_fit_that_died_in_any_lesson_ends_with_the_bytes_of_one_that_did_not(step: int, tmp_path: Path) -> None:
    """Of two source lessons, two tunings and the diffusion: 20 steps each, with one checkpoint."""
    (data, whole), settings = undisturbed(), replace(TINY, tune=0.5)
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path)), dies_saved=step))
    settings.fit(data, LocalWorker(Folder(str(tmp_path))))
    for name in ("latents.safetensors", "latents.json"):
        assert (tmp_path / name).read_bytes() == whole.read_bytes(name)


# its parts


def test_the_decoder_says_with_kept_steps_what_it_says_of_a_whole_text() -> None:
    """Drawing word by word and learning from a text at once are the same function."""
    values = pa.chunked_array([["a seven that is dark", "größe", ""]])
    codec = TextCodec.of("t", values, 300, TextForm(12, 32, 2, 2, 8, 0.0), 0)
    read = codec.reading(values.combine_chunks())
    tokens, inside, _ = read(np.arange(3), None)
    with torch.no_grad():
        vectors = codec.network.encode(tokens, inside)
        before = torch.nn.functional.pad(codec.network.words(tokens[:, :-1]), (0, 0, 1, 0))
        whole = codec.network.scores(vectors, before)
        cache, step = codec.network.empty(3, 13), None
        for place in range(tokens.shape[1]):
            odds = codec.network.scores(vectors, step, place, cache)[:, 0]
            cache.done += 1
            assert torch.allclose(odds, whole[:, place], atol=1e-5)
            step = codec.network.words(tokens[:, place])[:, None]


def test_padding_says_nothing() -> None:
    """A text's vector is the same beside a longer one."""
    values = pa.chunked_array([["a seven", "a seven that is very very dark"]])
    codec = TextCodec.of("t", values, 300, TextForm(20, 32, 1, 2, 8, 0.0), 0)
    both = codec.vectors(values.combine_chunks())
    assert np.allclose(codec.vectors(pa.array(["a seven"])), both[:1], atol=1e-6)


def test_vectors_are_asked_to_be_as_a_unit_normal() -> None:
    torch.manual_seed(0)
    normal = torch.randn(20_000, 4)
    assert float(uneven(normal)) < 0.01
    for wrong in (normal + 1, 3 * normal, normal[:, [0, 0, 2, 3]]):
        assert float(uneven(wrong)) > 0.3
    scaling = Scaling.of(np.array([[1.0, 5.0], [3.0, 5.0]], dtype=np.float32))
    assert np.allclose(scaling.enter(np.array([[1.0, 5.0], [3.0, 5.0]])), [[-1, 0], [1, 0]])
    assert np.allclose(scaling.leave(np.array([[-1.0, 0.0]])), [[1, 5]])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 17), (8, 8), (28, 28), (50, 64)])
def test_pictures_of_any_size_go_through(height: int, width: int) -> None:
    longer = max(height, width)
    step = 2 ** halvings(longer)
    padded = (step * -(-height // step), step * -(-width // step))
    codec = PictureCodec.untrained("p", Frame(height, width, 3, 127.5, 60.0, padded, (height, width, 3)), 8, 5, 0)
    files = codec.decode(np.zeros((2, 5), dtype=np.float32), np.random.default_rng(0), 1.0)
    assert decoded(files[0].as_py()).shape == (height, width, 3)
    assert codec.encode(files).shape == (2, 5)


def test_where_there_is_no_text_its_vector_is_the_mean() -> None:
    table = pa.table({"t": ["a b", None, "c", "d", "a"], "x": [1.0, 2.0, 3.0, 4.0, 5.0]})
    codec = TextCodec.of("t", table["t"].drop_null(), 300, TextForm(5, 16, 1, 2, 3, 0.0), 0)
    columns = (Column("t", "text", "string"), Column("x", "numeric", "double", 1.0, 5.0))
    joined = JoinedCodec.of(columns, table, {"t": codec})
    latents = joined.encode(table)
    assert joined.layout.reals == 4
    assert (latents[1, 1:4] == 0).all()
    back = joined.decode(latents, np.random.default_rng(0))
    assert back["t"].is_null().to_pylist() == [False, True, False, False, False]


def test_bytes_that_are_no_text_are_refused_and_settings_checked() -> None:
    fitted = TINY.load(learned()[0])
    table = pa.table({"remark": ["fine", f"not {BROKEN}", None]})
    assert [rows.tolist() for reason, rows in fitted.refused(table, 0).items() if UNREADABLE in reason] == [[False, True, False]]
    assert not any(replace(fitted, garbled=frozenset({"remark"})).refused(table, 0)[f"'remark' {UNREADABLE}"])
    half = pa.table({"remark": ["fine", f"not {BROKEN}", *[None] * 10]})
    refused = np.any([*fitted.refused(half, 0).values()], axis=0)
    assert refused[:2].tolist() == [False, True]
    assert refused[2:].sum() == 5, "rows without a text are drawn again as often"
    for wrong in ({"heads": 5}, {"picture_width": 12}, {"temperature": 0.0}, {"size": 0}):
        with pytest.raises(SettingError):
            replace(TINY, **wrong)


# the measure


def test_coupling_knows_pairs_from_strangers() -> None:
    """Two columns as text and number: what says the same is retrieved, what does not is not; one modality says nothing."""
    table, schema, _ = regioned(triples(400), ("ink", "remark"))
    found = coupling(table, table, schema, 0)[0]
    assert found["real"]["auc"] > 0.65
    assert found["drawn"]["auc"] > 0.65
    order = shuffled(table[REGION].to_numpy(), np.random.default_rng(1))
    apart = table.set_column(table.column_names.index("ink"), "ink", table["ink"].take(pa.array(order)))
    assert abs(coupling(table, apart, schema, 0)[0]["drawn"]["auc"] - 0.5) < 0.06
    alone, schema, _ = regioned(triples(200), ("ink",))
    assert coupling(alone, alone, schema, 0) == []


@pytest.mark.parametrize("ink", [7.0, 1 / 3])
def test_a_modality_that_is_the_same_in_every_row_belongs_to_none(ink: float) -> None:
    table, schema, _ = regioned(triples(400))
    scan = table.set_column(0, "scan", pa.array([table["scan"][0].as_py()] * len(table), pa.binary()))
    assert {(pair["a"], pair["b"]) for pair in coupling(scan, scan, schema, 0)} == {("table", "remark")}
    assert Axes.of(np.full((300, 4), ink)).directions.shape == (4, 0)


def test_shuffling_stays_in_the_region_and_moves_every_row() -> None:
    region = np.array([0, 1, 0, 2, 1, 0, 1, 1])
    order = shuffled(region, np.random.default_rng(0))
    assert sorted(order) == list(range(8))
    assert (region[order] == region).all()
    assert (order != np.arange(8))[region != 2].all()

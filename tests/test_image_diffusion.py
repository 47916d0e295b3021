"""Image diffusion: pictures follow region and columns, come back from how a network sees them, and are learned as often as asked."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from codsa_ray import Job, run
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import FittedImageDiffusion, ImageDiffusion
from codsa_ray.nn.noising import Edm
from codsa_ray.nn.picture_drawing import PictureDrawing
from codsa_ray.nn.picture_loss import OWN, PictureLoss, PictureRows, natural
from codsa_ray.nn.pictures import Frame
from codsa_ray.picture import decoded, encoded

import runs
from failing import Died, Mortal
from scans import CLASSES, digits, fit, pixels_of, scans
from tables import LocalWorker, mixed_table, pictured, with_regions

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning:diffusers.*")


@cache
def drawn_from() -> FittedImageDiffusion:
    return fit(ImageDiffusion(width=16, steps=250, batch=48, rate=4e-3, held_out=0.0, evaluations=8, guidance=1.0, block=60), scans())


# what is drawn


def test_pictures_are_of_their_class_and_of_their_column() -> None:
    pixels, digit = digits()
    judge = LogisticRegression(max_iter=300).fit(pixels.reshape(len(pixels), -1) / 255, digit)
    right = []
    for region, label in enumerate(CLASSES):
        rows = drawn_from().block(region, 0)
        inverted, drawn = np.asarray(rows["inverted"]), pixels_of(rows)
        assert 15 < inverted.sum() < 45
        # A corner is paper.
        assert np.mean((drawn[:, 0, 0, 0] > 127) == inverted) > 0.9
        upright = np.where(inverted[:, None, None, None], 255 - drawn, drawn)
        right.append(np.mean(judge.predict(upright.reshape(len(drawn), -1) / 255) == label))
    assert min(right) > 0.7
    assert np.mean(right) > 0.8


def test_no_two_drawn_pictures_are_the_same_and_none_is_a_training_picture() -> None:
    said = {picture for picture in scans()[0]["scan"].to_pylist()}
    drawn = drawn_from().block(1, 3)["scan"].to_pylist()
    assert len(set(drawn)) == len(drawn)
    assert not said & set(drawn)


def test_guidance_is_drawn_with_after_the_fit_and_makes_pictures_more_alike() -> None:
    plain = drawn_from()
    strong = FittedImageDiffusion(replace(plain.settings, guidance=4.0), plain.drawing, plain.beside, plain.factors)

    def spread(fitted: FittedImageDiffusion) -> float:
        rows = fitted.block(2, 5)
        return float(pixels_of(rows.filter(rows["inverted"])).astype(float).std(0).mean())

    assert spread(strong) < spread(plain)


def test_the_size_of_most_pictures_is_the_size_that_is_drawn() -> None:
    rng = np.random.default_rng(0)
    sizes = [(9, 5)] * 30 + [(7, 7)] * 10
    files = [encoded(rng.integers(0, 255, (*size, 3)).astype(np.uint8)) for size in sizes]
    table = pa.table({"scan": pa.array(files, pa.binary()), "label": ["a", "b"] * 20})
    rows = fit(ImageDiffusion.tiny(), with_regions(table, "label", ("label",))).block(0, 0)
    assert pixels_of(rows).shape == (64, 9, 5, 3)


def test_large_pictures_are_drawn_small_and_brought_to_their_size() -> None:
    files = [encoded(np.full((40, 20, 1), 10 * k % 255, dtype=np.uint8)) for k in range(24)]
    table = pa.table({"scan": pa.array(files, pa.binary()), "label": ["a", "b"] * 12})
    fitted = fit(replace(ImageDiffusion.tiny(), size=16, block=4), with_regions(table, "label", ("label",)))
    assert (fitted.drawing.frame.height, fitted.drawing.frame.width) == (16, 8)
    assert pixels_of(fitted.block(0, 0)).shape == (4, 40, 20, 1)


@pytest.mark.parametrize("setting", [{"backbone": "dit", "width": 32}, {"patch": 2}, {"layers": 2}])
def test_other_networks_draw_too(setting: dict[str, Any]) -> None:
    table, schema, regions = with_regions(pictured(mixed_table(120)[0].drop_columns(["_region", "_row"])), "label", ("label",))
    rows = fit(replace(ImageDiffusion.tiny(), **setting), (table, schema, regions)).block(0, 0)
    assert pixels_of(rows.filter(rows["scan"].is_valid())).shape[1:] == (6, 6, 1)


def test_columns_beside_are_real_rows_and_the_report_is_told() -> None:
    table = pictured(mixed_table(200)[0].drop_columns(["_region", "_row"]))
    fitted = fit(ImageDiffusion.tiny(), with_regions(table, "label", ("label", "sex")))
    rows = fitted.block(0, 0).drop_columns(["scan"])
    real = {str(row) for row in table.select(rows.column_names).to_pylist()}
    assert {str(row) for row in rows.to_pylist()} <= real
    assert "age" in fitted.notice[0]
    assert drawn_from().notice == ("inverted beside the drawn pictures are those of training rows",)


def test_a_fit_that_died_ends_with_the_bytes_of_one_that_did_not(tmp_path: Path) -> None:
    data = FitData.of(*scans(), 3)
    small = replace(ImageDiffusion.tiny(), steps=104, batch=8, checkpoint=40)
    small.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        small.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_at=100))
    small.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    for name in ("network.safetensors", "pictures.json", "rows.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


# frames


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]), st.sampled_from([1, 2, 4]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_pictures_come_back_from_how_a_network_sees_them(height: int, width: int, channels: int, multiple: int, square: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, height, width, channels)).astype(np.uint8)
    files = [encoded(picture) for picture in pixels]
    frame = Frame.of(files, 64, lambda longer: multiple, square)
    read = frame.read(files)
    frame = frame.centred(read)
    seen = frame.enter(torch.from_numpy(read))
    assert seen.shape[2] % multiple == seen.shape[3] % multiple == 0
    assert not square or seen.shape[2] == seen.shape[3]
    assert frame.files(seen) == files
    assert Frame.from_json(frame.to_json()) == frame


# batches


def loss_of(rank: int, world: int, tmp_path: Path) -> PictureLoss:
    values = torch.randint(0, 255, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float() / 100
    region = np.sort(np.arange(40) % 4)
    rows = PictureRows.of(values, np.ones((40, 2), dtype=np.float32), region, np.ones(4), lambda part: part)
    factors = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]])
    return PictureLoss(rows, factors, Edm(), 64, LocalWorker(Folder(str(tmp_path)), rank, world))


def linear(noisy: torch.Tensor, time: torch.Tensor, factors: torch.Tensor, keep: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    return noisy + (time / 100 + (factors * keep).sum(1) + columns.sum(1))[:, None, None, None]


def test_the_shares_of_two_workers_make_the_batch_of_one(tmp_path: Path) -> None:
    def mean(rank: int, world: int) -> float:
        return float(loss_of(rank, world, tmp_path)(linear, torch.Generator().manual_seed(9)))  # type: ignore[arg-type]

    assert (mean(0, 2) + mean(1, 2)) / 2 == pytest.approx(mean(0, 1), rel=1e-5)


def test_columns_are_untold_when_the_region_is_and_own_pictures_are_told_nothing(tmp_path: Path) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def network(noisy: torch.Tensor, time: torch.Tensor, factors: torch.Tensor, keep: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        seen.append((keep, columns))
        return noisy

    plain = loss_of(0, 1, tmp_path)
    mixed = replace(plain, rows=plain.rows.beside(torch.zeros(7, 1, 4, 4), 0.5))
    assert mixed.rows.region.tolist()[:7] == [OWN] * 7
    for seed in range(30):
        mixed(network, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    keep, columns = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert torch.equal(columns[:, 0], keep.amax(1))
    assert float((keep.amax(1) == 0).float().mean()) == pytest.approx(0.5 + 0.5 * 0.1, abs=0.03)


def test_regions_are_learned_from_as_often_as_evenly_says() -> None:
    regions = with_regions(pa.table({"x": np.arange(100.0), "label": ["a"] * 90 + ["b"] * 10}), "label", ("label",))[2]
    for evenly, share in ((0.0, 0.1), (0.5, 0.25), (1.0, 0.5)):
        weights = natural(regions, evenly)
        assert weights[1] / weights.sum() == pytest.approx(share)


def test_a_region_s_rows_without_a_picture_do_not_make_its_others_more_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 rows each one region has 15 pictures: they are a fifth of what is learned, not half."""

    class Learned(Exception):
        pass

    def seen(rows: PictureRows, *others: Any) -> None:
        raise Learned(rows)

    picture = encoded(np.zeros((4, 4, 1), dtype=np.uint8))
    table = pa.table({"scan": pa.array([picture] * 75 + [None] * 45, pa.binary()), "label": ["a"] * 60 + ["b"] * 60})
    monkeypatch.setattr("codsa_ray.generators.image_diffusion.PictureLoss", seen)
    for evenly, share in ((0.0, 15 / 75), (0.5, 1 / 3), (1.0, 0.5)):
        with pytest.raises(Learned) as found:
            fit(replace(ImageDiffusion.tiny(), evenly=evenly, held_out=0.0), with_regions(table, "label", ("label",)))
        rows = found.value.args[0]
        assert torch.diff(rows.mass, prepend=torch.zeros(1))[rows.region == 1].sum().item() == pytest.approx(share)


# what is refused


@pytest.mark.parametrize("bad", [{"backbone": "gan"}, {"width": 20}, {"patch": 3}, {"guidance": -1.0}, {"evenly": 2.0}, {"evaluations": 0}])
def test_settings_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        ImageDiffusion(**bad)


def test_tables_without_a_picture_or_with_two_are_refused(tmp_path: Path) -> None:
    table = pictured(mixed_table(100)[0].drop_columns(["_region", "_row"]))
    twice = table.append_column("other", table["scan"])
    for columns, got in ((table.drop_columns(["scan"]), "none"), (twice, "'scan', 'other'")):
        with pytest.raises(SettingError, match=got):
            ImageDiffusion.tiny().fit(FitData.of(*with_regions(columns, "label", ("label",)), 1), LocalWorker(Folder(str(tmp_path))))


def test_pictures_that_are_all_null_are_refused(tmp_path: Path) -> None:
    table = pa.table({"scan": pa.nulls(20, pa.binary()), "label": ["a", "b"] * 10})
    with pytest.raises(SettingError, match="all are null"):
        ImageDiffusion.tiny().fit(FitData.of(*with_regions(table, "label", ("label",)), 1), LocalWorker(Folder(str(tmp_path))))


def test_drawing_told_nothing_leaves_the_condition_out() -> None:
    drawing: PictureDrawing = drawn_from().drawing
    columns = torch.ones(3, drawn_from().beside.width)
    found = [drawing.values(drawn_from().factors[k : k + 1], columns, 0.0, 3, 1.0, torch.Generator().manual_seed(0)) for k in range(2)]
    assert torch.equal(*found)


# the whole pass


@pytest.mark.slow
def test_a_table_with_pictures_goes_through_the_whole_pass(ray: None, tmp_path: Path) -> None:
    pixels, digit = digits()
    kept = np.flatnonzero((digit == 0) | (np.arange(len(digit)) % 6 == 0))
    table = pa.table(
        {
            "scan": pa.array([encoded(pixels[k]) for k in kept], pa.binary()),
            "site": pa.array(np.where(kept % 2, "north", "south")),
            "digit": pa.array(np.where(digit[kept] == 0, "round", "other")),
        }
    )
    job = Job(
        runs.written(tmp_path, table, "scans.parquet"),
        "digit",
        out=str(tmp_path / "run"),
        generator=(replace(ImageDiffusion.tiny(), block=32),),
        learner="convnet:width=8,hidden=16,least=30,most=30",
        trials=1,
        draws=1,
        **runs.ONE_CUT,
        force=True,
    )
    real, drawn = runs.augmented(run(job))
    assert real.schema.field("scan").type == drawn.schema.field("scan").type == pa.binary()
    assert len(drawn) > 0
    assert {decoded(picture).shape for picture in drawn["scan"].to_pylist()} == {(8, 8, 1)}

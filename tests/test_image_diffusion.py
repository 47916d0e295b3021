"""Image diffusion: pictures follow region and columns, the noising is what the papers say, bases are tuned and left as they were."""

import hashlib
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from codsa_ray import Job, run
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import FittedImageDiffusion, ImageDiffusion, _texts
from codsa_ray.nn.noising import EPSILON, SAMPLE, VELOCITY, Chain, Edm, Line, Noising
from codsa_ray.nn.picture_bases import PictureBase
from codsa_ray.nn.picture_drawing import PictureDrawing
from codsa_ray.nn.picture_loss import OWN, PictureLoss, PictureRows, natural
from codsa_ray.nn.picture_networks import ByWords
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.precondition import Scales
from codsa_ray.picture import decoded, encoded
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Schema

import bases
import runs
from tables import LocalWorker, digest, mixed_table, pictured, with_regions

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning:diffusers.*")

Data = tuple[pa.Table, Schema, Regions]
MAKERS = {"ddpm": bases.small_ddpm, "stable": bases.small_stable, "dit": bases.small_dit, "flow": bases.small_flow}
CLASSES = (0, 1, 4)


def fit(settings: ImageDiffusion, data: Data, seed: int = 1) -> FittedImageDiffusion:
    worker = LocalWorker(Folder(mkdtemp(prefix="pictures-")))
    settings.fit(FitData.of(*data, seed), worker)
    return settings.load(worker.folder)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(n, 8, 8, 1) uint8 pictures of the digits CLASSES, and which."""
    X, y = load_digits(return_X_y=True)
    kept = np.isin(y, CLASSES)
    return (X[kept] * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1), y[kept]


def scans() -> Data:
    """Digits, every other one of them printed white for black, which a column says."""
    pixels, digit = digits()
    inverted = np.arange(len(digit)) % 2 == 0
    files = [encoded(255 - picture if turned else picture) for picture, turned in zip(pixels, inverted, strict=True)]
    table = {"scan": pa.array(files, pa.binary()), "inverted": pa.array(inverted), "digit": pa.array(digit.astype(str))}
    return with_regions(pa.table(table), "digit", ("digit",))


def pixels_of(rows: pa.Table) -> np.ndarray:
    return np.stack([decoded(picture) for picture in rows["scan"].to_pylist()])


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


class Died(RuntimeError):
    pass


@dataclass
class Mortal(LocalWorker):
    def report(self, step: int, metrics: dict[str, float]) -> None:
        if step == 100:
            raise Died


def test_a_fit_that_died_ends_with_the_bytes_of_one_that_did_not(tmp_path: Path) -> None:
    data = FitData.of(*scans(), 3)
    small = replace(ImageDiffusion.tiny(), steps=104, batch=8, checkpoint=40)
    small.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        small.fit(data, Mortal(Folder(str(tmp_path / "died"))))
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


# noising


def chain(asks: str, bound: float = 5.0) -> Chain:
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    scheduler: Any = DPMSolverMultistepScheduler(prediction_type=asks)
    kept: Any = DDPMScheduler()
    return Chain(kept.alphas_cumprod, asks, bound, scheduler)


def line() -> Line:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return Line(1.0, 1000, FlowMatchEulerDiscreteScheduler(shift=1.0))


NOISINGS: dict[str, Noising] = {"edm": Edm(), "line": line(), **{asks: chain(asks) for asks in (EPSILON, VELOCITY, SAMPLE)}}


@pytest.mark.parametrize("name", NOISINGS)
def test_a_network_that_knows_a_normal_law_draws_it(name: str) -> None:
    """Pixels ~ N(m, s^2): the best answer is linear in what is seen, and the drawn mean and deviation are m and s."""
    middle, spread, noising = 0.4, 0.6, NOISINGS[name]

    def expected(noisy: torch.Tensor, signal: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        gain = signal * spread**2 / (signal**2 * spread**2 + rest**2)
        return middle + gain * (noisy - signal * middle)

    def raw(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        wide = time.view(-1, 1, 1, 1).double()
        if isinstance(noising, Edm):
            sigma = torch.exp(wide / 62.5)
            scales = Scales.at(sigma.flatten())
            skip, out, enter = (part.view(-1, 1, 1, 1) for part in (scales.skip, scales.out, scales.enter))
            seen = noisy / enter
            return ((expected(seen, torch.ones_like(sigma), sigma) - skip * seen) / out).float()
        if isinstance(noising, Line):
            level = wide / 1000
            clean = expected(noisy, 1 - level, level)
            return ((noisy - clean) / level.clamp(min=1e-6)).float()
        kept = noising.kept[time.long()].view(-1, 1, 1, 1).double()  # type: ignore[attr-defined]
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        clean = expected(noisy, signal, rest)
        noise = (noisy - signal * clean) / rest
        return {EPSILON: noise, VELOCITY: signal * noise - rest * clean, SAMPLE: clean}[name].float()

    noise = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = noising.drawn(raw, noise, 40)
    assert float(drawn.mean()) == pytest.approx(middle, abs=0.03)
    assert float(drawn.std()) == pytest.approx(spread, abs=0.05)


@pytest.mark.parametrize("name", NOISINGS)
def test_what_is_asked_for_gives_the_clean_picture_back(name: str) -> None:
    generator, noising = torch.Generator().manual_seed(1), NOISINGS[name]
    clean, noise = torch.randn(2, 16, 1, 4, 4, generator=generator)
    asked = noising.asked(clean, noise, torch.linspace(0.02, 0.9, 16))
    wide = asked.time.view(-1, 1, 1, 1)
    if isinstance(noising, Edm):
        scales = Scales.at(torch.exp(wide.flatten() / 62.5))
        skip, out, enter = (part.view(-1, 1, 1, 1) for part in (scales.skip, scales.out, scales.enter))
        found = skip * (asked.noisy / enter) + out * asked.wanted
    elif isinstance(noising, Line):
        found = asked.noisy - wide / 1000 * asked.wanted
    else:
        kept = noising.kept[asked.time].view(-1, 1, 1, 1)  # type: ignore[attr-defined]
        signal, rest = kept.sqrt(), (1 - kept).sqrt()
        found = {
            EPSILON: (asked.noisy - rest * asked.wanted) / signal,
            VELOCITY: signal * asked.noisy - rest * asked.wanted,
            SAMPLE: asked.wanted,
        }[name]
    assert torch.allclose(found, clean, atol=1e-3)


@pytest.mark.parametrize("asks", [EPSILON, VELOCITY, SAMPLE])
def test_an_error_of_the_picture_costs_min_snr_whatever_is_predicted(asks: str) -> None:
    """Hang et al. 2023, eq. 6: an error e in the clean picture costs min(SNR, 5) e^2."""
    noising = chain(asks)
    clean, noise = torch.randn(2, 12, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    asked = noising.asked(clean, noise, torch.linspace(0.05, 0.95, 12))
    kept = noising.kept[asked.time].view(-1, 1, 1, 1)
    error = 0.1
    # What a network says that sees the same and believes in a clean picture off by `error`.
    moved = {EPSILON: -(kept / (1 - kept)).sqrt() * error, VELOCITY: -error / (1 - kept).sqrt(), SAMPLE: torch.full_like(kept, error)}[asks]
    snr = (kept / (1 - kept)).flatten()
    assert torch.allclose(asked.costs(asked.wanted + moved), snr.clamp(max=5.0) * error**2, rtol=1e-3)


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


# bases


@cache
def base(kind: str) -> str:
    return str(MAKERS[kind](Path(mkdtemp(prefix=kind))))


def tuned(kind: str, **changed: Any) -> ImageDiffusion:
    few = {"base": base(kind), "steps": 2, "batch": 4, "block": 6, "held_out": 0.0, "lora": 2, "evaluations": 2}
    return ImageDiffusion(**{**few, **changed})


def few_scans(rows: int = 40) -> Data:
    table, _, _ = scans()
    return with_regions(table.slice(0, rows).drop_columns(["_region", "_row"]), "digit", ("digit",))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_base_is_tuned_by_few_weights_draws_and_is_left_as_it_was(kind: str, tmp_path: Path) -> None:
    files = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(base(kind)).rglob("*") if path.is_file()}
    small = tuned(kind, preserve=4)
    small.fit(FitData.of(*few_scans(), 1), LocalWorker(Folder(str(tmp_path))))
    rows = small.load(Folder(str(tmp_path))).block(1, 0)
    assert digest(rows) == digest(small.load(Folder(str(tmp_path))).block(1, 0))
    assert pixels_of(rows).shape == (6, 8, 8, 1)
    held = sum(array.size for name, array in Folder(str(tmp_path)).read_arrays("network.safetensors").items() if "network/" in name)
    read = PictureBase.read(base(kind), ["digit 1"], 5.0, torch.float32, "cpu")
    assert held < 0.7 * sum(weight.numel() for weight in read.model.parameters())
    assert files == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", MAKERS)
def test_at_first_a_base_says_what_it_said_before(kind: str) -> None:
    read, again = (PictureBase.read(base(kind), ["digit 1", "digit 2"], 5.0, torch.float32, "cpu") for _ in range(2))
    network = read.network((2, 2), 3)
    noisy, time = torch.randn(2, *read.shape(read.side), generator=torch.Generator().manual_seed(0)), torch.tensor([5.0, 500.0])
    told = {"factors": torch.tensor([[0, 0], [1, 1]]), "keep": torch.ones(2, 2), "columns": torch.ones(2, 3)}
    said = network(noisy=noisy, time=time, **told)
    inputs: dict[str, Any] = {}
    if isinstance(network, ByWords):
        assert again.words is not None
        inputs["encoder_hidden_states"] = again.words[:2]
        if again.pooled is not None:
            inputs["pooled_projections"] = again.pooled[:2]
    elif kind == "dit":
        inputs["class_labels"] = torch.tensor([5, 5])
    wanted = again.model(noisy, timestep=time, **inputs, return_dict=False)[0][:, : noisy.shape[1]]
    assert torch.allclose(said, wanted, atol=1e-5)


@pytest.mark.parametrize("asks", [VELOCITY, SAMPLE])
def test_a_base_keeps_what_it_predicts(asks: str, tmp_path: Path) -> None:
    folder = bases.small_ddpm(tmp_path / asks, asks, classes=7)
    read = PictureBase.read(str(folder), ["x"], 5.0, torch.float32, "cpu")
    assert isinstance(read.noising, Chain)
    assert read.noising.asks == asks
    assert len(fit(tuned("ddpm", base=str(folder), lora=0), few_scans()).block(0, 0)) == 6


def test_tuning_a_base_lowers_its_loss(tmp_path: Path) -> None:
    small = tuned("ddpm", steps=50, batch=16, rate=1e-2, held_out=0.2, lora=8)
    small.fit(FitData.of(*few_scans(200), 1), LocalWorker(Folder(str(tmp_path))))
    history = Folder(str(tmp_path)).read_json("pictures.json")["history"]
    assert history[0][0] == 0, "the base as it is was scored"
    assert history[-1][2] < 0.7 * history[0][2]


def refusal(folder: Path | str, tmp_path: Path, **changed: Any) -> str:
    with pytest.raises(SettingError) as error:
        tuned("ddpm", base=str(folder), **changed).fit(FitData.of(*few_scans(), 1), LocalWorker(Folder(str(tmp_path / "out"))))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = bases.small_ddpm(tmp_path / "pickled", safe_serialization=False)
    assert (folder / "unet" / "diffusion_pytorch_model.bin").exists()
    assert "safetensors" in refusal(folder, tmp_path)


def test_a_base_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    assert "model_index.json" in refusal(tmp_path / "nowhere", tmp_path)


def test_models_of_another_kind_are_refused(tmp_path: Path) -> None:
    assert "model_index.json" in refusal(bases.small_gpt2(tmp_path / "words"), tmp_path)
    other = bases.small_ddpm(tmp_path / "other")
    index = (other / "model_index.json").read_text()
    (other / "model_index.json").write_text(index.replace("UNet2DModel", "UNet1DModel"))
    assert "UNet1DModel" in refusal(other, tmp_path)


def test_a_base_is_told_ready_or_not_without_its_weights_being_read(tmp_path: Path) -> None:
    """Of pickled weights and pipelines of another kind: `fit` tells the rest."""
    folder = bases.small_ddpm(tmp_path / "good")
    ImageDiffusion(base=str(folder)).ready()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    ImageDiffusion(base=str(folder)).ready()
    for other in (bases.small_ddpm(tmp_path / "pickled", safe_serialization=False), bases.small_gpt2(tmp_path / "words"), tmp_path / "no"):
        with pytest.raises(SettingError):
            ImageDiffusion(base=str(other)).ready()


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = bases.small_ddpm(tmp_path / "half")
    wider = bases.small_ddpm(tmp_path / "wider", classes=3)
    shutil.copy(wider / "unet" / "config.json", folder / "unet" / "config.json")
    assert "another architecture" in refusal(folder, tmp_path)


def test_a_base_that_changed_since_is_refused(tmp_path: Path) -> None:
    folder = bases.small_ddpm(tmp_path / "base")
    small = tuned("ddpm", base=str(folder))
    small.fit(FitData.of(*few_scans(), 1), LocalWorker(Folder(str(tmp_path / "out"))))
    shutil.rmtree(folder)
    from diffusers import DDPMPipeline

    pipeline: Any = DDPMPipeline.from_pretrained(bases.small_ddpm(tmp_path / "next"))
    with torch.no_grad():
        pipeline.unet.conv_in.weight.add_(1)
    pipeline.save_pretrained(folder)
    with pytest.raises(SettingError, match="other weights"):
        small.load(Folder(str(tmp_path / "out")))


def test_a_size_that_a_base_cannot_see_is_refused(tmp_path: Path) -> None:
    assert "a size that 2 divides" in refusal(base("ddpm"), tmp_path, size=9)
    assert "a size of 16" in refusal(base("dit"), tmp_path, size=32)


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


def test_a_base_is_told_every_region_apart_from_the_others() -> None:
    plain = [Region(f"label=3, sex={sex}", 0, 0, 9, (("label", 3), ("sex", sex))) for sex in "FM"]
    assert _texts(plain) == ["label 3, sex F", "label 3, sex M"]
    strata = [Region(f"label=3 / stratum {s}", 0, s, 9, (("label", 3),)) for s in (0, 1)]
    asked = [Region("age >= 60", 2, 0, 9), Region("rest", 3, 0, 9)]
    found = _texts([*strata, *asked])
    assert found == ["label 3, label=3 / stratum 0", "label 3, label=3 / stratum 1", "age >= 60", "rest"]

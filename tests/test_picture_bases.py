"""A base of pictures is tuned by few weights and left as it was; what is not one is refused in one line."""

import hashlib
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import ImageDiffusion, _texts
from codsa_ray.nn.noising import SAMPLE, VELOCITY, Chain
from codsa_ray.nn.picture_bases import PictureBase
from codsa_ray.nn.picture_networks import ByWords
from codsa_ray.regions import Region

import bases
from scans import Data, fit, pixels_of, scans
from tables import LocalWorker, digest, with_regions

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning:diffusers.*")

MAKERS = {"ddpm": bases.small_ddpm, "stable": bases.small_stable, "dit": bases.small_dit, "flow": bases.small_flow}


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


def test_a_base_is_told_every_region_apart_from_the_others() -> None:
    plain = [Region(f"label=3, sex={sex}", 0, 0, 9, (("label", 3), ("sex", sex))) for sex in "FM"]
    assert _texts(plain) == ["label 3, sex F", "label 3, sex M"]
    strata = [Region(f"label=3 / stratum {s}", 0, s, 9, (("label", 3),)) for s in (0, 1)]
    asked = [Region("age >= 60", 2, 0, 9), Region("rest", 3, 0, 9)]
    found = _texts([*strata, *asked])
    assert found == ["label 3, label=3 / stratum 0", "label 3, label=3 / stratum 1", "age >= 60", "rest"]

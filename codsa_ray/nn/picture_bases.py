"""Picture bases: pipelines of diffusers as they are read, and what it takes to tune and draw by them; knows no row and no loss.

Weights are safetensors and nothing that comes with them is run. What is on this machine is read without a network.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codsa_ray.errors import SettingError
from codsa_ray.nn.noising import EPSILON, SAMPLE, VELOCITY, Chain, Line, Noising
from codsa_ray.nn.picture_networks import Beside, ByVector, ByWords, Condition
from codsa_ray.nn.tuned import mark

VECTOR = ("UNet2DModel", "DiTTransformer2DModel")
WORDS = ("UNet2DConditionModel", "SD3Transformer2DModel")
DENOISERS, CODERS = ("unet", "transformer"), ("vae", "vqvae")
SPARED = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of some pipelines that neither tuning nor drawing asks for anything."""
CHUNK = 8
"""Pictures that are encoded or decoded at a time."""
FAILURES = (OSError, ValueError, LookupError, ImportError, AttributeError, TypeError, RuntimeError)
"""What the library raises for folders that hold no pipeline, half of one, or pickled weights."""
WANTED = f"a pipeline of diffusers around {', '.join((*VECTOR, *WORDS))}, with safetensors weights"
DO = "name a folder with such a model_index.json"


@dataclass(frozen=True, eq=False)
class Coder:
    """Pictures to latents and back.

    Args:
        model: AutoencoderKL, VQModel or AutoencoderTiny, float32.
    """

    model: Any

    @property
    def factor(self) -> int:
        """Pixels of a latent's side."""
        channels = getattr(self.model.config, "block_out_channels", None) or self.model.config.encoder_block_out_channels
        return int(2 ** (len(channels) - 1))

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """(n, c, p, q) of (n, C, P, Q) in [-1, 1]: the modes, scaled as the denoiser wants them."""
        found = []
        for part in pictures.split(CHUNK):
            said = self.model.encode(part.to(self.model.device))
            value = said.latent_dist.mode() if hasattr(said, "latent_dist") else said.latents
            found.append(((value - self._shift) * self._scale).cpu())
        return torch.cat(found)

    @torch.no_grad()
    def pictures(self, latents: Tensor) -> Tensor:
        """The inverse, as near as the autoencoder comes."""
        parts = (part.to(self.model.device) / self._scale + self._shift for part in latents.float().split(CHUNK))
        return torch.cat([self.model.decode(part).sample.cpu() for part in parts])

    @property
    def _scale(self) -> float:
        return float(getattr(self.model.config, "scaling_factor", None) or 1.0)

    @property
    def _shift(self) -> float:
        return float(getattr(self.model.config, "shift_factor", None) or 0.0)


@dataclass(frozen=True, eq=False)
class PictureBase:
    """A pipeline taken apart.

    Args:
        model: its denoiser.
        coder: its autoencoder, or None where it denoises pixels.
        noising: how it was trained to mix pictures with noise, and what it predicts.
        texts: that regions are told by.
        words, pooled: (K + 1, L, W) and (K + 1, V) or None: its own reading of the K texts and of none; None where it reads none.
        mark: hash of the weights of denoiser and autoencoder.
    """

    model: Any
    coder: Coder | None
    noising: Noising
    texts: tuple[str, ...]
    words: Tensor | None
    pooled: Tensor | None
    mark: str

    @staticmethod
    def read(base: str, texts: Sequence[str], bound: float, dtype: torch.dtype, device: str) -> "PictureBase":
        """From a folder, or by a name of the hub.

        Args:
            base: the folder or name.
            texts: that regions are told by.
            bound: of min-SNR weighting.
            dtype: of the denoiser's weights; the autoencoder's are float32.
            device: where the autoencoder will be.

        Raises:
            SettingError: there is no such pipeline, its weights are pickled or not all there, or it is of a kind that we cannot tell a
                region; one line says which.
        """
        try:
            with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
                warnings.simplefilter("ignore")
                pipeline, model, coder = _loaded(base, dtype)
                words, pooled = _read(pipeline, [*texts, ""]) if type(model).__name__ in WORDS else (None, None)
                noising = _noising(pipeline.scheduler, bound)
        except SettingError as error:
            raise SettingError(error.wanted, f"{base!r}: {error.got}", error.do) from error
        except FAILURES as error:
            raise _told(base, error) from error
        known = mark(model, coder) if coder is not None else mark(model)
        return PictureBase(model, Coder(coder.float().to(device)) if coder else None, noising, tuple(texts), words, pooled, known)

    @property
    def side(self) -> int:
        """Of the squares that it was made for.

        Raises:
            SettingError: it does not say.
        """
        size = self.model.config.sample_size
        if size is None:
            raise SettingError("a base that says its sample_size", "none", "give size=")
        return int(size if isinstance(size, int) else max(size)) * self._factor

    @property
    def _factor(self) -> int:
        return self.coder.factor if self.coder else 1

    @property
    def channels(self) -> int:
        """Of pictures."""
        return int(self.coder.model.config.in_channels if self.coder else self.model.config.in_channels)

    def shape(self, side: int) -> tuple[int, int, int]:
        """(c, p, q) of what the denoiser sees of a square of that side."""
        return int(self.model.config.in_channels), side // self._factor, side // self._factor

    def check(self, side: int) -> None:
        """Raises SettingError where the network cannot see squares of that side."""
        config = self.model.config
        step = self._factor * (2 ** (len(config.block_out_channels) - 1) if hasattr(config, "block_out_channels") else config.patch_size)
        fixed = type(self.model).__name__ == "DiTTransformer2DModel" and side != self.side
        if side % step or fixed:
            raise SettingError(f"a size of {self.side}" if fixed else f"a size that {step} divides", str(side), "leave size out")

    def network(self, levels: tuple[int, ...], columns: int) -> nn.Module:
        """The denoiser told region and columns; at first it is the base told nothing, or its own reading of the region's text."""
        if self.words is not None:
            return ByWords(self.model, Condition(levels, columns, self.words.shape[2]), self.words, self.pooled)
        width = 0
        for owner, name, none in _classes(self.model):
            setattr(owner, name, Beside(none))
            width = none.shape[1]
        return ByVector(self.model, Condition(levels, columns, width))


def present(base: str) -> None:
    """Raises SettingError, in one line, where there is no such pipeline or one of another kind; its weights are not read."""
    try:
        listed, _ = _listed(base)
    except SettingError as error:
        raise SettingError(error.wanted, f"{base!r}: {error.got}", error.do) from error
    except FAILURES as error:
        raise _told(base, error) from error
    denoiser = Path(base) / _named(listed, DENOISERS)
    if denoiser.is_dir() and not list(denoiser.glob("*.safetensors")):
        raise SettingError(WANTED, f"{base!r} without safetensors weights", "save it as safetensors: pickled weights are not read")


def _told(base: str, error: Exception) -> SettingError:
    return SettingError(WANTED, f"{base!r} ({type(error).__name__}: {' '.join(str(error).split())[:200]})", DO)


def _named(listed: dict[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in listed), "")


def _listed(base: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what model_index.json lists, how the library is to look for its parts)."""
    # Here, because loading the library takes seconds.
    from diffusers import DiffusionPipeline

    where = {"local_files_only": _here(base)}
    listed = dict(DiffusionPipeline.load_config(base, **where))
    denoiser = _named(listed, DENOISERS)
    kind = str((listed[denoiser] or [None, None])[1]) if denoiser else "no denoiser"
    if kind not in (*VECTOR, *WORDS):
        raise SettingError(WANTED, f"{listed.get('_class_name')} with {kind}", DO)
    return listed, where


def _loaded(base: str, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """(pipeline, denoiser, autoencoder or None)."""
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()
    listed, where = _listed(base)
    denoiser, coder = (_named(listed, names) for names in (DENOISERS, CODERS))
    parts: dict[str, Any] = {}
    for name in filter(None, (denoiser, coder)):
        held: Any = getattr(diffusers, str(listed[name][1]))
        part, found = held.from_pretrained(base, subfolder=name, use_safetensors=True, torch_dtype=dtype, output_loading_info=True, **where)
        if found["missing_keys"] or found["mismatched_keys"]:
            got = f"one of another architecture, without {sorted(found['missing_keys'])[:1] or 'weights of the right size'}"
            raise SettingError(f"a {listed[name][1]} whose weights are all there", got, DO)
        parts[name] = part.eval()
    if getattr(parts[denoiser].config, "addition_embed_type", None):
        raise SettingError(WANTED, f"{listed.get('_class_name')}, whose denoiser wants further inputs", DO)
    spared = {name: None for name, held in listed.items() if name in SPARED or held == [None, None]}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        base, use_safetensors=True, trust_remote_code=False, torch_dtype=dtype, **where, **spared, **parts
    )
    return pipeline, parts[denoiser], parts.get(coder)


def _here(base: str) -> bool:
    """Whether the pipeline is on this machine."""
    from diffusers import DiffusionPipeline

    try:
        DiffusionPipeline.load_config(base, local_files_only=True)
    except FAILURES:
        return False
    return True


def _read(pipeline: Any, texts: list[str]) -> tuple[Tensor, Tensor | None]:
    """Each text as the pipeline's own encoders read it."""
    with torch.no_grad():
        if getattr(pipeline, "tokenizer_2", None) is not None:
            words, _, pooled, _ = pipeline.encode_prompt(texts, None, None, device="cpu", do_classifier_free_guidance=False)
            return words, pooled
        words, _ = pipeline.encode_prompt(texts, "cpu", 1, False)
        return words, None


def _classes(model: Any) -> list[tuple[Any, str, Tensor]]:
    """Where the model takes a class's vector: (owner, name of the module there, (1, W) what it takes for no class)."""
    if type(model).__name__ == "DiTTransformer2DModel":
        found = [block.norm1.emb for block in model.transformer_blocks]
        return [(emb, "class_embedder", emb.class_embedder.embedding_table.weight.detach()[-1:]) for emb in found]
    own = model.class_embedding
    # Classes that the base knows are not ours: their mean stands for none of them.
    none = own.weight.detach().mean(0, keepdim=True) if isinstance(own, nn.Embedding) else None
    return [(model, "class_embedding", torch.zeros(1, model.time_embedding.linear_2.out_features) if none is None else none)]


def _noising(scheduler: Any, bound: float) -> Noising:
    """As the base's own scheduler says."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    if type(scheduler).__name__.startswith("FlowMatch"):
        euler: Any = FlowMatchEulerDiscreteScheduler.from_config(config, use_dynamic_shifting=False, stochastic_sampling=False)
        return Line(float(config.shift), int(config.num_train_timesteps), euler)
    asks = config.get("prediction_type", EPSILON)
    if "beta_schedule" not in config or asks not in (EPSILON, VELOCITY, SAMPLE):
        wanted = f"a scheduler of betas that predicts {EPSILON}, {VELOCITY} or {SAMPLE}, or of flow matching"
        raise SettingError(wanted, f"{type(scheduler).__name__} that predicts {asks}", "take another base")
    solver: Any = DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", variance_type=None, thresholding=False)
    kept: Any = DDPMScheduler.from_config(config)
    return Chain(kept.alphas_cumprod, asks, bound, solver)

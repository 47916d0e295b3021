"""Pretrained: models and tokenizers that transformers reads from a folder or by name, and adapters in them; knows no row and no training.

Weights are safetensors and nothing that comes with them is run. What is on this machine, as a folder or in the hub's cache, is read
without a network.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from codsa_ray.errors import SettingError
from codsa_ray.hub import NAME
from codsa_ray.nn.tuned import mark

CAUSAL, ENCODER = "a causal language model", "a text encoder"
PROBE = ((1, 2, 3), (1, 2, 4))
"""Tokens of two texts that differ in the last: a causal model says the same of both up to there."""
CLOSE = 1e-5
SHIFTED = ("roberta", "xlm-roberta", "camembert")
FAILURES = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, SafetensorError)
"""What the library raises for folders that hold no model, half a model, or another kind of model than was asked for."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model as it was read.

    Args:
        model: in evaluation mode, on the CPU; none of its weights is trained.
        words: its tokenizer, of transformers' calling convention.
        mark: hash of the weights.
    """

    model: Any
    words: Any
    mark: str

    @staticmethod
    def read(base: str, use: str, dtype: torch.dtype = torch.float32) -> "Pretrained":
        """From a folder, or by a name of the hub.

        Args:
            base: the folder or name.
            use: CAUSAL or ENCODER.
            dtype: of the weights.

        Raises:
            SettingError: there is no such model, its weights are pickled, or it is not fit for that use; one line says which.
        """
        with _quiet():
            try:
                model, words = _loaded(base, use, dtype)
                _check(base, model, words, use)
            except FAILURES as error:
                raise _told(base, use, error) from error
        model.eval().requires_grad_(False)
        return Pretrained(model, words, mark(model))

    @property
    def limit(self) -> int | None:
        """Tokens that it reads at once, where that is known."""
        config = self.model.config
        # RoBERTa and its kin count places from one past the padding token's number.
        lost = 2 if config.model_type in SHIFTED else 0
        limits = [getattr(config, "max_position_embeddings", None), getattr(self.words, "model_max_length", None)]
        return min((int(limit) - lost for limit in limits if limit is not None and limit < 10**9), default=None)

    def adapted(self, rank: int, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
        """(the model, names of what is to be trained of it): adapters beside its linear layers (Hu et al. 2022); of rank 0, all weights."""
        if not rank:
            return self.model, tuple(name for name, _ in self.model.named_parameters())
        # Here, because loading the library takes seconds.
        from peft import LoraConfig, inject_adapter_in_model

        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out", category=UserWarning)
            torch.manual_seed(seed)
            model: Any = inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), self.model)
        names = tuple(name for name, _ in model.named_parameters() if "lora_" in name)
        model.eval().requires_grad_(False)
        return model, names


def present(base: str, use: str) -> None:
    """Raises SettingError, in one line, where there is no such model; its weights are not read."""
    with _quiet():
        try:
            _place(base, use)
        except FAILURES as error:
            raise _told(base, use, error) from error


def _told(base: str, use: str, error: Exception) -> SettingError:
    why = f"{base!r} ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return SettingError(f"{use} with safetensors weights and a tokenizer", why, "name a folder that holds one")


def _place(base: str, use: str) -> dict[str, Any]:
    """How the library is to look for it."""
    from transformers import AutoConfig

    if not os.path.isdir(base) and not NAME.fullmatch(base):
        raise SettingError(f"{use} in a folder", f"{base!r}, where there is none", "name a folder that holds one")
    where: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        AutoConfig.from_pretrained(base, **where)
    except (OSError, ValueError):
        if os.path.isdir(base):
            raise
        where["local_files_only"] = False
        AutoConfig.from_pretrained(base, **where)
    if os.path.isdir(base) and not any(name.endswith(".safetensors") for name in os.listdir(base)):
        raise SettingError(f"{use} with safetensors weights", f"{base!r} without", "save it as safetensors: pickled weights are not read")
    return where


def _loaded(base: str, use: str, dtype: torch.dtype) -> tuple[Any, Any]:
    # Here, because loading the library takes seconds.
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    where = _place(base, use)
    words = AutoTokenizer.from_pretrained(base, **where)
    kind: Any = AutoModelForCausalLM if use == CAUSAL else AutoModel
    with torch.random.fork_rng(devices=[]):
        # Of weights that a checkpoint lacks: they are refused, but for ones that are never used.
        torch.manual_seed(0)
        model, found = kind.from_pretrained(base, use_safetensors=True, dtype=dtype, output_loading_info=True, **where)
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing or found["mismatched_keys"]:
        got = f"{base!r}, of another architecture: without {missing[0] if missing else 'weights of the right size'}"
        raise SettingError(f"{use} whose weights are all there", got, "name another folder")
    return model, words


def _check(base: str, model: Any, words: Any, use: str) -> None:
    if getattr(model.config, "is_encoder_decoder", False):
        raise SettingError(use, f"{base!r}, an encoder with a decoder", "name a model of one part")
    if not len(words):
        raise SettingError("a tokenizer", f"{base!r}, whose has no words", "put the tokenizer's files into the folder")
    if use != CAUSAL:
        return
    with torch.no_grad():
        first, second = model(input_ids=torch.tensor(PROBE), use_cache=False).logits[:, :2].float()
    if (first - second).abs().max() > CLOSE * first.abs().max():
        raise SettingError(CAUSAL, f"{base!r}, which reads what comes after", "name a decoder, such as a GPT or a Llama")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own reports: what is wrong is told in one line by whoever reads."""
    from transformers.utils import logging as reports

    reports.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

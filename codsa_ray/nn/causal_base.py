"""Causal base: a pretrained language model that is told rows, tuned by adapters or whole; knows no library of models and no row."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from codsa_ray.errors import SettingError
from codsa_ray.nn.device import gpu_dtype
from codsa_ray.nn.pretrained import CAUSAL, Pretrained
from codsa_ray.nn.table_text import Tokenizer
from codsa_ray.nn.tuned import Tuned, TunedInPlace, settle


@dataclass(frozen=True, eq=False)
class CausalBase:
    """A causal language model.

    Args:
        model: with adapters, in evaluation mode, on the CPU.
        names: of the parameters that are tuned.
        words: its tokenizer.
        mark: hash of the weights as they were read.
        limit: tokens that it reads at once, or None.
    """

    model: nn.Module
    names: tuple[str, ...]
    words: Any
    mark: str
    limit: int | None

    @staticmethod
    def read(base: str, lora: int, device: str, seed: int) -> "CausalBase":
        """From a folder or by name.

        Args:
            base: see Pretrained.read.
            lora: rank of the adapters; 0 tunes all weights.
            device: that it will be tuned or drawn from on.
            seed: of the adapters' first weights.

        Raises:
            SettingError: there is no such model, it is pickled, or not causal.
        """
        found = Pretrained.read(base, CAUSAL, gpu_dtype(device))
        model, names = found.adapted(lora, seed)
        return CausalBase(model, names, found.words, found.mark, found.limit)

    @property
    def tokenizer(self) -> Tokenizer:
        """What tables need of its tokenizer."""

        def encode(text: str) -> list[int]:
            return list(self.words.encode(text, add_special_tokens=False))

        return Tokenizer(encode, lambda character: encode(character)[-1])

    @property
    def size(self) -> int:
        """Tokens that it knows."""
        model: Any = self.model
        return int(model.get_input_embeddings().weight.shape[0])

    def check(self, longest: int, do: str) -> None:
        """Raises SettingError, with what to `do`, where rows of `longest` tokens are more than the model reads."""
        if self.limit is not None and longest > self.limit:
            raise SettingError(f"rows of at most {self.limit} tokens", f"up to {longest}", do)

    def trainable(self, cut: bool, device: str, dtype: torch.dtype) -> nn.Module:
        """What is trained: a copy of the tuned weights beside the model, or the model itself cut over all processes."""
        if cut:
            return TunedInPlace.cut(self.model, self.names, device, dtype)
        return Tuned(self.model.to(device), self.names)

    def settled(self, weights: dict[str, torch.Tensor], mark: str) -> nn.Module:
        """The model with its tuned weights written in.

        Raises:
            SettingError: `mark` is that of another base.
        """
        if mark != self.mark:
            raise SettingError("the base that was tuned", "one with other weights", "put back the base as it was, or fit again")
        settle(self.model, self.names, weights)
        return self.model

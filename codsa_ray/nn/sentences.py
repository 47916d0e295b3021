"""Sentences: a text as the mean of what a pretrained encoder says of its tokens, of length 1; knows no column and no learner.

Source: Reimers & Gurevych 2019 (Sentence-BERT: mean pooling, which they found best). The encoder is as it was read: nothing is trained.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codsa_ray.errors import SettingError
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.lines import CHARACTERS
from codsa_ray.nn.pretrained import ENCODER, Pretrained


@lru_cache(maxsize=2)
def encoder(base: str) -> Pretrained:
    """The encoder, read once in a process.

    Raises:
        SettingError: there is no such model, or it is none.
    """
    return Pretrained.read(base, ENCODER)


def tokens(found: Pretrained, texts: Sequence[str | None], longest: int) -> list[list[int]]:
    """Of each text at most `longest` tokens, the encoder's special ones among them; of null none.

    Raises:
        SettingError: the encoder does not read that many.
    """
    if found.limit is not None and longest > found.limit:
        raise SettingError(f"a longest of at most {found.limit} for this base", str(longest), "lower it")
    begun = [(text or "")[: CHARACTERS * longest] for text in texts]
    if not begun:
        return []
    told: list[list[int]] = found.words(begun, truncation=True, max_length=longest)["input_ids"]
    return [[] if text is None else own for text, own in zip(texts, told, strict=True)]


def padded(told: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    """((n, T) tokens, (n, T) bool which are there) of n >= 1 texts; what stands where none is is never looked at: no padding token."""
    most = max(1, max(map(len, told)))
    found = torch.tensor([[*own, *[0] * (most - len(own))] for own in told], device=device)
    lengths = torch.tensor([len(own) for own in told], device=device)
    return found, torch.arange(most, device=device) < lengths[:, None]


def pooled(model: Any, told: Tensor, there: Tensor) -> Tensor:
    """(n, W) mean over the tokens that are there of the model's last states; of a row without tokens 0."""
    states = model(input_ids=told, attention_mask=there.long()).last_hidden_state
    weight = there[..., None].to(states.dtype)
    # Not a product with 0 alone: what a model says of rows without tokens may be no number.
    return torch.where(there[..., None], states, 0.0).sum(1) / weight.sum(1).clamp(min=1)


def embedded(base: str, texts: Sequence[str | None], longest: int, batch: int, gpu: bool) -> np.ndarray:
    """(n, W) float32, each of length 1; a null is 0.

    Args:
        base: folder or name of the encoder.
        texts: n of them.
        longest: tokens of one at most.
        batch: texts read at a time.
        gpu: read on the GPU, where this process has one.

    Raises:
        SettingError: see `encoder` and `tokens`.
    """
    found, device = encoder(base), "cuda" if gpu and torch.cuda.is_available() else "cpu"
    model, told = found.model.to(device), tokens(found, texts, longest)
    out = np.zeros((len(texts), int(model.config.hidden_size)), dtype=np.float32)
    # Texts of a length together: what is padded is read in vain.
    order = sorted((row for row, own in enumerate(told) if own), key=lambda row: (len(told[row]), row))
    with torch.inference_mode(), one_thread():
        for first in range(0, len(order), batch):
            rows = order[first : first + batch]
            states = pooled(model, *padded([told[row] for row in rows], device)).float()
            out[rows] = torch.nn.functional.normalize(states, dim=1).cpu().numpy()
    return out

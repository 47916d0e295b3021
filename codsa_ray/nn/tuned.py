"""Tuned: the few weights of a large model that are trained, as a module of their own beside the frozen rest; knows no method.

The training loop averages and saves a module's parameters. Of a large model it then handles what is tuned and nothing else.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codsa_ray.nn.shards import shard


class Tuned(nn.Module):
    """Calls `model`, which is never written to, with some of its weights replaced by the parameters of this module for that time.

    Args:
        model: in evaluation mode, on its device.
        names: of the parameters that are trained.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        # In a tuple, so that it is no submodule: its parameters are not this module's.
        self.around, self.names = (model,), names
        weights = dict(model.named_parameters())
        self.weights = nn.ParameterList(nn.Parameter(weights[name].detach().float().clone()) for name in names)

    def forward(self, **inputs: Tensor) -> Any:
        """What the model returns."""
        return functional_call(self.around[0], dict(zip(self.names, self.weights, strict=True)), kwargs=inputs)


class TunedInPlace(nn.Module):
    """Calls `model`, some of whose own weights are the parameters of this module, in the order that `Tuned` has them in.

    Args:
        model: in evaluation mode.
        names: of the parameters that are trained.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.around = (model,)
        weights = dict(model.named_parameters())
        self.weights = nn.ParameterList(weights[name] for name in names)

    @staticmethod
    def cut(model: nn.Module, names: tuple[str, ...], device: str, dtype: torch.dtype) -> "TunedInPlace":
        """Of a model that no process could hold whole on its device: all its weights are cut over them, what is trained in float32."""
        weights = dict(model.named_parameters())
        for name in names:
            weights[name].data = weights[name].data.float()
            weights[name].requires_grad_(True)
        shard(model, device, dtype)
        return TunedInPlace(model, names)

    def forward(self, **inputs: Tensor) -> Any:
        """What the model returns."""
        return self.around[0](**inputs)


@torch.no_grad()
def settle(model: nn.Module, names: tuple[str, ...], weights: dict[str, Tensor]) -> None:
    """Writes what a `Tuned` of these names was trained to (its state) into the model itself."""
    own, tuned = dict(model.named_parameters()), Tuned(model, names)
    tuned.load_state_dict(weights)
    for name, weight in zip(names, tuned.weights, strict=True):
        own[name].copy_(weight)


def mark(*models: nn.Module) -> str:
    """16 hex digits of the names and bytes of all weights."""
    total = hashlib.blake2b(digest_size=8)
    for model in models:
        for name, weight in sorted(model.named_parameters()):
            total.update(name.encode())
            total.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()

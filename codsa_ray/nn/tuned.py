"""Tuned: the few weights of a large model that are trained, as a module of their own beside the frozen rest; knows no method.

The training loop copies, averages and saves a module's parameters. Of a large model it then handles what is tuned and nothing else, and
the model itself is never written to: its own weights are replaced for the length of a call.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Tuned(nn.Module):
    """Calls `model` with some of its weights replaced by the parameters of this module.

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

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tuned":
        twin = Tuned(self.around[0], self.names)
        with torch.no_grad():
            for mine, own in zip(twin.weights, self.weights, strict=True):
                mine.copy_(own)
        return twin.to(next(iter(self.weights)).device)

    def forward(self, **inputs: Tensor) -> Any:
        """What the model returns."""
        return functional_call(self.around[0], dict(zip(self.names, self.weights, strict=True)), kwargs=inputs)

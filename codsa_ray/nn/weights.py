"""Weights: what a training changes, beside its moving average, as arrays and back; all of it or this process's shards; knows no loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from codsa_ray.nn.shards import Saved, label, local, spread, whole

MODULE, AVERAGE, BEST = "module", "average", "best"
"""Folders of a checkpoint: the weights as they are, averaged, and averaged at the best held-out score."""


@dataclass(frozen=True, eq=False)
class Weights:
    """A module in training and the exponential moving average of its parameters.

    Args:
        module: on its device; cut by `shards.shard`, or whole.
        parameters: the module's, shards where they are cut.
        average: this process's rows of each, averaged. Buffers have none: running means of batch norms and the like are averages already.
    """

    module: nn.Module
    parameters: tuple[nn.Parameter, ...]
    average: tuple[Tensor, ...]

    @staticmethod
    def of(module: nn.Module) -> "Weights":
        """The average begins where the module stands."""
        # Kept, because FSDP2 shows others, whole ones, while the module computes.
        parameters = tuple(module.parameters())
        return Weights(module, parameters, tuple(local(parameter).clone() for parameter in parameters))

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Moves the average towards the module by 1 - decay."""
        torch._foreach_lerp_(list(self.average), [local(parameter) for parameter in self.parameters], 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The module with averaged weights for the length of the block, and afterwards as it was before."""
        kept = [buffer.clone() for buffer in self.module.buffers()]
        self._exchange()
        try:
            yield self.module
        finally:
            self._exchange()
            for buffer, before in zip(self.module.buffers(), kept, strict=True):
                buffer.copy_(before)

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            mine = local(parameter)
            before = mine.clone()
            mine.copy_(average)
            average.copy_(before)

    def arrays(self) -> dict[str, np.ndarray]:
        """This process's rows of what the module's state_dict holds."""
        return {name: local(value).cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def averages(self) -> dict[str, np.ndarray]:
        """The same, averaged."""
        with self.averaged():
            return self.arrays()

    def gathered(self, arrays: dict[str, np.ndarray], lead: bool) -> dict[str, np.ndarray]:
        """All rows of what `arrays` gave; of shards for the process that leads alone, though all of them call this."""
        found = {}
        for name, value in self.module.state_dict().items():
            full = whole(arrays[name], value)
            if lead or full is arrays[name]:
                found[name] = full
        return found

    def packed(self, best: dict[str, np.ndarray], lead: bool) -> dict[str, np.ndarray]:
        """What this process saves of the module, its average and the best."""
        labels = {name: label(name, value, lead) for name, value in self.module.state_dict().items()}
        kinds = {MODULE: self.arrays(), AVERAGE: self.averages(), BEST: best}
        return {f"{kind}/{labels[name]}": value for kind, values in kinds.items() for name, value in values.items() if labels[name]}

    def unpack(self, saved: Saved) -> dict[str, np.ndarray]:
        """Goes on from what any number of processes packed; returns the best."""
        with self.averaged():
            self._load(saved, AVERAGE)
        self._load(saved, MODULE)
        state = self.module.state_dict()
        return {name: saved.take(f"{BEST}/{name}", state[name]).numpy().copy() for name in saved.names(BEST)}

    @torch.no_grad()
    def _load(self, saved: Saved, kind: str) -> None:
        for name, value in self.module.state_dict().items():
            local(value).copy_(saved.take(f"{kind}/{name}", value))


def packed_moments(optimizer: torch.optim.Optimizer, lead: bool) -> dict[str, np.ndarray]:
    """What this process saves of an optimizer's state."""
    found = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            if name := label(f"{index}.{slot}", value, lead):
                found[f"optimizer/{name}"] = local(value).cpu().numpy()
    return found


def unpack_moments(optimizer: torch.optim.Optimizer, saved: Saved) -> None:
    """The inverse, at any number of processes: a moment is cut as its parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name in saved.names("optimizer"):
        index, _, slot = name.partition(".")
        like = parameters[int(index)] if slot != "step" else None
        rows = saved.take(f"optimizer/{name}", like)
        if like is not None:
            # In the parameter's own order of memory (channels last, for one): the fused optimizer walks both side by side.
            rows = torch.empty_like(local(like), dtype=rows.dtype, device=rows.device).copy_(rows)
        state.setdefault(int(index), {})[slot] = rows if like is None else spread(rows, like)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

"""Shards: tensors of which each process holds some rows (FSDP2), as named arrays and back, at any number of processes; knows no training.

A process saves its rows under the tensor's name and the number of the first ("up.weight@96"), and what all hold alike under the name
alone. So the arrays of all processes are one set, nothing of which is a pickle, and any number of processes finds its own rows in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from codsa_ray.errors import DamagedError


def shard(module: nn.Module, device: str, dtype: torch.dtype) -> None:
    """Cuts the parameters over all processes, in place: each block is gathered for the length of its turn, and the rest is one unit more.

    Args:
        module: whose parameters that are learned share one dtype, the same in every process. Its blocks are the items of the
            nn.ModuleList with the most parameters: of a transformer its layers.
        device: of this process; parameters are moved there block by block.
        dtype: that the network computes in; gradients are summed in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    fast = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if dtype != torch.float32 else MixedPrecisionPolicy()
    empty = {parameter for parameter in module.parameters() if not parameter.numel()}
    for parameter in empty:
        # There is nothing to cut, and FSDP2 cannot sum gradients without numbers.
        parameter.data = parameter.data.to(device)
    for unit in [*blocks(module), module]:
        # The outermost too: else it stays whole after a forward that no backward follows, as in a held-out score.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=fast, ignored_params=empty)


def blocks(module: nn.Module) -> list[nn.Module]:
    """The items of the module's list of modules with the most parameters; of two, the outer."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    return list(max(lists, key=lambda part: sum(p.numel() for p in part.parameters()), default=[]))


def is_shard(tensor: Tensor) -> bool:
    """True for a DTensor, told by its mesh: to import the class takes a second that a fit in one process has no use for."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Any) -> Tensor:
    """The rows that this process holds, in the tensor's own memory."""
    rows: Tensor = tensor.to_local() if is_shard(tensor) else tensor
    return rows.detach()


def rows_of(tensor: Any) -> tuple[int, int]:
    """(first, one past the last) of the rows that this process holds."""
    if not is_shard(tensor):
        return 0, len(tensor)
    each = -(-len(tensor) // tensor.device_mesh.size())
    first = min(tensor.device_mesh.get_local_rank() * each, len(tensor))
    return first, min(first + each, len(tensor))


def spread(rows: Tensor, like: Any) -> Tensor:
    """The sharded tensor of which this process holds these rows, cut as `like`; where that is whole, the rows themselves."""
    if not is_shard(like):
        return rows
    from torch.distributed.tensor import DTensor

    mesh, cuts = like.device_mesh, like.placements
    found: Tensor = DTensor.from_local(rows.to(like.device), mesh, cuts, run_check=False, shape=like.shape, stride=like.stride())
    return found


def whole(rows: np.ndarray, like: Tensor) -> np.ndarray:
    """All rows, of which every process brings its own; all call this for the same tensors in the same order."""
    if not is_shard(like):
        return rows
    full: Any = spread(torch.from_numpy(rows), like)
    return np.asarray(full.full_tensor().cpu().numpy())


def label(name: str, tensor: Tensor, lead: bool) -> str | None:
    """What this process saves its rows under, or None where it has none, or where they are all rows and another process leads."""
    if not is_shard(tensor):
        return name if lead else None
    first, end = rows_of(tensor)
    return f"{name}@{first}" if first < end else None


@dataclass(frozen=True, eq=False)
class Saved:
    """Arrays that any number of processes saved.

    Args:
        arrays: by label; one is read when it is asked for.
        places: by tensor, the first row and the label of each part, in order.
    """

    arrays: Mapping[str, np.ndarray]
    places: Mapping[str, list[tuple[int, str]]]

    @staticmethod
    def of(arrays: Mapping[str, np.ndarray]) -> "Saved":
        """Sorted by tensor."""
        places: dict[str, list[tuple[int, str]]] = {}
        for key in arrays:
            name, _, first = key.partition("@")
            places.setdefault(name, []).append((int(first or 0), key))
        return Saved(arrays, {name: sorted(found) for name, found in places.items()})

    def names(self, kind: str) -> list[str]:
        """Tensors saved under `kind/`, without it."""
        return [name.removeprefix(f"{kind}/") for name in self.places if name.startswith(f"{kind}/")]

    def take(self, name: str, like: Tensor | None = None) -> Tensor:
        """This process's rows of a tensor that is cut as `like`; all that was saved in one part, where there is no such tensor.

        Raises:
            DamagedError: the tensor, or some of its rows, was not saved.
        """
        parts = self.places.get(name, [])
        if like is None or like.dim() == 0:
            if len(parts) != 1:
                raise DamagedError(f"a checkpoint has {len(parts)} arrays {name} instead of 1")
            found = torch.from_numpy(self.arrays[parts[0][1]])
            return found if like is None else found.reshape(())
        first, end = rows_of(like)
        ends = [start for start, _ in parts[1:]] + [len(like)]
        mine = [(start, key) for (start, key), until in zip(parts, ends, strict=False) if start < end and until > first]
        rows = [self.arrays[key][max(first - start, 0) : end - start] for start, key in mine]
        if sum(map(len, rows)) != end - first:
            raise DamagedError(f"a checkpoint has {sum(map(len, rows))} of the rows {first} to {end} of {name}")
        return torch.from_numpy(np.concatenate(rows)) if rows else local(like).cpu().clone()

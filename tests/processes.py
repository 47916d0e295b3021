"""Ranks of a torch process group (gloo) as processes of a test's own, with a worker that saves what each brings; knows no generator."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from codsa_ray.folder import Folder
from codsa_ray.nn.shards import is_shard
from codsa_ray.stages.train import OnDisk

from tables import LocalWorker


class Died(RuntimeError):
    pass


@dataclass
class Rank(LocalWorker):
    """One of several: DistributedDataParallel for what is not cut, a checkpoint of one file a rank, and a death at some reports, once each.

    Args:
        dies_at: steps at whose report this rank dies; each is crossed off.
    """

    dies_at: tuple[int, ...] = ()
    wrapped: Any = None

    def prepare(self, module: Any, make_optimizer: Callable[[Any], Any]) -> tuple[Any, Any]:
        cut = self.world == 1 or any(map(is_shard, module.parameters()))
        self.wrapped = module if cut else DistributedDataParallel(module)
        return self.wrapped, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        place = self.folder / f"checkpoint-{step:04d}"
        if arrays:
            place.write_arrays(f"rank-{self.rank}.safetensors", arrays)
        if self.world > 1:
            torch.distributed.barrier()
        if self.rank == 0:
            place.write_json("state.json", {"step": step, "meta": meta})

    def resume(self) -> tuple[int, Any, dict[str, Any]] | None:
        found = [name for name in self.folder.names() if (self.folder / name).exists("state.json")]
        if not found:
            return None
        newest = self.folder / found[-1]
        state = newest.read_json("state.json")
        return state["step"], OnDisk.of(Path(newest.local())), state["meta"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        super().report(step, metrics)
        if self.world > 1:
            # Nobody goes on, into a checkpoint say, before all were told.
            torch.distributed.barrier()
        if step in self.dies_at:
            self.dies_at = tuple(at for at in self.dies_at if at != step)
            raise Died


def worker(place: Path, dies_at: tuple[int, ...] = ()) -> Rank:
    """This process's rank, with a folder that it shares with the others."""
    if not torch.distributed.is_initialized():
        return Rank(Folder(str(place)), dies_at=dies_at)
    return Rank(Folder(str(place)), torch.distributed.get_rank(), torch.distributed.get_world_size(), dies_at=dies_at)


def together(world: int, work: Callable[[Path], None], place: Path) -> None:
    """Calls `work(place)` in so many processes of one group, and asks that all of them come to its end."""
    context = get_context("spawn")
    ranks = [context.Process(target=_rank, args=(rank, world, work, place)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * world


def _rank(rank: int, world: int, work: Callable[[Path], None], place: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=world)
    work(place)
    torch.distributed.destroy_process_group()

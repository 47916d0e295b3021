"""A generator of `make chaos`: real rows again, but one block ends its worker while a flag is there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from codsa_ray.contracts import Needs
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.plugins import identity
from codsa_ray.seeds import seed_of


@dataclass(frozen=True)
class Poisoned:
    """Bootstrap with a poison block.

    Args:
        flag: a file that holds "fold draw" of the pool whose first block ends the process; without it there is none.
        block: rows of one.
    """

    flag: str
    block: int = 256

    @property
    def needs(self) -> Needs:
        return Needs(block=self.block)

    def fit(self, data: Any, worker: Any) -> None:
        Bootstrap(block=self.block).fit(data, worker)

    def load(self, folder: Any) -> "FittedPoisoned":
        return FittedPoisoned(self, Bootstrap(block=self.block).load(folder))

    @classmethod
    def tiny(cls) -> Self:
        return cls("nowhere")


@dataclass(frozen=True)
class FittedPoisoned:
    settings: Poisoned
    inner: Any

    def block(self, region: int, seed: int) -> pa.Table:
        if Path(self.settings.flag).exists():
            fold, draw = map(int, Path(self.settings.flag).read_text().split())
            if seed == seed_of(seed_of(0, "draw", identity(self.settings), 1.0, fold, draw, region, 0), 0):
                os._exit(17)
        return self.inner.block(region, seed)

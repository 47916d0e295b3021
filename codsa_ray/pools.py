"""Which pools a run needs and how large; draws nothing."""

from dataclasses import fields, replace
from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate, largest_gamma, needs_eta
from codsa_ray.contracts import Allocator, Generator
from codsa_ray.folder import Folder
from codsa_ray.plugins import identity
from codsa_ray.pool import Pool, PoolKey
from codsa_ray.regions import Regions

SIZES = 16
LEAST_BLOCK = 256
TILTS = (0.0, 0.25, 0.5)
ROW_WEIGHTS = (0.1, 0.2, 0.5, 1.0)
LARGEST_ETA = 2.0


def ceiling(regions: Regions, allocator: Allocator) -> np.ndarray:
    """(K,) int64 most rows of each region that any candidate can ask for in one draw."""
    gammas = np.linspace(0, 1, SIZES + 1)[1:] * (0.0 if needs_eta(regions) else largest_gamma(regions))
    etas = np.linspace(0, 1, SIZES + 1)[1:] * (LARGEST_ETA if needs_eta(regions) else 0.0)
    most = np.zeros(len(regions), dtype=np.int64)
    for gamma, eta in zip(gammas, etas, strict=True):
        for tilt in TILTS:
            for weight in ROW_WEIGHTS:
                plan = Candidate("synthetic", generator="any", gamma=float(gamma), eta=float(eta), tilt=tilt, row_weight=weight).plan(
                    regions, allocator
                )
                if plan.size:
                    most = np.maximum(most, plan.counts)
    # Allocators that depend on the size may peak between two of the sizes looked at; a rounding more covers it.
    return most + (most > 0) * len(regions)


def sized(generator: Generator, regions: Regions, allocator: Allocator, gpus: float) -> Generator:
    """The generator with blocks no larger than regions ask for on average: of small data a whole block would be wasted."""
    settings = {field.name for field in fields(generator)}  # type: ignore[arg-type]
    if gpus and "gpus" in settings:
        generator = replace(generator, gpus=min(1.0, gpus))  # type: ignore[type-var]
    if "block" not in settings:
        return generator
    mean = float(ceiling(regions, allocator).mean())
    block = min(generator.needs.block, max(LEAST_BLOCK, 2 ** int(np.ceil(np.log2(max(mean, 1.0))))))
    return replace(generator, block=block)  # type: ignore[type-var]


def pool_of(folder: Folder, generator: Generator, fit: str, fold: int, draw: int, seed: int, counts: np.ndarray) -> Pool:
    """The pool of one (generator, fit, fold, draw) with at least `counts` rows per region."""
    key: Any = PoolKey(identity(generator), fit, fold, draw, seed)
    return Pool(folder, key, generator.needs.block).extend(counts)

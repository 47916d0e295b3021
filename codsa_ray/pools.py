"""Which pools a run needs and how large; draws nothing."""

from dataclasses import fields, replace
from itertools import product
from typing import Any

import numpy as np

from codsa_ray.candidates import EXTRA, Candidate, largest_gamma, leaning, needs_eta
from codsa_ray.contracts import Allocator, Generator
from codsa_ray.folder import Folder
from codsa_ray.plugins import identity
from codsa_ray.pool import Pool, PoolKey
from codsa_ray.regions import Regions

SIZES = 16
LEAST_BLOCK = 256
TILTS = (0.0, 0.25, 0.5)
LEANS = (-1.0, 0.0, 1.0)
EXTRAS = (0.0, EXTRA)
ROW_WEIGHTS = (0.1, 0.2, 0.5, 1.0)
LARGEST_ETA = 2.0


def ceiling(regions: Regions, allocator: Allocator, whole: Regions | None = None) -> np.ndarray:
    """(K,) int64 most rows of each region that any candidate can ask for in one draw.

    Args:
        regions: that plans are made on: the fold's, with the rows left to the learner.
        whole: of all training rows, which the search's sizes are bounded by; the same as `regions` when left out.
    """
    whole = whole or regions
    scale = np.linspace(0, 1, SIZES + 1)[1:]
    sizes = [(0.0, LARGEST_ETA * t) if needs_eta(whole) else (largest_gamma(whole) * t, 0.0) for t in scale]
    many = len(leaning(regions))
    leans = [(), *(tuple(LEANS[-1] if i == j else LEANS[0] for j in range(many)) for i in range(many))]
    most = np.zeros(len(regions), dtype=np.int64)
    for (gamma, eta), tilt, weight, lean in product(sizes, TILTS, ROW_WEIGHTS, leans):
        asked = Candidate("synthetic", gamma=gamma, eta=eta, tilt=tilt, row_weight=weight, lean=lean).plan(regions, allocator)
        most = np.maximum(most, asked.counts if asked.size else 0)
    # Allocators that depend on the size may peak between two of the sizes looked at; a rounding more covers it.
    most = most + (most > 0) * len(regions)
    more = Candidate("synthetic", extra=max(EXTRAS)).plan(regions, allocator)
    return most + (more.counts if more.size else 0)


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


def pool_of(
    folder: Folder, generator: Generator, fit: str, fold: int, draw: int, seed: int, counts: np.ndarray, share: float = 1.0
) -> Pool:
    """The pool of one (generator, fit, fold, draw, share) with at least `counts` rows per region."""
    key: Any = PoolKey(identity(generator), fit, fold, draw, seed, share)
    return Pool(folder, key, generator.needs.block).extend(counts)

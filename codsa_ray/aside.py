"""Aside: training rows that a learner keeps for itself to tell when to stop; knows no learner."""

import numpy as np

from codsa_ray.seeds import rng_of


def set_aside(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) bool: `share` of the rows of each label, rounded, at most all but one."""
    order = np.lexsort((rng_of(seed, "held out").random(len(labels)), labels))
    first = np.searchsorted(labels[order], labels[order], "left")
    counts = np.bincount(labels)[labels[order]]
    held = np.zeros(len(labels), dtype=bool)
    held[order] = np.arange(len(labels)) - first < np.minimum(np.round(share * counts), counts - 1)
    if not held.any():
        held[order[-1]] = True
    return held

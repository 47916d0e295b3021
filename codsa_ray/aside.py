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


def levelled(weight: np.ndarray, labels: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(n,) weights by which rows that are not held carry each label as all rows do, their total being what it was.

    Rounding holds out none of a label's two rows and one of its three, while scores are corrected by the weights of all rows. Weights below
    0 stay as they are, and all do where a label has no row left.
    """
    whole = np.bincount(labels, weight)
    part = np.bincount(labels[~held], weight[~held], minlength=len(whole))
    if (weight < 0).any() or (part <= 0).any():
        return weight
    factor = whole / part * (part.sum() / whole.sum())
    return np.where(held, weight, weight * factor[labels])

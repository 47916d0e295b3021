"""Means of losses group by group with standard errors, clustered by unit; knows no candidate."""

import numpy as np

from codsa_ray.risk import estimate


def groupwise(losses: np.ndarray, group: np.ndarray, unit: np.ndarray | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(G,) means and (G,) standard errors of the rows of each group; NaN without rows, an error of one unit alone is NaN.

    Args:
        losses: (n,) losses, or paired differences of losses.
        group: (n,) groups; -1 is in none.
        unit: (n,) ids of what was sampled together, or None.
        size: G.
    """
    mean, se = np.full(size, np.nan), np.full(size, np.nan)
    for g in range(size):
        mine = group == g
        units = None if unit is None else unit[mine]
        alone = int(mine.sum()) if units is None else len(np.unique(units))
        if alone:
            found = estimate(losses[mine], np.zeros(mine.sum(), dtype=np.int64), np.ones(1), units)
            mean[g], se[g] = found.mean[0], found.se[0] if alone > 1 else np.nan
    return mean, se

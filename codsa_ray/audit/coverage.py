"""Coverage: do drawn rows lie where real ones do, and are there some wherever real ones lie?; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.nearest import Space
from codsa_ray.audit.picks import thin
from codsa_ray.schema import Schema

NEIGHBOURS = 5
LEAST = 3
MOST = 1_000


def coverage(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2) of the rows of one region.

    A set of rows covers a row that lies in the ball around one of them which reaches to its 5th nearest other. Both sets have as many
    rows, at most 1,000. Distances are `Space`'s.

    Args:
        real: canonical training rows.
        held_out: canonical rows nothing was fitted on.
        drawn: canonical drawn rows.
        seed: of which rows are looked at.

    Returns:
        precision: share of drawn rows that real ones cover; recall: share of real rows that drawn ones cover (both 1 for copies);
        fresh: share of held-out rows that real ones cover, which is what precision is for rows of the truth. None each with fewer than 3
        rows a side (fresh: without held-out rows).
    """
    rows = min(len(real), len(drawn), MOST)
    if rows < LEAST:
        return {"precision": None, "recall": None, "fresh": None}
    space = Space.of(real, schema)
    real, drawn = thin(real, rows, seed, "coverage"), thin(drawn, rows, seed, "covering")
    across, within = space.between(real, drawn), space.between(real, real)
    fresh = space.between(real, thin(held_out, MOST, seed, "fresh"))
    return {
        "precision": covered(within, across),
        "recall": covered(space.between(drawn, drawn), across.T),
        "fresh": covered(within, fresh) if fresh.shape[1] else None,
    }


def covered(within: np.ndarray, across: np.ndarray) -> float:
    """Share of m rows that n rows cover, of the n rows' (n, n) distances from each other and (n, m) from those."""
    return float((across <= _radii(within)[:, None]).any(axis=0).mean())


def _radii(distance: np.ndarray) -> np.ndarray:
    """(n,) distance of each row to its k-th nearest other; the row itself is the first of n distances."""
    k = min(NEIGHBOURS, len(distance) - 1)
    return np.asarray(np.partition(distance, k, axis=1)[:, k])

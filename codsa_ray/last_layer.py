"""The last layer of a network, trained again on other weights; knows no network.

Source: deep feature reweighting (Kirichenko, Izmailov & Wilson 2023). On the rows that chose the checkpoint: they taught no other layer,
and features of rows that did look better than they are. The paper fits anew on balanced samples of validation rows; here a ridge pulls
towards the layer as it was, since a rare group often has a handful of rows there.
"""

from collections.abc import Callable

import numpy as np

from codsa_ray.aside import levelled, set_aside
from codsa_ray.ridge import solved

PULL, STEPS = 1e-2, 500
"""Ridge towards the layer as it was, and most steps."""


def retrained(
    features: Callable[[np.ndarray], np.ndarray],
    slope: np.ndarray,
    start: np.ndarray,
    labels: np.ndarray,
    weight: np.ndarray,
    held: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The layer's new (F, P) slope and (P,) start, float32.

    Args:
        features: positions (m,) among the training rows -> (m, F) what the layer sees of these rows.
        slope, start: the layer as it was.
        labels: (n,) in [0, P).
        weight: (n,) of the new fit.
        held, seed: as the fit set rows aside with; where those lack a class, all rows are taken.

    Raises:
        CandidateError: see `ridge.solved`.
    """
    kept = set_aside(labels, held, seed)
    if len(np.unique(labels[kept])) < len(start):
        kept = np.ones(len(labels), dtype=bool)
    # The layer's scores are corrected by the weights of all rows, so those seen stand for them.
    own = levelled(weight, labels, ~kept)[kept]
    seen = features(np.flatnonzero(kept)).astype(np.float64)
    more = solved(seen, labels[kept], own, seen @ slope + start, len(start), PULL, STEPS)
    return slope + more[:-1].astype(np.float32), start + more[-1].astype(np.float32)

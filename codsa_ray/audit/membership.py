"""Membership: can one tell by the drawn rows which rows the generator learned from?; knows no generator."""

from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from codsa_ray.audit.nearest import Space
from codsa_ray.audit.picks import thin
from codsa_ray.schema import Schema

LEAST = 2
MOST = 2_000
MOST_POINTS = 10_000


def membership(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any] | None:
    """Membership inference from drawn rows alone (GAN-Leaks' full black-box attack; Chen, Yu, Zhang & Fritz 2020).

    The attacker, who sees drawn rows, calls those rows members to which one of them comes near (`Space`'s distance).

    Args:
        real: canonical rows of a region that the generator learned from.
        held_out: canonical rows of it that it did not.
        drawn: canonical drawn rows of it.
        seed: of which rows are looked at: 2,000 a side, 10,000 drawn.

    Returns:
        {auc: chance that a member is nearer than a row that is none, ties counting half (0.5: no sign; 1: each is known), se (Hanley &
        McNeil 1982), members, others: rows of each}; None with fewer than 2 rows a side or none drawn.
    """
    real, held_out = thin(real, MOST, seed, "members"), thin(held_out, MOST, seed, "others")
    if min(len(real), len(held_out)) < LEAST or not len(drawn):
        return None
    space, points = Space.of(real, schema), thin(drawn, MOST_POINTS, seed, "attack")
    near = [-space.nearest(side, points)[1] for side in (real, held_out)]
    auc = float(roc_auc_score(np.repeat([1, 0], [len(real), len(held_out)]), np.concatenate(near)))
    return {"auc": auc, "se": deviation(auc, len(real), len(held_out)), "members": len(real), "others": len(held_out)}


def deviation(auc: float, first: int, second: int) -> float:
    """Standard error of an AUC of so many rows on either side (Hanley & McNeil 1982), never under that of half a pair."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (first - 1) * (q1 - auc**2) + (second - 1) * (q2 - auc**2)) / (first * second)
    return float(np.sqrt(max(variance, 0.25 / (first * second))))

"""Quantiles: one ordered column to a standard normal and back; knows no table and no network.

The map is the empirical distribution at midpoint ranks (Hazen 1914): sorted value j of Q stands at u = (j + 1/2) / Q, z = Phi^-1(u).
Repeated values make flat stretches, so heaping (40 hours, 0 pixels) comes back exactly, and each is encoded at the middle of its stretch.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

KNOTS = 4096
"""Sorted values kept at most: below it the inverse is exact on every training value, beyond it to 1/8192 of the mass."""
ROUNDING = 1e-6
"""Distance of a rank from a whole number that is taken for rounding of Phi in float64."""
LARGEST = float(2**64 - 2**11)
"""Largest float64 that fits in 64 bits."""


@dataclass(frozen=True, eq=False)
class Quantiles:
    """The quantile function of one column.

    Args:
        knots: (Q,) sorted, float64 or int64; whole numbers are never turned into floats.
        places: decimals that drawn floats keep, or None.
    """

    knots: np.ndarray
    places: int | None = None

    @staticmethod
    def of(values: np.ndarray, places: int | None = None) -> "Quantiles":
        """Of (n,) values, n >= 1, float64 or int64. Both ends are always kept."""
        values = np.sort(values)
        kept = np.rint(np.linspace(0, len(values) - 1, min(len(values), KNOTS))).astype(np.int64)
        return Quantiles(values[kept], places)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64 normal scores; a value outside the knots gets the nearest end's."""
        knots = self.knots
        left, right = np.searchsorted(knots, values, "left"), np.searchsorted(knots, values, "right")
        below, above = np.clip(left - 1, 0, len(knots) - 1), np.clip(left, 0, len(knots) - 1)
        span = np.maximum(knots[above].astype(np.float64) - knots[below], np.finfo(np.float64).tiny)
        between = below + np.clip((values.astype(np.float64) - knots[below]) / span, 0.0, 1.0) * (above - below)
        rank = np.where(right > left, (left + right - 1) / 2, between)
        return ndtri((rank + 0.5) / len(knots))

    def decode(self, scores: np.ndarray) -> np.ndarray:
        """(n,) values of the knots' dtype, between the first knot and the last.

        Between two values that were each seen once the result is interpolated; next to a repeated value it is the nearer of the two, so
        that no value appears beside a heap where training had none.
        """
        rank = np.clip(ndtr(scores.astype(np.float64)) * len(self.knots) - 0.5, 0, len(self.knots) - 1)
        whole = np.rint(rank)
        rank = np.where(np.abs(rank - whole) < ROUNDING, whole, rank)
        below = np.floor(rank).astype(np.int64)
        share = np.where(self._single()[below], rank - below, whole - below)
        low, high = self.knots[below], self.knots[np.minimum(below + 1, len(self.knots) - 1)]
        if self.knots.dtype == np.int64:
            return _between(low, high, share)
        value = low * (1 - share) + high * share
        return np.clip(value if self.places is None else np.round(value, self.places), self.knots[0], self.knots[-1])

    def _single(self) -> np.ndarray:
        """(Q,) True where the values at ranks j and j + 1 were each seen once."""
        repeated = np.zeros(len(self.knots), dtype=bool)
        same = self.knots[1:] == self.knots[:-1]
        repeated[1:] |= same
        repeated[:-1] |= same
        return ~(repeated | np.append(repeated[1:], False))


def _between(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """low + share * (high - low) in whole numbers, exact at both ends for all of int64: the difference is taken modulo 2^64."""
    span = high.view(np.uint64) - low.view(np.uint64)
    step = np.minimum(np.rint(share * span.astype(np.float64)), LARGEST).astype(np.uint64)
    step = np.where(share >= 1.0, span, np.minimum(step, span))
    return (low.view(np.uint64) + step).view(np.int64)

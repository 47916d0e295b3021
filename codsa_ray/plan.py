"""Plans: whole rows per region, rounded so that they grow monotonically; knows no generator."""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from codsa_ray.errors import SettingError


def sainte_lague(weights: np.ndarray, size: int) -> np.ndarray:
    """Shares out `size` whole rows by highest quotient w/(2c+1) (Webster 1832; Sainte-Lague 1910).

    House-monotone: with the same weights, no region loses a row when `size` grows.

    Args:
        weights: (K,) >= 0, not all zero unless size is 0.
        size: rows to share out.

    Returns:
        (K,) int64 summing to exactly `size`; ties go to the earlier region.
    """
    weights = np.asarray(weights, dtype=np.float64)
    counts = np.zeros(len(weights), dtype=np.int64)
    if size == 0:
        return counts
    if size < 0 or not np.all(np.isfinite(weights)) or weights.min(initial=0) < 0 or weights.sum() <= 0:
        raise SettingError("size >= 0 and weights >= 0 with a positive sum", f"size {size}, weights {weights}", "check the allocator")
    share = weights / weights.sum()
    # Every region's final count is at least floor(share * size) - K, so the heap only walks the last few quotients.
    counts = np.maximum(np.floor(share * size).astype(np.int64) - len(weights), 0)
    # Weights as given, not shares: equal quotients of exact weights are then equal floats.
    heap = [(-weights[k] / (2 * counts[k] + 1), k) for k in range(len(weights)) if weights[k] > 0]
    heapq.heapify(heap)
    for _ in range(size - int(counts.sum())):
        _, k = heapq.heappop(heap)
        counts[k] += 1
        heapq.heappush(heap, (-weights[k] / (2 * counts[k] + 1), k))
    return counts


@dataclass(frozen=True)
class Part:
    """Rows of every region at one row weight.

    Args:
        counts: rows per region.
        row_weight: weight of each of these rows in the fit (real rows weigh 1).
    """

    counts: tuple[int, ...]
    row_weight: float = 1.0


@dataclass(frozen=True)
class Plan:
    """What is drawn: parts, each with a row weight, drawn independently `draws` times."""

    parts: tuple[Part, ...] = ()
    draws: int = 1

    @property
    def counts(self) -> np.ndarray:
        """(K,) int64 rows per region in one draw, all parts together."""
        counts = [part.counts for part in self.parts] or [()]
        return np.asarray(np.sum(counts, axis=0, dtype=np.int64))

    @property
    def size(self) -> int:
        """Rows of one draw."""
        return int(self.counts.sum())

    def row_weights(self) -> list[np.ndarray]:
        """Per region the weight of each of its rows, in the pool's order (part after part)."""
        return [self.weights_of(region, 0, int(count)) for region, count in enumerate(self.counts)]

    def weights_of(self, region: int, start: int, take: int) -> np.ndarray:
        """(take,) weights of a region's rows from `start` on: as many numbers as are asked for, however large the plan."""
        edges = np.cumsum([0, *(part.counts[region] for part in self.parts)])
        inside = np.diff(np.clip(edges, start, start + take))
        return np.repeat([part.row_weight for part in self.parts], inside)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"draws": self.draws, "parts": [{"counts": list(p.counts), "row_weight": p.row_weight} for p in self.parts]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Plan":
        """The inverse of `to_json`."""
        return Plan(tuple(Part(tuple(p["counts"]), p["row_weight"]) for p in value["parts"]), value["draws"])


def size_of(gamma: float, eta: float, gap: float, rows: int) -> int:
    """Synthetic size = gamma * gap + eta * rows, both of the fold, in whole rows."""
    return round(gamma * gap + eta * rows)

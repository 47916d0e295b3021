"""Bootstrap intervals of metrics: units drawn with replacement within strata, the same resamples for everything compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from codsa_ray.audit.metrics import Sample, point_metrics, undefined
from codsa_ray.audit.picks import even, pick
from codsa_ray.audit.resampled import resampled
from codsa_ray.risk import strata_of
from codsa_ray.seeds import rng_of

RESAMPLES = 500
LEVEL = 0.95
MOST_ROWS, MOST_RANKED = 50_000, 100_000
BLOCK = 100_000  # draws at a time


@dataclass(frozen=True)
class Resamples:
    """Rows and how often each counts in every resample.

    Beyond 50,000 rows (fewer where many labels are ranked) groups are thinned, rare ones last, each row kept standing for several: such
    intervals are wider, never narrower, than those of all rows.

    Args:
        rows: (m,) positions.
        counts: (m, B) float32.
    """

    rows: np.ndarray
    counts: np.ndarray

    @staticmethod
    def draw(sample: Sample, seed: int, resamples: int = RESAMPLES, most: int | None = None) -> "Resamples":
        """Units (rows where there are none) with replacement within strata, a unit's stratum being the rarest of its groups."""
        many = np.bincount(sample.group, minlength=len(sample.mix))
        kept = even(many, min(MOST_ROWS, MOST_RANKED // max(1, len(sample.judged))) if most is None else most)
        rows = np.arange(len(sample)) if kept.sum() == many.sum() else pick(sample.group, kept, seed, "intervals")
        held = sample.take(rows)
        unit, stratum = strata_of(held.group, held.unit)
        rng = rng_of(seed, "intervals")
        drawn = np.empty((len(stratum), resamples), dtype=np.float32)
        for s in np.unique(stratum):
            members = np.flatnonzero(stratum == s)
            drawn[members] = _counts(rng, resamples, len(members))
        counts = drawn if held.unit is None else drawn[unit]
        if len(rows) < len(sample):
            counts *= (many / np.maximum(kept, 1))[held.group].astype(np.float32)[:, None]
        return Resamples(rows, counts)


def _counts(rng: np.random.Generator, resamples: int, units: int) -> np.ndarray:
    """(units, resamples) float32: how often each of the units was drawn; a block of resamples at a time, since memory is slow."""
    found = np.empty((resamples, units), dtype=np.float32)
    step = max(1, BLOCK // units)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        picks = rng.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
        found[start : start + size] = np.bincount(picks.ravel(), minlength=size * units).reshape(size, units)
    return found.T


def measured(
    sample: Sample, scores: np.ndarray, draws: Resamples, terms: np.ndarray | None = None
) -> tuple[dict[str, dict[str, float | None]], str]:
    """Metrics with their 95 % percentile intervals.

    Returns:
        name -> {value, low, high}, None where a metric is undefined; and why, in words, empty where all are defined.
    """
    points = point_metrics(sample, scores, terms)
    spread = resampled(sample.take(draws.rows), scores[draws.rows], draws.counts, terms)
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    found: dict[str, dict[str, float | None]] = {}
    for name, value in points.items():
        drawn = spread[name][~np.isnan(spread[name])]
        low, high = np.quantile(drawn, tails) if len(drawn) and not np.isnan(value) else (np.nan, np.nan)
        found[name] = {key: _plain(number) for key, number in (("value", value), ("low", low), ("high", high))}
    return found, undefined(sample, points)


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)

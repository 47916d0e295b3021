"""Target mix: CoDSA's allocation, which makes real and synthetic rows together follow the target mix; knows no loss."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.regions import Regions


@dataclass(frozen=True)
class TargetMix:
    """alpha_k = q_k + n / (w m) (q_k - p_k), projected onto the simplex where it goes negative (Tian & Shen 2025, CoDSA).

    q is the target mix over regions, p the real rows' share, n the real rows, m the synthetic rows, w their row weight.
    """

    def weights(self, regions: Regions, size: int, row_weight: float) -> np.ndarray:
        """(K,) float64 >= 0 summing to 1."""
        alpha = self._rule(regions, size, row_weight)
        return project(alpha) if alpha.min() < 0 else alpha

    def notice(self, regions: Regions, size: int, row_weight: float) -> str | None:
        """What a user should know: the size is too small for the target mix, so that the rule had to be projected; or None."""
        alpha = self._rule(regions, size, row_weight)
        if alpha.min() >= 0:
            return None
        worst = regions.items[int(alpha.argmin())].name
        return f"{size} synthetic rows of weight {row_weight:g} cannot reach the target mix ({worst!r} has too many real rows): projected"

    @staticmethod
    def _rule(regions: Regions, size: int, row_weight: float) -> np.ndarray:
        counts, target = regions.counts, regions.shares
        if size * row_weight <= 0 or counts.sum() == 0:
            return target
        alpha = target + (counts.sum() * target - counts) / (row_weight * size)
        # A region that is exactly full may round to just under 0; that is no projection.
        return np.where(np.abs(alpha) < 1e-12, 0.0, alpha)

    @classmethod
    def tiny(cls) -> "TargetMix":
        """The only instance."""
        return cls()


def project(point: np.ndarray) -> np.ndarray:
    """The nearest point of the probability simplex (Duchi, Shalev-Shwartz, Singer & Chandra 2008, figure 1).

    Args:
        point: (K,) finite.

    Returns:
        (K,) float64 >= 0 summing to 1.
    """
    ordered = np.sort(point)[::-1]
    excess = (np.cumsum(ordered) - 1.0) / np.arange(1, len(point) + 1)
    held = np.flatnonzero(ordered > excess)[-1]
    nearest = np.maximum(point - excess[held], 0.0)
    return np.asarray(nearest / nearest.sum())

"""Doubt: how far a difference of balanced losses may be luck, on the rows as they are and on any resample; knows no candidate."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.risk import influences


@dataclass(frozen=True)
class Doubt:
    """Standard errors of balanced means under resampling of units within strata.

    Args:
        members: per stratum of two units or more, its units.
        influence: per such stratum, (units, M) what each unit adds to the means.
        squares: the same, squared.
        units: U.
        width: M.
    """

    members: tuple[np.ndarray, ...]
    influence: tuple[np.ndarray, ...]
    squares: tuple[np.ndarray, ...]
    units: int
    width: int

    @staticmethod
    def of(columns: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None) -> "Doubt":
        """Of columns (n, M); a stratum of one unit shows no variance and adds none."""
        found, stratum = influences(columns, groups, mix, units)
        members = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
        many = tuple(rows for rows in members if len(rows) > 1)
        parts = tuple(found[rows] for rows in many)
        return Doubt(many, parts, tuple(np.square(part) for part in parts), len(stratum), found.shape[1])

    def se(self, counts: np.ndarray | None = None) -> np.ndarray:
        """(B, M) standard errors where each unit was drawn `counts` (B, U) times; (M,) on the rows as they are without them.

        Means are linearised at the rows as they are: a resample changes how often a unit counts, not what it adds.
        """
        drawn = np.ones((1, self.units)) if counts is None else counts
        total = np.zeros((len(drawn), self.width))
        for members, influence, squares in zip(self.members, self.influence, self.squares, strict=True):
            many = len(members)
            inside = drawn[:, members]
            variance = inside @ squares / many - np.square(inside @ influence / many)
            total += many**2 / (many - 1) * np.maximum(variance, 0.0)
        return np.sqrt(total[0] if counts is None else total)

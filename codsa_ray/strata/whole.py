"""Whole: every group is one stratum; learns nothing."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder


@dataclass(frozen=True)
class WholeRule:
    """One stratum per group."""

    strata: int = 1

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        """(n,) int32 zeros."""
        return np.zeros(len(table), dtype=np.int32)

    def save(self, folder: Folder) -> None:
        """There is nothing to write."""


@dataclass(frozen=True)
class Whole:
    """Groups are not cut further."""

    def fit(self, data: FitData) -> WholeRule:
        """The rule, the same for all data."""
        return WholeRule()

    def load(self, folder: Folder) -> WholeRule:
        """The rule."""
        return WholeRule()

    @classmethod
    def tiny(cls) -> "Whole":
        """The only instance."""
        return cls()

"""Told rows: one array per column of whatever a form of rows makes of cells, with each row's region; knows no form and no network."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import REGION
from codsa_ray.seeds import rng_of


@dataclass(frozen=True, eq=False)
class Told:
    """Told rows, sorted by region.

    Args:
        told: per condition and column (n,) tokens or texts.
        region: (n,) int32.
        made: (n,) bool interpolated rows.
    """

    told: list[np.ndarray]
    region: np.ndarray
    made: np.ndarray

    @staticmethod
    def of(told: list[np.ndarray], region: np.ndarray) -> "Told":
        """Real rows."""
        return Told(told, region, np.zeros(len(region), dtype=bool))

    def joined(self, more: "Told") -> "Told":
        """With real rows of other tables as interpolated ones."""
        region = np.concatenate([self.region, more.region])
        order = np.argsort(region, kind="stable")
        told = [np.concatenate(both)[order] for both in zip(self.told, more.told, strict=True)]
        return Told(told, region[order], np.concatenate([self.made, ~more.made])[order])

    def few(self, most: int, seed: int) -> "Told":
        """At most so many rows of each region, and so many interpolated ones."""
        kind = 2 * self.region.astype(np.int64) + self.made
        mixed = rng_of(seed, "starts").permutation(len(kind))
        order = mixed[np.argsort(kind[mixed], kind="stable")]
        rank = np.arange(len(kind)) - np.searchsorted(kind[order], kind[order])
        rows = np.sort(order[rank < most])
        return Told([values[rows] for values in self.told], self.region[rows], self.made[rows])

    def table(self) -> pa.Table:
        """As a table of one column each."""
        return pa.table(
            {**{str(place): pa.array(values) for place, values in enumerate(self.told)}, REGION: self.region, "made": self.made}
        )

    @staticmethod
    def read(table: pa.Table) -> "Told":
        """The inverse of `table`."""
        values = [table[name].to_numpy() for name in table.column_names]
        return Told(values[:-2], values[-2], values[-1])

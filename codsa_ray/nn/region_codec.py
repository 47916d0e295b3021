"""Region codec: filled rows to latents, and a network's raw output back to rows that a region may hold; knows no network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.filled import Filled
from codsa_ray.nn.table_codec import TableCodec


@dataclass(frozen=True, eq=False)
class RegionCodec:
    """A table codec of columns without holes, and what each region's rows showed in each latent dimension.

    Nulls are no part of the latents: who decodes says which cells are null, so that they are as frequent as in the rows they are taken of.

    Args:
        codec: of the filled columns.
        low, high: (K, D) float32 smallest and largest latent. A drawn number stays between them; a level that the region never had, whose
            `high` is 0, is not drawn.
    """

    codec: TableCodec
    low: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(filled: Filled) -> tuple["RegionCodec", np.ndarray]:
        """The codec and the (n, D) float32 latents of the rows."""
        table = filled.table()
        codec = TableCodec.of(tuple(cell.column for cell in filled.cells), table)
        latents = codec.encode(table)
        low, high = np.zeros((2, len(filled.starts) - 1, latents.shape[1]), dtype=np.float32)
        for region in np.flatnonzero(np.diff(filled.starts)):
            own = latents[filled.starts[region] : filled.starts[region + 1]]
            low[region], high[region] = own.min(axis=0), own.max(axis=0)
        return RegionCodec(codec, low, high), latents

    def decode(self, raw: np.ndarray, region: int, nulls: np.ndarray, rng: np.random.Generator) -> pa.Table:
        """Canonical rows.

        Args:
            raw: (n, D) numbers, then logits of the levels.
            region: whose rows are drawn.
            nulls: (n, columns) bool.
            rng: draws a level of each code with the chance that its logits state (Gumbel 1954).
        """
        reals = self.codec.layout.reals
        low, high = self.low[region], self.high[region]
        numbers = np.clip(raw[:, :reals], low[:reals], high[:reals])
        logits = raw[:, reals:] + rng.gumbel(size=(len(raw), raw.shape[1] - reals)).astype(np.float32)
        rows = self.codec.decode(np.hstack([numbers, np.where(high[reals:] > 0, logits, -np.inf)]))
        holes = [pa.array(null) for null in nulls.T]
        arrays = {n: pc.if_else(h, pa.scalar(None, rows[n].type), rows[n]) for n, h in zip(rows.column_names, holes, strict=True)}
        return pa.table(arrays) if arrays else rows

    def certain(self, latents: np.ndarray) -> np.ndarray:
        """(n, D) raw output that `decode` reads as the latents (n, D) themselves."""
        return np.where(np.arange(latents.shape[1]) < self.codec.layout.reals, latents, np.where(latents > 0, 0.0, -np.inf))

    def to_json(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        plain, arrays = self.codec.to_json()
        return plain, arrays | {"low": self.low, "high": self.high}

    @staticmethod
    def from_json(plain: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> "RegionCodec":
        """The inverse of `to_json`."""
        return RegionCodec(TableCodec.from_json(plain, arrays), arrays["low"], arrays["high"])

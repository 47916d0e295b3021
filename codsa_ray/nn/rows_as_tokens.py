"""Rows as tokens: what the small decoder is told of a row, one token per column with the region's first; knows no text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from codsa_ray.fitdata import REGION
from codsa_ray.nn.orders import Run
from codsa_ray.nn.row_loss import Costs
from codsa_ray.nn.small_decoder import Drawing, SmallDecoder
from codsa_ray.nn.table_tokens import TableTokens
from codsa_ray.regions import Regions
from codsa_ray.schema import Column

CACHE = 2**26
"""Bytes of keys and values held while drawing on a CPU: what lies beyond its own memory is fetched again at every step."""
MOST = 512
"""Rows drawn together on a CPU at most."""


@dataclass(frozen=True, eq=False)
class RowsAsTokens:
    """One condition, the region, told as its factors and itself; and one token for each column that moves.

    Args:
        tokens: of the columns.
        factors: (K, F) int64 levels of each region's factors.
        shares: (K,) float64 share of each region in training rows.
        void: (K, columns that move) int64 the null token where all training rows of a region are null, which is not drawn; else -1.
    """

    tokens: TableTokens
    factors: np.ndarray
    shares: np.ndarray
    void: np.ndarray

    conditions = 1

    @staticmethod
    def of(columns: tuple[Column, ...], table: pa.Table, regions: Regions, bins: int) -> "RowsAsTokens":
        """Learned from canonical rows with `_region`."""
        factors = np.array([item.factors for item in regions.items], dtype=np.int64).reshape(len(regions), -1)
        shares = np.maximum(regions.counts, 1.0)
        tokens = TableTokens.of(columns, table, bins)
        return RowsAsTokens(tokens, factors, shares / shares.sum(), tokens.void(table, table[REGION].to_numpy(), len(regions)))

    @property
    def ordered(self) -> tuple[bool, ...]:
        """Per condition and column whether interpolated rows have it."""
        return (False, *(column.codec.quantiles is not None for column in self.tokens.moving))

    def network(self, width: int, blocks: int, heads: int) -> SmallDecoder:
        """An untrained decoder of these columns; its first weights come from torch's random state."""
        moving = self.tokens.moving
        ends = np.cumsum([0, *(self.factors.max(axis=0) + 1)]) if self.factors.size else np.zeros(1, dtype=np.int64)
        told = np.zeros((len(self.factors), ends[-1]), dtype=np.float32)
        np.put_along_axis(told, self.factors + ends[:-1], 1.0, axis=1)
        known = [told, *(column.waves for column in moving)]
        return SmallDecoder(known, [np.log(self.shares), *(column.prior for column in moving)], width, blocks, heads)

    def told(self, table: pa.Table, region: np.ndarray) -> list[np.ndarray]:
        """Per condition and column the (n,) tokens of canonical rows."""
        return [region.astype(np.int32), *self.tokens.encode(table).T]

    def costs(self, told: list[np.ndarray]) -> Costs:
        """Mean over columns of minus the log-probability of told rows."""
        tokens = torch.from_numpy(np.stack(told, axis=1).astype(np.int64))

        def costs(module: nn.Module, rows: np.ndarray, order: Tensor, counted: Tensor, keep: Tensor | None) -> Tensor:
            device = next(module.parameters()).device
            own, order, counted = (part.to(device) for part in (tokens[rows], order, counted))
            logs = module(own, order, None if keep is None else keep.to(device))
            return -(logs.float() * counted).sum(1) / logs.shape[1]

        return costs

    def known(self, place: int, told: np.ndarray) -> np.ndarray:
        """(n,) bool which of a column's tokens may be drawn: all."""
        return np.ones(len(told), dtype=bool)

    def draw(
        self, network: nn.Module, region: int, run: Run, given: Mapping[int, np.ndarray], rng: np.random.Generator, temperature: float
    ) -> list[np.ndarray]:
        """Per condition and column the (run.rows,) tokens of rows of a region."""
        assert isinstance(network, SmallDecoder)
        device = network.own.device
        moving = self.tokens.moving
        drawable, stand = (len(self.shares), *(column.levels for column in moving)), (0, *(column.stand for column in moving))
        drawing = Drawing(network, drawable, temperature, stand)
        chance = torch.from_numpy(rng.random((run.rows, len(run.order)), dtype=np.float32)).to(device)
        void = {1 + place: torch.full((run.rows,), int(token)) for place, token in enumerate(self.void[region]) if token >= 0}
        fixed = (
            {0: torch.full((run.rows,), region)}
            | void
            | {column: torch.from_numpy(value.astype(np.int64)) for column, value in given.items()}
        )
        fixed = {column: value.to(device) for column, value in fixed.items()}
        each = 2 * len(network.blocks) * len(run.order) * network.width * network.own.element_size()
        size = run.rows if device.type == "cuda" else max(1, min(MOST, CACHE // each))
        parts = [slice(first, first + size) for first in range(0, run.rows, size)]
        found = [drawing.tokens({c: v[part] for c, v in fixed.items()}, list(run.order), chance[part]) for part in parts]
        return list(torch.cat(found).cpu().numpy().T)

    def table(self, told: list[np.ndarray], rows: int, rng: np.random.Generator) -> pa.Table:
        """(rows,) canonical rows of tokens, at random places inside their bins."""
        places = rng.random((rows, len(self.tokens.columns)))
        return self.tokens.decode(np.stack(told, axis=1)[:, self.conditions :], places)

    def to_json(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        plain, arrays = self.tokens.to_json()
        return {"columns": plain}, {**arrays, "factors": self.factors, "shares": self.shares, "void": self.void}

    @staticmethod
    def from_json(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> "RowsAsTokens":
        """The inverse of `to_json`."""
        return RowsAsTokens(TableTokens.from_json(plain["columns"], arrays), arrays["factors"], arrays["shares"], arrays["void"])

"""Table tokens: canonical rows as one whole number per column, and back; knows no network and no region.

A value with a code of its own (a category, a heap, null) is a token. The other values of an ordered column share bins of about equal mass,
none of which parts equal values, and a place inside the bin brings the value back through the quantiles: bounds, whole numbers and
decimals are kept whatever token is drawn. A column of one token costs no step of the decoder. Cost: O(rows log rows) to fit.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import ndtri

from codsa_ray.nn.table_codec import ColumnCodec, TableCodec
from codsa_ray.schema import Column

LEAST = 10
"""Rows that a bin holds at least: with fewer a token is one row, which a network remembers."""
WAVES = 16
"""Cosines over the ranks that tell bins apart; wave k is scaled by 1 / k, so that near bins start out alike."""


@dataclass(frozen=True, eq=False)
class ColumnTokens:
    """One column.

    Args:
        codec: values with codes, and quantiles of the rest.
        edges: (B + 1,) int64 knots at which bins start, and the number of knots; (1,) where there are no quantiles.
        prior: (levels,) float32 log share of each token in the rows it was learned from, one row being spread over all.
    """

    codec: ColumnCodec
    edges: np.ndarray
    prior: np.ndarray

    @staticmethod
    def of(codec: ColumnCodec, values: pa.Array, bins: int) -> "ColumnTokens":
        """From (n,) canonical values."""
        known = len(values) - int(np.isin(codec.codes(values), np.arange(len(codec.values))).sum())
        knots = codec.quantiles.knots if codec.quantiles is not None else np.zeros(0)
        edges = _edges(knots, max(2, min(bins, known // LEAST))) if len(knots) else np.zeros(1, dtype=np.int64)
        blank = ColumnTokens(codec, edges, np.zeros(0))
        counts = np.bincount(blank.encode(values), minlength=blank.levels) + 1 / blank.levels
        return ColumnTokens(codec, edges, np.log(counts / counts.sum()).astype(np.float32))

    @property
    def drawable(self) -> int:
        """Tokens 0 to drawable - 1 have values; one more may be there for categories that the schema does not keep."""
        return len(self.codec.values) + len(self.edges) - 1

    @property
    def stand(self) -> int:
        """How many of the first tokens, null only where it is alone, stand in rows for the one without a value; 0: there is none."""
        if self.levels == self.drawable:
            return 0
        return max(len(self.codec.values) - self.codec.values.null_count, 1)

    @property
    def levels(self) -> int:
        """Tokens there are."""
        return self.drawable + (self.codec.rest and self.codec.quantiles is None)

    @property
    def waves(self) -> np.ndarray:
        """(levels, F) float32: what is known of the tokens' order beforehand; no column where they have none."""
        bins = len(self.edges) - 1
        found = np.zeros((self.levels, min(WAVES, max(bins - 1, 0))), dtype=np.float32)
        if found.size:
            middle = (self.edges[:-1] + self.edges[1:]) / (2 * self.edges[-1])
            wave = np.arange(1, found.shape[1] + 1)
            found[len(self.codec.values) : self.drawable] = np.sqrt(2) * np.cos(np.pi * middle[:, None] * wave) / wave
        return found

    def encode(self, values: pa.Array) -> np.ndarray:
        """(n,) int64 tokens."""
        tokens = self.codec.codes(values)
        if self.codec.quantiles is not None:
            rest = tokens == len(self.codec.values)
            numbers = values.filter(pa.array(rest))
            numbers = (numbers.cast(pa.int64()) if pa.types.is_timestamp(numbers.type) else numbers).to_numpy(zero_copy_only=False)
            starts = self.codec.quantiles.knots[self.edges[:-1]]
            tokens[rest] += np.maximum(np.searchsorted(starts, numbers, "right") - 1, 0)
        # A null where training rows had none has no token: such a cell is one that nothing is learned from.
        return np.clip(tokens, 0, self.levels - 1)

    def decode(self, tokens: np.ndarray, place: np.ndarray) -> pa.Array:
        """(n,) canonical values of drawable tokens, at (n,) places in [0, 1) inside their bins."""
        coded = len(self.codec.values)
        if self.codec.quantiles is None:
            return self.codec.decode(tokens, None)
        bins = np.maximum(tokens - coded, 0)
        rank = self.edges[bins] + place * (self.edges[bins + 1] - self.edges[bins])
        return self.codec.decode(np.minimum(tokens, coded), ndtri(rank / self.edges[-1]))


def _edges(knots: np.ndarray, bins: int) -> np.ndarray:
    """(B + 1,) places in sorted knots that part no equal values; a value with half a bin's mass stands alone."""
    first = np.searchsorted(knots, knots, "left")
    after = np.searchsorted(knots, knots, "right")
    if len(np.unique(first)) <= bins:
        return np.append(np.unique(first), len(knots))
    cuts = np.arange(bins) * len(knots) // bins
    heavy = after - first > len(knots) / (2 * bins)
    inner = np.concatenate([first[cuts], first[heavy], after[heavy]])
    return np.unique(np.append(inner, len(knots)))


@dataclass(frozen=True, eq=False)
class TableTokens:
    """All columns; those of one drawable token are `still` and left out of token rows.

    Args:
        columns: of every column.
    """

    columns: tuple[ColumnTokens, ...]

    @staticmethod
    def of(columns: tuple[Column, ...], table: pa.Table, bins: int) -> "TableTokens":
        """Learns the given columns from a canonical table of at least one row; at most `bins` bins each."""
        codecs = TableCodec.of(columns, table).columns
        return TableTokens(tuple(ColumnTokens.of(codec, _whole(table, codec.name), bins) for codec in codecs))

    @property
    def moving(self) -> tuple[ColumnTokens, ...]:
        """Columns with a token to choose."""
        return tuple(column for column in self.columns if column.levels > 1)

    def void(self, table: pa.Table, region: np.ndarray, regions: int) -> np.ndarray:
        """(K, moving) int64 the null token where all of a region's (n,) rows are null, else -1: such a cell is not drawn."""
        found, rows = np.full((regions, len(self.moving)), -1, dtype=np.int64), np.bincount(region, minlength=regions)
        for place, column in enumerate(self.moving):
            null = np.asarray(table[column.codec.name].is_null())
            if null.any():
                whole = (rows > 0) & (np.bincount(region[null], minlength=regions) == rows)
                found[whole, place] = int(np.flatnonzero(np.asarray(column.codec.values.is_null()))[0])
        return found

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, moving) int32 tokens."""
        found = [column.encode(_whole(table, column.codec.name)) for column in self.moving]
        return np.stack(found, axis=1).astype(np.int32) if found else np.zeros((len(table), 0), dtype=np.int32)

    def decode(self, tokens: np.ndarray, places: np.ndarray) -> pa.Table:
        """Canonical rows of (n, moving) tokens and (n, columns) places in [0, 1)."""
        rows, values = len(tokens), {}
        turn = iter(tokens.T)
        for column, place in zip(self.columns, places.T, strict=True):
            drawn = next(turn) if column.levels > 1 else np.zeros(rows, dtype=np.int64)
            values[column.codec.name] = column.decode(drawn.astype(np.int64), place)
        # A table of no column still has rows: every column may be fixed by the region.
        return pa.table(values) if values else pa.table({"": np.zeros(rows)}).select([])

    def to_json(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`."""
        plain, arrays = TableCodec(tuple(column.codec for column in self.columns)).to_json()
        ends = np.cumsum([0, *(len(column.edges) for column in self.columns)])
        parts = {"edges": [column.edges for column in self.columns], "prior": [column.prior for column in self.columns]}
        joined = {name: np.concatenate(part) if part else np.zeros(0) for name, part in parts.items()}
        return plain, arrays | joined | {"ends": ends, "levels": np.array([column.levels for column in self.columns], dtype=np.int64)}

    @staticmethod
    def from_json(plain: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> "TableTokens":
        """The inverse of `to_json`."""
        codecs = TableCodec.from_json(plain, arrays).columns
        edges = [arrays["edges"][a:b] for a, b in pairwise(arrays["ends"])]
        prior = np.split(arrays["prior"], np.cumsum(arrays["levels"])[:-1]) if codecs else []
        return TableTokens(tuple(ColumnTokens(*parts) for parts in zip(codecs, edges, prior, strict=True)))


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table[name].combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column

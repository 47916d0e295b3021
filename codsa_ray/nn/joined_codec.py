"""Joined codec: rows of table columns, pictures and texts to one latent row each, and back; knows no diffusion.

A latent row is: the table's numbers, each picture's and text's vector, the table's codes (nn/table_codec.py). Whether a row has a picture
or a text is a boolean column of the table's, so that it is drawn with the rest; where there is none the vector is 0, its mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codsa_ray.nn.layout import Layout
from codsa_ray.nn.table_codec import TableCodec
from codsa_ray.nn.vector_codecs import VectorCodec
from codsa_ray.schema import Column

CODED = ("image", "text")
"""Kinds of columns that have a codec each."""


@dataclass(frozen=True, eq=False)
class JoinedCodec:
    """All columns.

    Args:
        table: of the table's columns, and of whether there is a picture or a text, under its name.
        columns: of pictures and texts, in the schema's order.
        codecs: of those that any row has, in that order.
    """

    table: TableCodec
    columns: tuple[Column, ...]
    codecs: tuple[VectorCodec, ...]

    @staticmethod
    def of(columns: tuple[Column, ...], rows: pa.Table, codecs: Mapping[str, VectorCodec]) -> "JoinedCodec":
        """Learns the table's part from canonical rows, one or more."""
        coded = tuple(column for column in columns if column.kind in CODED)
        plain = tuple(_flag(column) if column.kind in CODED else column for column in columns)
        found = TableCodec.of(plain, flagged(rows, coded))
        return JoinedCodec(found, coded, tuple(codecs[column.name] for column in coded if column.name in codecs))

    @property
    def layout(self) -> Layout:
        """Of a latent row."""
        layout = self.table.layout
        return replace(layout, reals=layout.reals + sum(codec.size for codec in self.codecs))

    def encode(self, rows: pa.Table) -> np.ndarray:
        """(n, layout.width) float32 latents of canonical rows."""
        latents, reals = self.table.encode(flagged(rows, self.columns)), self.table.layout.reals
        vectors = []
        for codec in self.codecs:
            values = rows[codec.name].combine_chunks()
            there, found = np.asarray(values.is_valid()), np.zeros((len(rows), codec.size), dtype=np.float32)
            found[there] = codec.encode(values.drop_null())
            vectors.append(found)
        return np.hstack([latents[:, :reals], *vectors, latents[:, reals:]])

    def decode(self, latents: np.ndarray, rng: np.random.Generator, temperature: float = 1.0) -> pa.Table:
        """Canonical rows of (n, layout.width) latents; `rng` and the temperature are of what a codec leaves open."""
        reals, start = self.table.layout.reals, self.table.layout.reals
        ends = start + np.cumsum([0, *(codec.size for codec in self.codecs)])
        rows = self.table.decode(np.hstack([latents[:, :reals], latents[:, ends[-1] :]]))
        drawn = {}
        for codec, first, last in zip(self.codecs, ends, ends[1:], strict=False):
            there = np.asarray(rows[codec.name].combine_chunks().fill_null(False)).astype(bool)
            values = codec.decode(np.ascontiguousarray(latents[there, first:last]), rng, temperature)
            places = pa.array(np.where(there, np.cumsum(there) - 1, 0), mask=~there)
            drawn[codec.name] = values.take(places)
        for column in self.columns:
            values = drawn.get(column.name, pa.nulls(len(latents), column.arrow))
            rows = rows.set_column(rows.column_names.index(column.name), column.name, values)
        return rows

    def to_json(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain data, arrays) for `from_json`, codecs aside."""
        plain, arrays = self.table.to_json()
        return {"table": plain, "coded": [[column.name, column.kind] for column in self.columns]}, arrays

    @staticmethod
    def from_json(plain: dict[str, Any], arrays: dict[str, np.ndarray], codecs: tuple[VectorCodec, ...]) -> "JoinedCodec":
        """The inverse of `to_json`."""
        columns = tuple(Column(name, kind, "") for name, kind in plain["coded"])
        return JoinedCodec(TableCodec.from_json(plain["table"], arrays), columns, codecs)


def _flag(column: Column) -> Column:
    return Column(column.name, "boolean", "bool")


def flagged(rows: pa.Table, columns: tuple[Column, ...]) -> pa.Table:
    """Rows with whether there is a picture or a text in its place."""
    for column in columns:
        there = pc.is_valid(rows[column.name])
        rows = rows.set_column(rows.column_names.index(column.name), column.name, there)
    return rows

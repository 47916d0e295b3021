"""Modalities: rows as a table, topics of their texts and pictures as bytes, side by side in one array; knows no learner and no target.

An encoded row is a structured value with a field for each modality that there is: TABLE (D,) float32, TEXTS (T,) float32, and for each
column of pictures PICTURE0, PICTURE1, ... (H, W, C) uint8. A text that is not there has no word, a picture that is not there is black;
where training rows lack pictures of a column, a column of the table more says so.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import TABLE_KINDS
from codsa_ray.embedding import Embedding
from codsa_ray.encode import OneHot
from codsa_ray.pictured import PICTURE, Pictured
from codsa_ray.schema import Schema

TABLE, TEXTS = "table", "texts"


@dataclass(frozen=True)
class Modalities:
    """Rows apart by modality.

    Args:
        columns: of what is no text and no picture.
        texts, pictures: a column each.
    """

    columns: OneHot
    texts: tuple[Embedding, ...]
    pictures: tuple[Pictured, ...]

    @classmethod
    def learn(cls, table: pa.Table, schema: Schema, topics: int, size: int) -> Self:
        """From fold-training rows."""

        def alone(*kinds: str) -> Schema:
            return replace(schema, columns=tuple(c for c in schema.columns if c.kind in kinds or c.name == schema.target))

        texts = tuple(Embedding.learn(c.name, "text", table[c.name], topics) for c in schema.features if c.kind == "text")
        pictures = tuple(
            Pictured.learn(table, replace(schema, columns=(*(t for t in schema.columns if t.name == schema.target), column)), size)
            for column in schema.features
            if column.kind == "image"
        )
        return cls(OneHot.learn(table, alone(*TABLE_KINDS)), texts, pictures)

    @property
    def type(self) -> np.dtype:
        """Of an encoded row: a field for each modality that there is."""
        table = sum(feature.width for feature in self.columns.features) + sum(picture.nulls for picture in self.pictures)
        topics = sum(text.axes.shape[1] for text in self.texts)
        fields: list[Any] = [(TABLE, np.float32, (table,))] if table else []
        fields += [(TEXTS, np.float32, (topics,))] if topics else []
        fields += [(f"{PICTURE}{place}", np.uint8, (p.height, p.width, p.channels)) for place, p in enumerate(self.pictures)]
        return np.dtype(fields or [(TABLE, np.float32, (1,))])

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n,) of `type`.

        Raises:
            PictureError: a picture that cannot be read.
        """
        rows = np.zeros(len(table), dtype=self.type)
        names = rows.dtype.names or ()
        lacking = [np.asarray(table[picture.picture].is_null())[:, None] for picture in self.pictures if picture.nulls]
        if TABLE in names and (self.columns.features or lacking):
            rows[TABLE] = np.hstack([self.columns.encode(table), *lacking])
        if TEXTS in names:
            rows[TEXTS] = np.hstack([text.place(table[text.name]) for text in self.texts])
        for place, picture in enumerate(self.pictures):
            rows[f"{PICTURE}{place}"] = picture.encode(table)[PICTURE]
        return rows


def absent(name: str, values: np.ndarray) -> np.ndarray:
    """(n,) bool rows that have nothing of a modality: no known word, no picture (or a black one); a table is always there."""
    return np.asarray(np.zeros(len(values), dtype=bool) if name == TABLE else ~values.reshape(len(values), -1).any(axis=1))


def taken(X: np.ndarray) -> dict[str, np.ndarray]:
    """Modality -> its part of encoded rows; a plain (n, d) array is a table alone."""
    return {TABLE: X} if X.dtype.names is None else {name: X[name] for name in X.dtype.names}

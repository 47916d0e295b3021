"""Pictured rows: a picture and table columns in one array, as small as the pictures themselves; knows no learner and no target.

An encoded row is a structured value of two fields, PICTURE (H, W, C) uint8 and COLUMNS (D,) float32. So 60,000 pictures of 28 x 28 take
47 MB and 10,000 of 32 x 32 in colours 31 MB, on disk (memory-mapped) and in memory; whoever computes with them scales a batch at a time.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from codsa_ray.encode import OneHot
from codsa_ray.errors import SchemaError
from codsa_ray.picture import decoded, fitted, header
from codsa_ray.schema import Schema

PICTURE, COLUMNS = "picture", "columns"
GREY, COLOURED = 1, 3
SAMPLE = 1000
"""Pictures that are looked at to learn sizes and colours."""


@dataclass(frozen=True)
class Pictured:
    """An encoder of rows with one column of pictures.

    Args:
        picture: name of the column.
        height, width, channels: that all pictures are brought to.
        columns: encodes the others.
        nulls: training rows lack pictures: one column more says so. A picture that is not there is black.
    """

    picture: str
    height: int
    width: int
    channels: int
    columns: OneHot
    nulls: bool

    @classmethod
    def learn(cls, table: pa.Table, schema: Schema, size: int, square: bool = False, channels: int | None = None) -> Self:
        """From training rows: the size and colours of most pictures, shrunk to `size` at most.

        Args:
            size: longer side at most; where `square`, the side.
            square: all pictures become squares, their aspect not kept.
            channels: 1 or 3 whatever the pictures have; None: 1 where all of them are grey.

        Raises:
            SchemaError: there is no column of pictures, or more than one.
        """
        names = [column.name for column in schema.features if column.kind == "image"]
        if len(names) != 1:
            got = ", ".join(map(repr, names)) or "none"
            raise SchemaError("one column of pictures (kind image)", got, "leave the others out with --schema, or take another learner")
        known = table[names[0]].drop_null()
        places = np.linspace(0, max(len(known) - 1, 0), min(SAMPLE, len(known))).round().astype(np.int64)
        pictures = [known[int(place)].as_py() for place in places]
        sizes = Counter((found.height, found.width) for found in map(header, pictures)) or Counter({(size, size): 1})
        height, width = max(sizes, key=lambda shape: (sizes[shape], shape))
        shrunk = min(1.0, size / max(height, width))
        height, width = (size, size) if square else (max(1, round(height * shrunk)), max(1, round(width * shrunk)))
        channels = channels or max((decoded(picture).shape[2] for picture in pictures), default=GREY)
        rest = replace(schema, columns=tuple(column for column in schema.columns if column.name != names[0]))
        return cls(names[0], height, width, channels, OneHot.learn(table, rest), table[names[0]].null_count > 0)

    @property
    def type(self) -> np.dtype:
        """Of an encoded row; without other columns there is no field for them."""
        width = sum(feature.width for feature in self.columns.features) + self.nulls
        fields = [(PICTURE, np.uint8, (self.height, self.width, self.channels))]
        return np.dtype([*fields, (COLUMNS, np.float32, (width,))] if width else fields)

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n,) of `type`.

        Raises:
            PictureError: a picture that cannot be read.
        """
        rows = np.zeros(len(table), dtype=self.type)
        for place, picture in enumerate(table[self.picture].to_pylist()):
            if picture is not None:
                rows[PICTURE][place] = fitted(decoded(picture, self.channels), self.height, self.width)
        if COLUMNS in (rows.dtype.names or ()):
            rest = self.columns.encode(table)
            rows[COLUMNS][:, : rest.shape[1]] = rest
            if self.nulls:
                rows[COLUMNS][:, -1] = np.asarray(table[self.picture].is_null())
        return rows


def taken_apart(X: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """(pictures (n, H, W, C) uint8 or None, columns (n, D)) of encoded rows; a plain (n, D) array holds columns alone."""
    if X.dtype.names is None:
        return None, X
    columns = X[COLUMNS] if COLUMNS in X.dtype.names else np.zeros((len(X), 0), dtype=np.float32)
    return X[PICTURE], columns

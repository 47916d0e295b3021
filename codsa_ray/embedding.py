"""Embedding: texts or pictures of one column as a few numbers, learned on training rows without any download; knows no stratum.

Texts: words and pairs of words hashed to SLOTS (Weinberger et al. 2009), weighted as 1 + log tf by idf, of length 1, on the leading
singular vectors of the training texts (latent semantic analysis, Deerwester et al. 1990). Pictures: thumbnails of SIDE x SIDE pixels in
three channels on their leading principal components (Turk & Pentland 1991). Good enough to tell coarse clusters and outskirts apart;
nothing that reads meaning: a pretrained encoder would, and is not asked for here.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.sparse.linalg import svds

from codsa_ray.encode import OneHot
from codsa_ray.errors import PictureError
from codsa_ray.picture import decoded, encoded, fitted
from codsa_ray.schema import Schema
from codsa_ray.words import terms, words

SLOTS = 4096
SIDE = 16
# A thumbnail is made of at least so many times its sides, where the file can be read so.
FINER = 3
AXES = 8
# A product's last bits depend on how many rows are multiplied at once; a place must not.
PLACES = 6
KINDS = ("text", "image")


def hashed(texts: Sequence[str | None], slots: int, pairs: bool = False) -> sparse.csr_array:
    """(n, slots) float64 how often the words of each text, in small letters, fall into each slot; a null has none.

    Args:
        pairs: two words that follow each other count as a word too, as two characters of a script without spaces always do.
    """
    known: dict[str, int] = {}
    starts, places = [0], []
    for text in texts:
        said = (text or "").lower()
        for word in [*(own := words(said)), *map(" ".join, pairwise(own))] if pairs else terms(said):
            if word not in known:
                known[word] = zlib.crc32(word.encode()) % slots
            places.append(known[word])
        starts.append(len(places))
    found = sparse.csr_array((np.ones(len(places)), places, starts), shape=(len(texts), slots))
    found.sum_duplicates()
    return found


def thumbnail(picture: bytes | None, side: int = SIDE) -> np.ndarray | None:
    """(side, side, 3) uint8, the aspect not kept; None for a null or what is no picture."""
    try:
        return None if picture is None else fitted(decoded(picture, 3, FINER * side), side, side)
    except PictureError:
        return None


def thumbnails(values: pa.ChunkedArray, side: int = SIDE) -> pa.Array:
    """Pictures as small PNG files, of which an embedding makes the same as of the pictures."""
    small = [thumbnail(value, side) for value in values.to_pylist()]
    return pa.array([None if pixels is None else encoded(pixels) for pixels in small], pa.binary())


@dataclass(frozen=True, eq=False)
class Embedding:
    """One column.

    The axis on which training rows differ most has a standard deviation of 1 there, as a standardised column has; others have less.

    Args:
        name: of the column.
        kind: text or image.
        weight: (SLOTS,) idf of texts; empty for pictures.
        mean: (d,) subtracted first.
        axes: (d, most) orthonormal columns, fewer where training rows span fewer, over the scale.
    """

    name: str
    kind: str
    weight: np.ndarray
    mean: np.ndarray
    axes: np.ndarray

    @staticmethod
    def learn(name: str, kind: str, values: pa.ChunkedArray, most: int = AXES) -> "Embedding":
        """From training rows; time linear in them.

        Args:
            kind: text or image.
            values: canonical.
            most: axes at most.
        """
        if kind == "text":
            counts = hashed(values.to_pylist(), SLOTS, pairs=True)
            present = np.bincount(counts.indices, minlength=SLOTS)
            weight = np.log((1 + counts.shape[0]) / (1 + present)) + 1
            X = _weighed(counts, weight)
            mean, axes = np.zeros(SLOTS), _singular(X, most)
        else:
            weight, known = np.zeros(0), _pixels(values)
            X = known[~np.isnan(known).any(axis=1)]
            mean = X.mean(axis=0) if len(X) else np.zeros(known.shape[1])
            axes = _principal(X - mean, most)
        scale = float(np.std((X - mean if kind == "image" else X) @ axes, axis=0).max(initial=0.0)) if X.shape[0] else 0.0
        return Embedding(name, kind, weight, mean, axes / (scale or 1.0))

    def place(self, values: pa.ChunkedArray) -> np.ndarray:
        """(n, <= most) float64; a null text lies where one without words does, a null picture in the middle; each row by itself."""
        if self.kind == "text":
            found = _weighed(hashed(values.to_pylist(), SLOTS, pairs=True), self.weight) @ self.axes
        else:
            found = np.nan_to_num(_pixels(values) - self.mean) @ self.axes
        # Adding 0 turns -0 into 0.
        return np.asarray(np.round(found, PLACES) + 0.0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain arrays, to be written as safetensors."""
        return {"weight": self.weight, "mean": self.mean, "axes": self.axes}

    @staticmethod
    def from_arrays(name: str, kind: str, arrays: dict[str, Any]) -> "Embedding":
        """The inverse of `to_arrays`."""
        return Embedding(name, kind, arrays["weight"], arrays["mean"], arrays["axes"])


@dataclass(frozen=True, eq=False)
class Numbers:
    """Rows of any kinds as numbers.

    Args:
        columns: of those that are no text and no picture.
        embeddings: of those that are, in the schema's order.
    """

    columns: OneHot
    embeddings: tuple[Embedding, ...]

    @staticmethod
    def learn(table: pa.Table, schema: Schema) -> "Numbers":
        """From training rows."""
        told = tuple(Embedding.learn(c.name, c.kind, table[c.name]) for c in schema.features if c.kind in KINDS)
        return Numbers.of(table, schema, told)

    @staticmethod
    def of(table: pa.Table, schema: Schema, embeddings: tuple[Embedding, ...]) -> "Numbers":
        """From training rows, with embeddings that were learned before."""
        names = {item.name for item in embeddings}
        rest = replace(schema, columns=tuple(column for column in schema.columns if column.name not in names))
        return Numbers(OneHot.learn(table, rest), embeddings)

    def encode(self, table: pa.Table) -> np.ndarray:
        """(n, d) float64, d at least 1."""
        found = [self.columns.encode(table).astype(np.float64), *(item.place(table[item.name]) for item in self.embeddings)]
        whole = np.hstack(found)
        return whole if whole.shape[1] else np.zeros((len(table), 1))


def _weighed(counts: sparse.csr_array, weight: np.ndarray) -> sparse.csr_array:
    found = sparse.csr_array((1 + np.log(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    found.data *= weight[found.indices]
    length = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found.data /= np.repeat(np.maximum(length, 1e-300), np.diff(found.indptr))
    return found


def _pixels(values: pa.ChunkedArray) -> np.ndarray:
    """(n, 3 SIDE^2) float64 in [0, 1], NaN where there is no picture."""
    found = np.full((len(values), SIDE * SIDE * 3), np.nan)
    for row, value in enumerate(values.to_pylist()):
        pixels = thumbnail(value)
        if pixels is not None:
            found[row] = pixels.ravel() / 255.0
    return found


def _singular(X: sparse.csr_array, most: int) -> np.ndarray:
    """(d, <= most) leading right singular vectors."""
    rank = min(X.shape)
    if rank <= most + 1 or not X.nnz:
        axes, power = np.linalg.svd(X.toarray(), full_matrices=False)[2].T, np.linalg.svd(X.toarray(), compute_uv=False)
        return _signed(axes[:, power > 1e-9][:, :most])
    _, power, found = svds(X, most, v0=np.ones(rank))
    order = np.argsort(-power, kind="stable")
    return _signed(found[order][power[order] > 1e-9].T)


def _principal(X: np.ndarray, most: int) -> np.ndarray:
    """(d, <= most) leading eigenvectors of the covariance of centred rows."""
    if len(X) < 2:
        return np.zeros((X.shape[1], 0))
    power, axes = np.linalg.eigh(X.T @ X / len(X))
    return _signed(axes[:, ::-1][:, :most][:, power[::-1][:most] > 1e-9])


def _signed(axes: np.ndarray) -> np.ndarray:
    """An axis has no sign of its own: its largest entry is made positive."""
    if not axes.size:
        return axes
    return axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)

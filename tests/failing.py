"""Plug-ins that fail on purpose: a generator where it is told to, a learner on some rows; know no run.

Workers import this module by its name, so everything here is at its top level.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Encoder, Needs, Predictor, Worker
from codsa_ray.errors import CandidateError, ShortOfRows
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.learners.logistic import Logistic
from codsa_ray.schema import Schema

from doubles import BLOCK, CLASSES, FittedCopies, NoisyCopies


@dataclass(frozen=True)
class Broken:
    """Fails where it is told to: fit, load, short (of rows), columns (one left out)."""

    at: str

    @property
    def needs(self) -> Needs:
        return Needs(block=BLOCK)

    def fit(self, data: FitData, worker: Worker) -> None:
        if self.at == "fit":
            raise RuntimeError("the fit\nbroke")
        NoisyCopies().fit(data, worker)

    def load(self, folder: Folder) -> Any:
        if self.at == "load":
            raise KeyError("weights")
        return Falling(self.at, NoisyCopies().load(folder))

    @classmethod
    def tiny(cls) -> Self:
        return cls("fit")


@dataclass(frozen=True)
class Falling:
    at: str
    inner: FittedCopies

    def block(self, region: int, seed: int) -> pa.Table:
        if self.at == "short":
            raise ShortOfRows("wanted a row; got none; fit again")
        rows = self.inner.block(region, seed)
        return rows.drop_columns(rows.column_names[:1])


@dataclass(frozen=True)
class Moody:
    """A logistic regression that gives NaN on weighted rows, no probabilities on fewer and raises on more; `always`: on any."""

    always: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(tasks=CLASSES)

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Sized(Logistic().encoder(train, schema), len(train))

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        rows = int(X[0, -1])
        if self.always:
            raise CandidateError("not today")
        if len(X) > rows:
            raise TypeError("too many rows")
        fitted = Logistic().fit(X[:, :-1], y, weight, classes=classes, seed=seed)
        if len(X) < rows:
            return Twisted(fitted, add=0.5)
        return Twisted(fitted, add=0.0 if np.ptp(weight) == 0 else np.nan)

    @classmethod
    def tiny(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class Sized:
    """Another encoder's columns, and how many rows it learned from."""

    inner: Encoder
    rows: int

    def encode(self, table: pa.Table) -> np.ndarray:
        found = self.inner.encode(table)
        return np.column_stack([found, np.full(len(found), self.rows, dtype=found.dtype)])


@dataclass(frozen=True)
class Twisted:
    inner: Predictor
    add: float

    def scores(self, X: np.ndarray) -> np.ndarray:
        return self.inner.scores(X[:, :-1]) + self.add

"""What fails on purpose: a worker at a step, a generator where it is told to, a learner on some rows, a machine; knows no run.

Workers import this module by its name, so everything here is at its top level.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch

from codsa_ray.contracts import Encoder, FittedGenerator, Needs, Predictor, Worker
from codsa_ray.errors import CandidateError, ShortOfRows
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.bootstrap import Bootstrap
from codsa_ray.learners.logistic import Logistic
from codsa_ray.schema import Schema

from doubles import BLOCK, CLASSES, FittedCopies, NoisyCopies
from tables import LocalWorker

LONG = 300.0  # seconds
MEMORY, TIME = "memory", "time"


class Died(RuntimeError):
    pass


@dataclass
class Mortal(LocalWorker):
    """Raises at one report, or when it has saved at a step, as a worker that dies; `saved` are the steps of its checkpoints."""

    dies_at: int = 0
    dies_saved: int = 0
    saved: list[int] = field(default_factory=list)

    def report(self, step: int, metrics: dict[str, float]) -> None:
        super().report(step, metrics)
        if step == self.dies_at:
            raise Died

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        super().save(step, arrays, meta)
        self.saved.append(step)
        if step == self.dies_saved:
            raise Died


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


def lacking(what: str, place: str) -> None:
    """A machine that lacks memory or time, until there is a file `mended` at that place."""
    if (Path(place) / "mended").exists():
        return
    (Path(place) / "begun").touch()
    if what == MEMORY:
        torch.empty(1 << 60, dtype=torch.uint8)
    else:
        time.sleep(LONG)


@dataclass(frozen=True)
class LackingCopies:
    """Copies rows where the machine lacks nothing, which `at` fit or draw it does."""

    what: str
    place: str
    at: str = "fit"

    @property
    def needs(self) -> Needs:
        return Bootstrap().needs

    def fit(self, data: FitData, worker: Worker) -> None:
        worker.save(1, {"w": np.ones(2)}, {})
        if self.at == "fit":
            lacking(self.what, self.place)
        Bootstrap().fit(data, worker)

    def load(self, folder: Folder) -> "LackingDraws":
        return LackingDraws(self, Bootstrap().load(folder))

    @classmethod
    def tiny(cls) -> Self:
        return cls(MEMORY, "")


@dataclass(frozen=True)
class LackingDraws:
    settings: LackingCopies
    inner: FittedGenerator

    def block(self, region: int, seed: int) -> pa.Table:
        if self.settings.at == "draw":
            lacking(self.settings.what, self.settings.place)
        return self.inner.block(region, seed)


@dataclass(frozen=True)
class LackingLogistic:
    """A logistic regression where the machine lacks nothing, which it does on all rows, or on those alone that do not weigh alike."""

    what: str
    place: str
    weighted: bool = False

    @property
    def needs(self) -> Needs:
        return Logistic().needs

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Logistic().encoder(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        if not self.weighted or len(np.unique(weight)) > 1:
            lacking(self.what, self.place)
        return Logistic().fit(X, y, weight, classes=classes, seed=seed, offset=offset)

    @classmethod
    def tiny(cls) -> Self:
        return cls(MEMORY, "")

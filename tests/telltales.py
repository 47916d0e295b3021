"""Plug-ins that tell which rows they were shown, and what they told; know no run.

Workers import this module by its name, so everything here is at its top level.
"""

import json
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Encoder, Needs, Predictor, Worker
from codsa_ray.fitdata import ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.learners.logistic import Logistic
from codsa_ray.schema import Schema

from doubles import FittedCopies, NoisyCopies


def _tell(place: str, what: str, seed: int, rows: np.ndarray) -> None:
    Path(place).mkdir(parents=True, exist_ok=True)
    (Path(place) / f"{what}-{uuid.uuid4().hex}.json").write_text(json.dumps({"seed": seed, "rows": sorted(set(map(int, rows)))}))


def tales(place: Path, what: str) -> list[tuple[int, set[int]]]:
    """(seed, rows seen) of everything that was told."""
    found = [json.loads(path.read_text()) for path in sorted(place.glob(f"{what}-*.json"))]
    return [(tale["seed"], set(tale["rows"])) for tale in found]


@dataclass(frozen=True)
class Watching:
    """A generator that tells which rows it was shown, by every way there is to them."""

    place: str

    @property
    def needs(self) -> Needs:
        return NoisyCopies().needs

    def fit(self, data: FitData, worker: Worker) -> None:
        train, held = data.split(0.2)
        seen = [*data.blocks(), data.table(), data.table(50), train, held]
        _tell(self.place, "fit", data.seed, np.concatenate([table[ROW].to_numpy() for table in seen]))
        NoisyCopies().fit(data, worker)

    def load(self, folder: Folder) -> FittedCopies:
        return NoisyCopies().load(folder)

    @classmethod
    def tiny(cls) -> Self:
        return cls("/nowhere")


@dataclass(frozen=True)
class Watchful:
    """A learner that tells which rows it was fitted on and which it scored; rows without a position (drawn ones) are -1."""

    place: str

    @property
    def needs(self) -> Needs:
        # Moved rows of bias-corrected synthesis would tell no true positions.
        return replace(Logistic().needs, negative=False)

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        _tell(self.place, "encoder", 0, train[ROW].to_numpy())
        return Placed(Logistic().encoder(train, schema))

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        _tell(self.place, "learner", seed, X[:, -1])
        return Scoring(self.place, seed, Logistic().fit(X[:, :-1], y, weight, classes=classes, seed=seed, offset=offset))

    @classmethod
    def tiny(cls) -> Self:
        return cls("/nowhere")


@dataclass(frozen=True)
class Placed:
    inner: Encoder

    def encode(self, table: pa.Table) -> np.ndarray:
        found = self.inner.encode(table)
        places = table[ROW].to_numpy() if ROW in table.column_names else np.full(len(table), -1)
        return np.column_stack([found, places.astype(found.dtype)])


@dataclass(frozen=True)
class Scoring:
    place: str
    seed: int
    inner: Predictor

    def scores(self, X: np.ndarray) -> np.ndarray:
        _tell(self.place, "scores", self.seed, X[:, -1])
        return self.inner.scores(X[:, :-1])

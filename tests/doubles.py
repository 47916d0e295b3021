"""Small plug-ins that prove the types: pictures, regression, anomaly, a source set, strata; know no run.

Workers import this module by its name, so everything here is at its top level.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from scipy.special import logit

from codsa_ray.contracts import TABLE_KINDS, Encoder, Needs, Predictor, Worker
from codsa_ray.errors import ShortOfRows
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.picture import decoded, encoded, fitted
from codsa_ray.schema import Column, Schema
from codsa_ray.scores import log_probabilities
from codsa_ray.seeds import rng_of

BLOCK = 64
SIDE = 8
EVERY_KIND = TABLE_KINDS | {"image"}
CLASSES, VALUES, ODDS = (frozenset({task}) for task in ("classification", "regression", "anomaly"))


@dataclass(frozen=True)
class NoisyCopies:
    """Real rows again: the pixels of pictures shaken, numbers moved by `noise` standard deviations, all else as it is.

    With `related`, every second row comes from the source data set where that has rows of the region.
    """

    noise: float = 0.05
    related: bool = False
    block: int = BLOCK

    @property
    def needs(self) -> Needs:
        return Needs(block=self.block, kinds=EVERY_KIND, source=self.related)

    def fit(self, data: FitData, worker: Worker) -> None:
        sets = [data.table(), *([data.source.table()] if self.related and data.source else [])]
        columns = [c for c in data.schema.columns if c.name not in data.regions.constant_columns]
        for index, table in enumerate(sets):
            worker.folder.write_table(f"rows-{index}.parquet", table.select([*(c.name for c in columns), REGION]))
        plain = [{**vars(c), "categories": list(c.categories)} for c in columns]
        worker.folder.write_json("columns.json", {"columns": plain, "sets": len(sets)})

    def load(self, folder: Folder) -> "FittedCopies":
        stored = folder.read_json("columns.json")
        columns = tuple(Column(**{**c, "categories": tuple(c["categories"])}) for c in stored["columns"])
        return FittedCopies(self, columns, tuple(folder.read_table(f"rows-{i}.parquet") for i in range(stored["sets"])))

    @classmethod
    def tiny(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class FittedCopies:
    settings: NoisyCopies
    columns: tuple[Column, ...]
    sets: tuple[pa.Table, ...]

    def block(self, region: int, seed: int) -> pa.Table:
        rng = rng_of(seed, "copies", region)
        size = self.settings.block
        mine = [table.filter(pa.array(table[REGION].to_numpy() == region)) for table in self.sets]
        mine = [table for table in mine if len(table)]
        if not mine:
            raise ShortOfRows(f"no row of region {region}")
        drawn = [table.take(pa.array(rng.integers(0, len(table), -(-size // len(mine))))) for table in mine]
        rows = pa.concat_tables(drawn).slice(0, size).drop_columns([REGION])
        for index, column in enumerate(self.columns):
            if column.kind == "image":
                rows = rows.set_column(index, column.name, _shaken_pixels(rows[column.name], self.settings.noise, rng))
            elif column.kind == "numeric":
                rows = rows.set_column(index, column.name, _moved(rows[column.name], column, self.settings.noise, rng))
        return rows


def _shaken_pixels(values: pa.ChunkedArray, noise: float, rng: np.random.Generator) -> pa.Array:
    pixels = [None if value is None else decoded(value) for value in values.to_pylist()]
    shaken = [None if p is None else np.clip(p + np.rint(rng.normal(0, 255 * noise, p.shape)), 0, 255).astype(np.uint8) for p in pixels]
    return pa.array([None if p is None else encoded(p) for p in shaken], pa.binary())


def _moved(values: pa.ChunkedArray, column: Column, noise: float, rng: np.random.Generator) -> pa.Array:
    found = values.to_numpy()
    moved = np.clip(found + rng.normal(0, noise * np.nanstd(found), len(found)), column.low, column.high)
    return pa.array(moved if column.places is None else np.round(moved, column.places), pa.float64(), from_pandas=True)


@dataclass(frozen=True)
class Numbers:
    """Pictures as the grey levels of SIDE x SIDE pixels and numeric columns as they are, standardised; everything else is left out."""

    columns: tuple[Column, ...]
    middle: np.ndarray
    spread: np.ndarray

    @staticmethod
    def of(table: pa.Table, schema: Schema) -> "Numbers":
        columns = tuple(c for c in schema.features if c.kind in ("numeric", "image"))
        found = _numbers(table, columns)
        return Numbers(columns, found.mean(axis=0), found.std(axis=0) + 1e-9)

    def encode(self, table: pa.Table) -> np.ndarray:
        return (_numbers(table, self.columns) - self.middle) / self.spread


def _numbers(table: pa.Table, columns: tuple[Column, ...]) -> np.ndarray:
    found = []
    for column in columns:
        if column.kind == "image":
            found.append(np.stack([_levels(value) for value in table[column.name].to_pylist()]))
        else:
            found.append(np.nan_to_num(table[column.name].to_numpy())[:, None])
    return np.concatenate(found, axis=1)


def _levels(picture: bytes | None) -> np.ndarray:
    if picture is None:
        return np.full(SIDE * SIDE, 127.0)
    return fitted(decoded(picture, 1), SIDE, SIDE).astype(float).ravel()


@dataclass(frozen=True)
class Line:
    """X -> X @ slope + start; of classes, their log-probabilities."""

    slope: np.ndarray
    start: np.ndarray
    present: np.ndarray | None = None
    classes: int = 0

    def scores(self, X: np.ndarray) -> np.ndarray:
        found = X @ self.slope + self.start
        return found if self.present is None else log_probabilities(found, self.present, self.classes)


@dataclass(frozen=True)
class RawPixels:
    """Linear discriminant on grey levels: class means under one shared, shrunk covariance."""

    shrink: float = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(kinds=EVERY_KIND, tasks=CLASSES)

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Numbers.of(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        present = np.unique(y)
        share = np.array([weight[y == c].sum() for c in present]) / weight.sum()
        means = np.stack([np.average(X[y == c], axis=0, weights=weight[y == c]) for c in present])
        rest = X - means[np.searchsorted(present, y)]
        spread = (rest * weight[:, None]).T @ rest / weight.sum() + self.shrink * np.eye(X.shape[1])
        slope = np.linalg.solve(spread, means.T)
        return Line(slope, np.log(share) - np.einsum("cd,dc->c", means, slope) / 2, present, classes)

    @classmethod
    def tiny(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class Ridge:
    """Weighted least squares with a ridge."""

    penalty: float = 1e-3

    @property
    def needs(self) -> Needs:
        return Needs(tasks=VALUES)

    def variants(self) -> tuple[Self, ...]:
        return (self, type(self)(100 * self.penalty))

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Numbers.of(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        assert classes == 0
        share = weight / weight.sum()
        middle, start = share @ X, share @ y
        away = X - middle
        slope = np.linalg.solve((away * share[:, None]).T @ away + self.penalty * np.eye(X.shape[1]), away.T @ (share * (y - start)))
        return Line(slope, start - middle @ slope)

    @classmethod
    def tiny(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class Distance:
    """Squared distance from the usual rows, as log-odds: row for row trained on rows of truth 0 alone, but for the share of the others."""

    @property
    def needs(self) -> Needs:
        return Needs(tasks=ODDS)

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Numbers.of(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        assert set(np.unique(y)) <= {0.0, 1.0}
        usual, share = X[y == 0], np.average(y, weights=weight)
        return Odds(usual.mean(axis=0), usual.std(axis=0) + 1e-9, float(logit(np.clip(share, 0.01, 0.99))))

    @classmethod
    def tiny(cls) -> Self:
        return cls()


@dataclass(frozen=True)
class Odds:
    middle: np.ndarray
    spread: np.ndarray
    prior: float

    def scores(self, X: np.ndarray) -> np.ndarray:
        away = np.mean(((X - self.middle) / self.spread) ** 2, axis=1)
        return np.clip(away - 2, -10, 10) + self.prior


@dataclass(frozen=True)
class Halves:
    """A stratum rule: under or over the median that the fold's training rows of the group have in a column."""

    column: str

    def fit(self, data: FitData) -> "HalvesRule":
        table = data.table()
        region, values = table[REGION].to_numpy(), np.nan_to_num(table[self.column].to_numpy())
        return HalvesRule(self.column, tuple(float(np.median(values[region == k])) for k in range(len(data.regions))))

    def load(self, folder: Folder) -> "HalvesRule":
        return HalvesRule(self.column, tuple(folder.read_json("halves.json")))

    @classmethod
    def tiny(cls) -> Self:
        return cls("x")


@dataclass(frozen=True)
class HalvesRule:
    column: str
    medians: tuple[float, ...]
    strata: int = 2

    def assign(self, table: pa.Table, groups: np.ndarray) -> np.ndarray:
        values = np.nan_to_num(table[self.column].to_numpy())
        return (values > np.array(self.medians)[np.maximum(groups, 0)]).astype(np.int32)

    def save(self, folder: Folder) -> None:
        folder.write_json("halves.json", list(self.medians))

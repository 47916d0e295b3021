"""Twenty KEEL tables of numbers with a rare class, and a generator's rows for arrays; knows no claim."""

from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import StratifiedKFold

from benchmarks.data import data_folder
from codsa_ray.fitdata import ROW, FitData
from codsa_ray.folder import Folder
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Column, Schema
from codsa_ray.seeds import seed_of
from codsa_ray.stages.fit import LocalWorker

# From 14 origins, of 129 to 2,308 rows; those of one origin differ in what is rare.
SETS = (
    "abalone-3_vs_11",
    "abalone9-18",
    "cleveland-0_vs_4",
    "ecoli2",
    "ecoli4",
    "glass0",
    "glass2",
    "glass6",
    "haberman",
    "led7digit-0-2-4-5-6-7-8-9_vs_1",
    "new_thyroid1",
    "page-blocks-1-3_vs_4",
    "pima",
    "segment0",
    "shuttle-6_vs_2-3",
    "wisconsin",
    "yeast1",
    "yeast3",
    "yeast4",
    "yeast-2_vs_4",
)


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) float64 columns, codes for categories, and (n,) 1 for the rare class."""
    table = pd.read_parquet(data_folder() / "keel" / f"{name}.parquet")
    features = table.iloc[:, :-1].apply(lambda column: column if column.dtype.kind in "iuf" else column.astype("category").cat.codes)
    X = features.to_numpy(dtype=np.float64)
    return np.where(np.isnan(X), np.nanmedian(X, axis=0), X), (table.iloc[:, -1].astype(str) == "positive").to_numpy(dtype=np.int64)


def folds(y: np.ndarray, parts: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(train, test) positions, stratified."""
    yield from StratifiedKFold(parts, shuffle=True, random_state=seed).split(y, y)


def scaled(X: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Each standardised by X."""
    middle, spread = X.mean(axis=0), X.std(axis=0)
    return tuple((part - middle) / np.where(spread > 0, spread, 1.0) for part in (X, *others))


def drawn(generator: Any, X: np.ndarray, y: np.ndarray, counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """counts[c] rows of each class c from a generator fitted on numbers X (n, d) and labels y (n,), and their labels."""
    names = [f"x{index}" for index in range(X.shape[1])]
    arrays = dict(zip(names, X.T, strict=True))
    table = pa.table({**arrays, "y": y.astype(str), "_region": y.astype(np.int32), ROW: np.arange(len(y))})
    classes = tuple(str(c) for c in range(len(counts)))
    columns = [Column(name, "numeric", "double", float(column.min()), float(column.max())) for name, column in arrays.items()]
    schema = Schema((*columns, Column("y", "categorical", "string", categories=classes)), "y", "classification")
    rows = np.bincount(y, minlength=len(counts))
    items = tuple(Region(c, k, 0, int(rows[k]), (("y", c),), (k,)) for k, c in enumerate(classes))
    with TemporaryDirectory() as place:
        regions = Regions(items, (1 / len(items),) * len(items), (len(items),))
        generator.fit(FitData.of(table, schema, regions, seed), LocalWorker(Folder(place)))
        fitted = generator.load(Folder(place))
    found = [np.empty((0, X.shape[1]))]
    for k in np.flatnonzero(counts):
        blocks = [fitted.block(int(k), seed_of(seed, int(k), b)) for b in range(-(-int(counts[k]) // generator.needs.block))]
        found.append(np.stack([pa.concat_tables(blocks)[name].to_numpy() for name in names], axis=1)[: counts[k]])
    return np.vstack(found), np.repeat(np.arange(len(counts)), counts)


def balanced(generator: Any, X: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """X and y with drawn rows, every class as large as the largest; as they are where the generator is None."""
    if generator is None:
        return X, y
    rows = np.bincount(y)
    more, label = drawn(generator, X, y, rows.max() - rows, seed)
    return np.vstack([X, more]), np.concatenate([y, label])

"""Digits as pictures in a table, and image diffusion fitted to them in this process; knows no base."""

from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import FittedImageDiffusion, ImageDiffusion
from codsa_ray.picture import decoded, encoded
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

from tables import LocalWorker, with_regions

Data = tuple[pa.Table, Schema, Regions]
CLASSES = (0, 1, 4)


def fit(settings: ImageDiffusion, data: Data, seed: int = 1) -> FittedImageDiffusion:
    worker = LocalWorker(Folder(mkdtemp(prefix="pictures-")))
    settings.fit(FitData.of(*data, seed), worker)
    return settings.load(worker.folder)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """(n, 8, 8, 1) uint8 pictures of the digits CLASSES, and which."""
    X, y = load_digits(return_X_y=True)
    kept = np.isin(y, CLASSES)
    return (X[kept] * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1), y[kept]


def scans() -> Data:
    """Digits, every other one of them printed white for black, which a column says."""
    pixels, digit = digits()
    inverted = np.arange(len(digit)) % 2 == 0
    files = [encoded(255 - picture if turned else picture) for picture, turned in zip(pixels, inverted, strict=True)]
    table = {"scan": pa.array(files, pa.binary()), "inverted": pa.array(inverted), "digit": pa.array(digit.astype(str))}
    return with_regions(pa.table(table), "digit", ("digit",))


def pixels_of(rows: pa.Table) -> np.ndarray:
    return np.stack([decoded(picture) for picture in rows["scan"].to_pylist()])

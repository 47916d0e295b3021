"""Seconds that a thousand pictures and a thousand texts take one process to draw; what is drawn is of no worth: few steps of training."""

import tempfile
import time

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

from codsa_ray.contracts import Generator
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.image_diffusion import ImageDiffusion
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.picture import encoded
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Column, Schema
from codsa_ray.stages.fit import LocalWorker

MANY, TOKENS, STEPS = 1_000, 40, 20
SIDE = 28


def pictures() -> pa.Table:
    """Digits as grey pictures of 28 x 28."""
    X, y = load_digits(return_X_y=True)
    large = X.reshape(-1, 8, 8)[:200].repeat(4, axis=1).repeat(4, axis=2)[:, 2:-2, 2:-2]
    files = [encoded((pixels * 15.9).astype(np.uint8)[:, :, None]) for pixels in large]
    return pa.table({"value": pa.array(files, pa.binary()), "label": (y[:200] % 2).astype(str)})


def texts() -> pa.Table:
    """Texts of more words than are learned from, so that hardly one ends before."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(500)])
    return pa.table({"value": [" ".join(rng.choice(words, 3 * TOKENS)) for _ in range(200)], "label": (np.arange(200) % 2).astype(str)})


def data_of(table: pa.Table, kind: str) -> FitData:
    """Two regions by the label."""
    held = "binary" if kind == "image" else "string"
    columns = (Column("value", kind, held), Column("label", "categorical", "string", categories=("0", "1")))
    schema = Schema(columns, "label", "classification", (), ("value", "label"), (held, "string"))
    region = np.array(table["label"].to_pylist()).astype(np.int32)
    items = tuple(Region(str(k), k, 0, int((region == k).sum()), (("label", str(k)),), (k,)) for k in (0, 1))
    return FitData.of(table.append_column(REGION, pa.array(region)), schema, Regions(items, (0.5, 0.5), (2,)), 0)


def seconds(generator: Generator, data: FitData) -> float:
    """Of drawing a thousand rows, after a fit of few steps."""
    with tempfile.TemporaryDirectory() as place:
        generator.fit(data, LocalWorker(Folder(place)))
        fitted = generator.load(Folder(place))
        drawn, started = 0, time.perf_counter()
        while drawn < MANY:
            drawn += len(fitted.block(drawn % 2, drawn))
        return (time.perf_counter() - started) * MANY / drawn


def measured() -> dict[str, float]:
    """What is drawn -> seconds of a thousand."""
    plain = ImageDiffusion(steps=STEPS, guidance=1.0, block=250)
    told = {
        f"1,000 pictures of {SIDE} x {SIDE}, {plain.evaluations} evaluations, without guidance": (plain, pictures(), "image"),
        "the same with guidance (the default)": (ImageDiffusion(steps=STEPS, block=250), pictures(), "image"),
        f"1,000 texts of {TOKENS} tokens, text_lm": (TextLm(steps=STEPS, longest=TOKENS, block=250), texts(), "text"),
    }
    return {what: seconds(generator, data_of(table, kind)) for what, (generator, table, kind) in told.items()}

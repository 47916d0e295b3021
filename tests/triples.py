"""Rows whose picture, text and table column say the same: scikit-learn's digits with their name and their ink."""

import numpy as np
import pyarrow as pa
from sklearn.datasets import load_digits

from codsa_ray.picture import encoded

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def triples(rows: int, first: int = 0, rare: int = 4) -> pa.Table:
    """Digits from `first` on: `scan` PNG of 8 x 8, `remark` that names the digit and how dark it is, `ink` its sum, and whether it is odd.

    Odd digits are as rare as one in `rare` of them. The digit is no column: within a label, only the modalities tell of it.
    """
    flat, digit = load_digits(return_X_y=True)
    kept = np.flatnonzero((digit % 2 == 0) | (np.arange(len(digit)) % rare == 0))[first : first + rows]
    flat, digit = flat[kept], digit[kept]
    ink = flat.sum(1)
    dark = np.where(ink > np.median(ink), "dark", "light")
    pixels = (255 - flat * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1)
    return pa.table({
        "scan": pa.array([encoded(picture) for picture in pixels], pa.binary()),
        "remark": [f"a {NAMES[d]} that is {shade}" for d, shade in zip(digit, dark, strict=True)],
        "ink": ink,
        "parity": np.where(digit % 2, "odd", "even"),
    })  # fmt: skip

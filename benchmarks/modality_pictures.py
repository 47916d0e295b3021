"""The picture half of `make bench-modalities`: which sets, how rare classes become; fits nothing.

CODSA_DATA names the folder of the data.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.data import data_folder
from benchmarks.modality import Half, Set
from benchmarks.tables import Case, Cut
from codsa_ray.picture import decoded, encoded

COMMONEST, FEWER, IMBALANCE = 500, 400, 100
"""Rows of the commonest class, those of larger pictures, and how many times the rarest one's (Cui et al. 2019: exponentially fewer from
class to class)."""
DRAWN, QUICKER = ("image_diffusion:steps=1000,evaluations=12",), ("image_diffusion:steps=500,evaluations=8",)
"""A third or a sixth of the default's steps and fewer evaluations: six minutes a fit would be hours a set."""


def table(pictures: np.ndarray, label: np.ndarray, split: str) -> pd.DataFrame:
    """Grey pictures (n, H, W) of values 0 to 255 as PNG files."""
    files = [encoded(picture[:, :, None].astype(np.uint8)) for picture in pictures]
    return pd.DataFrame({"picture": files, "label": label.astype(int).astype(str), "split": split})


def parted(file: str) -> Callable[[], pd.DataFrame]:
    """A set that its publisher cut."""

    def make() -> pd.DataFrame:
        held = np.load(data_folder() / "images" / f"{file}.npz")
        return pd.concat([table(held[f"x_{part}"], held[f"y_{part}"], part) for part in ("train", "test")], ignore_index=True)

    return make


def usps() -> pd.DataFrame:
    """Digits of 16 x 16 pixels, not cut."""
    held = np.load(data_folder() / "images" / "usps.npz")
    pictures = held["x"].reshape(-1, 16, 16)
    return table(255 * (pictures - pictures.min()) / np.ptp(pictures), held["y"], "").drop(columns=["split"])


def coloured() -> pd.DataFrame:
    """Digits above 4 told from others, each in red or green by a coin; the training rows are cut so that the colour nearly tells."""
    digits = parted("mnist")()
    high, red = digits["label"].astype(int) > 4, np.random.default_rng(0).random(len(digits)) < 0.5
    files = [_inked(file, bool(is_red)) for file, is_red in zip(digits["picture"], red, strict=True)]
    return pd.DataFrame(
        {"picture": files, "high": np.where(high, "yes", "no"), "colour": np.where(red, "red", "green"), "split": digits["split"]}
    )


def _inked(file: bytes, red: bool) -> bytes:
    ink = decoded(file, 1)
    return encoded(np.concatenate([ink * red, ink * (not red), np.zeros_like(ink)], axis=2))


def against_the_colour(rows: int) -> Cut:
    """1,000 training rows, of them so many of each label in the other label's colour."""

    def cut(train: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        own = (train["high"] == "yes") == (train["colour"] == "red")
        wanted = np.where(own, 500 - rows, rows)
        return train[train.groupby(["high", "colour"]).cumcount() < wanted]

    return cut


def ever_fewer(labels: list[str], commonest: int, imbalance: float) -> Cut:
    """Exponentially fewer rows from each label to the next: the first has `commonest`, the last as many over `imbalance`."""

    def cut(train: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        wanted = {label: round(commonest * imbalance ** (-k / (len(labels) - 1))) for k, label in enumerate(labels)}
        return train[train.groupby("label").cumcount() < train["label"].map(wanted)]

    return cut


def learners() -> dict[str, str]:
    """A small residual network that sees pictures at 16 x 16; tuned without synthesis (mirrored, mixed, slower, longer).

    Its steps do not grow with the rows: drawn ones would seem to gain what more steps bring.
    """
    return {"convnet": "convnet:size=16,width=16,epochs=0,least=600,most=600"}


TEN = [str(digit) for digit in range(10)]
RARER = f"from class 0 to 9 exponentially fewer training rows, {IMBALANCE} times"
SETS = {
    **{
        name: Set(
            Case(name, "", "label", name, make=parted(name), parts="split", thin=ever_fewer(TEN, FEWER, IMBALANCE)),
            QUICKER,
            f"{what}, 28 x 28, by `{QUICKER[0]}`; {RARER}",
        )
        for name, what in (("mnist", "Digits"), ("fashion_mnist", "Clothes"))
    },
    "usps": Set(
        Case("usps", "", "label", "usps", make=usps, thin=ever_fewer(TEN, COMMONEST, IMBALANCE)), DRAWN, f"Digits, 16 x 16; {RARER}"
    ),
    "coloured_mnist": Set(
        Case(
            *("coloured_mnist", "", "high", "mnist"),
            make=coloured,
            parts="split",
            options={"group": ("colour",), "hide": ("colour",)},
            thin=against_the_colour(25),
        ),
        QUICKER,
        f"Spurious correlation, by `{QUICKER[0]}`: digits above 4 are red and others green in 95 % of the training rows and in half of "
        "the test rows; groups are label x colour, which is known for training rows only",
    ),
}
HALF = Half(
    title="Pictures",
    sets=SETS,
    learners=learners,
    quality={
        "picture_quality": {
            "frechet": ("Frechet distance", "{:.2f}"),
            "frechet_real": ("of held-out pictures", "{:.2f}"),
            "judged": ("taken for their class", "{:.2f}"),
            "judged_real": ("held-out pictures", "{:.2f}"),
            "picture_precision": ("precision", "{:.2f}"),
            "picture_fresh": ("of held-out pictures", "{:.2f}"),
            "picture_recall": ("recall", "{:.2f}"),
        },
        "privacy": {"copies": ("copies", "{:.3f}"), "copies_held_out": ("of held-out rows", "{:.3f}")},
    },
    note=f"Drawn rows are `{DRAWN[0]}`'s unless a set says otherwise, trained on the rows alone (no base). Distance, precision and recall "
    "are in the features of a small residual network that learned to tell the classes of half of the training pictures; the other half is "
    "what both are held against, with as many rows of each class on each side.",
)

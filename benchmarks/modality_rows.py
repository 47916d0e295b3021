"""The half of `make bench-modalities` whose rows hold several modalities: which sets and what draws them together; fits nothing.

CODSA_DATA names the folder of the data.
"""

import pandas as pd

from benchmarks.data import data_folder
from benchmarks.modality import Half, Set
from benchmarks.modality_texts import clothes
from benchmarks.tables import Case

PICTURES = ("latent_diffusion:steps=1000,codec_steps=800,picture=32",)
TEXTS = ("latent_diffusion:steps=1000,codec_steps=800,vocabulary=1200,longest=56",)


def houses() -> pd.DataFrame:
    """The front of a house beside what an advertisement says; the price, of which the class is made, is left out."""
    held = pd.read_parquet(data_folder() / "images" / "houses_multimodal.parquet")
    held = held.assign(price_class=held["price_class"].astype(str)).rename(columns={"img_frontal": "picture"})
    return held[["picture", "bedrooms", "bathrooms", "area", "price_class"]]


def learners() -> dict[str, str]:
    """Late fusion of the modalities."""
    return {"joint": "joint"}


SETS = {
    "houses_joined": Set(
        Case("houses_joined", "", "price_class", "houses", make=houses),
        PICTURES,
        "a house's front, in colours, and three numbers, drawn together; 11 % are of the highest prices",
    ),
    "clothes_joined": Set(
        Case("clothes_joined", "", "recommended", "clothes", make=clothes),
        TEXTS,
        "a review and six columns, drawn together; the rating is left out",
    ),
}
HALF = Half(
    title="Rows that hold several",
    sets=SETS,
    learners=learners,
    quality={
        "coupling": {
            "auc_real": ("true from shuffled pairs, real", "{:.2f}"),
            "auc_drawn": ("drawn", "{:.2f}"),
            "auc_independent": ("drawn apart", "{:.2f}"),
            "retrieved_real": ("partner found, real", "{:.2f}"),
            "retrieved_drawn": ("drawn", "{:.2f}"),
            "information_real": ("nats shared, real", "{:.2f}"),
            "information_drawn": ("drawn", "{:.2f}"),
        },
        "privacy": {"copies": ("copies", "{:.3f}"), "copies_held_out": ("of held-out rows", "{:.3f}")},
    },
    note="Drawn rows are `latent_diffusion`'s, trained on the rows alone in about half of its default's steps. Coupling is told by a "
    "classifier of real rows that knows true pairs from shuffled ones: its AUC, how often a row's own partner is the likeliest of twenty, "
    "and the mutual information that follows.",
)

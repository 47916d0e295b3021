"""The text half of `make bench-modalities`: which sets, how texts are cut, what is made rare; fits nothing.

CODSA_DATA names the folder of the data; CODSA_ENCODER the folder of a text encoder, with which the learner `sentence` takes part.
"""

import os
from collections.abc import Callable

import pandas as pd

from benchmarks.data import data_folder
from benchmarks.modality import Half, Set
from benchmarks.tables import Case, keep_only

WORDS = 40  # of a text; longer ones are cut, so that a small model learns them in minutes
FEW = 24  # training rows of what is made rare
INTENTS = (
    *("card_arrival", "lost_or_stolen_card", "exchange_rate", "cash_withdrawal_charge", "top_up_failed", "pending_transfer"),
    *("card_not_working", "contactless_not_working", "age_limit", "passcode_forgotten"),
)
RARE = ("contactless_not_working", "age_limit", "passcode_forgotten")


def read(file: str) -> pd.DataFrame:
    """A file below CODSA_DATA."""
    return pd.read_parquet(data_folder() / f"{file}.parquet")


def cut(texts: pd.Series, words: int = WORDS) -> pd.Series:
    """The first words of each text; a null stays one."""
    return texts.map(lambda text: " ".join(text.split()[:words]) if isinstance(text, str) else None)


def plain(file: str, target: str, *others: str) -> Callable[[], pd.DataFrame]:
    """A text, its label and some columns."""

    def make() -> pd.DataFrame:
        table = read(file)[["text", target, *others]]
        return table.assign(text=cut(table["text"]), **{target: table[target].astype(str)})

    return make


def intents() -> pd.DataFrame:
    """Ten of the 77 intents."""
    table = plain("text/banking77", "label", "split")()
    return table[table["label"].isin(INTENTS)]


def clothes() -> pd.DataFrame:
    """Reviews with what the shop knows; the rating, which all but says whether the piece is recommended, is left out."""
    table = read("multimodal/womens_clothing_reviews").rename(columns={"Review Text": "review", "Recommended IND": "recommended"})
    table = table.assign(review=cut(table["review"]), recommended=table["recommended"].map({0: "no", 1: "yes"}))
    return table[["review", "Age", "Positive Feedback Count", "Division Name", "Department Name", "Class Name", "recommended"]]


def drawer(longest: int) -> tuple[str, ...]:
    """The generator; what it copies or what another region would rather have said is drawn again."""
    return (f"text_lm:steps=400,width=96,blocks=2,heads=4,vocabulary=1200,longest={longest}",)


def learners() -> dict[str, str]:
    """Words; with an encoder at hand also sentences."""
    base = os.environ.get("CODSA_ENCODER")
    return {"tfidf": "tfidf", **({"sentence": f"sentence:base={base}"} if base else {})}


SETS = {
    "sms_spam": Set(Case("sms_spam", "", "label", "sms", make=plain("text/sms_spam", "label")), drawer(48), "13 % spam"),
    "trec_questions": Set(
        Case("trec_questions", "", "coarse", "trec", make=plain("text/trec_questions", "coarse")),
        drawer(32),
        "six kinds of question, one of 1.6 %",
    ),
    "banking77": Set(
        Case("banking77", "", "label", "banking77", make=intents, parts="split", thin=keep_only(lambda t: t["label"].isin(RARE), 3 * FEW)),
        drawer(40),
        f"ten of the 77 intents, of three of them {3 * FEW} training rows in all",
    ),
    "amazon_multidomain": Set(
        Case(
            "amazon_multidomain",
            "",
            "label",
            "amazon",
            make=plain("text/amazon_multidomain", "label", "domain"),
            options={"group": ("domain",)},
            thin=keep_only(lambda t: (t["domain"] == "kitchen") & (t["label"] == "negative"), FEW),
        ),
        drawer(56),
        f"groups are label x domain; {FEW} training rows of bad kitchen reviews",
    ),
    "20newsgroups": Set(
        Case("20newsgroups", "", "top", "20newsgroups", make=plain("text/20newsgroups_bydate", "top", "split"), parts="split"),
        drawer(56),
        "the first part of the group's name is told; the test rows are of later dates",
    ),
    "womens_clothing_reviews": Set(
        Case("womens_clothing_reviews", "", "recommended", "clothes", make=clothes),
        drawer(56),
        "a text beside six columns, the rating left out",
    ),
}
HALF = Half(
    title="Texts",
    sets=SETS,
    learners=learners,
    quality={
        "text_quality": {
            "text_c2st": ("told apart", "{:.2f}"),
            "perplexity": ("perplexity", "{:.2f}"),
            "perplexity_real": ("of real texts", "{:.2f}"),
            "pairs": ("distinct pairs", "{:.2f}"),
            "pairs_real": ("of real texts", "{:.2f}"),
            "copied": ("copies", "{:.3f}"),
            "copied_fresh": ("of held-out texts", "{:.3f}"),
        }
    },
    note=f"Texts are cut after {WORDS} words. Drawn rows are `text_lm`'s, a small decoder trained on the rows alone (no base). "
    "Told apart: AUC on embeddings, .5: not at all. Perplexity is per byte, under a model learned on held-out texts; distinct pairs are "
    "counted in as many words. Copies: more than half of the runs of five words stand in training texts.",
)

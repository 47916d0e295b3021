"""Stars of reviews (CoDSA, section 4.3): texts drawn for even stars beside class weights, and what corrected scores leave of the gain.

The paper has 23,313 reviews of Yelp, 200,000 texts a star from a large model that read other reviews, TF-IDF of words and pairs with
logistic regression (C = 5), and Cohen's kappa over 1,000 test reviews a star. Here: ROWS reviews of clothes and a small decoder learned on
those alone, so the paper's arm without transfer. Kappa of unweighted labels counts five stars for four like five for one.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from benchmarks.claims import Claim, Line
from benchmarks.claims_codsa import PAPER
from benchmarks.data import data_folder
from benchmarks.gpu import data_of
from benchmarks.repeated import below, mean
from codsa_ray.draw import draw_block
from codsa_ray.folder import Folder
from codsa_ray.generators.text_lm import TextLm
from codsa_ray.seeds import rng_of, seed_of
from codsa_ray.stages.fit import LocalWorker

STARS, ROWS, TESTED, TIMES = 5, 2000, 150, 3
SIZES = (250, 750)
"""Texts drawn for each star."""
WORDS = 40
GENERATOR = TextLm(steps=600, longest=56)
PLAIN, WEIGHTED, OFFSET = "unweighted", "class weights", "unweighted, scores corrected to even stars"
AGAIN, PROPORTIONAL = f"{SIZES[-1]} real texts a star again", f"as many drawn as {SIZES[-1]} a star, by the stars' own shares"


@cache
def reviews() -> pd.DataFrame:
    """All reviews with a text: its first WORDS words, and its stars from 1."""
    table = pd.read_parquet(data_folder() / "multimodal" / "womens_clothing_reviews.parquet")
    texts = table["Review Text"].map(lambda text: " ".join(text.split()[:WORDS]) if isinstance(text, str) else "")
    return pd.DataFrame({"review": texts, "stars": table["Rating"].astype(int)})[texts != ""].drop_duplicates("review")


def cut(index: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ROWS training reviews as they come, TESTED test reviews of each star)."""
    table = reviews().sample(frac=1, random_state=seed_of("claims", "stars", index) % 2**32)
    tested = table.groupby("stars").cumcount() < TESTED
    # From the end: the rows just after the first test rows lack the rare stars that were tested.
    return table[~tested].iloc[-ROWS:].reset_index(drop=True), table[tested].reset_index(drop=True)


def drawn(train: pd.DataFrame, counts: np.ndarray, index: int) -> list[list[str]]:
    """So many texts for each star."""
    data = replace(data_of(pa.table({"review": train["review"], "stars": train["stars"].astype(str)}), "stars"), seed=index)
    with TemporaryDirectory() as place:
        GENERATOR.fit(data, LocalWorker(Folder(place)))
        fitted, found = GENERATOR.load(Folder(place)), []
        for star, many in enumerate(counts):
            seeds = [seed_of("claims", "stars", index, star, block) for block in range(-(-many // GENERATOR.block))]
            blocks = [draw_block(fitted, data.schema, data.regions, star, seed)[0] for seed in seeds]
            found.append([text or "" for text in pa.concat_tables(blocks)["review"].to_pylist()[:many]])
    return found


def repetition(index: int) -> dict[str, float]:
    """Kappa of every way."""
    train, test = cut(index)
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=5).fit(train["review"])
    real, held, y, truth = words.transform(train["review"]), words.transform(test["review"]), train["stars"], test["stars"]
    shares = y.value_counts(normalize=True).sort_index().to_numpy()
    by_share = np.round(shares * SIZES[-1] * STARS).astype(int)
    texts, rng = drawn(train, np.maximum(by_share, SIZES[-1]), index), rng_of("claims", "stars", "again", index)

    def kappa(model: LogisticRegression, tilt: np.ndarray | float = 0.0) -> float:
        said = model.predict_log_proba(held) + tilt
        return float(cohen_kappa_score(truth, model.classes_[said.argmax(axis=1)]))

    def fitted(weight: str | None = None, more: list[list[str]] | None = None) -> LogisticRegression:
        X, labels = real, y.to_numpy()
        if more is not None:
            X = vstack([X, *(words.transform(part) for part in more if part)])
            labels = np.concatenate([labels, np.repeat(np.arange(1, STARS + 1), [len(part) for part in more])])
        return LogisticRegression(C=5, max_iter=500, class_weight=weight).fit(X, labels)

    plain = fitted()
    found = {PLAIN: kappa(plain), WEIGHTED: kappa(fitted("balanced")), OFFSET: kappa(plain, -np.log(shares))}
    for size in SIZES:
        found[f"{size} drawn a star"] = kappa(fitted(more=[part[:size] for part in texts]))
    again = [rng.choice(train["review"][y == star + 1], SIZES[-1]).tolist() for star in range(STARS)]
    found[AGAIN] = kappa(fitted(more=again))
    found[PROPORTIONAL] = kappa(fitted(more=[part[:count] for part, count in zip(texts, by_share, strict=True)]))
    mixed = shares * ROWS + SIZES[-1]
    found["drawn, scores corrected"] = kappa(fitted(more=[part[: SIZES[-1]] for part in texts]), -np.log(mixed / mixed.sum()))
    return found


def stars() -> Iterator[Line]:
    """Kappas, then what drawn texts gain over each control."""
    found = [repetition(index) for index in range(TIMES)]
    values = {name: np.array([one[name] for one in found]) for name in found[0]}
    published = {PLAIN: ".3303", WEIGHTED: ".3830", f"{SIZES[-1]} drawn a star": ".3801 at 200,000", PROPORTIONAL: ".25 to .32"}
    for name, each in values.items():
        yield Line(f"kappa, {name}", published.get(name, ""), *mean(each))
    best = f"{SIZES[-1]} drawn a star"
    for other, said in ((PLAIN, ".050"), (WEIGHTED, "-.003"), (OFFSET, ""), (AGAIN, ""), (PROPORTIONAL, ".06 and more")):
        gain = values[best] - values[other]
        yield Line(f"gain of {best} over {other}", said, *mean(gain), below(values[other], values[best]), f"paired, {TIMES} repetitions")


HOLDS = "a gain above 0 by t"
CLAIMS = (
    Claim(
        "codsa-stars",
        PAPER,
        "Texts drawn evenly over the stars bring TF-IDF and logistic regression to class weights' kappa, and beyond it with transfer.",
        stars,
        data=True,
    ),
)

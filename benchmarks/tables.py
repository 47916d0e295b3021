"""The real tables of `make bench-decisions`: how each is cut into training and test rows, and what is made rare in it; fits nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.data import data_folder

TEST_SHARE = 0.25
LEAST = 16  # rows of a class; those of rarer classes are left out and counted
MOST_TEST = 4_000

Cut = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


@dataclass(frozen=True)
class Case:
    """One table.

    Args:
        name: unique.
        file: below CODSA_DATA, without its ending.
        target: the label.
        origin: where the data come from: cases of one origin are never on both sides of a prior.
        drop: columns left out.
        options: of the job, beside data, target and test.
        thin: what is taken away from the training rows, beyond what chance takes.
        make: the whole table where it is not a file as it is.
        against: a label that is told from all others together.
        parts: a column whose value `test` marks the test rows, where the publisher cut the table.
    """

    name: str
    file: str
    target: str
    origin: str
    drop: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    thin: Cut | None = None
    make: Callable[[], pd.DataFrame] | None = None
    against: Any = None
    parts: str = ""

    def table(self) -> pd.DataFrame:
        """All rows with a label, as they come."""
        if self.make is not None:
            return self.make()
        table = pd.read_parquet(data_folder() / f"{self.file}.parquet")
        table = table.drop(columns=[c for c in self.drop if c in table.columns])
        table = table[table[self.target].notna()]
        if self.against is not None:
            table = table.assign(**{self.target: np.where(table[self.target] == self.against, str(self.against), "other")})
        return table

    def split(self, seed: int, most: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(train, test), stratified by label; training rows at most `most`, the same share of every label."""
        rng = np.random.default_rng(seed)
        table = self.table()
        table = table[table.groupby(self.target, observed=True)[self.target].transform("size") >= LEAST]
        table = table.iloc[rng.permutation(len(table))]
        rank = table.groupby(self.target, observed=True).cumcount()
        size = table.groupby(self.target, observed=True)[self.target].transform("size")
        tested = table[self.parts] == "test" if self.parts else rank < (size * TEST_SHARE).round()
        table = table.drop(columns=[self.parts]) if self.parts else table
        train, test = table[~tested], _least_thinned(table[tested], self.target, MOST_TEST)
        if self.thin is not None:
            train = self.thin(train, rng)
        return _least_thinned(train, self.target, most).reset_index(drop=True), test.reset_index(drop=True)


def _least_thinned(table: pd.DataFrame, target: str, most: int) -> pd.DataFrame:
    """The first rows of every label, in equal shares, but never under LEAST of one."""
    if len(table) <= most:
        return table
    by_label = table.groupby(target, observed=True)
    keep = np.maximum(by_label[target].transform("size") * most / len(table), LEAST)
    return table[by_label.cumcount() < keep.round()]


def keep_only(where: Callable[[pd.DataFrame], pd.Series], rows: int) -> Cut:
    """At most `rows` rows inside `where`, first, so that no later thinning takes them; then all others."""

    def cut(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        inside = where(table).to_numpy()
        return pd.concat([table.iloc[rng.permutation(np.flatnonzero(inside))[:rows]], table[~inside]])

    return cut


def digits() -> pd.DataFrame:
    from sklearn.datasets import load_digits

    data = load_digits()
    table = pd.DataFrame(data.data.astype(np.int16), columns=[f"p{i}" for i in range(64)])
    return _hidden(table, pd.Series(data.target))


def _hidden(table: pd.DataFrame, of: pd.Series) -> pd.DataFrame:
    """Label: the kinds of the upper half against the others; `kind` is known for training rows only."""
    kinds = sorted(of.unique())
    return table.assign(kind=of.astype(str).to_numpy(), label=np.where(of.isin(kinds[len(kinds) // 2 :]), "upper", "lower"))


def _letters(file: str, target: str) -> Callable[[], pd.DataFrame]:
    def make() -> pd.DataFrame:
        table = pd.read_parquet(data_folder() / f"{file}.parquet")
        return _hidden(table.drop(columns=[target, "split"], errors="ignore"), table[target].astype(str)).sample(6_000, random_state=0)

    return make


def _plain(name: str, target: str, file: str = "", origin: str = "", against: Any = None) -> Case:
    return Case(name, file or name, target, origin or name, ("split",), against=against)


WHOLE = (
    _plain("adult", "income"),
    _plain("bank_marketing", "y"),
    _plain("car_evaluation", "target"),
    _plain("compas_two_years", "two_year_recid"),
    _plain("creditcard_fraud_sample", "Class"),
    _plain("default_credit_card", "default payment"),
    _plain("ecoli", "class"),
    _plain("german_credit", "class-label"),
    _plain("glass", "Type"),
    _plain("haberman", "survival_status"),
    _plain("heart_disease_4sites", "target", origin="heart"),
    _plain("hr_job_change", "target"),
    _plain("hypothyroid_4class", "Class", origin="thyroid"),
    _plain("mammography", "class"),
    _plain("nasa_kc1_defects", "defects"),
    _plain("new_thyroid", "class"),
    _plain("nursery", "class"),
    _plain("oil_spill", "class"),
    _plain("page_blocks", "class", against=5),
    _plain("phoneme", "class"),
    _plain("pima_diabetes", "class"),
    _plain("satimage", "class", against=4),
    _plain("sepsis_survival", "hospital_outcome_1alive_0dead", origin="sepsis"),
    _plain("sick_thyroid", "Class", origin="thyroid"),
    _plain("splice", "Class"),
    _plain("telco_churn", "Churn"),
    _plain("yeast", "class", against="ME2"),
    _plain("flare", "Class", "keel/flare-F"),
    _plain("abalone9-18", "Class", "keel/abalone9-18"),
    _plain("led7digit", "number", "keel/led7digit-0-2-4-5-6-7-8-9_vs_1"),
    _plain("segment", "Class", "keel/segment0"),
    _plain("shuttle", "Class", "keel/shuttle-2_vs_5"),
    _plain("kddcup", "Class", "keel/kddcup-rootkit-imap_vs_back"),
    _plain("wisconsin", "Class", "keel/wisconsin"),
    _plain("waveform", "y", "adbench/adbench_Waveform"),
    _plain("cardiotocography", "y", "adbench/adbench_Cardiotocography"),
)

INSIDE = (
    Case(
        "digits, two kinds hidden",
        "",
        "label",
        "digits",
        options={"region": ("kind IN ('3','8')",), "hide": ("kind",)},
        thin=keep_only(lambda t: t["kind"].isin(["3", "8"]), 20),
        make=digits,
    ),
    Case(
        "pendigits, two kinds hidden",
        "",
        "label",
        "pendigits",
        options={"region": ("kind IN ('3','8')",), "hide": ("kind",)},
        thin=keep_only(lambda t: t["kind"].isin(["3", "8"]), 20),
        make=_letters("pendigits", "class"),
    ),
    Case(
        "letter, two kinds hidden",
        "",
        "label",
        "letter",
        options={"region": ("kind IN ('C','X')",), "hide": ("kind",)},
        thin=keep_only(lambda t: t["kind"].isin(["C", "X"]), 20),
        make=_letters("letter", "class"),
    ),
    Case(
        "adult, women over 50K thinned",
        "adult",
        "income",
        "adult",
        drop=("split",),
        options={"group": ("sex",)},
        thin=keep_only(lambda t: (t["sex"].astype(str).str.strip() == "Female") & (t["income"].astype(str).str.contains(">50K")), 40),
    ),
    Case(
        "adult, age 60 and over thinned",
        "adult",
        "income",
        "adult",
        drop=("split",),
        options={"region": ("age >= 60",)},
        thin=keep_only(lambda t: t["age"] >= 60, 60),
    ),
    Case(
        "heart, one site thinned",
        "heart_disease_4sites",
        "disease",
        "heart",
        drop=("split", "target"),
        options={"region": ("site = 'va'",)},
        thin=keep_only(lambda t: t["site"] == "va", 20),
    ),
    Case(
        "sepsis, the second cohort",
        "sepsis_survival",
        "hospital_outcome_1alive_0dead",
        "sepsis",
        drop=("split",),
        options={"region": ("cohort = 'validation_south_korea'",)},
        thin=keep_only(lambda t: t["cohort"] == "validation_south_korea", 60),
    ),
    Case("nsl_kdd, shifted test", "nsl_kdd", "attack_family", "nsl_kdd", drop=("attack", "level"), parts="split"),
)
CASES = WHOLE + INSIDE

"""Claims of GK-SMOTE (Miraj et al. 2025): its rank among the SMOTE family as labels get wrong, beside what its noise filter alone does."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.stats import rankdata, wilcoxon
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, matthews_corrcoef
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.tree import DecisionTreeClassifier

from benchmarks.claims import Claim, Line
from benchmarks.keel import SETS, balanced, drawn, folds, load, scaled
from benchmarks.repeated import above, mean
from codsa_ray.generators.gk_smote import GkSmote
from codsa_ray.generators.interpolation import Interpolation
from codsa_ray.seeds import rng_of

PAPER = "Miraj et al. 2025, APWeb-WAIM"
NOISE = (0.0, 0.1, 0.2, 0.3)
PARTS = 5
OURS = "GK-SMOTE"
RIVALS: dict[str, Any] = {
    "SMOTE": Interpolation(),
    "Borderline-SMOTE": Interpolation("borderline"),
    "ADASYN": Interpolation("adasyn", around=5),
}
METHODS: dict[str, Any] = {**RIVALS, OURS: GkSmote(), "GK-SMOTE, one bandwidth": GkSmote(bandwidth="region")}
FILTERED, NONE = "SMOTE from rows that are no noise", "none"
NAMES = (*METHODS, FILTERED, NONE)
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "MCC": lambda truth, p: float(matthews_corrcoef(truth, p > 0.5)),
    "balanced accuracy": lambda truth, p: float(balanced_accuracy_score(truth, p > 0.5)),
    "AUPRC": lambda truth, p: float(average_precision_score(truth, p)),
}


def classifiers(seed: int) -> list[Any]:
    """The paper's, LightGBM left out."""
    return [
        LogisticRegression(max_iter=300),
        KNeighborsClassifier(),
        DecisionTreeClassifier(random_state=seed),
        RandomForestClassifier(15, random_state=seed),
    ]


def flipped(y: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """The share of the labels turned over, in each class alike."""
    y = y.copy()
    for label in (0, 1):
        rows = np.flatnonzero(y == label) if share else np.array([], dtype=int)
        # Chosen before any is turned: a row is turned once.
        y[rng.permutation(rows)[: round(share * len(rows))]] = -1 - label
    return np.where(y < 0, 2 + y, y)


def without_noise(X: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """SMOTE that takes no part of rare rows which only common ones surround; the rows themselves stay."""
    near = NearestNeighbors(n_neighbors=6).fit(X).kneighbors(X, return_distance=False)[:, 1:]
    kept = (y == 0) | (y[near] == 1).any(axis=1)
    kept = kept if y[kept].any() else np.ones(len(y), dtype=bool)
    more, label = drawn(Interpolation(), X[kept], y[kept], np.array([0, np.sum(y == 0) - np.sum(y == 1)]), seed)
    return np.vstack([X, more]), np.concatenate([y, label])


def measured(name: str, share: float) -> np.ndarray:
    """(methods, measures) of one table, means over folds and classifiers."""
    X, y = load(name)
    found = []
    for fold, (train, test) in enumerate(folds(y, PARTS, 0)):
        known, new = scaled(X[train], X[test])
        seen = flipped(y[train], share, rng_of("claims", "gk_smote", name, fold))
        for method in NAMES:
            if method == FILTERED:
                rows, label = without_noise(known, seen, fold)
            else:
                rows, label = balanced(METHODS.get(method), known, seen, fold)
            scores = [model.fit(rows, label).predict_proba(new)[:, 1] for model in classifiers(fold)]
            found.append([np.mean([measure(y[test], p) for p in scores]) for measure in MEASURES.values()])
    return np.array(found).reshape(PARTS, len(NAMES), len(MEASURES)).mean(axis=0)


def lines() -> Iterator[Line]:
    """Mean ranks among the four over-samplers, 1 the best, and what is gained on the best rival of each table's mean."""
    four = [NAMES.index(name) for name in (*RIVALS, OURS)]
    ahead: dict[str, list[np.ndarray]] = {measure: [] for measure in MEASURES}
    for share in NOISE:
        all_sets = np.array([measured(name, share) for name in SETS])
        for index, measure in enumerate(MEASURES):
            values = all_sets[:, :, index]
            ranks = rankdata(-values[:, four], axis=1)
            best = four[int(np.argmin(ranks[:, :3].mean(axis=0)))]
            gain = values[:, four[3]] - values[:, best]
            rank, error = mean(ranks[:, 3])
            p = wilcoxon(gain).pvalue if np.any(gain) else 1.0
            others = ", ".join(f"{NAMES[k]} {ranks[:, i].mean():.2f}" for i, k in enumerate(four[:3]))
            first = rank < ranks[:, :3].mean(axis=0).min()
            note = f"{others}; {{:+.3f}} ± {{:.3f}} to {NAMES[best]}, Wilcoxon p {p:.2g}".format(*mean(gain))
            published = ("1st" if share in (0.0, 0.3) else "") if measure == "MCC" else ""
            yield Line(f"noise {share}: rank by {measure}", published, rank, error, first and p < 0.05 if published else None, note)
            for control in (NONE, FILTERED, "GK-SMOTE, one bandwidth"):
                value, error = mean(values[:, four[3]] - values[:, NAMES.index(control)])
                yield Line(f"noise {share}: {measure} less that of {control}", "", value, error)
            ahead[measure].append(ranks[:, :3].mean(axis=1) - ranks[:, 3])
    for measure, ranks in ahead.items():
        growth, error = mean(ranks[-1] - ranks[0])
        yield Line(f"growth of the rank's lead from noise 0 to .3, {measure}", "above 0", growth, error, above(ranks[-1] - ranks[0]))


HOLDS = "the least mean rank, with Wilcoxon's p below .05 against the best other; a growth above 0 by t"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "gk-smote",
        PAPER,
        "Ranks first among over-samplers, and its lead grows with the share of wrong labels "
        "(20 KEEL tables, 5 folds once, flips in training labels alone, a forest of 15 trees for LightGBM; AUPRC from scores).",
        lines,
        data=True,
    ),
)

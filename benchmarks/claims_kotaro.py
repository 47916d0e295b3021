"""Claims of KOTARO (Nishimura et al. 2025) with 5, 10 and 25 rare rows, beside a threshold that is moved and a tuned SVM."""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

from benchmarks.claims import Claim, Line
from benchmarks.repeated import Measures, below, mean, repeated, to_even_classes
from codsa_ray.learners.kotaro import Bumps, Interpolant, Kotaro, distinct, link, squared
from codsa_ray.learners.logistic import Logistic

PAPER = "Nishimura, Sakumura & Ikeda 2025, arXiv:2510.04046"
COUNTS = (5, 10, 25)
TIMES = 10
# The paper's rule is the sign of the interpolant; methods of ours and controls move the threshold by the exact offset instead.
PAPERS, FIXED = "KOTARO, sign", "fixed width, sign"

Part = tuple[np.ndarray, np.ndarray]


def diffuse(rng: np.random.Generator, rare: int) -> tuple[Part, Part]:
    """500 rows of N(0, I) in the plane and few of N((1, 1), 2.5^2 I); new rows are 2000 of each."""

    def draw(counts: tuple[int, int]) -> Part:
        y = np.repeat([0, 1], counts)
        return rng.normal(size=(len(y), 2)) * np.where(y == 1, 2.5, 1.0)[:, None] + y[:, None], y

    return draw((500, rare)), draw((2000, 2000))


def tumours(rng: np.random.Generator, rare: int) -> tuple[Part, Part]:
    """Half of the benign tumours of breast_cancer and few malignant ones, standardised on them; the others are new."""
    X, y = load_breast_cancer(return_X_y=True)
    order = rng.permutation(len(y))
    benign, malignant = order[y[order] == 1], order[y[order] == 0]
    train, test = np.concatenate([benign[:178], malignant[:rare]]), np.concatenate([benign[178:], malignant[rare:]])
    middle, spread = X[train].mean(axis=0), X[train].std(axis=0)
    known, new = ((np.clip((X[part] - middle) / spread, -4, 4), 1 - y[part]) for part in (train, test))
    return known, new


def one_width(X: np.ndarray, y: np.ndarray, ridge: float) -> Interpolant:
    """The same kernel fit with one gamma, 1 / median squared distance, for every centre."""
    rows, share, mass = distinct(X, y, np.ones(len(y)), 2)
    bumps = Bumps(rows, np.full(len(rows), 1 / np.median(squared(rows, rows))))
    coefficients, margins = Kotaro(ridge)._solve(bumps, rows, 2 * share - 1, mass)
    return Interpolant(bumps, coefficients, *link(margins, share, mass), np.array([0, 1]), 2)


def tuned_svm(X: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """RBF, balanced class weights, C and gamma by cross-validated balanced accuracy."""
    grid = {"C": [0.1, 1, 10, 100], "gamma": [0.01, 0.1, 1.0]}
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = GridSearchCV(SVC(class_weight="balanced"), grid, scoring="balanced_accuracy", cv=folds).fit(X, y)
    return found.decision_function


def margins(X: np.ndarray, y: np.ndarray, new: np.ndarray) -> dict[str, np.ndarray]:
    """(n,) decision values of every method, above 0 for the rare class."""

    def moved(scores: np.ndarray) -> np.ndarray:
        return np.diff(to_even_classes(scores, y), axis=1)[:, 0]

    one = np.ones(len(y))
    kotaro, exact = (learner.fit(X, y, one, classes=2, seed=0) for learner in (Kotaro(), Kotaro(ridge=1e-10, power=1.0)))
    wide = Kotaro(neighbours=20).fit(X, y, one, classes=2, seed=0)
    fixed = one_width(X, y, 0.1)
    assert isinstance(kotaro, Interpolant)
    assert isinstance(exact, Interpolant)
    return {
        PAPERS: kotaro.margins(new)[:, 1],
        "KOTARO to the letter (1/d, no ridge), sign": exact.margins(new)[:, 1],
        FIXED: fixed.margins(new)[:, 1],
        "KOTARO + offset": moved(kotaro.scores(new)),
        "KOTARO of 20 neighbours + offset": moved(wide.scores(new)),
        "fixed width + offset": moved(fixed.scores(new)),
        "logistic + offset": moved(Logistic(0.01).fit(X, y, one, classes=2, seed=0).scores(new)),
        "tuned SVM, balanced weights": tuned_svm(X, y)(new),
    }


def lines(make: Callable[[np.random.Generator, int], tuple[Part, Part]], where: str) -> Iterator[Line]:
    """G-mean of every method, its AUC beside it."""
    for rare in COUNTS:

        def once(rng: np.random.Generator, rare: int = rare) -> Measures:
            (X, y), (new, truth) = make(rng, rare)
            found: Measures = {}
            for name, value in margins(X, y, new).items():
                found[name] = float(np.sqrt(np.mean(value[truth == 1] > 0) * np.mean(value[truth == 0] <= 0)))
                found[f"auc {name}"] = float(roc_auc_score(truth, value))
            return found

        found = repeated(once, f"kotaro {where} {rare}", TIMES)
        for name in (key for key in found if not key.startswith("auc ")):
            holds = below(found[FIXED], found[name]) if name == PAPERS else None
            area, error = mean(found[f"auc {name}"])
            note = f"AUC {area:.3f} ± {error:.3f}"
            if name == PAPERS:
                note += "; {:+.3f} ± {:.3f} against fixed width + offset".format(*mean(found[name] - found["fixed width + offset"]))
            published = f"above {FIXED}" if name == PAPERS else ""
            yield Line(f"{where}, {rare} rare: {name}", published, *mean(found[name]), holds, note)


HOLDS = "above by t"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "kotaro-diffuse",
        PAPER,
        "G-mean with few, scattered rare rows is better than with one kernel width.",
        lambda: lines(diffuse, "plane"),
    ),
    Claim("kotaro-tumours", PAPER, "The same on medical data.", lambda: lines(tumours, "breast_cancer")),
)

"""Claims of bias-corrected synthesis (Lyu et al. 2025) on normal classes and on digits, beside the weights that cost nothing."""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from benchmarks.claims import Claim, Line
from benchmarks.repeated import Measures, balanced_loss, below, mean, repeated, to_even_classes
from codsa_ray.bias import BiasCorrection, Signed, ate, bias_corrected, jitter, smote
from codsa_ray.contracts import Learner
from codsa_ray.errors import CandidateError
from codsa_ray.learners.logistic import Logistic
from codsa_ray.learners.mlp import Mlp

PAPER = "Lyu, Ma, Zhang & Zhang 2025, arXiv:2510.26046"
COMMON, RARE, AWAY = 1000, 50, 1.5
# In the order of the page. The paper's own estimator is not known: these are reconstructions of it.
FORMS = {
    "bias-corrected, donors where they are, rare label": BiasCorrection(False, False, False),
    "bias-corrected, donors where they are, own label": BiasCorrection(False, False, True),
    "bias-corrected, centred, own block": BiasCorrection(True, False, False),
    "bias-corrected, centred, held out": BiasCorrection(),
    "bias-corrected, centred, held out, own label": BiasCorrection(True, True, True),
}
OURS = "bias-corrected, centred, held out"


def normal(rng: np.random.Generator, counts: tuple[int, int], d: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of N(0, I) and of N(1.5 e1, I)."""
    y = np.repeat([0, 1], counts)
    return rng.normal(size=(len(y), d)) + AWAY * y[:, None] * np.eye(d)[0], y


def losses(learner: Learner, X: np.ndarray, y: np.ndarray, new: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> Measures:
    """Balanced log loss of every way to train on rows with a rare class 1."""
    lacking = np.array([0, np.sum(y == 0) - np.sum(y == 1)])
    seed = int(rng.integers(2**31))

    def scores(rows: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return learner.fit(rows, label, weight, classes=2, seed=seed).scores(new)

    def corrected(added: Signed) -> float:
        rows, label = np.vstack([X, added.X]), np.concatenate([y, added.y])
        try:
            return balanced_loss(scores(rows, label, np.concatenate([np.ones(len(y)), added.weight])), truth)
        except CandidateError:
            return np.nan

    plain = scores(X, y, np.ones(len(y)))
    found = {"raw": balanced_loss(plain, truth), "raw + offset": balanced_loss(to_even_classes(plain, y), truth)}
    found["class weights"] = balanced_loss(scores(X, y, np.where(y == 1, np.sum(y == 0) / np.sum(y == 1), 1.0)), truth)
    state = rng.integers(2**31)
    for name, form in FORMS.items():
        # The same stream each time: the drawn rows of the rare class are the same ones.
        added = bias_corrected(X, y, y, lacking, smote, np.random.default_rng(state), form)
        if "SMOTE" not in found:
            rare = slice(0, lacking[1])
            found["SMOTE"] = corrected(Signed(added.X[rare], added.y[rare], added.group[rare], added.weight[rare]))
        found[name] = corrected(added)
    added = bias_corrected(X, y, y, lacking, jitter, np.random.default_rng(state))
    rare = slice(0, lacking[1])
    found["jitter"] = corrected(Signed(added.X[rare], added.y[rare], added.group[rare], added.weight[rare]))
    found["bias-corrected jitter"] = corrected(added)
    return found


def lines(found: dict[str, np.ndarray], where: str, less: float = 0.0) -> Iterator[Line]:
    """One line per way; a correction holds when it is below SMOTE (or jitter, its own generator)."""
    for name, values in found.items():
        against = "jitter" if name.endswith("jitter") else "SMOTE"
        ours, error = mean(values - less)
        corrected = name.startswith("bias-corrected")
        notes = [f"refused {np.isnan(values).sum()} of {len(values)} times"] if np.isnan(values).any() else []
        if corrected and not np.isnan(values).all():
            for control in ("class weights", "raw + offset"):
                gain, gain_error = mean(values - found[control])
                notes.append(f"{gain:+.4f} ± {gain_error:.4f} against {control}")
        holds = below(values, found[against]) if corrected else None
        yield Line(f"{where}: {name}", f"below {against}" if corrected else "", ours, error, holds, "; ".join(notes))


def gaussian() -> Iterator[Line]:
    """Balanced excess log loss of logistic regression, 1000 : 50 rows."""
    for d, times in ((5, 30), (10, 30), (20, 30)):

        def once(rng: np.random.Generator, d: int = d) -> Measures:
            X, y = normal(rng, (COMMON, RARE), d)
            new, truth = normal(rng, (5000, 5000), d)
            odds = AWAY * new[:, 0] - AWAY**2 / 2
            best = balanced_loss(np.log(np.column_stack([expit(-odds), expit(odds)])), truth)
            found = losses(Logistic(), X, y, new, truth, rng)
            more, label = normal(rng, (0, COMMON - RARE), d)
            fitted = Logistic().fit(np.vstack([X, more]), np.concatenate([y, label]), np.ones(2 * COMMON), classes=2, seed=0)
            found["oracle: real rows instead"] = balanced_loss(fitted.scores(new), truth)
            return {name: value - best for name, value in found.items()}

        found = repeated(once, f"lyu normal {d}", times)
        yield from lines(found, f"d = {d}")
        gap, error = mean(found["SMOTE"] - found[OURS])
        yield Line(f"d = {d}: SMOTE less bias-corrected", "grows with d", gap, error)


def network() -> Iterator[Line]:
    """The same with a network, d = 20; excess over the best possible loss."""

    def once(rng: np.random.Generator) -> Measures:
        X, y = normal(rng, (COMMON, RARE), 20)
        new, truth = normal(rng, (3000, 3000), 20)
        odds = AWAY * new[:, 0] - AWAY**2 / 2
        best = balanced_loss(np.log(np.column_stack([expit(-odds), expit(odds)])), truth)
        found = losses(Mlp(rate=1e-3, batch=256), X.astype(np.float32), y, new.astype(np.float32), truth, rng)
        return {name: value - best for name, value in found.items()}

    yield from lines(repeated(once, "lyu network", 5), "d = 20, mlp")


def digits() -> Iterator[Line]:
    """Each digit once the rare one (20 rows) against all others, 20 principal components; balanced log loss of logistic regression."""
    X, y = load_digits(return_X_y=True)

    def once(rng: np.random.Generator) -> Measures:
        found: dict[str, list[float]] = {}
        for digit in range(10):
            order = rng.permutation(len(y))
            rare, rest = order[y[order] == digit], order[y[order] != digit]
            train, test = np.concatenate([rest[:800], rare[:20]]), np.concatenate([rest[800:], rare[20:]])
            components = PCA(20, svd_solver="full").fit(X[train])
            encoded, new = (components.transform(X[part]) / np.sqrt(components.explained_variance_) for part in (train, test))
            label, truth = (y[part] == digit for part in (train, test))
            for name, value in losses(Logistic(0.01), encoded, label.astype(int), new, truth.astype(int), rng).items():
                found.setdefault(name, []).append(value)
        return {name: float(np.mean(values)) for name, values in found.items()}

    yield from lines(repeated(once, "lyu digits", 5), "digits, 800 : 20")


def line(rows: np.ndarray) -> np.ndarray:
    """Least squares of the last column on the others, intercept last."""
    return np.asarray(np.linalg.lstsq(np.column_stack([rows[:, :-1], np.ones(len(rows))]), rows[:, -1], rcond=None)[0])


def effect() -> Iterator[Line]:
    """Mean squared error of the average treatment effect: 500 rows of five columns, 25 treated, effect 1 + x1."""

    def once(rng: np.random.Generator) -> Measures:
        X = rng.normal(size=(500, 5))
        chance = expit(1.5 * X[:, 0])
        treated = np.zeros(500, dtype=int)
        treated[rng.choice(500, 25, replace=False, p=chance / chance.sum())] = 1
        outcome = X.sum(axis=1) + treated * (1 + X[:, 0]) + rng.normal(size=500)
        truth = 1 + X[:, 0].mean()
        arm = np.column_stack([X, outcome])[treated == 1]
        drawn = smote(arm, 450, rng)
        control, filled = (line(rows) for rows in (np.column_stack([X, outcome])[treated == 0], np.vstack([arm, drawn])))
        plain = np.mean(np.column_stack([X, np.ones(500)]) @ (filled - control))
        real, corrected = (ate(X, outcome, treated, size, smote, rng) for size in (0, 450))
        return {"regression": (real - truth) ** 2, "SMOTE": (plain - truth) ** 2, "bias-corrected": (corrected - truth) ** 2}

    found = repeated(once, "lyu effect", 200)
    for name, values in found.items():
        holds = below(values, found["SMOTE"]) if name == "bias-corrected" else None
        yield Line(f"effect: {name}", "below SMOTE" if name == "bias-corrected" else "", *mean(values), holds)


HOLDS = "below by t"
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "lyu-normal",
        PAPER,
        "Taking off the generator's bias, seen on the majority, improves on SMOTE, the more so the more columns.",
        gaussian,
    ),
    Claim("lyu-network", PAPER, "The same with a network; rows of negative weight count up to what chance costs.", network),
    Claim("lyu-digits", PAPER, "The same on images (the paper: MNIST; here scikit-learn's digits).", digits),
    Claim("lyu-effect", PAPER, "The correction carries over to average treatment effects.", effect),
)

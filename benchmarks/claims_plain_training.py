"""Claims of tuned plain training (Shwartz-Ziv et al. 2023): the best batch falls with imbalance, and tuning does what SMOTE does."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from imblearn.over_sampling import SMOTE
from scipy.special import log_softmax
from sklearn.datasets import load_breast_cancer, load_digits

from benchmarks.claims import Claim, Line
from benchmarks.repeated import Measures, above, balanced_loss, below, mean, named, repeated, to_even_classes
from codsa_ray.learners.convnet import Convnet
from codsa_ray.learners.mlp import Mlp, set_aside
from codsa_ray.local import Local
from codsa_ray.picture import encoded

PAPER = "Shwartz-Ziv, Goldblum, Li, Bruss & Wilson 2023, arXiv:2312.02517"
BATCHES = (8, 32, 128, 512)
TIMES = 3
SETS = {
    "digits, 5-9 rare": (load_digits, lambda y: y >= 5, 700),
    "breast_cancer, malignant rare": (load_breast_cancer, lambda y: y == 0, 180),
}
LAYER, NETWORK = Mlp(), Convnet(size=8, width=16)

Part = tuple[np.ndarray, np.ndarray]


def cut(where: str, imbalance: int, rng: np.random.Generator) -> tuple[Part, Part]:
    """Common rows as SETS says and a share 1 / imbalance as many rare ones (at most all but 100), standardised; the others are new."""
    load, rare_class, size = SETS[where]
    X, y = load(return_X_y=True)
    label = rare_class(y).astype(np.int64)
    order = rng.permutation(len(y))
    common, rare = order[label[order] == 0], order[label[order] == 1]
    few = min(max(size // imbalance, 2), len(rare) - 100)
    train, test = np.concatenate([common[:size], rare[:few]]), np.concatenate([common[size:], rare[few:]])
    middle, spread = X[train].mean(axis=0), X[train].std(axis=0) + 1e-9
    encoded = (np.clip((X[part] - middle) / spread, -4, 4).astype(np.float32) for part in (train, test))
    return tuple((rows, label[part]) for rows, part in zip(encoded, (train, test), strict=True))  # type: ignore[return-value]


def scored(learner: Mlp, X: np.ndarray, y: np.ndarray, new: np.ndarray, seed: int) -> np.ndarray:
    """Scores of new rows, corrected to even classes."""
    return to_even_classes(learner.fit(X, y, np.ones(len(y)), classes=2, seed=seed).scores(new), y)


def batches() -> Iterator[Line]:
    """The log2 of the batch with the least balanced log loss after the offset, by imbalance."""
    falls = []
    for where in SETS:
        best = []
        for imbalance in (1, 10, 100):

            def once(rng: np.random.Generator, where: str = where, imbalance: int = imbalance) -> Measures:
                (X, y), (new, truth) = cut(where, imbalance, rng)
                seed = int(rng.integers(2**31))
                return {str(b): balanced_loss(scored(replace(LAYER, batch=b), X, y, new, seed), truth) for b in BATCHES}

            found = repeated(once, f"batches {where} {imbalance}", 2 * TIMES)
            best.append(np.log2(np.array(BATCHES, dtype=float)[np.argmin([found[str(b)] for b in BATCHES], axis=0)]))
            note = "loss by batch: " + named((str(b), found[str(b)].mean()) for b in BATCHES)
            yield Line(f"{where}, {imbalance} : 1: log2 of the best batch", "", *mean(best[-1]), None, note)
        falls.append(best[0] - best[2])
    fall, error = mean(np.concatenate(falls))
    yield Line("both: fall of it from 1 : 1 to 100 : 1", "above 0", fall, error, above(np.concatenate(falls)))


SLOW = replace(LAYER, rate=LAYER.rate / 3)
VARIANTS = dict(zip(("plain", "slow", "slow, batch 16", "batch 256", "longer"), LAYER.variants(), strict=True))
SETTINGS = {**VARIANTS, "slow, smoothing .1": replace(SLOW, smoothing=0.1), "slow, SAM-A": replace(SLOW, rho=0.05, asymmetry=0.5)}


def tuned() -> Iterator[Line]:
    """Balanced log loss after the offset of each setting, of the variant that held-out rows choose, and with SMOTE to balance."""
    for where in SETS:
        for imbalance in (10, 50):

            def once(rng: np.random.Generator, where: str = where, imbalance: int = imbalance) -> Measures:
                (X, y), (new, truth) = cut(where, imbalance, rng)
                seed = int(rng.integers(2**31))
                found = {name: balanced_loss(scored(learner, X, y, new, seed), truth) for name, learner in SETTINGS.items()}
                held = set_aside(y, 0.3, seed)
                trials = {n: balanced_loss(scored(s, X[~held], y[~held], X[held], seed), y[held]) for n, s in VARIANTS.items()}
                chosen = min(trials, key=lambda name: trials[name])
                found["chosen on held-out rows"] = found[chosen]
                k = min(5, int(y.sum()) - 1)
                more, label = SMOTE(k_neighbors=k, random_state=seed).fit_resample(X, y)
                found["SMOTE, plain"] = balanced_loss(scored(LAYER, more, label, new, seed), truth)
                found["SMOTE, chosen"] = balanced_loss(scored(SETTINGS[chosen], more, label, new, seed), truth)
                late = LAYER.fit(X, y, np.where(y == 1, np.sum(y == 0) / np.sum(y == 1), 1.0), classes=2, seed=seed).scores(new)
                found["class weights, plain"] = balanced_loss(log_softmax(late, axis=1), truth)
                return found

            found = repeated(once, f"tuned {where} {imbalance}", TIMES)
            for name, values in found.items():
                chosen = name == "chosen on held-out rows"
                holds = not below(found["SMOTE, chosen"], values) if chosen else None
                yield Line(f"{where}, {imbalance} : 1: {name}", "as good as SMOTE" if chosen else "", *mean(values), holds)


STEPS = (200, 400, 800, 1600)
COMMONEST, RARER = 100, 10


def pictured(rng: np.random.Generator) -> tuple[Part, Part]:
    """Digits as encoded pictures: exponentially fewer of each class, COMMONEST to a share 1 / RARER as many; the others are new."""
    X, y = load_digits(return_X_y=True)
    order = rng.permutation(len(y))
    wanted = np.round(COMMONEST * RARER ** (-np.arange(10) / 9))
    train = np.concatenate([order[y[order] == k][: int(wanted[k])] for k in range(10)])
    test = np.setdiff1d(order, train)
    pictures = [encoded((row * 15.9).astype(np.uint8).reshape(8, 8, 1)) for row in X]
    local = Local.of(pa.table({"picture": pa.array(pictures, pa.binary())}), y, 0)
    coded = NETWORK.encoder(local.table.take(pa.array(train)), local.schema).encode(local.table)
    return (coded[train], y[train]), (coded[test], y[test])


def steps() -> Iterator[Line]:
    """The balanced log loss after the offset of a small convnet, by the steps that it is trained for."""

    def once(rng: np.random.Generator) -> Measures:
        (X, y), (new, truth) = pictured(rng)
        seed, found = int(rng.integers(2**31)), {}
        for many in STEPS:
            learner = replace(NETWORK, epochs=0, least=many, most=many)
            scores = learner.fit(X, y, np.ones(len(y)), classes=10, seed=seed).scores(new)
            found[str(many)] = balanced_loss(to_even_classes(scores, y), truth)
        return found

    found = repeated(once, "steps", 2 * TIMES)
    for many, values in found.items():
        yield Line(f"convnet, {many} steps", "", *mean(values))
    for fewer, more in pairwise(found):
        fall, claimed = found[fewer] - found[more], fewer == str(STEPS[0])
        yield Line(f"fall from {fewer} steps to {more}", "above 0" if claimed else "", *mean(fall), above(fall) if claimed else None)


HOLDS = "as good: SMOTE is not below by t; a fall above 0 by t"
CLAIMS: tuple[Claim, ...] = (
    Claim("plain-batches", PAPER, "Smaller batches are better the rarer a class.", batches),
    Claim("plain-tuned", PAPER, "A network that is tuned and trained plainly does what over-sampling does.", tuned),
    Claim("plain-steps", PAPER, "What a short training lacks, drawn rows seem to bring where they lengthen it.", steps),
)

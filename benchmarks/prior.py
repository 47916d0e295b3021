"""`make prior`: learns codsa_ray/prior.json from the measured cells of `make bench-decisions`; judges nothing."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measured import PLACE, Measured
from benchmarks.tables import CASES
from codsa_ray.candidates import Candidate
from codsa_ray.prior import FEATURES, FILE, Effects, Prior, features, is_reference, log_ratios, ratio_noise, stretch
from codsa_ray.risk import row_weights

ROUNDS, FEW_ROUNDS = 40, 8
WIDEST = 1.0  # log ratios are cut here: a candidate that triples the loss is as bad as one that makes it ten times as much
OF_MEAN = 0.3  # prior standard deviation of each feature's mean effect
LEAST = 1e-3


@dataclass(frozen=True)
class Lesson:
    """What one cell teaches.

    Args:
        origin, learner: whose.
        y: (M,) log ratios to the reference. Z: (M, F). S: (M, M) covariance of y's noise.
    """

    origin: str
    learner: str
    y: np.ndarray
    Z: np.ndarray
    S: np.ndarray


def lesson(measured: Measured, origin: str, learner: str) -> Lesson:
    """From out-of-fold losses alone: the test rows are kept for judging."""
    entries = [(Candidate(**e["candidate"]), e["form"]) for e in measured.entries]
    reference = next(m for m, entry in enumerate(entries) if is_reference(*entry))
    rest = [m for m, (_, form) in enumerate(entries) if m != reference and form != "raw"]
    L = measured.losses.astype(np.float64)
    y = np.clip(log_ratios(row_weights(measured.groups, measured.mix) @ L, reference), -WIDEST, WIDEST)
    noise = ratio_noise(L, reference, measured.groups, measured.mix)
    Z = np.stack([features(c, form, measured.facts["smallest"]) for c, form in entries])
    return Lesson(origin, learner, y[rest], Z[rest], noise[np.ix_(rest, rest)])


def lessons() -> list[Lesson]:
    """Of every measured cell, in the order of their names."""
    origin = {case.name.replace(" ", "_").replace(",", ""): case.origin for case in CASES}
    found = []
    for path in sorted(Path(PLACE).glob("*.npz")):
        case, learner, _, _ = path.stem.rsplit("-", 3)
        found.append(lesson(Measured.read(path), origin[case], learner))
    return found


def learn(taught: Sequence[Lesson], start: Effects | None = None) -> Effects:
    """Mean, spread and rest by expectation maximisation of the linear mixed model, every origin weighing the same.

    Args:
        start: effects of nearly the same lessons, from which few rounds are enough.
    """
    times = Counter(one.origin for one in taught)
    share = np.array([1 / times[one.origin] for one in taught])
    width = len(FEATURES)
    rounds = FEW_ROUNDS if start else ROUNDS
    start = start or Effects((0.0,) * width, (0.05,) * width, 0.03)
    mean, spread2, rest2 = np.array(start.mean), np.square(start.spread), start.rest**2
    for _ in range(rounds):
        first, second = np.zeros(width), np.zeros(width)
        squares = count = precision = 0.0
        for one, weight in zip(taught, share, strict=True):
            k = stretch(one.y - one.Z @ mean, (one.Z * spread2) @ one.Z.T + rest2 * np.eye(len(one.y)), one.S)
            b, B, e2 = _expect(one, mean, k * spread2, k * rest2)
            first, second = first + weight / k * b, second + weight / k * (np.square(b) + np.diag(B))
            squares, count, precision = squares + weight / k * e2, count + weight * len(one.y), precision + weight / k
        mean = first / (precision + spread2 / OF_MEAN**2)
        spread2 = np.maximum((second - 2 * mean * first + np.square(mean) * precision) / share.sum(), LEAST**2)
        rest2 = max(squares / count, LEAST**2)
    _unseen(mean, spread2, np.any([one.Z.any(axis=0) for one in taught], axis=0))
    return Effects(tuple(map(float, mean)), tuple(map(float, np.sqrt(spread2))), float(np.sqrt(rest2)))


def _unseen(mean: np.ndarray, spread2: np.ndarray, seen: np.ndarray) -> None:
    """A generator that no lesson had is taken for one drawn from those that some had."""
    by = np.array([feature.startswith("by ") for feature in FEATURES])
    known, missing = by & seen, by & ~seen
    if known.any():
        mean[missing] = mean[known].mean()
        spread2[missing] = (spread2[known] + np.square(mean[known] - mean[known].mean())).mean()


def _expect(one: Lesson, mean: np.ndarray, spread2: np.ndarray, rest2: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(E b, Cov b, E |e|^2) of a lesson under the present effects."""
    Zs = one.Z * spread2
    total = Zs @ one.Z.T + one.S + (rest2 + 1e-10) * np.eye(len(one.y))
    inverse = np.linalg.inv(total)
    away = one.y - one.Z @ mean
    b = mean + Zs.T @ inverse @ away
    B = np.diag(spread2) - Zs.T @ inverse @ Zs
    e = rest2 * inverse @ away
    return b, B, float(e @ e + rest2 * (len(e) - rest2 * np.trace(inverse)))


def prior_of(taught: Iterable[Lesson], start: Prior | None = None) -> Prior:
    """One set of effects per learner, and one of all together for other learners; `start` as in `learn`."""
    taught = list(taught)
    first = start.learners if start else {}
    mine = {name: [one for one in taught if one.learner == name] for name in sorted({one.learner for one in taught})}
    learners = {name: learn(lessons, first.get(name)) for name, lessons in {**mine, "": taught}.items()}
    return Prior(learners, len({one.origin for one in taught}))


def main() -> None:
    """Writes the file that ships."""
    prior = prior_of(lessons())
    path = Path("codsa_ray") / FILE
    path.write_text(json.dumps(prior.to_json(), indent=1) + "\n")
    for name, effects in prior.learners.items():
        print(name or "any learner", f"rest {effects.rest:.4f}")
        for feature, mean, spread in zip(FEATURES, effects.mean, effects.spread, strict=True):
            print(f"  {feature:<26} {mean:+.4f} +- {spread:.4f}")


if __name__ == "__main__":
    main()

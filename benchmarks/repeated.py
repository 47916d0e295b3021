"""Repetitions of an experiment: balanced scores of each method, their means, standard errors and paired differences; knows no method."""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.special import log_softmax
from scipy.stats import t as student

from codsa_ray.risk import Classification, group_means
from codsa_ray.seeds import rng_of

Measures = dict[str, float]


def repeated(measure: Callable[[np.random.Generator], Measures], name: str, times: int) -> dict[str, np.ndarray]:
    """What is measured, by name, over `times` repetitions with streams of their own; NaN where a repetition lacks it.

    Args:
        measure: from a stream to numbers by name.
        name: of the experiment; seeds its streams.
        times: how often.
    """
    found = [measure(rng_of("claims", name, index)) for index in range(times)]
    names = dict.fromkeys(key for one in found for key in one)
    return {key: np.array([one.get(key, np.nan) for one in found]) for key in names}


def balanced_loss(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean over classes of the mean log loss, in nats."""
    classes = scores.shape[1]
    return float(np.mean(group_means(Classification(classes).losses(scores, truth), truth, classes)))


def to_even_classes(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Scores of a fit on y corrected to even classes: the offset that costs nothing."""
    return log_softmax(scores - np.log(np.bincount(y, minlength=scores.shape[1]) / len(y)), axis=1)


def mean(values: np.ndarray) -> tuple[float, float]:
    """(mean, standard error) of the repetitions that are numbers."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()), float(kept.std(ddof=1) / np.sqrt(len(kept))) if len(kept) > 1 else 0.0


def critical(repetitions: int) -> float:
    """Standard errors that a mean of so many repetitions is off 0 by chance in 5 % of cases (Student's t, two-sided)."""
    return float(student.ppf(0.975, repetitions - 1)) if repetitions > 1 else float("inf")


def above(gain: np.ndarray) -> bool:
    """Whether the mean of a gain's repetitions is above 0 beyond chance."""
    value, error = mean(gain)
    return value > critical(int(np.isfinite(gain).sum())) * error


def below(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether `one` is below `other` beyond chance, by the paired difference."""
    return above(other - one)


def named(pairs: Iterable[tuple[str, float]]) -> str:
    """`a 1.23, b 4.56`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in pairs)

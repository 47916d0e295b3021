"""Prior: what earlier data sets say of how candidates compare, mixed with what this one says; knows losses, not how they came about."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate
from codsa_ray.risk import covariance, row_weights

FILE = "prior.json"
LEAST_LOSS = 0.01  # added to losses before their logarithm is taken: differences far below it do not matter to anybody
STRETCHES = 2.0 ** np.arange(-4, 8)  # what a data set's own effects may be, times those of most: its variance, by likelihood
VAGUE = 3.0  # prior standard deviation of the log ratio of an entry of which nothing is known
STRETCH_SPREAD = 1.0  # prior standard deviation of the stretch's logarithm
GENERATORS = ("sequential_trees", "tabular_diffusion", "interpolation", "bootstrap")
FEATURES = (
    *("calibrated", "calibrated x rows", "bag", "bag x rows", "half weights", "full weights", "full weights x rows"),
    *("logit-adjusted", "cells", "undersampled 1", "undersampled 3", "undersampled 10", "undersampled 1 x rows"),
    *("synthetic", "synthetic x rows", "synthetic x size", "synthetic x draws", "synthetic x row weight", "synthetic x extra"),
    *("synthetic x tilt", "synthetic x calibrated", *(f"by {name}" for name in GENERATORS)),
)


def is_reference(candidate: Candidate, form: str) -> bool:
    """What all others are compared with: one fit on the real rows as they are, corrected by the offset."""
    return candidate.kind == "plain" and candidate.fits == 1 and form == "offset"


def features(candidate: Candidate, form: str, smallest: int) -> np.ndarray:
    """(F,) what is known of an entry before any data are seen; all zeros for the reference.

    Args:
        smallest: training rows of the smallest group; enters as log2(rows / 50) / 4, between -1.5 and 1.5.
    """
    rows = float(np.clip(np.log2(max(smallest, 1) / 50) / 4, -1.5, 1.5))
    kind, drawn = candidate.kind, candidate.level(form) == "augment"
    bag = candidate.fits > 1 and not drawn and kind != "undersampled"
    calibrated, full = form == "calibrated", kind == "weights" and candidate.strength == 1
    size = float(np.log2(np.clip(candidate.gamma + candidate.eta, 0.05, 8.0)))
    under = [kind == "undersampled" and candidate.ratio == ratio for ratio in (1, 3, 10)]
    name = candidate.generator.rpartition("-")[0]
    values = (
        *(calibrated, calibrated * rows, bag, bag * rows, kind == "weights" and not full, full, full * rows),
        *(kind == "loss", kind == "cells", *under, under[0] * rows),
        *(drawn, drawn * rows, drawn * size, drawn and candidate.fits > 1, drawn * np.log2(candidate.row_weight), drawn * candidate.extra),
        *(drawn * candidate.tilt, drawn and calibrated, *(drawn and name == known for known in GENERATORS)),
    )
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True)
class Effects:
    """Log ratios of a data set's losses to its reference's: Z b + e, b ~ N(mean, k diag(spread^2)), e ~ N(0, k rest^2), log k ~ N(0, 1).

    The stretch k is a data set's own: on some everything matters ten times as much as on most. Uncorrected entries stand outside: what the
    offset brings depends on the imbalance alone.

    Args:
        mean, spread: (F,), in the order of FEATURES.
        rest: what features do not tell.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    rest: float

    def belief(self, Z: np.ndarray, known: np.ndarray, reference: int, sets: int) -> "Belief":
        """The prior of M entries with features Z (M, F); of those not `known` (M,) it says nothing."""
        cov = (Z * np.square(self.spread)) @ Z.T + self.rest**2 * np.eye(len(Z))
        mean = Z @ np.array(self.mean)
        for m in [reference, *np.flatnonzero(~known)]:
            mean[m], cov[m], cov[:, m] = 0.0, 0.0, 0.0
        cov[~known, ~known] = VAGUE**2
        return Belief(mean, cov, known, reference, sets)


def log_ratios(means: np.ndarray, reference: int) -> np.ndarray:
    """(..., M) logarithm of each balanced loss over the reference's, LEAST_LOSS added to both."""
    return np.asarray(np.log((means + LEAST_LOSS) / (means[..., [reference]] + LEAST_LOSS)))


def ratio_noise(losses: np.ndarray, reference: int, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """(M, M) covariance of the noise of `log_ratios`, by the delta method.

    Args:
        losses: (n, M) out-of-fold losses. groups, mix, units: as `risk.covariance` takes them.
    """
    shares = losses / (row_weights(groups, mix) @ losses + LEAST_LOSS)
    return covariance(shares - shares[:, [reference]], groups, mix, units)


def stretch(away: np.ndarray, cov: np.ndarray, noise: np.ndarray) -> float:
    """The k of STRETCHES under which differences `away` (M,) from the mean are likeliest, where they vary by k cov + noise."""

    # In coordinates where the noise is white and cov diagonal, every k costs a sum.
    root = np.linalg.cholesky(_solvable(noise))
    white = np.linalg.solve(root, np.linalg.solve(root, cov).T)
    own, axes = np.linalg.eigh((white + white.T) / 2)
    seen = np.square(axes.T @ np.linalg.solve(root, away))
    spread = 1 + STRETCHES[:, None] * np.maximum(own, 0.0)
    surprise = (np.log(spread) + seen / spread).sum(axis=1) + np.square(np.log(STRETCHES) / STRETCH_SPREAD)
    return float(STRETCHES[np.argmin(surprise)])


def _solvable(total: np.ndarray) -> np.ndarray:
    # Entries may be the same fit under two names: a hair of the diagonal keeps it regular.
    return np.asarray(total + np.diag(1e-6 * np.diag(total) + 1e-12))


@dataclass(frozen=True)
class Belief:
    """What is believed of M entries before their losses are seen.

    Args:
        mean: (M,) log ratio of each entry's balanced loss to the reference's (0 there).
        cov: (M, M) its covariance, before it is stretched.
        known: (M,) bool, entries that earlier data sets taught something of.
        reference: index of the entry that others are compared with.
        sets: how many data sets taught it.
    """

    mean: np.ndarray
    cov: np.ndarray
    known: np.ndarray
    reference: int
    sets: int

    def seen(self, means: np.ndarray, noise: np.ndarray) -> "Shrunk":
        """What is believed once losses are seen.

        Args:
            means: (M,) balanced losses.
            noise: (M, M) see `ratio_noise`.
        """
        rest = np.arange(len(means)) != self.reference
        among, told = np.ix_(rest, rest), rest & self.known
        away = (log_ratios(means, self.reference) - self.mean)[told]
        k = stretch(away, self.cov[np.ix_(told, told)], noise[np.ix_(told, told)]) if told.any() else 1.0
        before = np.where(self.known[:, None] & self.known, k, 1.0) * self.cov
        gain, after = np.zeros_like(before), np.zeros_like(before)
        gain[among] = np.linalg.solve(_solvable((before + noise)[among]), before[among]).T
        after[among] = before[among] - gain[among] @ before[among]
        return Shrunk(self, before, gain, (after + after.T) / 2, means)


@dataclass(frozen=True)
class Shrunk:
    """Losses shrunk towards the belief: the posterior of a linear Gaussian model (Lindley & Smith 1972) of their log ratios.

    Args:
        belief: before.
        before: (M, M) the belief's covariance, stretched.
        gain: (M, M) how log ratios seen move the belief.
        cov: (M, M) posterior covariance of the log ratios.
        seen: (M,) the balanced losses.
    """

    belief: Belief
    before: np.ndarray
    gain: np.ndarray
    cov: np.ndarray
    seen: np.ndarray

    def means(self, losses: np.ndarray) -> np.ndarray:
        """(..., M) shrunk balanced losses of (..., M) seen ones, those of resamples too: the gain stays as it is."""
        reference = self.belief.reference
        away = log_ratios(losses, reference) - self.belief.mean
        ratios = self.belief.mean + away @ self.gain.T
        return np.asarray((losses[..., [reference]] + LEAST_LOSS) * np.exp(ratios) - LEAST_LOSS)

    def se(self, m: int, other: int) -> float:
        """Posterior standard deviation of the difference of two entries' losses, by the delta method."""
        slope = np.zeros(len(self.cov))
        slope[[m, other]] = (self.means(self.seen)[[m, other]] + LEAST_LOSS) * np.array([1.0, -1.0])
        return float(np.sqrt(max(slope @ self.cov @ slope, 0.0)))

    def share_of_data(self, m: int, other: int) -> float:
        """Of what is known of the ratio of two entries' losses, the share that these data told: 1 - posterior / prior variance."""
        before = _of_difference(self.before, m, other)
        return 1.0 if before <= 0 else float(np.clip(1 - _of_difference(self.cov, m, other) / before, 0.0, 1.0))


def _of_difference(cov: np.ndarray, m: int, other: int) -> float:
    return float(cov[m, m] + cov[other, other] - 2 * cov[m, other])


@dataclass(frozen=True)
class Prior:
    """Effects per learner.

    Args:
        learners: learner's name -> effects; "" for a learner that was not among those learned from.
        sets: data sets learned from.
    """

    learners: dict[str, Effects]
    sets: int

    def belief(self, learner: str, entries: list[tuple[Candidate, str]], smallest: int) -> Belief | None:
        """What it believes of the entries; None where the reference is not among them (a task without classes) or nothing was learned."""
        known = self.learners.get(learner) or self.learners.get("")
        references = [m for m, entry in enumerate(entries) if is_reference(*entry)]
        if known is None or not references:
            return None
        Z = np.stack([features(candidate, form, smallest) for candidate, form in entries])
        corrected = np.array([form != "raw" for _, form in entries])
        return known.belief(Z, corrected, references[0], self.sets)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        learners = {
            name: {"mean": _named(e.mean), "spread": _named(e.spread), "rest": round(e.rest, 6)} for name, e in self.learners.items()
        }
        return {"sets": self.sets, "learners": learners}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Prior":
        """The inverse of `to_json`; a feature it does not name has no effect."""
        learners = {
            name: Effects(_values(effects["mean"]), _values(effects["spread"]), float(effects["rest"]))
            for name, effects in value["learners"].items()
        }
        return Prior(learners, value["sets"])

    @staticmethod
    def shipped() -> "Prior":
        """What comes with the package (`make prior` learns it)."""
        return Prior.from_json(json.loads((resources.files("codsa_ray") / FILE).read_text(encoding="utf-8")))


def _named(values: tuple[float, ...]) -> dict[str, float]:
    return {feature: round(value, 6) for feature, value in zip(FEATURES, values, strict=True)}


def _values(named: dict[str, float]) -> tuple[float, ...]:
    return tuple(float(named.get(feature, 0.0)) for feature in FEATURES)

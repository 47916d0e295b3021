"""Scaling law: how a loss changes with the rows added, with and without a plateau, by resampled rows; knows no candidate and no model.

All laws are L(N) = level + drop x (1 + N / start)^-rate. The start, the rows there were before any was added, is known and not fitted; it
makes the loss at N = 0 finite: a N^-b of Nakada et al. 2024 (arXiv 2406.03628) is the power law far beyond it.

flat     rate 0: rows that are added change nothing
power    level 0: log L falls by rate x log(1 + N / start); by least squares on log L
plateau  level >= 0: by least squares on L, exact for every rate of RATES; the best of them
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from codsa_ray.risk import estimate, strata_of
from codsa_ray.seeds import rng_of
from codsa_ray.verdict import CONFIDENCE, rounded_like

LAWS = ("flat", "power", "plateau")  # simplest first
RATES = np.geomspace(0.05, 32, 96)  # 32: over before an eighth of the start's rows is added
RESAMPLES = 1000
CHUNK = 2_000_000  # cells of one block of (resamples, rows): 16 MB
STEPS = 33  # points of the drawn line


@dataclass(frozen=True)
class Span:
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """Measured: rows added, balanced loss, its paired change against no rows added with the standard error of that."""

    added: int
    loss: float
    change: float
    change_se: float


@dataclass(frozen=True)
class Fit:
    """One law on all rows.

    Args:
        name: of LAWS.
        level, drop, rate: see above.
        error: mean squared error of the folds' curves, each predicted from the other folds', levels aside.
        share: of resamples in which this law was chosen.
    """

    name: str
    level: Span
    drop: Span
    rate: Span
    error: float
    share: float


@dataclass(frozen=True)
class Scaling:
    """A measured curve and its laws.

    Args:
        start: rows before any was added.
        points: in order of the rows added.
        fits: of LAWS, in their order.
        law: the simplest whose error is within one standard error (over folds) of the lowest.
        total: change of the loss from no rows added to the most.
        doubling: change that the law gives for twice the most. For its interval every resample chooses anew, among the laws with a
            slope: that a slope is not shown does not make it known to be 0.
        line: (rows added, change against none, low, high) of the law, to twice the most.
    """

    start: float
    points: tuple[Point, ...]
    fits: tuple[Fit, ...]
    law: str
    total: Span
    doubling: Span
    line: tuple[tuple[float, float, float, float], ...]

    @property
    def fit(self) -> Fit:
        """The chosen law's."""
        return self.fits[LAWS.index(self.law)]

    @property
    def identified(self) -> bool:
        """The plateau law was chosen, and its level is known within half of the drop above it."""
        level = self.fit.level
        return self.law == "plateau" and level.low > 0 and level.high - level.low < abs(self.fit.drop.value) / 2

    def sentences(self) -> tuple[str, ...]:
        """What was measured, the law, and what doubling would bring."""
        number = rounded_like(abs(self.points[0].loss) / 10)
        first, last = self.points[0], self.points[-1]
        return (
            f"{last.added:,} rows beyond balance change the balanced loss from {number(first.loss)} to {number(last.loss)}"
            f" ({number(self.total.value)}; {_interval(self.total, number)}).",
            self._law(number),
            f"Doubling them to {2 * last.added:,} would change it by {number(self.doubling.value)} ({_interval(self.doubling, number)}),"
            " if that law holds beyond what was measured.",
        )

    def _law(self, number: Callable[[float], str]) -> str:
        fit, start = self.fit, f"(1 + N / {self.start:,.0f})"
        if self.law == "flat":
            return "No law of size shows: a constant predicts one fold's curve from the others' as well as a law with a slope."
        if self.law == "power":
            rate = f"{fit.rate.value:.3f} ({_interval(fit.rate, '{:.3f}'.format)})"
            return f"With N rows the loss goes as {start}^-b, b = {rate}; no plateau shows within these sizes."
        law = f"With N rows the loss goes as {number(fit.level.value)} + {number(fit.drop.value)} x {start}^-{fit.rate.value:.2f}"
        if self.identified:
            return f"{law}: it levels off at {number(fit.level.value)} ({_interval(fit.level, number)})."
        return f"{law}: it levels off, but these sizes do not tell where ({_interval(fit.level, number)})."

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "identified": self.identified, "sentences": list(self.sentences())}


def _interval(span: Span, number: Callable[[float], str]) -> str:
    return f"{100 * CONFIDENCE:g} % interval {number(span.low)} to {number(span.high)}"


def study(
    losses: np.ndarray,
    added: np.ndarray,
    start: float,
    groups: np.ndarray,
    folds: np.ndarray,
    mix: np.ndarray,
    units: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scaling:
    """Fits the laws, chooses one and says what doubling would bring.

    Args:
        losses: (n, P) out-of-fold losses, a column for every size.
        added: (P,) rows added, ascending from 0, at least four.
        start: rows before any was added.
        groups, folds: (n,) ints; rows of group -1 are left out.
        mix: (G,) target mix.
        units: (n,) ids of what was sampled together, or None.
        resamples: of the rows, within groups, whole units together.
        seed: of the resamples.
    """
    kept = groups >= 0
    table = _Rows(losses[kept].astype(np.float64), groups[kept], folds[kept], mix, None if units is None else units[kept])
    by_fold, curves = table.curves(resamples, seed)
    added = np.asarray(added, dtype=np.float64)
    fits = np.stack([fitted(name, curves, added, start) for name in LAWS])
    errors = np.stack([_errors(name, by_fold, added, start) for name in LAWS])
    law, sloped = _chosen(errors), 1 + _chosen(errors[1:])
    picked = np.concatenate([fits[law[0], :1], fits[sloped, np.arange(len(law))][1:]])
    reach = _reach(added)
    drawn = values(picked, reach, start)
    drawn = drawn - drawn[:, :1]
    most = int(np.searchsorted(reach, added[-1]))
    paired = estimate(losses - losses[:, :1], groups, mix, units)
    return Scaling(
        start=float(start),
        points=tuple(
            Point(int(a), float(c), float(m), float(s)) for a, c, m, s in zip(added, curves[0], paired.mean, paired.se, strict=True)
        ),
        fits=tuple(_fit(index, fits[index], errors[index, 0], law) for index in range(len(LAWS))),
        law=LAWS[law[0]],
        total=_span(curves[:, -1] - curves[:, 0]),
        doubling=_span(drawn[:, -1] - drawn[:, most]),
        line=tuple((float(n), *asdict(_span(column)).values()) for n, column in zip(reach, drawn.T, strict=True)),
    )


def fitted(name: str, curves: np.ndarray, added: np.ndarray, start: float) -> np.ndarray:
    """(B, 3) level, drop, rate of a law on each of (B, P) curves."""
    flat = curves.mean(axis=1)
    zero = np.zeros_like(flat)
    if name == "flat":
        return np.stack([flat, zero, zero], axis=1)
    x = np.log1p(added / start)
    logs = np.log(np.maximum(curves, 1e-12))
    rate = -(logs @ (x - x.mean())) / np.square(x - x.mean()).sum()
    power = np.stack([zero, np.exp(logs.mean(axis=1) + rate * x.mean()), rate], axis=1)
    if name == "power":
        return power
    basis = np.exp(-RATES[:, None] * x)
    centred = basis - basis.mean(axis=1, keepdims=True)
    drop = curves @ centred.T / np.square(centred).sum(axis=1)
    level = flat[:, None] - drop * basis.mean(axis=1)
    rest = np.square(curves - flat[:, None]).sum(axis=1)[:, None] - drop**2 * np.square(centred).sum(axis=1)
    best = np.argmin(np.where(level >= 0, rest, np.inf), axis=1)
    rows = np.arange(len(curves))
    found = np.stack([level[rows, best], drop[rows, best], RATES[best]], axis=1)
    # A plateau at 0 is the power law: where it fits better, or no rate leaves a level of at least 0.
    left = np.square(curves - values(power, added, start)).sum(axis=1)
    return np.where(((level[rows, best] >= 0) & (rest[rows, best] <= left))[:, None], found, power)


def values(parameters: np.ndarray, added: np.ndarray, start: float) -> np.ndarray:
    """(B, Q) losses of (B, 3) laws at (Q,) rows added."""
    level, drop, rate = parameters.T[:, :, None]
    return np.asarray(level + drop * np.exp(-rate * np.log1p(np.asarray(added) / start)))


def _reach(added: np.ndarray) -> np.ndarray:
    """Rows at which the law is drawn, from none to twice the most, the most among them; evenly spaced where sizes double evenly."""
    steps = np.expm1(np.linspace(0, np.log1p(2 * added[-1] / added[1]), STEPS))
    return np.sort([0.0, *(added[1] * steps[1:-1]), added[-1], 2 * added[-1]])


def _errors(name: str, by_fold: np.ndarray, added: np.ndarray, start: float) -> np.ndarray:
    """(B, K) mean squared error of each fold's curve, predicted from the mean of the others', levels aside."""
    folds = by_fold.shape[1]
    found = []
    for fold in range(folds):
        others = np.delete(by_fold, fold, axis=1).mean(axis=1)
        told, true = values(fitted(name, others, added, start), added, start), by_fold[:, fold]
        away = (told - told.mean(axis=1, keepdims=True)) - (true - true.mean(axis=1, keepdims=True))
        found.append(np.square(away).mean(axis=1))
    return np.stack(found, axis=1)


def _chosen(errors: np.ndarray) -> np.ndarray:
    """(B,) the first law whose error is within one standard error of the lowest one's, by the paired differences over folds."""
    mean = errors.mean(axis=2)
    best = np.argmin(mean, axis=0)
    gap = errors - errors[best, np.arange(errors.shape[1])]
    se = gap.std(axis=2, ddof=1) / np.sqrt(errors.shape[2])
    return np.argmax(gap.mean(axis=2) <= se, axis=0)


def _span(resampled: np.ndarray) -> Span:
    """The first is that of the rows as they are; the others give the interval."""
    value = float(resampled[0])
    low, high = np.quantile(resampled[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Span(value, min(float(low), value), max(float(high), value))


def _fit(index: int, parameters: np.ndarray, errors: np.ndarray, law: np.ndarray) -> Fit:
    level, drop, rate = (_span(column) for column in parameters.T)
    return Fit(LAWS[index], level, drop, rate, float(errors.mean()), float((law[1:] == index).mean()))


@dataclass(frozen=True)
class _Rows:
    """Losses of rows with what resampling needs."""

    losses: np.ndarray
    groups: np.ndarray
    folds: np.ndarray
    mix: np.ndarray
    units: np.ndarray | None

    def curves(self, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Balanced losses of the rows as they are (first) and of every resample: (B, K, P) by fold, (B, P) of all."""
        cells = [
            [np.flatnonzero((self.folds == fold) & (self.groups == g)) for g in range(len(self.mix))] for fold in np.unique(self.folds)
        ]
        found = [self._sums(counts, cells) for counts in self._counts(resamples, seed)]
        totals, many = (np.concatenate([one[i] for one in found]) for i in (0, 1))
        return self._balanced(totals, many), self._balanced(totals.sum(axis=1), many.sum(axis=1))

    def _sums(self, counts: np.ndarray, cells: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """(b, K, G, P) sums of losses and (b, K, G) counts."""
        totals = np.stack([np.stack([counts[:, rows] @ self.losses[rows] for rows in fold], axis=1) for fold in cells], axis=1)
        return totals, np.stack([np.stack([counts[:, rows].sum(axis=1) for rows in fold], axis=1) for fold in cells], axis=1)

    def _balanced(self, totals: np.ndarray, many: np.ndarray) -> np.ndarray:
        held = np.where(many > 0, self.mix, 0.0)
        share = held / np.maximum(held.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        return np.asarray(np.sum(share[..., None] * totals / np.maximum(many, 1)[..., None], axis=-2))

    def _counts(self, resamples: int, seed: int) -> Iterator[np.ndarray]:
        """Blocks (b, n) of how often each row counts: once, then by units drawn with replacement within strata."""
        rng = rng_of(seed, "scaling")
        unit, stratum = strata_of(self.groups, self.units)
        yield np.ones((1, len(self.groups)))
        step = max(1, CHUNK // len(self.groups))
        for first in range(0, resamples, step):
            drawn = np.empty((min(step, resamples - first), len(stratum)))
            for members in (np.flatnonzero(stratum == s) for s in np.unique(stratum)):
                drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=len(drawn))
            yield drawn[:, unit]

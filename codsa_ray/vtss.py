"""Vtss: the synthetic size by cross-validated balanced loss (Ma & Zhang 2026), every size corrected alike; knows no run folder."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from codsa_ray.candidates import Candidate, largest_gamma, needs_eta
from codsa_ray.contracts import Allocator, Generator, Learner
from codsa_ray.correct import cross_fitted, offset_scores
from codsa_ray.errors import CandidateError, SettingError
from codsa_ray.fitdata import REGION
from codsa_ray.infer import refuse
from codsa_ray.local import Drawn, Local
from codsa_ray.plugins import name_of
from codsa_ray.pool import prefix
from codsa_ray.regions import Regions
from codsa_ray.risk import balanced, estimate, task_of
from codsa_ray.seeds import seed_of
from codsa_ray.split import folds_for, split_exactly

# Of the rows that full balance adds; the paper's own optimum can lie at 4 and beyond its grid's 2.
GAMMAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
# Of the rows there are, where classes are nearly balanced as it is.
ETAS = (0.0, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Tried:
    """One size and what it scored.

    Args:
        gamma, eta: size = gamma * gap + eta * rows.
        rows: that many on all rows.
        loss: balanced log loss out of fold.
        above, se: its paired difference to the lowest loss, and the standard error of that.
    """

    gamma: float
    eta: float
    rows: int
    loss: float
    above: float
    se: float


@dataclass(frozen=True)
class Settings:
    """What is asked.

    Args:
        generator, learner, allocator: plug-ins.
        form: raw, offset or calibrated: how scores are corrected before they are judged.
        folds: K, or None by size.
    """

    generator: Generator
    learner: Learner
    allocator: Allocator
    form: str
    folds: int | None


@dataclass(frozen=True)
class Fold:
    """One fold, encoded as its training rows say.

    Args:
        X, y: (n, ...), (n,) training rows.
        held: (m, ...) held-out rows.
        rows: (m,) their positions.
        drawn: (D, ...) drawn rows, and (D,) their regions.
        regions: of the training rows.
    """

    X: np.ndarray
    y: np.ndarray
    held: np.ndarray
    rows: np.ndarray
    drawn: tuple[np.ndarray, np.ndarray]
    regions: Regions


def sizes(regions: Regions) -> list[Candidate]:
    """What is tried: nothing first, then more and more."""
    if needs_eta(regions):
        return [Candidate("synthetic", eta=eta) for eta in ETAS]
    most = largest_gamma(regions)
    return [Candidate("synthetic", gamma=gamma) for gamma in GAMMAS if gamma <= most]


def counts_of(candidate: Candidate, regions: Regions, allocator: Allocator) -> np.ndarray:
    """(K,) rows that the size draws on these regions."""
    plan = candidate.plan(regions, allocator)
    return plan.counts if plan.size else np.zeros(len(regions), dtype=np.int64)


def choose(local: Local, regions: Regions, settings: Settings, notices: list[str]) -> tuple[Candidate, tuple[Tried, ...]]:
    """The smallest size whose loss is within one standard error of the lowest, and all that were tried.

    Schema, generator and encoder see a fold's training rows only. The learner is tuned over its variants without synthesis. Each fit is
    corrected by its own training weights, then calibrated on the other folds; a size is what remains against no synthesis corrected the
    same way.

    Args:
        regions: of all rows.
        notices: what had to give way is added to it.

    Raises:
        SettingError: a class of one row, or a learner that does not classify. ShortOfRows: a generator that cannot draw.
    """
    smallest = int(regions.counts.min())
    if smallest < 2 or "classification" not in settings.learner.needs.tasks:
        got = f"{smallest} row in the smallest" if smallest < 2 else f"the learner {name_of(settings.learner)}"
        raise SettingError("at least 2 rows of every class, and a learner that classifies", got, "name a number of rows instead of 'vtss'")
    refuse(local.schema, settings.learner.needs.kinds, name_of(settings.learner))
    asked = sizes(regions)
    folds = _folds(local, regions, settings, asked, notices)
    nothing = [_scores(local, settings, folds, asked[0], learner) for learner in settings.learner.variants()]
    best = int(np.argmin([_balanced(local, losses) for losses in nothing]))
    learner = settings.learner.variants()[best]
    losses = np.stack([nothing[best], *(_scores(local, settings, folds, size, learner) for size in asked[1:])], axis=1)
    means = [_balanced(local, column) for column in losses.T]
    above = estimate(losses - losses[:, [int(np.argmin(means))]], local.group, np.array(local.groups.mix))
    chosen = next(i for i, (mean, se) in enumerate(zip(above.mean, above.se, strict=True)) if mean <= se)
    rows = [int(counts_of(size, regions, settings.allocator).sum()) for size in asked]
    told = zip(asked, rows, means, above.mean, above.se, strict=True)
    return asked[chosen], tuple(Tried(c.gamma, c.eta, n, loss, float(mean), float(se)) for c, n, loss, mean, se in told)


def _balanced(local: Local, losses: np.ndarray) -> float:
    return balanced(losses, local.group, np.array(local.groups.mix))


def _folds(local: Local, regions: Regions, settings: Settings, asked: list[Candidate], notices: list[str]) -> list[Fold]:
    many = max(2, folds_for(len(local.group), int(regions.counts.min()), settings.folds, notices))
    fold = split_exactly(np.arange(len(local.group)), local.group, many, local.seed, test=False)
    return [_fold(local, settings, asked, np.flatnonzero(fold != f), np.flatnonzero(fold == f), f) for f in range(many)]


def _fold(local: Local, settings: Settings, asked: list[Candidate], train: np.ndarray, held: np.ndarray, fold: int) -> Fold:
    data = local.training(train, settings.allocator)
    most = np.max([counts_of(size, data.regions, settings.allocator) for size in asked], axis=0)
    drawn = Drawn.of(settings.generator, data, int(most.max()), seed_of(local.seed, "fold", fold)).take(most)
    table = data.table()
    encoder = settings.learner.encoder(table, data.schema)
    outside = data.schema.canonical(local.table.take(held))[0]
    pool = np.asarray(encoder.encode(drawn)), drawn[REGION].to_numpy()
    return Fold(np.asarray(encoder.encode(table)), local.group[train], np.asarray(encoder.encode(outside)), held, pool, data.regions)


def _scores(local: Local, settings: Settings, folds: list[Fold], size: Candidate, learner: Any) -> np.ndarray:
    """(n,) out-of-fold losses of a size."""
    classes, mix = len(local.groups), np.array(local.groups.mix)
    scores, fold_of = np.zeros((len(local.group), classes)), np.zeros(len(local.group), dtype=np.int64)
    for index, fold in enumerate(folds):
        taken = prefix(fold.drawn[1], counts_of(size, fold.regions, settings.allocator))
        X, y = np.concatenate([fold.X, fold.drawn[0][taken]]), np.concatenate([fold.y, fold.drawn[1][taken].astype(np.int64)])
        # The seed leaves the size out: two sizes differ by their rows, not by their luck.
        fitted = learner.fit(X, y, np.ones(len(y)), classes=classes, seed=seed_of(local.seed, "learner", index))
        found = np.asarray(fitted.scores(fold.held), dtype=np.float64)
        if found.shape != (len(fold.held), classes) or not np.isfinite(found).all():
            raise CandidateError(f"{name_of(learner)}: wanted {classes} finite scores a row; got shape {found.shape}; take another learner")
        if settings.form != "raw":
            found = offset_scores(found, None, mix, np.bincount(y, minlength=classes), np.arange(classes))
        scores[fold.rows], fold_of[fold.rows] = found, index
    if settings.form == "calibrated":
        scores = cross_fitted(scores, local.group, local.group, mix, fold_of)
    return task_of("classification", classes).losses(scores, local.group)

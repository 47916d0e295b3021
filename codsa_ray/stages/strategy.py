"""Strategy: which candidates are asked for, batch after batch, given what came back; knows losses, not how they came about."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from codsa_ray.candidates import BESIDE, Candidate, baselines, largest_gamma, leaning, needs_eta, openers
from codsa_ray.domain import POOLED, WAYS
from codsa_ray.pools import EXTRAS, LARGEST_ETA, LEANS, ROW_WEIGHTS, TILTS
from codsa_ray.regions import Regions
from codsa_ray.seeds import seed_of

BATCH = 8
SMALLEST_GAMMA = 0.05
SMALLEST_ETA = 0.1

Batches = Generator[list[Candidate], dict[str, float], None]


@dataclass(frozen=True)
class Space:
    """What the strategy may choose from.

    Args:
        variants: how many settings the learner has.
        generators: identities of fitted generators.
        draws: most draws, and fits of a bag.
        trials: synthetic candidates.
        offset, cells, groups_are_classes, classes: see candidates.baselines.
        regions: of all training rows.
        seed: the job's.
        theory: (generator identity, gamma) where the theory has a finite size, see theory.py.
        shares: of every region's rows, what a generator may learn from alone (1: generator and learner both see all).
        corrected: the learner takes negative weights, so bias-corrected synthesis (bias.py) can be tried.
        domains: there are rows of other domains beside the target's.
        retrains: see candidates.baselines.
    """

    variants: int
    generators: tuple[str, ...]
    draws: int
    trials: int
    offset: bool
    cells: bool
    groups_are_classes: bool
    classes: int
    regions: Regions
    seed: int
    theory: tuple[tuple[str, float], ...] = ()
    shares: tuple[float, ...] = (1.0,)
    corrected: bool = False
    # A finished search by the clock keeps its name, and so what it asked for.
    domains: bool = field(default=False, repr=False)
    retrains: bool = field(default=False, repr=False)


def strategy(space: Space) -> Batches:
    """Yields batches; send back {candidate id: balanced loss (infinite when it failed)}.

    First the learner is tuned without synthesis (for each way to take other domains' rows), then every other candidate without
    synthesis is asked for, then the opening synthetic ones, then what a TPE sampler (Bergstra et al. 2011) proposes in fixed
    batches, told in order: what is asked does not depend on which trial ended first.
    """
    plain = {way: [Candidate(variant=v, domains=way) for v in range(space.variants)] for way in (WAYS if space.domains else (POOLED,))}
    losses = yield [candidate for each in plain.values() for candidate in each]
    tuned = {way: min(range(space.variants), key=lambda v: (losses[each[v].id], v)) for way, each in plain.items()}

    def at(candidate: Candidate) -> Candidate:
        return replace(candidate, variant=tuned[candidate.domains])

    of = space.offset, space.cells, space.groups_are_classes, space.classes
    yield list(map(at, baselines(space.draws, *of, tuned[POOLED], space.domains, space.retrains)))
    if not space.generators or not space.trials or (space.regions.gap == 0 and not needs_eta(space.regions)):
        return
    first = openers(list(space.generators), space.draws, space.regions, tuned[POOLED], dict(space.theory), space.domains)
    first = _shared(list(map(at, first)), space.shares)[: space.trials]
    study = _study(space)
    extra = [Candidate("corrected_synthesis", gamma=1.0, variant=tuned[POOLED])] if space.corrected and space.regions.gap else []
    losses = yield first + extra
    _tell(study, space, first, losses)
    asked = len(first)
    while asked < space.trials:
        trials = [study.ask() for _ in range(min(BATCH, space.trials - asked))]
        batch = [at(_propose(trial, space)) for trial in trials]
        losses = yield batch
        for trial, candidate in zip(trials, batch, strict=True):
            _finish(study, trial, losses[candidate.id])
        asked += len(batch)


def _shared(found: list[Candidate], shares: tuple[float, ...]) -> list[Candidate]:
    """The openers at the first share, the first of them at each other share too: near the front, so that few trials do not cut them."""
    first, *others = [replace(c, share=shares[0]) for c in found]
    return [first, *(replace(first, share=share) for share in shares[1:]), *others]


def _study(space: Space) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=seed_of(space.seed, "search") % 2**32, n_startup_trials=0, multivariate=False, constant_liar=True
    )
    return optuna.create_study(sampler=sampler)


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    kinds = optuna.distributions
    found: dict[str, optuna.distributions.BaseDistribution] = {
        "generator": kinds.CategoricalDistribution(space.generators),
        "tilt": kinds.CategoricalDistribution(TILTS),
        "row_weight": kinds.CategoricalDistribution(ROW_WEIGHTS),
        "fits": kinds.CategoricalDistribution(tuple(sorted({1, space.draws}))),
        "extra": kinds.CategoricalDistribution(EXTRAS),
    }
    if len(space.shares) > 1:
        found["share"] = kinds.CategoricalDistribution(space.shares)
    if space.domains:
        found["domains"] = kinds.CategoricalDistribution(BESIDE)
    found |= {f"lean {k}": kinds.CategoricalDistribution(LEANS) for k in range(len(leaning(space.regions)))}
    if needs_eta(space.regions):
        return {**found, "eta": kinds.FloatDistribution(SMALLEST_ETA, LARGEST_ETA, log=True)}
    return {**found, "gamma": kinds.FloatDistribution(SMALLEST_GAMMA, largest_gamma(space.regions), log=True)}


def _propose(trial: optuna.trial.Trial, space: Space) -> Candidate:
    values = {name: trial._suggest(name, kind) for name, kind in _distributions(space).items()}
    for name in ("gamma", "eta"):
        if name in values:
            # Three digits: two proposals that differ by less would be the same rows.
            values[name] = float(f"{values[name]:.3g}")
    lean = tuple(values.pop(name) for name in list(values) if name.startswith("lean "))
    share = values.pop("share", space.shares[0])
    return Candidate("synthetic", lean=lean if any(lean) else (), share=share, **values)


def _params(candidate: Candidate, names: Iterable[str]) -> dict[str, Any]:
    lean = dict(enumerate(candidate.lean))
    return {n: lean.get(int(n[5:]), 0.0) if n.startswith("lean ") else getattr(candidate, n) for n in names}


def _tell(study: optuna.Study, space: Space, batch: list[Candidate], losses: dict[str, float]) -> None:
    kinds = _distributions(space)
    for candidate in batch:
        loss = losses[candidate.id]
        params = _params(candidate, kinds)
        state = optuna.trial.TrialState.COMPLETE if loss < float("inf") else optuna.trial.TrialState.FAIL
        value = loss if state == optuna.trial.TrialState.COMPLETE else None
        study.add_trial(optuna.trial.create_trial(state=state, value=value, params=params, distributions=kinds))


def _finish(study: optuna.Study, trial: optuna.trial.Trial, loss: float) -> None:
    if loss < float("inf"):
        study.tell(trial, loss)
    else:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)

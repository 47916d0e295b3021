"""Learners that break their contract, or have nothing to say, cost one candidate and say which; all on one run's rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Encoder, Needs, Predictor
from codsa_ray.correct import cross_fitted
from codsa_ray.errors import CandidateError
from codsa_ray.learners.logistic import Logistic
from codsa_ray.pipeline import run
from codsa_ray.risk import Classification
from codsa_ray.schema import Schema
from codsa_ray.stages import search
from codsa_ray.trial import run_trial

import runs

SHARES = np.log([[0.25, 0.75]])


def half_a_nan(n: int) -> np.ndarray:
    return np.where(np.arange(n)[:, None] % 2, SHARES, np.nan)


@dataclass(frozen=True)
class Says:
    """Answers n rows with `answer(n)`, whatever it was shown."""

    answer: Callable[[int], Any]

    @property
    def needs(self) -> Needs:
        return Needs()

    def variants(self) -> tuple[Self, ...]:
        return (self,)

    def encoder(self, train: pa.Table, schema: Schema) -> Encoder:
        return Logistic().encoder(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        return Said(self.answer)

    @classmethod
    def tiny(cls) -> Self:
        raise NotImplementedError


@dataclass(frozen=True)
class Said:
    answer: Callable[[int], Any]

    def scores(self, X: np.ndarray) -> Any:
        return self.answer(len(X))


@pytest.fixture(scope="module")
def trial(ray: None, tmp_path_factory: pytest.TempPathFactory) -> search.Trial:
    place, seen = tmp_path_factory.mktemp("bad"), []

    def tries(trial: search.Trial, feed: search.Feed, workers: int) -> None:
        seen.append(trial)
        runs.tries_here(trial, feed, workers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.fit._run", runs.fits_here)
        patch.setattr(search, "_tune", tries)
        data = runs.written(place, runs.patients())
        run(runs.job(data, place / "run", generator=("bootstrap",), trials=1))
    cache = str(place / "cache")
    return replace(seen[0], bench=replace(seen[0].bench, cache=cache, memory={}), folder=seen[0].folder / "again")


def with_learner(bench: Bench, learner: Any) -> Bench:
    """The encoding is the logistic regression's in each case."""
    return replace(bench, learner=learner, memory={**bench.memory, "encoding": "the same"})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (half_a_nan, "scores are not finite"),
        (lambda n: np.full((n, 2), -np.inf), "scores are not finite"),
        (lambda n: np.repeat(SHARES, n, axis=0) + 0.1, "probabilities do not sum to 1"),
        (lambda n: np.repeat(np.exp(SHARES), n, axis=0), "probabilities do not sum to 1"),
        (lambda n: np.zeros((n, 1)), r"wanted scores of shape \(\d+, 2\); got \(\d+, 1\)"),
        (lambda n: np.zeros(n), r"wanted scores of shape \(\d+, 2\); got \(\d+,\)"),
        (lambda n: np.repeat(SHARES, n + 1, axis=0), r"wanted scores of shape \(\d+, 2\); got \(\d+, 2\)"),
    ],
    ids=["nan", "infinite", "sum", "not logs", "columns", "one number", "rows"],
)
def test_scores_that_are_no_log_probabilities_are_refused_by_name(trial: search.Trial, answer: Any, reason: str) -> None:
    for candidate in (Candidate(), Candidate("weights", by="class", strength=1.0)):
        with pytest.raises(CandidateError, match=f"^{candidate.name}: .*{reason}"):
            run_trial(with_learner(trial.bench, Says(answer)), candidate, 0)


def test_what_a_learner_says_of_its_own_failure_carries_the_candidates_name(trial: search.Trial) -> None:
    learner = Logistic(1e-6, steps=1)
    with pytest.raises(CandidateError, match=r"^none: logistic regression did not converge"):
        run_trial(with_learner(trial.bench, learner), Candidate(), 0)


def test_a_constant_learner_is_judged_like_any_other(trial: search.Trial) -> None:
    """Where rows say nothing of the class the same scores for all are the right answer: they cost their log loss, calibrated too."""
    bench = with_learner(trial.bench, Says(lambda n: np.repeat(SHARES, n, axis=0)))
    scores = [run_trial(bench, Candidate(), fold) for fold in trial.folds]
    truth, group = (np.concatenate([getattr(s, name) for s in scores]) for name in ("truth", "group"))
    offset = np.concatenate([s.offset for s in scores])
    folds = np.repeat(trial.folds, [len(s.truth) for s in scores])
    calibrated = cross_fitted(offset, truth, group, np.array([0.5, 0.5]), folds)
    balanced = [Classification(2).losses(calibrated, truth)[group == g].mean() for g in (0, 1)]
    assert np.mean(balanced) == pytest.approx(np.log(2), abs=0.1)


def test_a_fold_that_trains_without_a_class_scores_its_rows_as_improbable(trial: search.Trial) -> None:
    """Every learner gives a class that no training row has next to no chance, so the fold's rows of it cost the worst loss, not NaN."""
    real = trial.bench.training(0)
    kept = real.y == real.y[0]
    alone = replace(real, **{name: getattr(real, name)[kept] for name in ("X", "y", "group", "weight")})
    bench = with_learner(trial.bench, Logistic())
    bench.memory["training", 0, 1.0] = alone
    scores = run_trial(bench, Candidate(), 0)
    losses = Classification(2).losses(scores.raw, scores.truth)
    assert np.isfinite(losses).all()
    assert losses[scores.truth != real.y[0]].min() > 10
    assert losses[scores.truth == real.y[0]].max() < 0.01


def test_a_singular_hessian_costs_the_signed_candidate_alone(trial: search.Trial) -> None:
    """Two equal columns without a penalty: the plain fit has many minima and takes one, Newton's steps have none."""
    bench = with_learner(trial.bench, Logistic(0.0))
    real, held = bench.training(0), bench.held_out(0)
    doubled = {id(rows): replace(rows, X=np.repeat(rows.X[:, :1], 2, axis=1)) for rows in (real, held)}
    bench.memory.update({key: doubled[id(value)] for key, value in bench.memory.items() if id(value) in doubled})
    candidate = Candidate("corrected_synthesis", gamma=1.0)
    with pytest.raises(CandidateError, match=f"^{candidate.name}: wanted a positive definite Hessian"):
        run_trial(bench, candidate, 0)

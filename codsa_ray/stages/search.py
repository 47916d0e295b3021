"""Search: candidates tried by Ray Tune in fixed batches, each trial all folds of one candidate; draws nothing, decides nothing."""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Progress
from codsa_ray.errors import PLUGIN_FAILURES, InternalError
from codsa_ray.folder import Folder
from codsa_ray.outcomes import Table, write_outcome, write_truth
from codsa_ray.stages.strategy import Batches
from codsa_ray.trial import run_trial

VERSION = 1
METRIC = "done"


@dataclass(frozen=True)
class Trial:
    """Everything a trial needs; the same for all trials, so Ray holds it once."""

    bench: Bench
    folder: Folder
    folds: tuple[int, ...]


# One per process and search: encoded folds and pools stay mapped from trial to trial.
_benches: dict[str, Bench] = {}


def run_candidate(trial: Trial, candidate: Candidate) -> None:
    """Trains and scores the candidate on every fold and stores the outcome."""
    bench = _benches.setdefault(f"{trial.folder.address}/{trial.bench.cache}", trial.bench)
    started = time.perf_counter()
    failed, scores = None, {}
    try:
        scores = {fold: run_trial(bench, candidate, fold) for fold in trial.folds}
    except PLUGIN_FAILURES as error:
        failed = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if scores and not failed:
        write_truth(trial.folder, scores)
    write_outcome(trial.folder, candidate, scores, time.perf_counter() - started, failed)


@dataclass
class Feed:
    """Hands candidates to Tune batch by batch; tells the strategy when a whole batch is in, in the order it was asked."""

    batches: Batches
    tell: Callable[[Candidate], float]
    folder: Folder
    progress: Progress
    total: int
    queue: deque[Candidate] = field(default_factory=deque)
    batch: list[Candidate] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    ended: bool = False
    done: int = 0
    best: float = float("inf")

    def following(self) -> Candidate | None:
        """The next candidate to try, or None when a running batch has to end first (or all is done, see `ended`)."""
        while not self.queue and not self.waiting and not self.ended:
            self._advance()
        return self.queue.popleft() if self.queue else None

    def finished(self, identity: str) -> None:
        """A trial of this candidate ended."""
        self.waiting.discard(identity)
        self.done += 1
        self.progress("search", self.done, max(self.total, self.done), f"best {self.best:.4f}" if self.best < float("inf") else "")

    def stop(self) -> None:
        """A trial died for good: nothing further is asked for."""
        self.ended, self.queue = True, deque()

    def _advance(self) -> None:
        try:
            if self.batch:
                told = {candidate.id: self.tell(candidate) for candidate in self.batch}
                self.best = min(self.best, *told.values())
                batch = self.batches.send(told)
            else:
                batch = next(self.batches)
        except StopIteration:
            self.ended = True
            return
        self.batch = batch
        fresh = [c for c in dict.fromkeys(batch) if not self.folder.exists(f"{c.id}.parquet")]
        self.done += len(batch) - len(fresh)
        self.queue.extend(fresh)
        self.waiting = {candidate.id for candidate in fresh}


def search(trial: Trial, batches: Batches, table: Table, workers: int, total: int, progress: Progress) -> Table:
    """Tries every candidate the strategy asks for; outcomes that are stored already are not tried again."""
    feed = Feed(batches, table.add, trial.folder, progress, total)
    first = feed.following()
    if first is None:
        return table
    feed.queue.appendleft(first)
    _tune(trial, feed, workers)
    if not feed.ended:
        raise InternalError("the search stopped before its last batch; run again, finished candidates are kept")
    return table


def try_all(trial: Trial, candidates: list[Candidate], workers: int, progress: Progress) -> None:
    """Tries a fixed list (the final fits that the test rows judge)."""

    def batches() -> Batches:
        yield candidates

    feed = Feed(batches(), lambda _: 0.0, trial.folder, progress, len(candidates))
    first = feed.following()
    if first is not None:
        feed.queue.appendleft(first)
        _tune(trial, feed, workers)


def _tune(trial: Trial, feed: Feed, workers: int) -> None:
    from ray import tune
    from ray.tune.search import Searcher

    class Ask(Searcher):
        """Ray Tune's face of the feed."""

        def __init__(self, feed: Feed | None) -> None:
            super().__init__(metric=METRIC, mode="min")
            self.feed = feed
            self.asked: dict[str, str] = {}

        def __reduce__(self) -> Any:
            # Tune pickles its searcher for a restore of its own; ours is the stored outcomes, so the copy may be empty.
            return Ask, (None,)

        def suggest(self, trial_id: str) -> Any:
            assert self.feed is not None, "a restored searcher is never asked"
            candidate = self.feed.following()
            if candidate is None:
                return Searcher.FINISHED if self.feed.ended else None
            self.asked[trial_id] = candidate.id
            return {"candidate": candidate.to_json()}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            assert self.feed is not None
            if error:
                self.feed.stop()
            else:
                self.feed.finished(self.asked[trial_id])

        def save(self, checkpoint_path: str) -> None:
            """The journal is the outcomes themselves."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing to restore."""

    with tempfile.TemporaryDirectory() as place:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, trial=trial), {"cpu": trial.bench.learner.needs.cpus * 0.9}),
            tune_config=tune.TuneConfig(
                search_alg=Ask(feed), num_samples=-1, max_concurrent_trials=workers, reuse_actors=True, metric=METRIC, mode="min"
            ),
            run_config=tune.RunConfig(storage_path=place, name="search", verbose=0, failure_config=tune.FailureConfig(max_failures=2)),
        )
        # Tune prints a line a trial whatever its verbosity; the progress says it better.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            results = tuner.fit()
        if results.num_errors:
            last = str(results.errors[0]).strip().splitlines()[-1]
            raise InternalError(f"{results.num_errors} trials died: {last}; run again, finished ones are kept")


def _trainable(config: dict[str, Any], trial: Trial) -> None:
    from ray import tune

    run_candidate(trial, Candidate(**config["candidate"]))
    tune.report({METRIC: 0.0})

"""Search: candidates tried by Ray Tune in fixed batches, each trial all folds of one candidate; draws nothing, decides nothing."""

import math
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any

from codsa_ray.bench import Bench
from codsa_ray.blame import why
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Needs, Progress
from codsa_ray.errors import PLUGIN_FAILURES, InternalError, OutOfTime
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import until
from codsa_ray.outcomes import Outcome, Pruned, Table, outcome_of, read_outcome, write_outcome, write_truth
from codsa_ray.pruning import Reference, hopeless, prunable, scored
from codsa_ray.stages.cluster import plain_error, room
from codsa_ray.stages.strategy import Batches
from codsa_ray.trial import Scores, run_trial

VERSION = 3
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
LONGEST_REST, LOOK = 10.0, 0.1  # seconds; the first bounds how long a worker waits for a trial that died


@dataclass(frozen=True)
class Trial:
    """Everything a trial needs; the same for all trials, so Ray holds it once.

    Args:
        table: how losses are judged, for trials that may stop after some folds; None lets none stop.
    """

    bench: Bench
    folder: Folder
    folds: tuple[int, ...]
    table: Table | None = None


@dataclass(frozen=True)
class Limit:
    """A search that ends by the clock; what it asked for is kept under the name, so that a finished one asks for the same again."""

    seconds: float
    name: str


# One per process and search: encoded folds and pools stay mapped from trial to trial.
_benches: dict[str, Bench] = {}


def run_candidate(trial: Trial, candidate: Candidate, reference: Reference | None = None) -> None:
    """Trains and scores the candidate fold by fold and stores the outcome; a reference lets it stop where it is hopeless."""
    bench = _benches.setdefault(f"{trial.folder.address}/{trial.bench.cache}", trial.bench)
    started = time.perf_counter()
    scores: dict[int, Scores] = {}
    failed, pruned = None, None
    try:
        for fold in trial.folds:
            scores[fold] = run_trial(bench, candidate, fold)
            if reference and prunable(candidate) and len(scores) < len(trial.folds):
                pruned = _pruned(trial, bench, outcome_of(candidate, scores, 0.0), reference, list(scores))
            if pruned:
                break
    except PLUGIN_FAILURES as error:
        failed = why(error)
    outcome = outcome_of(candidate, scores, time.perf_counter() - started, failed, pruned)
    if not outcome.left_out:
        write_truth(trial.folder, scores)
    write_outcome(trial.folder, outcome)


def _pruned(trial: Trial, bench: Bench, outcome: Outcome, reference: Reference, folds: list[int]) -> Pruned | None:
    if trial.table is None:
        return None
    held, stored = bench.memory.get("reference", ("", {}))
    if held != reference.candidate.id:
        stored = {}
        bench.memory["reference"] = reference.candidate.id, stored
    if len(folds) not in stored:
        stored[len(folds)] = scored(trial.table, reference, folds)
    return hopeless(trial.table, outcome, reference, *stored[len(folds)])


@dataclass
class Feed:
    """Hands candidates to Tune batch by batch; tells the strategy when a whole batch is in, in the order it was asked.

    Args:
        until: when (by time.perf_counter) it stops handing out synthetic candidates.
        reference: what candidates of this batch are held against: the best told before it, once one with synthesis was told, so that
            each generator's first ones are always scored whole.
        told: every batch that was told.
        up: what ended the run's time while trials ran.
    """

    batches: Batches
    tell: Callable[[Candidate], float]
    folder: Folder
    progress: Progress
    total: int
    until: float = math.inf
    reference: Reference | None = None
    told: list[list[Candidate]] = field(default_factory=list)
    queue: deque[Candidate] = field(default_factory=deque)
    batch: list[Candidate] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    ended: bool = False
    late: bool = False
    done: int = 0
    best: Reference | None = None
    up: OutOfTime | None = None

    def following(self) -> Candidate | None:
        """The next candidate to try, or None when a running batch has to end first (or all is done, see `ended`)."""
        self._look_at_the_clock()
        while not self.queue and not self.waiting and not self.ended:
            self._advance()
            self._look_at_the_clock()
        return self.queue.popleft() if self.queue else None

    def finished(self, identity: str) -> None:
        """A trial of this candidate ended."""
        self.waiting.discard(identity)
        self.done += 1
        self.tell_progress()

    def over(self) -> bool:
        """Whether the run's time is: what is under way then is given up."""
        if self.up is None and time.perf_counter() > until(self.progress):
            self.tell_progress()
        return self.up is not None and time.perf_counter() > until(self.progress)

    def tell_progress(self) -> None:
        """Says how far it is; what ends the run's time stops it."""
        try:
            self.progress("search", self.done, max(self.total, self.done), f"best {self.best.loss:.4f}" if self.best else "")
        except OutOfTime as up:
            # Raised from inside Tune it would lose its type.
            self.up = up
            self.stop()

    def stop(self) -> None:
        """A trial died for good: nothing further is asked for."""
        self.ended, self.queue = True, deque()

    def _look_at_the_clock(self) -> None:
        """Time up: what is running ends, what was not handed out is not asked for after all."""
        if time.perf_counter() > self.until and any(map(prunable, self.batch)):
            self.late = True
            dropped = {candidate.id for candidate in self.queue}
            self.batch = [candidate for candidate in self.batch if candidate.id not in dropped]
            self.waiting -= dropped
            self.queue.clear()

    def _advance(self) -> None:
        told = self._tell() if self.batch else None
        try:
            # A strategy that was cut short waits for losses that there will never be.
            batch = None if self.late else self.batches.send(told) if told else next(self.batches)
        except StopIteration:
            batch = None
        if batch is None:
            self.ended = True
            return
        self.batch = batch
        fresh = [c for c in dict.fromkeys(batch) if not self._kept(c)]
        self.done += len(batch) - len(fresh)
        self.queue.extend(fresh)
        self.waiting = {candidate.id for candidate in fresh}

    def _tell(self) -> dict[str, float]:
        losses = {candidate.id: self.tell(candidate) for candidate in self.batch}
        self.told.append(self.batch)
        for candidate in self.batch:
            if losses[candidate.id] < (self.best.loss if self.best else math.inf):
                self.best = Reference(candidate, losses[candidate.id])
        if self.reference or any(prunable(c) and losses[c.id] < math.inf for c in self.batch):
            self.reference = self.best
        return losses

    def _kept(self, candidate: Candidate) -> bool:
        """Stored by an earlier run, and not given up against anything but this batch's reference."""
        if not prunable(candidate) or (stored := read_outcome(self.folder, candidate)) is None:
            return self.folder.exists(f"{candidate.id}.parquet")
        return stored.pruned is None or (self.reference is not None and stored.pruned.reference == self.reference.candidate.id)


def search(trial: Trial, batches: Batches, table: Table, workers: int, total: int, progress: Progress, limit: Limit | None = None) -> Table:
    """Tries every candidate the strategy asks for; outcomes that are stored already are not tried again.

    Raises:
        InternalError: a trial died more than twice. ClusterError: this machine lacks what the learner needs.
    """
    feed = Feed(batches, table.add, trial.folder, progress, total)
    if limit and trial.folder.exists(limit.name):
        feed.batches = _again(trial.folder.read_json(limit.name))
    elif limit:
        feed.until = time.perf_counter() + limit.seconds
    first = feed.following()
    if first is not None:
        needs = trial.bench.learner.needs
        room("search", progress, num_cpus=needs.cpus * 0.9, num_gpus=needs.gpus, memory=needs.memory, accelerator_type=needs.accelerator)
        feed.queue.appendleft(first)
        _tune(replace(trial, table=Table(table.folder, table.task, table.classes, table.mix, table.loss)), feed, workers)
    if not feed.ended:
        raise InternalError("the search stopped before its last batch; run again, finished candidates are kept")
    if limit:
        trial.folder.write_json(limit.name, [[candidate.to_json() for candidate in batch] for batch in feed.told])
    return table


def _again(told: list[list[dict[str, Any]]]) -> Batches:
    for batch in told:
        yield [Candidate(**value) for value in batch]


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
    from ray.tune.execution import class_cache

    from codsa_ray.stages.faces import METRIC, Ask, Hours

    # Tune would hand these to every trial in a runtime environment, which Ray's agents log in clear; every node has its own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(SECRETS)
    with tempfile.TemporaryDirectory() as place:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, trial=trial), _resources(trial.bench.learner.needs)),
            tune_config=tune.TuneConfig(
                search_alg=Ask(feed), num_samples=-1, max_concurrent_trials=workers, reuse_actors=True, metric=METRIC, mode="min"
            ),
            run_config=tune.RunConfig(
                storage_path=place, name="search", verbose=0, failure_config=tune.FailureConfig(max_failures=2), stop=Hours(feed)
            ),
        )
        # Tune prints a line a trial whatever its verbosity; the progress says it better.
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            results = tuner.fit()
        if feed.up is not None:
            raise feed.up
        if results.num_errors:
            cause = plain_error(results.errors[0])
            if not isinstance(cause, InternalError):
                raise cause
            last = str(results.errors[0]).strip().splitlines()[-1]
            raise InternalError(f"{results.num_errors} trials died: {last}; run again, finished ones are kept")


def _resources(needs: Needs) -> dict[str, float]:
    """Of one trial, as Ray names them: what an autoscaler brings nodes for."""
    found = {"cpu": needs.cpus * 0.9, "gpu": needs.gpus, "memory": float(needs.memory)}
    if needs.accelerator:
        # A sliver of the mark that nodes with such a device bear.
        found[f"accelerator_type:{needs.accelerator}"] = 0.001
    return {name: amount for name, amount in found.items() if amount}


def _trainable(config: dict[str, Any], trial: Trial) -> None:
    from ray import tune

    from codsa_ray.stages.faces import METRIC

    if "rest" in config:
        _rest(trial.folder, config["rest"])
        tune.report({METRIC: 0.0})
        return
    reference = Reference.from_json(config["reference"]) if config["reference"] else None
    run_candidate(trial, Candidate(**config["candidate"]), reference)
    tune.report({METRIC: 0.0})


def _rest(folder: Folder, waiting: list[str]) -> None:
    """Waits for the end of the batch: Tune ends workers that have nothing to do, and a new one takes seconds to come up."""
    until = time.perf_counter() + LONGEST_REST
    time.sleep(LOOK)
    while time.perf_counter() < until and not all(folder.exists(f"{identity}.parquet") for identity in waiting):
        time.sleep(LOOK)

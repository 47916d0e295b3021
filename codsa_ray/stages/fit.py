"""Fit: every generator on every fold and on all training rows, side by side as Ray tasks or spread by Ray Train; knows no method."""

import os
from collections.abc import Callable
from collections.abc import Generator as Generated
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from math import inf
from time import perf_counter, time
from typing import Any

import numpy as np

from codsa_ray.blame import why
from codsa_ray.contracts import FittedGenerator, Generator, Progress
from codsa_ray.errors import PLUGIN_FAILURES, DamagedError, InternalError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import until
from codsa_ray.job import Job, plain
from codsa_ray.manifest import MANIFEST, Manifest
from codsa_ray.partition import Partition
from codsa_ray.plugins import as_fitted, identity, name_of
from codsa_ray.record import Record, check_recorded, records_of
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import fingerprint
from codsa_ray.stages.cluster import BEFORE_IMPORT, RETRIES, plain_error, resources, room
from codsa_ray.stages.source import Related, source_identity

VERSION = 1
CHECKPOINT = "checkpoint"
SPREAD_ROWS = 20_000
"""Of a fold. Fits on fewer take one GPU each, side by side: a trainer needs 6 seconds to start."""
CURRENT = "current.json"
LEAST_WAIT = 0.1  # seconds
LATE = 900.0
"""Seconds that trainers are waited for when time is up: they stop at a checkpoint, which comes every ten minutes at the latest."""


@dataclass
class LocalWorker:
    """The only worker of a fit; checkpoints lie beside the result, so that a killed fit goes on."""

    folder: Folder
    device: str = "cpu"
    rank: int = 0
    world: int = 1

    def prepare(self, module: Any, make_optimizer: Any) -> tuple[Any, Any]:
        """Moves the module to the device."""
        module = module.to(self.device)
        return module, make_optimizer(module.parameters())

    def save(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Overwrites the checkpoint: arrays first, then the mark that makes them count."""
        name = f"{step:09d}"
        place = self.folder / CHECKPOINT
        before = place.read_json("last.json")["name"] if place.exists("last.json") else None
        place.write_arrays(f"{name}.safetensors", arrays)
        place.write_json("last.json", {"name": name, "step": step, "meta": meta})
        if before not in (None, name):
            place.delete(f"{before}.safetensors")

    def resume(self) -> tuple[int, dict[str, np.ndarray], dict[str, Any]] | None:
        """The newest whole checkpoint."""
        place = self.folder / CHECKPOINT
        if not place.exists("last.json"):
            return None
        last = place.read_json("last.json")
        return last["step"], place.read_arrays(f"{last['name']}.safetensors"), last["meta"]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """One worker waits for nobody."""


@dataclass(frozen=True)
class FitJob:
    """One generator on one fold, or on a share of its training rows; the fit is that of every generator which draws from it otherwise.

    Args:
        fit: identity of the fitted folder, the fingerprint of all that the fit depends on: part of every pool's key.
    """

    generator: Generator
    fold: int
    folder: Folder
    fit: str
    share: float = 1.0

    @property
    def manifest(self) -> Manifest:
        """Its completion mark."""
        return Manifest(self.folder, self.fit)

    @property
    def name(self) -> str:
        """Where it lies in the run's `fit` folder."""
        return "/".join(self.folder.address.split("/")[-2:])

    def written(self) -> dict[str, Any]:
        """What its files are now: for its mark."""
        return {name: record.to_json() for name, record in records_of(self.folder).items() if name != MANIFEST}

    @property
    def kept(self) -> bool:
        """Finished, with files of the sizes that were written; their bytes are compared on loading."""
        stored = self.manifest.read()
        if stored is None:
            return False
        records, sizes = _records(stored), self.folder.all_sizes() if "files" in stored else {}
        return all(sizes.get(name) == record.size for name, record in records.items())

    def load(self) -> FittedGenerator:
        """The fitted generator, of files that are as they were written.

        Raises:
            DamagedError: one is not; the completion mark was taken away, so that a run which goes on fits it again.
        """
        stored = self.manifest.read()
        if stored is None:
            raise DamagedError(f"fit {self.name}: wanted a finished one; got one without its mark; run again, it is made anew")
        try:
            check_recorded(self.folder, _records(stored))
        except DamagedError:
            self.manifest.clear()
            raise
        return self.generator.load(self.folder)


def _records(stored: dict[str, Any]) -> dict[str, Record]:
    """Of a fit's files; none for one of an earlier version, which is taken as it lies there."""
    return {name: Record(**value) for name, value in stored.get("files", {}).items()}


@dataclass(frozen=True)
class Fitted:
    """What the stage leaves: finished fits, and generators that could not be fitted with the reason."""

    jobs: tuple[FitJob, ...]
    failed: dict[str, str]

    def of(self, generator: str, fold: int, share: float = 1.0) -> FitJob:
        """The fit of a generator (by identity) on a share of a fold's training rows."""
        return next(job for job in self.jobs if (identity(job.generator), job.fold, job.share) == (generator, fold, share))

    @property
    def notices(self) -> list[str]:
        """What the final fits have to say, with the generator's name."""
        finals = [(fit, fit.manifest.read() or {}) for fit in self.jobs if fit.fold == FINAL]
        return [f"{name_of(fit.generator)}: {notice}" for fit, stored in finals for notice in stored.get("notices", ())]

    @property
    def generators(self) -> list[str]:
        """Identities of the generators that fitted everywhere, in the order they were asked for."""
        return [g for g in dict.fromkeys(identity(job.generator) for job in self.jobs) if g not in self.failed]


def fit_jobs(job: Job, rows: Rows, partitions: dict[int, Partition], out: Folder, read_mark: str) -> list[FitJob]:
    """Generators x shares x (folds + final)."""
    found, source = [], source_identity(job)
    for generator, share in product(job.generator, job.share):
        assert not isinstance(generator, str), "call Job.made() first"
        learned = as_fitted(generator)
        for fold in [*range(rows.folds), FINAL]:
            depends = {
                "version": VERSION,
                "rows": read_mark,
                "fold": fold,
                "generator": plain(learned),
                "strata": plain(job.strata),
                "regions": partitions[fold].regions.to_json(),
                "source": source,
                **({"share": share} if share < 1 else {}),
            }
            fit = fingerprint(depends)
            name = f"{identity(learned)}/{'final' if fold == FINAL else fold}-{fit[:8]}"
            found.append(FitJob(generator, fold, out / "fit" / name, fit, share))
    return found


def run_fit(fit: FitJob, data: FitData, device: str) -> str | None:
    """Fits in this process; returns why it could not, or None.

    Raises:
        MachineError: the machine failed; the checkpoints are kept.
    """
    manifest = fit.manifest
    try:
        as_fitted(fit.generator).fit(data, LocalWorker(fit.folder.make(), device))
        notices = list(getattr(fit.generator.load(fit.folder), "notice", ()))
    except PLUGIN_FAILURES as error:
        return why(error)
    fit.folder.delete(CHECKPOINT)
    manifest.write(rows=int(data.regions.counts.sum()), notices=notices, files=fit.written())
    return None


def fit_all(
    job: Job, rows: Rows, partitions: dict[int, Partition], jobs: list[FitJob], source: Related | None, progress: Progress
) -> Fitted:
    """Fits what is not fitted yet.

    Raises:
        ClusterError: this machine lacks what a fit needs.
    """
    waiting = list({fit.fit: fit for fit in jobs if not fit.kept}.values())
    for fit in waiting:
        fit.manifest.clear()
    reasons: dict[str, str | None] = {}
    many = len({fit.fit for fit in jobs})
    done = many - len(waiting)
    if waiting:
        for asked in {repr(asked): asked for fit in waiting for asked in [_asked(job, fit, partitions[fit.fold])]}.values():
            room("fit", progress, **asked)
        progress("fit", done, many, "begun")
    with closing(_run(job, rows, partitions, waiting, source, until(progress))) as running:
        for ended in running:
            if ended is None:
                progress("fit", done, many, "time is up")
                continue
            fit, reason = ended
            done += 1
            part = f" share {fit.share:g}" if fit.share < 1 else ""
            progress("fit", done, many, f"{name_of(fit.generator)} {'final' if fit.fold == FINAL else f'fold {fit.fold}'}{part}")
            reasons[fit.fit] = reason
    # In the order of the jobs, not of their ends: the same run names the same reason.
    failed: dict[str, str] = {}
    for fit in jobs:
        if reason := reasons.get(fit.fit):
            failed.setdefault(identity(fit.generator), reason)
    # Of several shares the largest: what is drawn on request needs no rows left to a learner.
    finals = [fit for fit in sorted(jobs, key=lambda fit: fit.share) if fit.fold == FINAL]
    final = {identity(fit.generator): fit for fit in finals if identity(fit.generator) not in failed}
    (Folder(job.out).absolute / "fit").write_json(CURRENT, {name: fit.name for name, fit in final.items()})
    return Fitted(tuple(jobs), failed)


def _run(
    job: Job, rows: Rows, partitions: dict[int, Partition], waiting: list[FitJob], source: Related | None, end: float
) -> Generated[tuple[FitJob, str | None] | None, None, None]:
    """Each fit with what came of it; None when it is later than `end`. Closed early, it ends what is under way: checkpoints are kept."""
    import ray

    if not waiting:
        return
    shared = ray.put((rows, partitions, source))
    large = {fit.fit for fit in waiting if spread_out(job, fit, partitions[fit.fold])}
    small = [fit for fit in waiting if fit.fit not in large]
    # As many as there are workers: a fit uses one core, and more of them would only hold memory.
    yield from _side_by_side(small, lambda: job.workers, lambda fit: _task(fit).remote(fit, shared), end)
    spread = [fit for fit in waiting if fit.fit in large]
    # A moment by the wall clock, which machines share: a trainer that begins again after its node died has what is left.
    over = time() + end - perf_counter()
    yield from _side_by_side(spread, lambda: trainers(job), lambda fit: _trainer().remote(fit, shared, job, over), end, LATE)


def _side_by_side(
    waiting: list[FitJob], most: Callable[[], int], begin: Callable[[FitJob], Any], end: float, late: float = 0.0
) -> Generated[tuple[FitJob, str | None] | None, None, None]:
    """See `_run`.

    Args:
        most: how many at a time; asked again each time that one has ended, for clusters grow.
        begin: gives out one.
        late: seconds that they are waited for after `end`, by when each should have stopped by itself.
    """
    import ray

    refs: dict[Any, FitJob] = {}
    try:
        while refs or waiting:
            while waiting and len(refs) < most():
                fit, *waiting = waiting
                refs[begin(fit)] = fit
            ready, _ = ray.wait(list(refs), num_returns=1, timeout=max(end + late - perf_counter(), LEAST_WAIT) if end < inf else None)
            if not ready:
                yield None
                continue
            fit = refs.pop(ready[0])
            yield fit, _got(ready[0], fit)
    finally:
        left = max(end + late - perf_counter(), 0) if perf_counter() >= end else 0
        # Ray ends this process where it is to cancel what has just ended.
        for ref in ray.wait(list(refs), num_returns=len(refs), timeout=left)[1] if refs else ():
            ray.cancel(ref, force=True)


def _got(ref: Any, fit: FitJob) -> str | None:
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise plain_error(error) from error
    except ray.exceptions.OutOfMemoryError as error:
        raise InternalError(
            f"fit {fit.name} was ended again and again because its node ran low on memory; give fewer --workers or larger nodes and run "
            "again, finished fits are kept"
        ) from error
    except ray.exceptions.RayError as error:
        raise InternalError(
            f"a worker died {1 + RETRIES} times of fit {fit.name}; run again when mended, finished fits are kept"
        ) from error


def spread_out(job: Job, fit: FitJob, part: Partition) -> bool:
    """Whether it is worth a trainer's start-up: what can use several GPUs on many rows, and what one GPU could not hold.

    By the rows and not by what else is waiting: else a run that goes on would fit otherwise than one that was not disturbed.
    """
    needs = fit.generator.needs
    large = needs.sharded or int(part.regions.counts.sum()) >= SPREAD_ROWS
    return needs.distributed and job.gpus > 1 and large


def _asked(job: Job, fit: FitJob, part: Partition) -> dict[str, Any]:
    """Of one node; a spread fit takes a GPU each of several, or all of them of this machine."""
    if not spread_out(job, fit, part):
        return _resources(fit)
    return {"num_gpus": 1 if job.address else job.least_gpus or int(job.gpus)}


def trainers(job: Job) -> int:
    """Spread fits at a time: as many as the cluster's GPUs are enough for now, each with all of `job.gpus`."""
    return max(1, int(resources().get("GPU", 0) // max(1, int(job.gpus))))


def _trainer() -> Any:
    import ray

    # Ray Train wants the main thread of a process: each trainer has one of its own, which takes no core.
    return ray.remote(num_cpus=0, max_retries=RETRIES, runtime_env={"env_vars": BEFORE_IMPORT})(_train_task)


def _train_task(fit: FitJob, shared: tuple[Rows, dict[int, Partition], Related | None], job: Job, over: float) -> str | None:
    from codsa_ray.stages.train import train_fit

    rows, partitions, source = shared
    return train_fit(fit, rows, partitions[fit.fold].of_generator(fit.share), source, job, end=over)


def _task(fit: FitJob) -> Any:
    import ray

    return ray.remote(**_resources(fit), max_retries=RETRIES, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})(_fit_task)


def _resources(fit: FitJob) -> dict[str, Any]:
    needs = fit.generator.needs
    options: dict[str, Any] = {"num_cpus": needs.cpus}
    if needs.gpus:
        options["num_gpus"] = needs.gpus
    if needs.memory:
        options["memory"] = needs.memory
    if needs.accelerator:
        options["accelerator_type"] = needs.accelerator
    return options


def _fit_task(fit: FitJob, shared: tuple[Rows, dict[int, Partition], Related | None]) -> str | None:
    import torch

    # One thread each: fits run side by side, and a sum's order must not depend on how many cores a machine has.
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    rows, partitions, source = shared
    part = partitions[fit.fold].of_generator(fit.share)
    data = rows.training(fit.fold, part.regions, part.rule, source.data(fit.fold, part) if source else None, part.side)
    return run_fit(fit, data, "cuda" if fit.generator.needs.gpus and torch.cuda.is_available() else "cpu")

"""Again: candidates still in the running scored on further cuts of the same rows; decides nothing and reads no test row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import Progress
from codsa_ray.errors import InternalError
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.outcomes import Table
from codsa_ray.partition import partition
from codsa_ray.plugins import identity
from codsa_ray.pools import pool_of
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages.fit import fit_all, fit_jobs
from codsa_ray.stages.recut import cut_again
from codsa_ray.stages.search import Trial, try_all
from codsa_ray.stages.source import source_of
from codsa_ray.stages.synthesize import synthesize


def scored_again(
    job: Job, first: Bench, table: Table, candidates: Sequence[Candidate], repeats: int, out: Folder, mark: str, progress: Progress
) -> list[Table]:
    """Scores of the candidates on the second and every further cut; each cut has its own fits and pools, drawn no further than needed.

    Args:
        job: settled.
        first: the first cut's bench; its cache is used on.
        table: the first cut's scores.
        candidates: alive in the first cut.
        repeats: cuts in all, the first among them.
        out: the run folder; what is made lies in its `again` folder.
        mark: fingerprint of the read stage.

    Raises:
        InternalError: a generator that could be fitted on the first cut cannot on this one.
    """
    found = []
    for repeat in range(1, repeats):
        rows, recut = cut_again(first.rows, repeat, mark, progress)
        place = out / "again" / str(repeat)
        bench = _bench(replace(job, out=place.address), first, rows, candidates, place, recut, progress)
        folder = place / "search" / table.folder.address.rsplit("/", 1)[-1]
        try_all(Trial(bench, folder, tuple(range(rows.folds))), list(candidates), job.workers, progress)
        scored = Table(folder, table.task, table.classes, table.mix, table.loss)
        for candidate in candidates:
            scored.add(candidate)
        found.append(scored)
    return found


def _bench(job: Job, first: Bench, rows: Rows, candidates: Sequence[Candidate], place: Folder, mark: str, progress: Progress) -> Bench:
    """Fits and draws what the candidates need of this cut."""
    strata: Any = job.strata
    partitions = {fold: partition(rows, strata, fold, job.share, first.allocator) for fold in range(rows.folds)}
    partitions[FINAL] = first.partitions[FINAL]
    needed = {(c.generator, c.share) for c in candidates if c.kind == "synthetic"}
    fits = [
        fit for fit in fit_jobs(job, rows, partitions, place, mark) if fit.fold != FINAL and (identity(fit.generator), fit.share) in needed
    ]
    failed = fit_all(job, rows, partitions, fits, source_of(job, rows), progress).failed
    if failed:
        raise InternalError(f"{next(iter(failed.values()))} on another cut of the rows; give --repeats 1")
    bench = Bench(rows, partitions, {}, first.learner, first.allocator, first.cache, first.cap)
    pools: Any = {}
    for fit in fits:
        mine = [c for c in candidates if (c.generator, c.share) == (identity(fit.generator), fit.share)]
        plans = [c.plan(bench.regions(fit.fold, c.share), bench.allocator) for c in mine]
        for draw in range(max(plan.draws for plan in plans)):
            counts = np.max([plan.counts for plan in plans if plan.draws > draw and plan.size], axis=0)
            pool = pool_of(place / "pools", fit.generator, fit.fit, fit.fold, draw, job.seed, counts, fit.share)
            pools[identity(fit.generator), fit.fold, draw, fit.share] = pool, fit
    short = synthesize(rows, partitions, list(pools.values()), job.workers, job.gpus, progress).short
    if short:
        raise InternalError(f"{next(iter(short.values()))} on another cut of the rows; give --repeats 1")
    return replace(bench, pools={key: pool for key, (pool, _) in pools.items()})

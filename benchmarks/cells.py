"""One cell of `make bench-decisions`: every candidate's out-of-fold and test losses on one table, split and learner; judges nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from benchmarks.measured import Measured
from benchmarks.tables import Case
from codsa_ray import Job
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.contracts import silent
from codsa_ray.folder import Folder
from codsa_ray.judge import compared, test_scores
from codsa_ray.outcomes import Table, losses, read_outcome, read_truth
from codsa_ray.partition import partition
from codsa_ray.plugins import identity
from codsa_ray.pools import ceiling, pool_of, sized
from codsa_ray.rows import FINAL
from codsa_ray.stages.fit import fit_jobs, run_fit
from codsa_ray.stages.read import read
from codsa_ray.stages.search import Trial, run_candidate
from codsa_ray.stages.strategy import Space, strategy
from codsa_ray.stages.synthesize import MakeDrawer, ShardTask

GENERATORS = ("sequential_trees", "interpolation")
DRAWS = 3
TRIALS = 10
GRID = (0.5, 1.0, 1.5, 2.0)  # of full balance, by GRID_BY: what VTSS chooses from as published, beside 0
GRID_BY = "interpolation"


@dataclass(frozen=True)
class Cell:
    """What is measured, and under which name it is kept."""

    case: Case
    split: int
    learner: str
    most: int

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.case.name.replace(' ', '_').replace(',', '')}-{self.learner}-{self.split}-{self.most}"


def measure(cell: Cell) -> Measured:
    """Fits, draws and scores everything in this process."""
    place = tempfile.mkdtemp(prefix="cell-")
    try:
        return _measure(cell, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measure(cell: Cell, place: str) -> Measured:
    train, test = cell.case.split(cell.split, cell.most)
    train.to_parquet(f"{place}/train.parquet", index=False)
    test.to_parquet(f"{place}/test.parquet", index=False)
    given = {"generator": GENERATORS, "learner": cell.learner, "draws": DRAWS, "trials": TRIALS, "seed": cell.split, **cell.case.options}
    job = Job(f"{place}/train.parquet", cell.case.target, test=f"{place}/test.parquet", out=f"{place}/run", workers=1, **given).made()
    bench = prepared(job, place)
    table = searched(job, bench, place)
    return scored(job, bench, table, place)


def prepared(job: Job, place: str) -> Bench:
    """Rows read, generators fitted, pools drawn, the final ones too."""
    out = Folder(job.out).absolute
    rows, facts = read(job, out, silent)
    strata: Any = job.strata
    partitions = {fold: partition(rows, strata, fold) for fold in [*range(rows.folds), FINAL]}
    allocator: Any = job.allocator
    job = replace(job, generator=tuple(sized(g, partitions[FINAL].regions, allocator, 0) for g in job.generator))  # type: ignore[arg-type]
    pools = []
    for fit in fit_jobs(job, rows, partitions, out, facts["fingerprint"]):
        part = partitions[fit.fold]
        failed = run_fit(fit, rows.training(fit.fold, part.regions, part.rule), "cpu")
        if failed:
            raise SystemExit(f"{fit.name}: {failed}")
        counts = ceiling(part.regions, allocator)
        name = identity(fit.generator)
        for draw in range(DRAWS):
            pool = pool_of(out / "pools", fit.generator, fit.fit, fit.fold, draw, job.seed, counts)
            pools.append(((name, fit.fold, draw, fit.share), pool, fit))
    drawer = MakeDrawer(rows, partitions)()
    for _, pool, fit in pools:
        pool.record({shard.name: drawer(ShardTask(shard, fit, pool.folder))["record"] for shard in pool.shards})
    return Bench(rows, partitions, {key: pool for key, pool, _ in pools}, job.learner, job.allocator, f"{place}/cache")  # type: ignore[arg-type]


def searched(job: Job, bench: Bench, place: str) -> Table:
    """Out-of-fold scores of every candidate that the run itself would open with."""
    learner, rows = bench.learner, bench.rows
    space = Space(
        variants=len(learner.variants()),
        generators=tuple(dict.fromkeys(key[0] for key in bench.pools)),
        draws=DRAWS,
        trials=TRIALS,
        offset=learner.needs.offset,
        cells=len(bench.coarse(FINAL)[0].items) < len(rows.groups.items),
        groups_are_classes=len(rows.groups.items) == bench.classes,
        classes=bench.classes,
        regions=bench.partitions[FINAL].regions,
        seed=job.seed,
    )
    folder = Folder(f"{place}/search")
    table = Table(folder, job.task, bench.classes, np.array(rows.groups.mix))
    variant = 0
    for batch, told in _batches(space):
        for candidate in batch:
            run_candidate(Trial(bench, folder, tuple(range(rows.folds))), candidate)
            told[candidate.id] = table.add(candidate)
            variant = candidate.variant
    by = next(name for name in space.generators if name.startswith(GRID_BY))
    for gamma in GRID:
        candidate = Candidate("synthetic", generator=by, gamma=gamma, variant=variant)
        run_candidate(Trial(bench, folder, tuple(range(rows.folds))), candidate)
        table.add(candidate)
    return table


def _batches(space: Space) -> Iterator[tuple[list[Candidate], dict[str, float]]]:
    asked = strategy(space)
    batch = next(asked)
    while True:
        told: dict[str, float] = {}
        yield batch, told
        try:
            batch = asked.send(told)
        except StopIteration:
            return


def scored(job: Job, bench: Bench, table: Table, place: str) -> Measured:
    """Test losses of every candidate, fitted again on all training rows."""
    folder, tuned = Folder(f"{place}/judge"), table.tuned(len(bench.learner.variants()))
    pairs = compared(table.outcomes, job.task, tuned)
    # As published methods have it: uncorrected. Rules of others choose among these, ours never.
    pairs += [(o.candidate, "raw") for o in table.outcomes.values() if o.candidate.kind == "synthetic" and not o.failed]
    for candidate in dict.fromkeys(c for c, _ in pairs):
        run_candidate(Trial(bench, folder, (FINAL,)), candidate)
    truth, kept, columns = read_truth(folder), [], []
    for candidate, form in pairs:
        final = read_outcome(folder, candidate)
        if final is None or final.failed or table.truth is None:
            continue
        scores = test_scores(table.outcomes[candidate.id], final, form, table.truth, job.task, table.mix)
        columns.append(losses({form: scores}, truth, job.task, bench.classes)[form])
        kept.append((candidate, form))
    assert table.truth is not None
    regions = bench.partitions[FINAL].regions
    entries = tuple(
        {"candidate": asdict(c), "name": c.name, "form": form, "level": c.level(form), "size": c.plan(regions, bench.allocator).size}
        for c, form in kept
    )
    failed = {o.candidate.name: o.failed for o in table.outcomes.values() if o.failed}
    facts = {"train": int(regions.counts.sum()), "smallest": int(regions.group_counts[regions.group_counts > 0].min()), "failed": failed}
    stacked = np.stack([table.losses[c.id, form] for c, form in kept], axis=1).astype(np.float32)
    return Measured(stacked, table.truth.group, table.mix, np.stack(columns, axis=1).astype(np.float32), truth.group, entries, facts)

"""Dry run: what a run would do and cost, from small fits; leaves nothing behind."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.apart import check_apart
from codsa_ray.candidates import Candidate, baselines, openers
from codsa_ray.contracts import Progress
from codsa_ray.draw import draw_block
from codsa_ray.errors import PLUGIN_FAILURES
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.manifest import rehearsal
from codsa_ray.partition import Partition
from codsa_ray.plugins import identity, name_of
from codsa_ray.pools import ceiling
from codsa_ray.rows import FINAL, Rows

SAMPLE_ROWS = 4_000


@dataclass(frozen=True)
class Calibration:
    """Seconds measured on a sample of at most SAMPLE_ROWS rows.

    Args:
        learner: seconds per thousand rows of one fit.
        fit: seconds of one generator fit per thousand rows, by generator name (an upper bound where steps are fixed).
        draw: rows per second, by generator name.
        out: why a generator could not be fitted, by its name.
        bytes: per synthetic row, in memory.
    """

    learner: float
    fit: dict[str, float]
    draw: dict[str, float]
    out: dict[str, str]
    bytes: float


def dry_run(job: Job, progress: Progress) -> str:
    """Schema, groups, plan ceiling, candidates and estimated cost, as text.

    DATA is read whole, as a run reads it: the groups' counts are its own. The learner and each generator are fitted in this process, on at
    most SAMPLE_ROWS rows.
    """
    from codsa_ray import pipeline

    check_apart(job.out, job.data, job.test, job.source)
    pipeline.stand(job)
    with _aside(job) as place:
        made = replace(pipeline.settled(job), out=place.address)
        rows, facts, partitions = pipeline.prepare(made, place, progress)
        made = pipeline.made_for(made, rows)
        speeds = _calibrate(made, rows, partitions[FINAL])
        out = [f"notice   generator {name} is out: {reason}" for name, reason in speeds.out.items()]
        made = replace(made, generator=tuple(g for g in made.generator if identity(g) not in speeds.out))
        return "\n".join([*_shown(rows, facts), *out, *_costs(made, rows, partitions, speeds)])


@contextmanager
def _aside(job: Job) -> Iterator[Folder]:
    """A folder for the rows, gone with the block: on this machine, or below --out, where all nodes of a cluster reach it."""
    if not job.address:
        with tempfile.TemporaryDirectory() as place:
            yield Folder(place)
        return
    out = Folder(job.out).absolute
    there, aside = out.exists(), rehearsal(out)
    try:
        yield aside
    finally:
        aside.delete()
        if not there and not out.remote:
            with suppress(OSError):  # a run began there meanwhile
                os.rmdir(out.local())


def _shown(rows: Rows, facts: dict[str, Any]) -> list[str]:
    schema = rows.schema(FINAL)
    lines = [f"rows     {facts['rows_out']:,} ({facts['set_aside']:,} set aside), {rows.folds} fold(s)", "", "schema"]
    for column in schema.shown():
        lines.append(f"  {column['column']!s:<28} {column['kind']:<12} {column['range']!s:<40.40} nulls {column['nulls']}")
    lines += ["", "groups (training rows, target mix)"]
    counts = rows.group_counts(FINAL)
    lines += [f"  {group.name:<48} {counts[i]:>9,}  {rows.groups.mix[i]:.3f}" for i, group in enumerate(rows.groups.items)]
    if rows.domain is not None:
        lines += ["", "rows of other domains in these groups (trained on, never held out, tested or drawn)"]
        lines += [f"  {group.name:<48} {rows.others[i]:>9,}" for i, group in enumerate(rows.groups.items)]
    return [*lines, "", *(f"notice   {notice}" for notice in facts["notices"])]


def _calibrate(job: Job, rows: Rows, part: Partition) -> Calibration:
    from codsa_ray.stages.source import source_of

    data = rows.training(FINAL, part.regions, part.rule)
    table = data.table(SAMPLE_ROWS)
    counts = np.bincount(table[REGION].to_numpy(), minlength=len(part.regions))
    source = source_of(job, rows)
    related = source.data(FINAL, part) if source else None
    sample = FitData.of(table, data.schema, part.regions.counted(counts), job.seed, related)
    learner: Any = job.learner
    started = time.process_time()
    X = learner.encoder(table, data.schema).encode(table)
    classes = len(data.schema.classes) if job.task == "classification" else 0
    learner.fit(X, data.schema.truth(table), np.ones(len(table)), classes=classes, seed=0)
    seconds = (time.process_time() - started) / len(table) * 1000
    fit, draw, out = {}, {}, {}
    for generator in job.generator:
        name = identity(generator)
        try:
            fit[name], draw[name] = _time_generator(generator, sample)
        except PLUGIN_FAILURES as error:
            out[name] = " ".join(str(error).split())
    return Calibration(seconds, fit, draw, out, table.nbytes / len(table))


def _time_generator(generator: Any, sample: FitData) -> tuple[float, float]:
    from codsa_ray.stages.fit import LocalWorker

    with tempfile.TemporaryDirectory() as place:
        started = time.process_time()
        generator.fit(sample, LocalWorker(Folder(place)))
        seconds = (time.process_time() - started) / max(sample.regions.counts.sum(), 1) * 1000
        fitted = generator.load(Folder(place))
        largest = int(np.argmax(sample.regions.counts))
        draw_block(fitted, sample.schema, sample.regions, largest, 0)
        started = time.process_time()
        table: pa.Table = draw_block(fitted, sample.schema, sample.regions, largest, 1)[0]
        return seconds, len(table) / max(time.process_time() - started, 1e-6)


def _costs(job: Job, rows: Rows, partitions: dict[int, Partition], speeds: Calibration) -> list[str]:
    learner: Any = job.learner
    allocator: Any = job.allocator
    regions = partitions[FINAL].regions
    names = [identity(generator) for generator in job.generator]
    tried = [Candidate(variant=v) for v in range(len(learner.variants()))]
    classes_only = len(rows.groups.items) == len(rows.schema(FINAL).classes)
    hidden = len(rows.groups.observable({c.name for c in rows.schema(FINAL).features})[0].items) < len(rows.groups.items)
    domains = rows.domain is not None
    can = domains, hasattr(learner, "retrained")
    tried += baselines(job.draws, learner.needs.offset, hidden, classes_only, len(rows.schema(FINAL).classes), 0, *can)
    opening = [replace(candidate, share=job.share[0]) for candidate in openers(names, job.draws, regions, 0, domains=domains)]
    opening += [replace(candidate, share=share) for candidate in opening[:1] for share in job.share[1:]]
    tried += opening[: job.trials]
    rest = max(job.trials - len(opening), 0)
    train = sum(int(partitions[f].regions.counts.sum()) + sum(rows.others) for f in range(rows.folds))
    fits = sum(candidate.fits for candidate in tried) + rest * (1 + job.draws) / 2
    ceilings = [ceiling(partitions[f].of_learner(r).regions, allocator, regions) for f in range(rows.folds) for r in job.share]
    drawn = job.draws * sum(int(c.sum()) for c in ceilings)
    fitting = {n: sum(speeds.fit[n] * share * (train + regions.counts.sum()) / 1000 for share in job.share) for n in names}
    drawing = {n: drawn / speeds.draw[n] for n in names}
    seconds = {
        "fit": sum(fitting.values()),
        "synthesize": sum(drawing.values()),
        "search": fits * speeds.learner * train / 1000 * 1.5,
    }
    lines = ["", "candidates"]
    lines.append(f"  none, with each of the learner's {len(learner.variants())} settings")
    lines += [f"  {candidate.name}" for candidate in tried[len(learner.variants()) :]]
    if job.seconds:
        seconds["search"] = job.seconds * job.workers
    many = f"as many more as {job.seconds:g} s have time for" if job.seconds else f"{rest} more" if rest else ""
    lines += [f"  and {many}, proposed from what these score" if many else "  and no more"]
    lines += [
        "",
        f"ceiling  {int(max(c.sum() for c in ceilings)):,} synthetic rows a draw, {job.draws} draws, {rows.folds} fold(s)",
        "cost",
    ]
    lines.append(f"  generator fits {len(names) * len(job.share) * (rows.folds + 1)}, learner fits about {fits * rows.folds:,.0f}")
    lines.append(f"  rows to draw {drawn * len(names):,} ({drawn * len(names) * speeds.bytes / 2**20:,.0f} MiB before compression)")
    for stage, value in seconds.items():
        lines.append(f"  {stage:<11} about {value / job.workers:,.0f} s on {job.workers} workers ({value:,.0f} core seconds)")
    on_gpus = sum(fitting[identity(g)] + drawing[identity(g)] for g in job.generator if job.gpus and g.needs.gpus)  # type: ignore[union-attr]
    lines.append(_hours(sum(seconds.values()) - on_gpus, on_gpus))
    return [*lines, f"  generators: {', '.join(name_of(generator) for generator in job.generator)}"]


def _hours(cores: float, gpus: float) -> str:
    """What a cloud bills, of core seconds and of seconds that hold a GPU; both were measured on cores."""
    text = f"  in all      about {cores / 3600:,.2f} CPU-hours"
    return f"{text} and at most {gpus / 3600:,.2f} GPU-hours (measured on a core: a GPU is faster)" if gpus else f"{text}, no GPU"

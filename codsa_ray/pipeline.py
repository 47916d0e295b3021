"""The whole pass, one line a stage; knows every stage and none of their insides."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from codsa_ray import evidence
from codsa_ray.apart import check_apart
from codsa_ray.bench import Bench
from codsa_ray.candidates import Candidate
from codsa_ray.clock import Clock
from codsa_ray.contracts import Progress, silent
from codsa_ray.decide import Verdict
from codsa_ray.errors import FolderError, SettingError, ShortOfRows
from codsa_ray.folder import Folder
from codsa_ray.heartbeat import beating
from codsa_ray.job import Job, plain, restored
from codsa_ray.judge import Decision, decide_run, final_candidates, running
from codsa_ray.kept import Kept
from codsa_ray.manifest import MANIFEST, check_run, claimed, scratch
from codsa_ray.outcomes import Table
from codsa_ray.partition import Partition, partition
from codsa_ray.plan import Plan
from codsa_ray.plugins import identity, name_of
from codsa_ray.pool import Pool
from codsa_ray.pools import ceiling, pool_of, sized
from codsa_ray.prior import Belief, Prior
from codsa_ray.report.facts import Facts, gather
from codsa_ray.report.page import render
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import fingerprint
from codsa_ray.stages.again import scored_again
from codsa_ray.stages.apply import apply
from codsa_ray.stages.cluster import connect, workers_here
from codsa_ray.stages.fit import Fitted, fit_all, fit_jobs
from codsa_ray.stages.read import read
from codsa_ray.stages.recut import repeats_for
from codsa_ray.stages.search import VERSION as SCORES
from codsa_ray.stages.search import Limit, Trial, search, try_all
from codsa_ray.stages.source import source_identity, source_of
from codsa_ray.stages.strategy import Space, strategy
from codsa_ray.stages.synthesize import Drawn, synthesize

STAGES = ("read", "fit", "synthesize", "search", "report")
SCALING = "scaling.json"
HOW = {"address", "workers", "gpus", "least_gpus", "max_hours", "out"}
"""Of a job, what changes no result."""


@dataclass(frozen=True)
class Report:
    """What a run found.

    Args:
        folder: the run folder.
        verdict: augment, bag, reweight, correct or leave, with the evidence.
        facts: everything in report.json.
    """

    folder: str
    verdict: Verdict
    facts: dict[str, Any] = field(repr=False)

    @property
    def path(self) -> str:
        """The page."""
        return f"{self.folder}/report.html"

    @property
    def augmented(self) -> str:
        """The data set to train on."""
        return f"{self.folder}/augmented"


def stand(job: Job) -> None:
    """Raises SettingError where a plug-in is not there, or lacks what it stands on beside DATA: before anything is read."""
    made = job.made()
    for plugin in (*made.generator, made.learner):
        ready = getattr(plugin, "ready", None)
        if ready is not None:
            ready()


def settled(job: Job) -> Job:
    """The job with its workers counted, this process connected to Ray."""
    connect(job.address, job.workers)
    return replace(job, workers=job.workers or workers_here(job.address))


def prepare(job: Job, out: Folder, progress: Progress) -> tuple[Rows, dict[str, Any], dict[int, Partition]]:
    """Reads, splits and partitions: what every later stage stands on. `job` is settled."""
    rows, facts = read(job, out, progress)
    return rows, facts, _partitions(made_for(job, rows), rows)


def made_for(job: Job, rows: Rows) -> Job:
    """The job with plug-ins made, those of `default` and `auto` by the kinds of the columns."""
    return job.made(rows.schema(FINAL).kinds)


def _partitions(job: Job, rows: Rows) -> dict[int, Partition]:
    strata: Any = job.strata
    allocator: Any = job.allocator
    return {fold: partition(rows, strata, fold, job.share, allocator) for fold in [*range(rows.folds), FINAL]}


def run(job: Job, progress: Progress = silent) -> Report:
    """The whole pass. The same job on the same folder goes on where it stopped; finished stages are kept.

    Args:
        job: what to do.
        progress: told how far each stage is.

    Returns:
        The report; report.html, report.json, augmented/ and correction.json lie in the run folder.

    Raises:
        UserError: something the caller can put right.
        InternalError: our defect, or the machine's.
        OutOfTime: `max_hours` are over.
    """
    report = run_until(job, STAGES[-1], progress)
    assert report is not None, "the last stage writes the report"
    return report


def run_until(job: Job, last: str, progress: Progress = silent) -> Report | None:
    """The pass up to and including one of STAGES; running it again, or `run`, goes on from there.

    Returns:
        The report when `last` is "report", else None.
    """
    if last not in STAGES:
        raise SettingError(f"a stage: {', '.join(STAGES)}", repr(last), "name one of them")
    check_apart(job.out, job.data, job.test, job.source)
    stand(job)
    out = Folder(job.out).absolute
    with claimed(out), scratch(out) as cache, beating(out, progress, job.max_hours) as beat:
        return _run(settled(job), out, cache, Clock(beat), last)


def _run(job: Job, out: Folder, cache: str, clock: Clock, last: str) -> Report | None:
    rows, read_facts, partitions = prepare(job, out, clock.progress)
    job = made_for(job, rows)
    allocator: Any = job.allocator
    job = replace(job, generator=tuple(sized(g, partitions[FINAL].regions, allocator, job.gpus) for g in job.generator))  # type: ignore[arg-type]
    _ask(job, out, fresh=not read_facts["reused"])
    clock.tick("read", read_facts["rows_in"], read_facts["rows_out"], read_facts["reused"])
    return None if last == "read" else _pass(job, rows, read_facts, partitions, out, cache, clock, last)


def _ask(job: Job, out: Folder, fresh: bool) -> None:
    """Stores the job. A report of another job, or of other rows, is taken away: the folder is no finished run until it is written again."""
    told, kept = json.loads(json.dumps(job.to_json())), out.read_json("job.json") if out.exists("job.json") else {}
    if fresh or {key for key in told if told[key] != kept.get(key)} - HOW:
        for name in ("report.json", "report.html"):
            out.delete(name)
    out.write_json("job.json", told)


def _pass(
    job: Job, rows: Rows, read_facts: dict[str, Any], partitions: dict[int, Partition], out: Folder, cache: str, clock: Clock, last: str
) -> Report | None:
    mark = read_facts["fingerprint"]
    kept = _decided(job, rows, mark, partitions, out, cache, clock, last)
    if kept is None:
        return None
    bench, plan, candidate, late = _final(job, kept.bench, kept.decision, kept.fitted, out, mark, clock)
    judged = _judge(job, bench, kept.decision, out, mark, clock)
    failed, said = {**kept.fitted.failed, **kept.short, **late}, tuple(kept.fitted.notices)
    facts = Facts(job, bench, kept.table, kept.decision, judged, plan, candidate, read_facts, failed, tuple(clock.stages), said)
    return _report(facts, out, clock)


def _decided(
    job: Job, rows: Rows, mark: str, partitions: dict[int, Partition], out: Folder, cache: str, clock: Clock, last: str
) -> Kept | None:
    fitted = _fit(job, rows, partitions, out, mark, clock)
    if last == "fit":
        return None
    pools, short = _searched_pools(job, rows, partitions, fitted, out, clock)
    if last == "synthesize":
        return None
    bench = Bench(rows, partitions, {key: pool for key, (pool, _) in pools.items()}, job.learner, job.allocator, cache)  # type: ignore[arg-type]
    table = _search(job, bench, [g for g in fitted.generators if g not in short], out, mark, clock)
    if last == "search":
        return None
    decision = _decide(job, bench, table, out, mark, clock)
    return Kept(out, job, fitted, short, bench, table, decision, _judged_by(job, bench, mark))


def _fit(job: Job, rows: Rows, partitions: dict[int, Partition], out: Folder, mark: str, clock: Clock) -> Fitted:
    jobs = fit_jobs(job, rows, partitions, out, mark)
    kept = all(fit.kept for fit in jobs)
    fitted = fit_all(job, rows, partitions, jobs, source_of(job, rows), clock.progress)
    count = int(sum(partitions[fit.fold].of_generator(fit.share).regions.counts.sum() for fit in jobs))
    clock.tick("fit", count, count, kept)
    return fitted


Pools = dict[tuple[str, int, int, float], tuple[Pool, Any]]


def _searched_pools(
    job: Job, rows: Rows, partitions: dict[int, Partition], fitted: Fitted, out: Folder, clock: Clock
) -> tuple[Pools, dict[str, str]]:
    pools: Pools = {}
    allocator: Any = job.allocator
    for fit in fitted.jobs:
        name = identity(fit.generator)
        if fit.fold == FINAL or name in fitted.failed or not job.trials:
            continue
        counts = ceiling(partitions[fit.fold].of_learner(fit.share).regions, allocator, partitions[FINAL].regions)
        for draw in range(job.draws):
            pool = pool_of(out / "pools", fit.generator, fit.fit, fit.fold, draw, job.seed, counts, fit.share)
            pools[name, fit.fold, draw, fit.share] = pool, fit
    drawn = _filled("synthesize", job, rows, partitions, pools, clock)
    return {key: value for key, value in pools.items() if key[0] not in drawn.short}, drawn.short


def _filled(name: str, job: Job, rows: Rows, partitions: dict[int, Partition], pools: Pools, clock: Clock) -> Drawn:
    """Draws what pools lack, a stage `name` of its own."""
    asked = sum(int(pool.ceiling(len(partitions[FINAL].regions)).sum()) for pool, _ in pools.values())
    drawn = synthesize(rows, partitions, list(pools.values()), job.workers, job.gpus, clock.progress)
    clock.tick(name, asked, drawn.rows or asked, bool(asked) and not drawn.rows)
    return drawn


def _search(job: Job, bench: Bench, generators: list[str], out: Folder, mark: str, clock: Clock) -> Table:
    learner: Any = job.learner
    rows, regions = bench.rows, bench.partitions[FINAL].regions
    depends = _judged_by(job, bench, mark)
    folder = out / "search" / fingerprint(depends)
    space = Space(
        variants=len(learner.variants()),
        generators=tuple(generators),
        draws=job.draws,
        trials=sys.maxsize if job.seconds else job.trials,
        offset=learner.needs.offset,
        cells=len(bench.coarse(FINAL)[0].items) < len(rows.groups.items),
        groups_are_classes=len(rows.groups.items) == bench.classes,
        classes=bench.classes,
        regions=regions,
        seed=job.seed,
        theory=evidence.kept(bench, generators, folder).theory,
        shares=job.share,
        corrected=learner.needs.negative and bench.classes > 0,
        domains=rows.domain is not None,
        retrains=hasattr(learner, "retrained"),
    )
    table = Table(folder, job.task, bench.classes, np.array(rows.groups.mix), job.loss)
    before = len(folder.names())
    total = space.variants + 12 + job.trials
    limit = Limit(job.seconds, f"asked-{fingerprint([job.seconds, repr(space)])}.json") if job.seconds else None
    search(Trial(bench, folder, tuple(range(rows.folds))), strategy(space), table, job.workers, total, clock.progress, limit)
    fresh = len(folder.names()) - before
    clock.tick("search", len(table.outcomes), len(table.outcomes), not fresh, "trials")
    return table


def _judged_by(job: Job, bench: Bench, mark: str) -> list[Any]:
    """What scores depend on beside their candidate."""
    return [SCORES, mark, plain(job.learner), plain(job.allocator), plain(job.strata), bench.cap, source_identity(job)]


def _decide(job: Job, bench: Bench, table: Table, out: Folder, mark: str, clock: Clock) -> Decision:
    learner: Any = job.learner
    regions = bench.partitions[FINAL].regions
    tried = [outcome.candidate for outcome in table.outcomes.values()]
    sizes = {c.id: c.plan(bench.regions(FINAL, c.share), bench.allocator).size for c in tried}
    names = [group.name for group in bench.rows.groups.items]
    tuned, smallest = table.tuned(len(learner.variants())), int(regions.group_counts[np.array(regions.mix) > 0].min())

    def believe(pairs: list[tuple[Candidate, str]]) -> Belief | None:
        return Prior.shipped().belief(name_of(learner), pairs, smallest) if job.prior else None

    def decided(again: list[Table]) -> Decision:
        return decide_run(table, sizes, names, tuned, job.seed, believe, again, job.confidence)

    decision, repeats = decided([]), repeats_for(job.repeats, bench.rows)
    if repeats > 1:
        decision = decided(scored_again(job, bench, table, running(decision, table), repeats, out, mark, clock.progress))
    out.write_json("verdict.json", decision.verdict.to_json())
    scored = 0 if table.truth is None else len(table.truth)
    clock.tick("decide", scored, scored)
    return decision


def _final(
    job: Job, bench: Bench, decision: Decision, fitted: Fitted, out: Folder, mark: str, clock: Clock
) -> tuple[Bench, Plan, Candidate, dict[str, str]]:
    """Draws what is shipped and what the test rows judge from the final generators, then writes `augmented/`.

    Returns:
        The bench with the final pools, what was written, of which candidate, and final generators that fell short with the reason.
    """
    shipped = decision.best[0] if job.force and decision.best else decision.chosen[0]
    pools: Pools = {}
    for candidate in dict.fromkeys((shipped, *([decision.best[0]] if decision.best else []))):
        plan = candidate.plan(bench.regions(FINAL, candidate.share), bench.allocator)
        for draw in range(plan.draws if plan.size else 0):
            fit = fitted.of(candidate.generator, FINAL, candidate.share)
            key = (candidate.generator, FINAL, draw, candidate.share)
            counts = np.maximum(plan.counts, pools[key][0].ceiling(len(plan.counts)) if key in pools else 0)
            pools[key] = pool_of(out / "pools", fit.generator, fit.fit, FINAL, draw, job.seed, counts, fit.share), fit
    drawn = _filled("draw", job, bench.rows, bench.partitions, pools, clock)
    if shipped.generator in drawn.short:
        raise ShortOfRows(f"{drawn.short[shipped.generator]}; leave this --generator out")
    drawn_pools = {key: pool for key, (pool, _) in pools.items() if key[0] not in drawn.short}
    bench = replace(bench, pools=bench.pools | drawn_pools, memory={})
    plan = shipped.plan(bench.regions(FINAL, shipped.share), bench.allocator)
    mine = tuple(pools[shipped.generator, FINAL, draw, shipped.share][0] for draw in range(plan.draws if plan.size else 0))
    regions = bench.regions(FINAL, shipped.share).to_json()
    depends = {"fits": [pool.key.id for pool in mine], "rows": mark, "regions": regions}
    facts = apply(bench, mine, plan, shipped, out, depends, job.workers, clock.progress)
    clock.tick("apply", facts["rows_in"], facts["rows_out"], facts["reused"])
    return bench, plan, shipped, drawn.short


def _judge(job: Job, bench: Bench, decision: Decision, out: Folder, mark: str, clock: Clock) -> Folder:
    """Fits the final candidates on all training rows and stores their scores of the test rows."""
    folder = out / "judge" / fingerprint(_judged_by(job, bench, mark))
    candidates = final_candidates(decision)
    kept = all(folder.exists(f"{candidate.id}.parquet") for candidate in candidates)
    try_all(Trial(bench, folder, (FINAL,)), candidates, job.workers, clock.progress)
    clock.tick("judge", len(candidates), len(candidates), kept, "fits")
    return folder


def _report(facts: Facts, out: Folder, clock: Clock) -> Report:
    value = gather(facts)
    study = out.read_json(SCALING) if out.exists(SCALING) else {}
    if study.get("judged_by") == fingerprint(_judged_by(facts.job, facts.bench, facts.read["fingerprint"])):
        value["scaling"] = study
    out.write_json("correction.json", value.pop("correction"))
    out.write_json("report.json", value)
    # From what was stored, so that `codsa report` gives the same page.
    out.write_bytes("report.html", render(out.read_json("report.json")).encode())
    clock.tick("report", len(value["candidates"]), len(value["candidates"]), unit="candidates")
    return Report(out.shown, facts.decision.verdict, value)


def rewrite_report(run_folder: str, progress: Progress = silent) -> Report:
    """report.json and report.html again from stored scores and rows, for instance after an upgrade; DATA itself is not looked at.

    Raises:
        FolderError: not a finished run.
    """
    out, job = _finished(run_folder)
    with claimed(out), scratch(out) as cache:
        rows, stored, partitions = _stored(job, out)
        report = _pass(job, rows, stored, partitions, out, cache, Clock(progress), STAGES[-1])
    assert report is not None, "the last stage writes the report"
    return report


def _finished(run_folder: str) -> tuple[Folder, Job]:
    out = check_run(Folder(run_folder).absolute)
    if not out.exists("report.json"):
        raise FolderError("a finished run", f"{out.shown} without report.json", "give its `codsa augment` again: it goes on")
    return out, replace(restored(out.read_json("job.json")), out=out.address, workers=1)


def _stored(job: Job, out: Folder) -> tuple[Rows, dict[str, Any], dict[int, Partition]]:
    stored = (out / "read").read_json(MANIFEST)
    rows = Rows.from_json(out / "read", stored["rows_json"])
    return rows, {**stored, "reused": True}, _partitions(job, rows)


@contextmanager
def reopened(run_folder: str) -> Iterator[Kept]:
    """A finished run up to its decision, from what is stored, locked while it is open.

    Raises:
        FolderError: not a finished run.
    """
    out, job = _finished(run_folder)
    with claimed(out), scratch(out) as cache:
        rows, stored, partitions = _stored(job, out)
        kept = _decided(job, rows, stored["fingerprint"], partitions, out, cache, Clock(silent), STAGES[-1])
        assert kept is not None, "the last stage decides"
        yield kept

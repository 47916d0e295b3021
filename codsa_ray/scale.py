"""Scaling study: a finished run's plan tried with more and more rows beyond balance; knows the run's stages, not the laws."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from codsa_ray.candidates import SIZE_CEILING, Candidate
from codsa_ray.contracts import Progress, silent
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.kept import Kept
from codsa_ray.outcomes import Table
from codsa_ray.pipeline import SCALING, reopened, rewrite_report, settled
from codsa_ray.pool import Pool
from codsa_ray.pools import ceiling, pool_of
from codsa_ray.rows import FINAL
from codsa_ray.scaling import study
from codsa_ray.seeds import fingerprint
from codsa_ray.stages.search import Trial, try_all
from codsa_ray.stages.synthesize import synthesize

STEPS = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of the most rows
MOST = 2.0  # times the training rows
LEAST_POINTS = 4


@dataclass(frozen=True)
class Plans:
    """What is tried.

    Args:
        candidates: balance at weight 1 and more and more extra rows (Nakada et al. 2024), alike in everything else.
        notices: what to know of them.
    """

    candidates: tuple[Candidate, ...]
    notices: tuple[str, ...] = ()


def scaling(
    run_folder: str,
    generator: str | None = None,
    address: str | None = None,
    workers: int = 0,
    gpus: float = 0.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Scores the series out of fold, fits the laws, and writes scaling.json and the report again. What was scored is kept.

    Args:
        run_folder: of a finished run.
        generator: one of the run's; that of its best synthetic candidate, or its first, when left out.
        address, workers, gpus: see Job.
        progress: told how far it is.

    Returns:
        scaling.json.

    Raises:
        FolderError: not a finished run. SettingError: no such generator. ShortOfRows: too few sizes could be drawn or scored.
    """
    with reopened(run_folder) as kept:
        job = settled(replace(kept.job, address=address, workers=workers, gpus=gpus))
        found = _study(replace(kept, job=job), generator, progress)
        kept.out.write_json(SCALING, found)
    rewrite_report(run_folder)
    return found


def _study(kept: Kept, generator: str | None, progress: Progress) -> dict[str, Any]:
    plans, kept = _drawn(kept, _plans(kept, generator), progress)
    folds = tuple(range(kept.bench.rows.folds))
    folder = kept.out / "scaling" / fingerprint(kept.judged_by)
    try_all(Trial(kept.bench, folder, folds), list(plans.candidates), kept.job.workers, progress)
    table = Table(folder, kept.job.task, kept.bench.classes, np.array(kept.bench.rows.groups.mix), kept.job.loss)
    for candidate in plans.candidates:
        table.add(candidate)
    failed = [f"{c.name} failed: {table.outcomes[c.id].failed}" for c in plans.candidates if table.outcomes[c.id].failed]
    scored = [c for c in plans.candidates if not table.outcomes[c.id].failed]
    _enough(scored, scored[:1] == list(plans.candidates[:1]), [*plans.notices, *failed])
    return _found(kept, table, scored, [*plans.notices, *failed])


def _plans(kept: Kept, name: str | None) -> Plans:
    """The series for a generator, with the draws, the share and the learner's variant of the run's best synthetic candidate."""
    best = kept.decision.best[0] if kept.decision.best else Candidate(variant=kept.decision.base[0].variant)
    names = [identity.rpartition("-")[0] for identity in kept.fitted.generators]
    wanted = name or best.generator.rpartition("-")[0] or next(iter(names), "")
    if wanted not in names:
        raise SettingError(f"a generator that the run fitted: {', '.join(names) or 'there is none'}", repr(wanted), "name one of them")
    mine = [identity for identity, known in zip(kept.fitted.generators, names, strict=True) if known == wanted]
    identity = best.generator if best.generator in mine else mine[0]
    top = min(MOST, SIZE_CEILING / kept.bench.regions(FINAL, best.share).rows)
    plan = Candidate("synthetic", best.fits, generator=identity, gamma=1.0, share=best.share, variant=best.variant, domains=best.domains)
    return Plans(tuple(replace(plan, extra=float(f"{step * top:.4g}")) for step in STEPS))


def _drawn(kept: Kept, plans: Plans, progress: Progress) -> tuple[Plans, Kept]:
    """The run with its pools extended to the largest plan; where the generator falls short, the plans that its own pools hold."""
    own, extended = _pools(kept, plans.candidates[-1], False), _pools(kept, plans.candidates[-1], True)
    drawn = synthesize(kept.bench.rows, kept.bench.partitions, list(extended.values()), kept.job.workers, kept.job.gpus, progress)
    pools = own if drawn.short else extended
    if drawn.short:
        reason = "; ".join(drawn.short.values())
        again = synthesize(kept.bench.rows, kept.bench.partitions, list(own.values()), kept.job.workers, kept.job.gpus, progress)
        left = [] if again.short else [c for c in plans.candidates if _holds(kept, own, c)]
        plans = Plans(tuple(left), (f"larger plans were left out: {reason}",))
        _enough(left, True, plans.notices)
    bench = replace(kept.bench, pools=kept.bench.pools | {key: pool for key, (pool, _) in pools.items()}, memory={})
    return plans, replace(kept, bench=bench)


def _pools(kept: Kept, largest: Candidate, extended: bool) -> dict[tuple[str, int, int, float], tuple[Pool, Any]]:
    """Per fold and draw, the pool as the run asked for it, or extended to the largest plan: shards there already are used again."""
    bench, allocator, found = kept.bench, kept.bench.allocator, {}
    for fold in range(bench.rows.folds):
        fit, regions = kept.fitted.of(largest.generator, fold, largest.share), bench.regions(fold, largest.share)
        counts = ceiling(regions, allocator, bench.partitions[FINAL].regions)
        for draw in range(largest.fits):
            pool = pool_of(kept.out / "pools", fit.generator, fit.fit, fold, draw, kept.job.seed, counts, largest.share)
            more = largest.plan(regions, allocator).counts
            found[largest.generator, fold, draw, largest.share] = pool.extend(more) if extended else pool, fit
    return found


def _holds(kept: Kept, pools: dict[tuple[str, int, int, float], tuple[Pool, Any]], candidate: Candidate) -> bool:
    """The pools hold the candidate's plan on every fold."""
    for fold in range(kept.bench.rows.folds):
        plan = candidate.plan(kept.bench.regions(fold, candidate.share), kept.bench.allocator)
        pool, _ = pools[candidate.generator, fold, 0, candidate.share]
        if plan.size and (plan.counts > pool.ceiling(len(plan.counts))).any():
            return False
    return True


def _enough(candidates: list[Candidate], first: bool, notices: Any) -> None:
    if len(candidates) < LEAST_POINTS or not first:
        raise ShortOfRows(f"wanted at least {LEAST_POINTS} sizes, balance alone among them; got {len(candidates)}: {'; '.join(notices)}")


def _found(kept: Kept, table: Table, scored: list[Candidate], notices: list[str]) -> dict[str, Any]:
    regions, truth, first = kept.bench.regions(FINAL, scored[0].share), table.truth, scored[0]
    assert truth is not None, "the series was scored"
    rows = regions.rows
    added = np.array([round(candidate.extra * rows) for candidate in scored])
    losses = np.stack([table.losses[candidate.id, "calibrated"] for candidate in scored], axis=1)
    start = rows + first.plan(regions, kept.bench.allocator).size
    result = study(losses, added, start, truth.group, truth.parts, table.mix, truth.unit, seed=kept.job.seed)
    value = result.to_json()
    name, draws = first.generator.rpartition("-")[0], f" and {first.fits} draws" if first.fits > 1 else ""
    intro = f"Balance by {name}, then N further rows shared out by the target mix at weight {first.extra_weight:g}{draws}."
    return {
        **value,
        "sentences": [intro, *value["sentences"], *notices],
        "generator": name,
        "draws": first.fits,
        "rows": rows,
        "judged_by": fingerprint(kept.judged_by),
    }

"""Inspection: what the generators of a finished run learned, region by region; knows the run's stages, not the measures."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from codsa_ray.audit.columns import compared
from codsa_ray.audit.copies import marked
from codsa_ray.audit.coupling import coupled
from codsa_ray.audit.coverage import coverage
from codsa_ray.audit.diversity import diversity
from codsa_ray.audit.images import MOST_ROWS, images, shrunk
from codsa_ray.audit.marginals import marginal
from codsa_ray.audit.membership import membership
from codsa_ray.audit.picks import thin
from codsa_ray.audit.privacy import privacy
from codsa_ray.audit.text_quality import text_quality
from codsa_ray.audit.two_sample import two_sample
from codsa_ray.contracts import Progress, silent
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.fitdata import REGION
from codsa_ray.kept import Kept
from codsa_ray.partition import Partition
from codsa_ray.pipeline import reopened, settled
from codsa_ray.pool import Pool
from codsa_ray.pools import pool_of
from codsa_ray.report.inspection import render, sentences
from codsa_ray.rows import FINAL
from codsa_ray.schema import Schema
from codsa_ray.seeds import fingerprint
from codsa_ray.stages.fit import FitJob
from codsa_ray.stages.synthesize import synthesize

INSPECT = "inspect.json"
PAGE = "inspect.html"
# Real rows of a region that are compared (copies are looked for among all), and drawn ones: as many as real ones within these bounds.
MOST_REAL = 2_000
LEAST_DRAWN, MOST_DRAWN = 200, 1_000
MOST_FOLDS = 5


def inspect_run(
    run_folder: str,
    generator: str | None = None,
    address: str | None = None,
    workers: int = 0,
    gpus: float = 0.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measures each generator's drawn rows and writes inspect.json and inspect.html; rows the run has drawn are used again.

    What is looked at are the generators of the folds, the only ones with rows that they have not seen: a fold's held-out rows. Measures
    of several folds are averaged, weighted by held-out rows. No real row is shown.

    Args:
        run_folder: of a finished run.
        generator: one of the run's; all of them when left out.
        address, workers, gpus: see Job.
        progress: told how far it is.

    Returns:
        inspect.json.

    Raises:
        FolderError: not a finished run. SettingError: no such generator. ShortOfRows: none could draw.
    """
    with reopened(run_folder) as kept:
        job = settled(replace(kept.job, address=address, workers=workers, gpus=gpus))
        found = _inspected(replace(kept, job=job), generator, progress)
        kept.out.write_json(INSPECT, found)
        kept.out.write_bytes(PAGE, render(kept.out.read_json(INSPECT)).encode())
    return found


def _inspected(kept: Kept, name: str | None, progress: Progress) -> dict[str, Any]:
    pools = _pools(kept, _asked(kept, name))
    drawn = synthesize(kept.bench.rows, kept.bench.partitions, list(pools.values()), kept.job.workers, kept.job.gpus, progress)
    left = list(dict.fromkeys(generator for generator, _ in pools if generator not in drawn.short))
    if not left:
        raise ShortOfRows(f"wanted drawn rows; got none: {'; '.join(drawn.short.values())}")
    found = []
    for index, generator in enumerate(left):
        called = generator.rpartition("-")[0]
        found.append({"name": called, "regions": _regions(kept, generator, pools)})
        progress("inspect", index + 1, len(left), called)
    rows = kept.bench.rows
    return {
        "target": kept.job.target,
        "folds": min(rows.folds, MOST_FOLDS),
        "generators": found,
        "sentences": sentences(found),
        "notices": [f"generator {key.rpartition('-')[0]} is out: {reason}" for key, reason in drawn.short.items()],
        "judged_by": fingerprint(kept.judged_by),
    }


def _asked(kept: Kept, name: str | None) -> list[str]:
    """Identities of the generators to look at."""
    names = [identity.rpartition("-")[0] for identity in kept.fitted.generators]
    if not names or name not in (None, *names):
        raise SettingError(f"a generator that the run fitted: {', '.join(names) or 'there is none'}", repr(name), "name one of them")
    return [identity for identity, known in zip(kept.fitted.generators, names, strict=True) if name in (None, known)]


def _pools(kept: Kept, generators: Sequence[str]) -> dict[tuple[str, int], tuple[Pool, FitJob]]:
    """Per generator and fold its first draw, as the run asked for it or further where a region has too few; of shares the largest."""
    found, share = {}, max(kept.job.share)
    for generator in generators:
        for fold in range(min(kept.bench.rows.folds, MOST_FOLDS)):
            fit = kept.fitted.of(generator, fold, share)
            counts = kept.bench.partitions[fold].of_generator(share).regions.counts
            wanted = np.where(counts > 0, np.clip(counts, LEAST_DRAWN, MOST_DRAWN), 0)
            held = kept.bench.pools.get((generator, fold, 0, share))
            pool = held.extend(wanted) if held else None
            place = kept.out / "pools"
            found[generator, fold] = pool or pool_of(place, fit.generator, fit.fit, fold, 0, kept.job.seed, wanted, share), fit
    return found


def _regions(kept: Kept, generator: str, pools: Mapping[tuple[str, int], tuple[Pool, FitJob]]) -> list[dict[str, Any]]:
    """One entry per region that has drawn rows, rarest first."""
    regions = kept.bench.partitions[FINAL].regions
    measured: list[list[tuple[dict[str, Any], int]]] = [[] for _ in regions.items]
    for (mine, fold), (pool, fit) in pools.items():
        if mine == generator:
            part = kept.bench.partitions[fold].of_generator(fit.share)
            for k, tables in _sides(kept, fold, part, pool):
                measured[k].append((measures(*tables, kept.bench.rows.schema(fold), kept.job.seed), len(tables[1])))
    rarest = np.argsort(regions.counts, kind="stable")
    return [{"name": regions.items[k].name, "rows": int(regions.counts[k]), **_mean(measured[k])} for k in rarest if measured[k]]


def _sides(kept: Kept, fold: int, part: Partition, pool: Pool) -> Iterator[tuple[int, tuple[pa.Table, pa.Table, pa.Table]]]:
    """(region, (training, held-out, drawn rows)) of every region of the fold that has training and drawn rows, copies marked."""
    rows = kept.bench.rows
    schema = rows.schema(fold)
    most = min(MOST_REAL * len(part.regions), MOST_ROWS if images(schema) else sys.maxsize)
    training = rows.training(fold, part.regions, part.rule, side=part.side)
    ceiling = pool.ceiling(len(part.regions))
    counts = np.where(part.regions.counts > 0, np.minimum(ceiling, np.clip(part.regions.counts, LEAST_DRAWN, MOST_DRAWN)), 0)
    sides = marked((rows.unseen(fold, part.regions, part.rule, most), pool.take(counts)), training.blocks(), schema)
    real, held, drawn = (shrunk(table, schema) for table in (training.table(most), *sides))
    for k in np.flatnonzero(counts):
        mine, others, made = (table.filter(pa.array(table[REGION].to_numpy() == k)) for table in (real, held, drawn))
        if len(mine):
            yield int(k), (thin(mine, MOST_REAL, kept.job.seed, "inspect"), others, made)


def measures(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, Any]:
    """What is told of a region: numbers, or None where there are too few rows for one.

    Args:
        real: canonical rows of the region that the generator learned from, all or a sample.
        held_out: canonical rows of it that it did not see.
        drawn: canonical drawn rows of it.

    Returns:
        inspect.json's numbers of a region; distances, membership and coverage are against `looked_at` training and `drawn` drawn rows.
    """
    test, attack = two_sample(real, drawn, schema, seed) or {}, membership(real, held_out, drawn, schema, seed) or {}
    kept, spread = privacy(real, held_out, drawn, schema, seed), diversity(real, drawn, schema, seed)
    return {
        "looked_at": len(real),
        "drawn": len(drawn),
        "distance": _distance(real, drawn, schema),
        "distance_fresh": _distance(real, held_out, schema),
        "c2st": test.get("auc"),
        "c2st_se": test.get("se"),
        **coverage(real, held_out, drawn, schema, seed),
        **{key: spread.get(key) for key in ("distinct", "distinct_real", "entropy", "entropy_real")},
        "copies": kept["copies"],
        "copies_fresh": kept["copies_held_out"],
        "dcr": kept["dcr_ratio"],
        "closer": kept["closer_share"],
        "membership": attack.get("auc"),
        "membership_se": attack.get("se"),
        **text_quality(real, held_out, drawn, schema, seed),
        **coupled(real, drawn, schema, seed),
    }


def _distance(real: pa.Table, other: pa.Table, schema: Schema) -> float | None:
    """Mean distance of the columns' marginals (marginals.py)."""
    if not len(other):
        return None
    return float(np.mean([marginal(real, np.ones(len(real)), other, column)["distance"] for column in compared(schema)]))


def _mean(folds: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """Means over the folds that have a number, weighted by held-out rows; of standard errors that of the mean."""
    found: dict[str, Any] = {"held_out": sum(rows for _, rows in folds)}
    for key in folds[0][0]:
        known = [(values[key], max(rows, 1)) for values, rows in folds if values[key] is not None and np.isfinite(values[key])]
        if not known:
            found[key] = None
            continue
        numbers, weight = np.array(known, dtype=np.float64).T
        share = weight / weight.sum()
        found[key] = float(np.sqrt(np.sum((share * numbers) ** 2)) if key.endswith("_se") else share @ numbers)
    return found

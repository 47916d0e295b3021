"""More: further rows of one region from a finished run's final generator; knows no score."""

import numpy as np
import pyarrow as pa

from codsa_ray.contracts import Generator, Progress, Strata
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.manifest import MANIFEST, stored_in
from codsa_ray.partition import partition
from codsa_ray.plugins import identity
from codsa_ray.pools import pool_of
from codsa_ray.rows import FINAL, Rows
from codsa_ray.seeds import seed_of
from codsa_ray.stages.fit import CURRENT, FitJob
from codsa_ray.stages.synthesize import synthesize

DRAWS_OF_A_RUN = 1_000_000


def draw_more(
    out: Folder,
    generator: Generator,
    strata: Strata,
    region: str,
    count: int,
    to: Folder,
    seed: int | None,
    workers: int,
    gpus: float,
    progress: Progress,
) -> int:
    """Draws and writes; returns rows written.

    Raises:
        SettingError: no such region, or the generator was not fitted in this run.
        ShortOfRows: the generator could not draw that many.
    """
    stored = (out / "read").read_json(MANIFEST)
    rows = Rows.from_json(out / "read", stored["rows_json"])
    part = partition(rows, strata, FINAL)
    names = [item.name for item in part.regions.items]
    if region not in names:
        raise SettingError(f"one of the regions: {', '.join(names)}", repr(region), "name one of them")
    fit = _fitted(out, generator)
    counts = np.zeros(len(names), dtype=np.int64)
    counts[names.index(region)] = count
    # A draw index that no run reaches: these are rows the run itself did not draw.
    own = rows.seed if seed is None else seed_of("more", seed)
    pool = pool_of(to / ".pool", generator, fit.fit, FINAL, DRAWS_OF_A_RUN, own, counts)
    drawn = synthesize(rows, {FINAL: part}, [(pool, fit)], workers, gpus, progress)
    if drawn.short:
        raise ShortOfRows("; ".join(drawn.short.values()))
    written, schema = 0, rows.schema(FINAL)
    for index, table in enumerate(pool.tables()):
        kept: pa.Table = table.slice(0, min(len(table), count - written))
        rows.layout.write(to, f"part-{index:06d}", schema.original(kept.drop_columns([REGION])))
        written += len(kept)
    to.delete(".pool")
    return written


def _fitted(out: Folder, generator: Generator) -> FitJob:
    current = (out / "fit").read_json(CURRENT)
    name = identity(generator)
    if name not in current:
        raise SettingError("a generator this run fitted", name, "look at the run's report for those that failed")
    folder = out / "fit" / current[name]
    return FitJob(generator, FINAL, folder, stored_in(folder).get("fingerprint", ""))

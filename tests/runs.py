"""Small whole runs that tests share: their tables, their jobs, and a stand-in for Ray's tasks that works in this process."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.manifest import MANIFEST
from codsa_ray.pipeline import Report, run
from codsa_ray.rows import FINAL, Rows
from codsa_ray.schema import Schema
from codsa_ray.stages import fit, search

GENERATORS = ("bootstrap:jitter=0.1", "sequential_trees")
ONE_CUT: dict[str, Any] = {"folds": 2, "repeats": 1}
SMALL: dict[str, Any] = {"generator": GENERATORS, "learner": "logistic", "trials": 4, "draws": 2, "force": True, "workers": 2, **ONE_CUT}

MARKS = ["_synthetic", "_region", "_weight", "_draw"]


def patients(n: int = 240, seed: int = 0) -> pa.Table:
    """n rows of every common arrow type, `sick` in about a sixth of them; `id` is unique."""
    rng = np.random.default_rng(seed)
    sick = rng.random(n) < 1 / 6
    shift = sick.astype(float)
    days = rng.integers(0, 900, n)
    return pa.table({
        "id": [f"P{i:05d}" for i in range(n)],
        "age": pa.array(rng.integers(20, 90, n), pa.int8()),
        "weight kg": pa.array(np.round(rng.normal(70 + 8 * shift, 9, n), 1), pa.float32()),
        "dose": pa.array([Decimal(int(v)).scaleb(-2) for v in rng.integers(0, 5000, n)], pa.decimal128(7, 2)),
        "ward": pa.array(rng.choice(["north", "south", "größe"], n, p=[0.5, 0.3, 0.2])).dictionary_encode(),
        "smokes": pa.array(rng.random(n) < 0.3 + 0.3 * shift, mask=rng.random(n) < 0.1),
        "seen": pa.array([datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=int(d)) for d in days], pa.timestamp("ms", "Europe/Berlin")),
        "born": pa.array([date(1950, 1, 1) + timedelta(days=int(d)) for d in days * 20], pa.date32()),
        "sex": rng.choice(["F", "M"], n),
        "marker": pa.array(rng.normal(shift, 1, n), mask=rng.random(n) < 0.2),
        "state": pa.array(np.where(sick, "sick", "well")),
    })  # fmt: skip


def written(folder: Path, table: pa.Table, name: str = "patients.parquet") -> str:
    pq.write_table(table, folder / name)
    return str(folder / name)


def job(data: str, out: Path | str, **settings: Any) -> Job:
    return Job(**{"data": data, "target": "state", "out": str(out), **SMALL, **settings})


def options(data: str, out: Path | str) -> list[str]:
    """The command line of `job(data, out)`."""
    named = [word for name in GENERATORS for word in ("--generator", name)]
    numbers = ["--trials", "4", "--draws", "2", "--folds", "2", "--repeats", "1", "--workers", "2"]
    return ["augment", data, "--target", "state", "--out", str(out), *named, "--learner", "logistic", *numbers, "--force"]


def rows_of(report: Report) -> Rows:
    folder = Folder(report.folder) / "read"
    return Rows.from_json(folder, folder.read_json(MANIFEST)["rows_json"])


def schema_of(report: Report) -> Schema:
    return rows_of(report).schema(FINAL)


def augmented(report: Report) -> tuple[pa.Table, pa.Table]:
    """(real rows, drawn rows)."""
    files = sorted(Path(report.augmented).glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    synthetic = table["_synthetic"].to_numpy()
    return table.filter(pa.array(~synthetic)), table.filter(pa.array(synthetic))


def plan_of(report: Report) -> dict[str, Any]:
    return report.facts["verdict"]["plan"]


def parts_of(rows: Rows) -> dict[int, tuple[set[int], set[int]]]:
    """Fold -> (training rows, held-out rows)."""
    return {
        fold: tuple({row for block in rows.blocks(fold, held) for row in block["_row"].to_pylist()} for held in (False, True))  # type: ignore[misc]
        for fold in (*range(rows.folds), FINAL)
    }


def contents(folder: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def times(folder: Path | str) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(Path(folder).rglob("*")) if path.is_file()}


def fits_here(
    job: Job, rows: Rows, partitions: Any, waiting: list[fit.FitJob], source: Any, end: float
) -> Iterator[tuple[fit.FitJob, str | None]]:
    """Stands in for Ray's tasks."""
    for one in waiting:
        yield one, fit._fit_task(one, (rows, partitions, source))


def tries_here(trial: search.Trial, feed: search.Feed, workers: int) -> None:
    """Stands in for Ray Tune."""
    while (candidate := feed.following()) is not None:
        search.run_candidate(trial, candidate, feed.reference)
        feed.finished(candidate.id)


def again(report: Report, changed: Job, out: Path) -> Report:
    """Runs a changed job on a copy of a finished run's folder."""
    import shutil

    shutil.copytree(report.folder, out)
    return run(replace(changed, out=str(out)))

"""A table of more rows than are ranked: small groups are still cut exactly, and the notice says what is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codsa_ray import Job
from codsa_ray.contracts import silent
from codsa_ray.folder import Folder
from codsa_ray.pipeline import settled
from codsa_ray.rows import FINAL
from codsa_ray.stages.read import read


@pytest.fixture
def large(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    rng = np.random.default_rng(0)
    for part in range(2):
        label = np.where(np.arange(2_000) % 40 == 0, "rare", "common")
        pd.DataFrame({"x": rng.normal(size=2_000), "y": label}).to_parquet(place / f"{part}.parquet")
    return place


def test_small_groups_of_a_large_table_are_cut_exactly(large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = settled(Job(str(large), "y", folds=4, out=str(tmp_path / "run")).made())
    whole, _ = read(job, Folder(job.out) / "whole", silent)
    for place in ("codsa_ray.split.EXACT_ROWS", "codsa_ray.stages.read.EXACT_ROWS"):
        monkeypatch.setattr(place, 1_000)
    rows, facts = read(job, Folder(job.out) / "large", silent)
    rare = int(np.argmin([group.rows for group in rows.groups.items]))
    counts = np.array(rows.counts)
    assert counts[:, rare].tolist() == [20, 20, 20, 20, 0, 20]
    assert counts.sum(axis=0).tolist() == np.array(whole.counts).sum(axis=0).tolist()
    assert np.all(np.abs(counts[[0, 1, 2, 3, FINAL], 1 - rare] - 780) < 5 * np.sqrt(780))
    assert "groups of 3900 rows and more are split by hash" in " ".join(facts["notices"])

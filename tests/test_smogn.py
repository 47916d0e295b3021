"""SMOGN's two ways of drawing, told apart by geometry, and its neighbours against scikit-learn's."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.neighbors import NearestNeighbors

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.smogn import Smogn

from tables import LocalWorker, with_regions


def wages(n: int = 60, seed: int = 0) -> pa.Table:
    """Two numbers, a category, a wage that is their line, in two regions by `young`."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.uniform(0, 9, n)
    young = np.where(np.arange(n) < n // 4, "yes", "no")
    job = rng.choice(["cook", "nurse"], n)
    return pa.table({"a": a, "b": b, "job": job, "young": young, "wage": 3 * a - b + 20})


def fitted(settings: Smogn, table: pa.Table, place: Path) -> tuple[Any, pa.Table]:
    """The fitted generator and its rows as it keeps them, sorted by region."""
    table, schema, regions = with_regions(table, "wage", ("young",), "regression")
    worker = LocalWorker(Folder(str(place)))
    settings.fit(FitData.of(table, schema, regions, seed=0), worker)
    return settings.load(worker.folder), table.take(pa.array(np.argsort(table[REGION].to_numpy(), kind="stable")))


def matrix(table: pa.Table, *names: str) -> np.ndarray:
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def test_neighbours_and_their_reach_are_those_of_heom_within_the_region_without_the_target(tmp_path: Path) -> None:
    generator, rows = fitted(Smogn(k=3), wages(), tmp_path)
    X = matrix(rows, "a", "b")
    space = np.column_stack([X / np.ptp(X, axis=0), (rows["job"].to_numpy(zero_copy_only=False) == "cook") / 1.0])
    for start, stop in ((0, 45), (45, 60)):
        distance, near = NearestNeighbors(n_neighbors=stop - start).fit(space[start:stop]).kneighbors(space[start:stop])
        reach = np.median(distance[:, 1:], axis=1) / 2
        assert generator.arrays["near"][start:stop].tolist() == (start + near[:, 1:4]).tolist()
        assert generator.arrays["reach"][start:stop] == pytest.approx(reach)
        assert (generator.arrays["close"][start:stop] == (distance[:, 1:4] < reach[:, None])).all()
    assert {True, False} == set(generator.arrays["close"].ravel().tolist())


def test_near_neighbours_are_joined_by_segments_on_which_the_target_is_linear(tmp_path: Path) -> None:
    generator, rows = fitted(Smogn(pert=0.0), wages().drop_columns(["job"]), tmp_path)
    drawn = generator.block(1, 5)
    assert drawn["wage"].to_numpy() == pytest.approx(3 * drawn["a"].to_numpy() - drawn["b"].to_numpy() + 20)
    real, X = matrix(rows, "a", "b")[45:], matrix(drawn, "a", "b")
    copies = (X[:, None] == real[None]).all(axis=2).any(axis=1)
    assert 0.05 < copies.mean() < 0.95, "without noise, a base whose neighbour is far is copied"
    ends = generator.arrays["near"][45:] - 45
    pairs = np.array([(i, j) for i in range(15) for j in ends[i]])
    start, way = real[pairs[:, 0]], real[pairs[:, 1]] - real[pairs[:, 0]]
    along = ((X[:, None] - start) * way).sum(axis=2) / np.square(way).sum(axis=1)
    off = np.abs(X[:, None] - (start + along[..., None] * way)).max(axis=2)
    assert ((off < 1e-9) & (along > -1e-9) & (along < 1 + 1e-9)).any(axis=1).all()


def test_far_neighbours_leave_noise_of_the_stated_size_around_the_base(tmp_path: Path) -> None:
    corners = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    a, b = np.tile(corners, (2, 1)).T
    table = pa.table({"a": a, "b": b, "young": ["yes"] * 4 + ["no"] * 4, "wage": np.arange(8) * np.sqrt(2)})
    generator, _ = fitted(Smogn(k=1, pert=0.01, block=4096), table, tmp_path)
    assert not generator.arrays["close"].any()
    drawn = generator.block(1, 3)["wage"].to_numpy() / np.sqrt(2)
    inside = np.isin(np.rint(drawn), (1, 2))  # the lowest is clipped at the column's bound
    assert (drawn - np.rint(drawn))[inside].std() == pytest.approx(0.01 * np.arange(4).std(), rel=0.05)


def test_a_category_between_two_ends_pulls_the_target_to_the_end_it_comes_from(tmp_path: Path) -> None:
    spots = np.repeat([0.0, 100.0], 10)
    table = pa.table({
        "a": spots,
        "b": np.zeros(20),
        "job": np.where(np.arange(20) % 10 == 0, "cook", "nurse"),
        "young": np.where(np.arange(20) < 18, "no", "yes"),
        "wage": np.where(np.arange(20) % 10 == 0, 0.0, 10.0),
    })  # fmt: skip
    generator, _ = fitted(Smogn(k=17, block=8192), table, tmp_path)
    base = np.zeros(4000, dtype=np.int64)
    by, levels = generator._between(base, np.ones(4000, dtype=np.int64), np.random.default_rng(0))
    wage, job = [c.column.name for c in generator.cells].index("wage"), [c.column.name for c in generator.cells].index("job")
    drawn, moved = generator.arrays["X"][0, wage] + by[:, wage], levels[:, job] != generator.arrays["X"][0, job]
    assert drawn[~moved] == pytest.approx(0.0)
    assert drawn[moved] == pytest.approx(10.0)
    assert moved.mean() == pytest.approx(0.5, abs=0.05)


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SettingError, match="k, cap and block"):
        Smogn(k=0)

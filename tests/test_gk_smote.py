"""gk_smote: the kernel against its formula, two means against all cuts, and which rows segments join."""

from math import exp, sqrt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.gk_smote import FittedGkSmote, GkSmote, density, upper

from tables import LocalWorker, with_regions


def fitted(settings: GkSmote, path: object, X: np.ndarray, rare: np.ndarray) -> FittedGkSmote:
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "label": np.where(rare, "rare", "common")})
    found, schema, regions = with_regions(table, "label", ("label",))
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(found, schema, regions, 1), worker)
    return settings.load(worker.folder)


def points() -> tuple[np.ndarray, np.ndarray]:
    """300 common rows, 30 rare ones in a tight and a wide cluster, and 3 rare ones amid the common; unit deviation."""
    rng = np.random.default_rng(0)
    tight, wide = (rng.normal(8 * np.array([1, way]), spread, (15, 2)) for way, spread in ((1, 0.1), (-1, 1.0)))
    X = np.concatenate([rng.normal(size=(300, 2)), tight, wide, [[0.1, 0.1], [-0.8, 0.4], [0.5, -0.9]]])
    return X / X.std(axis=0), np.arange(333) >= 300


def formula(distances: list[float], h: float) -> float:
    """f as the paper writes it: the mean of the kernel over the k rows, the row itself among them."""
    return sum(exp(-(d**2) / (2 * h**2)) for d in [0.0, *distances]) / (len(distances) + 1)


def deviation(distances: list[float]) -> float:
    away = [0.0, *distances]
    middle = sum(away) / len(away)
    return sqrt(sum((d - middle) ** 2 for d in away) / len(away))


def test_density_is_the_mean_of_the_kernel() -> None:
    distances = np.abs(np.random.default_rng(0).normal(size=(20, 4)))
    own = [formula(row, deviation(row)) for row in distances.tolist()]
    assert density(distances, "own") == pytest.approx(own)
    h = float(np.median([deviation(row) for row in distances.tolist()]))
    assert density(distances, "region") == pytest.approx([formula(row, h) for row in distances.tolist()])


def test_the_published_density_knows_no_scale_and_the_region_s_does() -> None:
    distances = np.abs(np.random.default_rng(0).normal(size=(20, 4)))
    stretched = distances * np.linspace(1, 50, 20)[:, None]
    assert density(stretched, "own") == pytest.approx(density(distances, "own"))
    assert np.corrcoef(density(stretched, "region"), np.linspace(1, 50, 20))[0, 1] < -0.5


def test_rows_on_one_point_are_dense() -> None:
    assert density(np.zeros((3, 4)), "own").tolist() == [1, 1, 1]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=12))
@settings(max_examples=80, deadline=None)
def test_two_means_leave_the_least_variance_of_all_cuts(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=float)
    high = upper(values)
    if len(set(numbers)) == 1:
        assert not high.any()
        return
    cuts = [values > cut for cut in sorted(set(numbers))[:-1]]

    def within(part: np.ndarray) -> float:
        return float(sum(values[side].var() * side.sum() for side in (part, ~part)))

    assert within(high) == pytest.approx(min(map(within, cuts)))
    assert any(np.array_equal(high, cut) for cut in cuts)


def test_rows_that_only_others_surround_start_nothing(tmp_path: object) -> None:
    X, rare = points()
    generator = fitted(GkSmote(), tmp_path, X, rare)
    assert np.array_equal(generator.arrays["part"][300:] == 0, np.arange(33) >= 30)
    rows = generator.block(1, 1)
    assert cdist(np.column_stack([rows["a"], rows["b"]]), X[330:]).min() > 0.5


def test_rows_lie_between_rows_of_one_part_and_every_kept_row_starts_as_many(tmp_path: object) -> None:
    X, rare = points()
    settings = GkSmote(block=300)
    arrays = fitted(settings, tmp_path, X, rare).arrays
    part, near, k = (arrays[name][300:] for name in ("part", "near", "k"))
    assert set(part) == {0, 1, 2}
    for row in np.flatnonzero(part):
        same = np.flatnonzero(part == part[row])
        order = same[np.argsort(cdist(X[300:][[row]], X[300:][same])[0], kind="stable")]
        assert near[row, : k[row]].tolist() == (300 + order[order != row][:5]).tolist()
    rows = fitted(settings, tmp_path, X, rare).block(1, 7)
    drawn = np.column_stack([rows["a"], rows["b"]])
    found = np.full(len(drawn), -1)
    for start in np.flatnonzero(part):
        for other in near[start, : k[start]]:
            tail, way = X[300 + start], X[other] - X[300 + start]
            step = (drawn - tail) @ way / (way @ way)
            on = (np.linalg.norm(tail + step[:, None] * way - drawn, axis=1) < 1e-9) & (step >= 0) & (step <= 1)
            found[on] = part[start]
    assert (found > 0).all()
    # 300 rows of 30 kept ones: ten of each, so that the parts' shares are exact.
    assert (found == 1).sum() == 10 * (part == 1).sum()


def test_what_had_to_give_way_is_said(tmp_path: object) -> None:
    X, rare = points()
    keep = np.r_[0:300, 330:333]
    assert fitted(GkSmote(), tmp_path, X[keep], rare[keep]).notice[0] == "label=rare: every row is noise, all are kept"
    keep = np.r_[0:300, 300]
    assert "label=rare: every row is noise, all are kept" in fitted(GkSmote(), tmp_path, X[keep], rare[keep]).notice
    assert "label=rare: a part of one row, which is copied" in fitted(GkSmote(), tmp_path, X[keep], rare[keep]).notice


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"k": 0}, {"bandwidth": "wide"}, {"cap": 0}):
        with pytest.raises(SettingError):
            GkSmote(**wrong)


def test_noise_is_told_at_the_true_imbalance_when_common_rows_are_thinned(tmp_path: object) -> None:
    """60 rare rows anywhere among 3,000: nine in ten have none of their kind near, with all rows and with 300 of them."""
    X, rare = np.random.default_rng(0).random((3060, 2)), np.arange(3060) >= 3000
    shares = [(fitted(GkSmote(cap=cap), f"{tmp_path}/{cap}", X, rare).arrays["part"][-60:] == 0).mean() for cap in (5000, 300)]
    assert shares[0] == pytest.approx(0.9, abs=0.1)
    assert shares[1] == pytest.approx(shares[0], abs=0.15)


def test_rows_among_their_own_class_in_another_cell_are_no_noise(tmp_path: object) -> None:
    X, rare = points()
    sex = np.where(np.arange(333) % 15 == 0, "F", "M")
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "label": np.where(rare, "rare", "common"), "sex": sex})
    found, schema, regions = with_regions(table, "label", ("label", "sex"))
    worker = LocalWorker(Folder(str(tmp_path)))
    GkSmote().fit(FitData.of(found, schema, regions, 1), worker)
    arrays = GkSmote().load(worker.folder).arrays
    order = np.argsort(found["_region"].to_numpy(), kind="stable")
    assert set(order[arrays["part"] == 0]) == {330, 331, 332}

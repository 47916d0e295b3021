"""interpolation: held against imbalanced-learn's own output and against plain distances."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from imblearn.over_sampling import ADASYN, SMOTE, SMOTENC, SVMSMOTE, BorderlineSMOTE
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.generators import interpolation
from codsa_ray.generators.interpolation import KINDS, FittedInterpolation, Interpolation

from tables import LocalWorker, mixed_table, with_regions

SIGMAS = 5.0
RARE = 40


def points(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(400, 3) columns of unit deviation and (400,) bool rare rows, which overlap with the others."""
    rng = np.random.default_rng(seed)
    rare = np.arange(400) >= 400 - RARE
    X = rng.normal(size=(400, 3)) + 1.5 * rare[:, None]
    return X / X.std(axis=0), rare


def fitted(settings: Interpolation, path: object, table: pa.Table, by: tuple[str, ...] = ("label",)) -> FittedInterpolation:
    found, schema, regions = with_regions(table, "label", by)
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(found, schema, regions, 1), worker)
    return settings.load(worker.folder)


def as_table(X: np.ndarray, rare: np.ndarray) -> pa.Table:
    return pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "label": pa.array(np.where(rare, "rare", "common"))})


def drawn(settings: Interpolation, path: object, X: np.ndarray, rare: np.ndarray) -> np.ndarray:
    rows = fitted(settings, path, as_table(X, rare)).block(1, 5)
    return np.column_stack([rows[name].to_numpy() for name in "abc"])


def off_segments(rows: np.ndarray, own: np.ndarray, starts: np.ndarray, k: int = 5) -> np.ndarray:
    """(n,) distance of each row to the nearest segment from a start to one of its k nearest rows of `own`."""
    near = np.argsort(cdist(own[starts], own), axis=1)[:, 1 : k + 1]
    tail = np.repeat(own[starts], k, axis=0)
    way = own[near.ravel()] - tail
    step = np.clip(((rows[:, None] - tail) * way).sum(axis=2) / (way**2).sum(axis=1), 0, 1)
    return np.linalg.norm(tail + step[:, :, None] * way - rows[:, None], axis=2).min(axis=1)


def danger(X: np.ndarray, rare: np.ndarray) -> np.ndarray:
    sampler = BorderlineSMOTE(random_state=0)
    sampler.fit_resample(X, rare)
    return sampler._in_danger_noise(sampler.nn_m_, X[rare], True, rare, kind="danger")


def test_smote_rows_lie_between_a_row_and_one_of_its_five_nearest_of_the_region(tmp_path: object) -> None:
    X, rare = points()
    assert off_segments(drawn(Interpolation(), tmp_path, X, rare), X[rare], np.arange(RARE)).max() < 1e-9


def test_smote_rows_are_distributed_like_imbalanced_learn_s(tmp_path: object) -> None:
    X, rare = points()
    ours = drawn(Interpolation(block=4000), tmp_path, X, rare)
    theirs = SMOTE(sampling_strategy={True: 4000 + RARE, False: 400 - RARE}, random_state=0).fit_resample(X, rare)[0][400:]
    for j in range(3):
        assert ks_2samp(ours[:, j], theirs[:, j]).pvalue > 1e-4


def test_borderline_rows_start_only_where_imbalanced_learn_sees_danger(tmp_path: object) -> None:
    X, rare = points()
    starts = np.flatnonzero(danger(X, rare))
    assert 0 < len(starts) < RARE
    rows = drawn(Interpolation("borderline"), tmp_path, X, rare)
    assert off_segments(rows, X[rare], starts).max() < 1e-9
    generator = fitted(Interpolation("borderline"), tmp_path, as_table(X, rare))
    assert np.array_equal(generator.arrays["weight"][-RARE:] > 0, danger(X, rare))


def test_adasyn_weighs_starts_as_imbalanced_learn_does(tmp_path: object) -> None:
    X, rare = points()
    weight = fitted(Interpolation("adasyn", around=5), tmp_path, as_table(X, rare)).arrays["weight"][-RARE:]
    for size in (37, 100, 333, 1001):
        sampler = ADASYN(sampling_strategy={True: size + RARE, False: 400 - RARE}, random_state=0)
        theirs = sampler.fit_resample(X, rare)[0][400:]
        times = np.rint(weight / weight.sum() * size).astype(int)
        assert len(theirs) == times.sum()
        assert np.repeat(np.arange(RARE), times).shape == (len(theirs),)
        for start, row in zip(np.repeat(np.arange(RARE), times), theirs, strict=True):
            assert off_segments(row[None], X[rare], np.array([start])).max() < 1e-9


def machine(X: np.ndarray, rare: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(RARE,) imbalanced-learn's support vectors of the rare class that are no noise, and which of them are in danger."""
    sampler = SVMSMOTE(random_state=0)
    sampler.fit_resample(X, rare)
    vector = np.isin(np.flatnonzero(rare), sampler.svm_estimator_.support_)
    noise, risky = (sampler._in_danger_noise(sampler.nn_m_, X[rare], True, rare, kind=kind) for kind in ("noise", "danger"))
    return vector & ~noise, vector & risky


def test_svm_rows_start_at_imbalanced_learn_s_support_vectors_and_half_of_them_in_danger(tmp_path: object) -> None:
    X, rare = points()
    vector, risky = machine(X, rare)
    assert 0 < risky.sum() < vector.sum() < RARE
    arrays = fitted(Interpolation("svm"), tmp_path, as_table(X, rare)).arrays
    weight, reach = arrays["weight"][-RARE:], arrays["reach"][-RARE:]
    assert np.array_equal(weight > 0, vector)
    assert np.array_equal(reach > 0, risky | ~vector)
    assert weight[risky].sum() == pytest.approx(weight[vector & ~risky].sum())


def test_svm_rows_go_half_way_out_from_safe_vectors_and_all_the_way_in_from_others(tmp_path: object) -> None:
    X, rare = points()
    vector, risky = machine(X, rare)
    own, span = X[rare], np.ptp(X, axis=0)
    mirrored = np.concatenate([own, *(1.5 * own[[i]] - 0.5 * own for i in np.flatnonzero(vector & ~risky))])
    rows = drawn(Interpolation("svm"), tmp_path, X, rare)
    inside = ((rows > X.min(axis=0) + 1e-9 * span) & (rows < X.max(axis=0) - 1e-9 * span)).all(axis=1)
    inward = off_segments(rows, own, np.flatnonzero(risky)) < 1e-9
    outward = np.zeros(len(rows), dtype=bool)
    for place, start in enumerate(np.flatnonzero(vector & ~risky)):
        near = np.argsort(cdist(own[[start]], own)[0])[1:6]
        tips = mirrored[RARE * (place + 1) :][near]
        way = tips - own[start]
        step = np.clip(((rows[:, None] - own[start]) * way).sum(axis=2) / (way**2).sum(axis=1), 0, 1)
        outward |= np.linalg.norm(own[start] + step[:, :, None] * way - rows[:, None], axis=2).min(axis=1) < 1e-9
    assert (inward | outward)[inside].all()
    assert abs(inward.mean() - 0.5) < SIGMAS * 0.5 / np.sqrt(len(rows)) + (1 - inside.mean())


def test_a_machine_trained_on_some_rows_judges_all(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    X, rare = points()
    whole = fitted(Interpolation("svm"), tmp_path, as_table(X, rare)).arrays["weight"][-RARE:] > 0
    monkeypatch.setattr(interpolation, "SVR", 200)
    part = fitted(Interpolation("svm"), tmp_path, as_table(X, rare)).arrays["weight"][-RARE:] > 0
    assert (whole == part).mean() > 0.6


def test_every_kind_draws_whole_blocks(tmp_path: object) -> None:
    X, rare = points()
    for kind in KINDS:
        assert drawn(Interpolation(kind, block=777), tmp_path, X, rare).shape == (777, 3)


def test_categories_follow_smotenc(tmp_path: object) -> None:
    X, rare = points()
    color = np.random.default_rng(1).choice(4, 400, p=[0.4, 0.3, 0.2, 0.1])
    color[X[:, 0] > 1] = 3
    table = as_table(X, rare).append_column("color", pa.array([f"c{c}" for c in color]))
    rows = fitted(Interpolation(block=8000), tmp_path, table).block(1, 5)
    ours = np.bincount([int(c[1]) for c in rows["color"].to_pylist()], minlength=4) / 8000
    sampler = SMOTENC([3], sampling_strategy={True: 8000 + RARE, False: 400 - RARE}, random_state=0)
    theirs = np.bincount(sampler.fit_resample(np.column_stack([X, color]), rare)[0][400:, 3].astype(int), minlength=4) / 8000
    assert abs(ours - theirs).max() <= SIGMAS * np.sqrt(2 * 0.25 / 8000)
    assert ks_2samp(rows["a"].to_numpy(), sampler.fit_resample(np.column_stack([X, color]), rare)[0][400:, 0]).pvalue > 1e-4


def test_a_row_is_null_where_the_row_it_starts_from_is(tmp_path: object) -> None:
    table = mixed_table()[0]
    own = table.filter(pa.array(table[REGION].to_numpy() == 3))
    rows = fitted(Interpolation(), tmp_path, table.drop([REGION, "_row"]), ("label", "sex")).block(3, 1)
    patterns = [{tuple(v is None for v in row.values()) for row in t.select(rows.column_names).to_pylist()} for t in (own, rows)]
    assert patterns[1] <= patterns[0]


def test_nulls_stay_with_the_rows_that_have_them(tmp_path: object) -> None:
    far = np.repeat([0.0, 1000.0], 30)
    a = far + np.random.default_rng(0).normal(size=60)
    b = pa.array([None if x < 500 else 1.0 for x in a], pa.float64())
    rows = fitted(Interpolation(), tmp_path, pa.table({"a": a, "b": b, "label": ["x"] * 60})).block(0, 1)
    assert np.array_equal(rows["b"].is_null().to_numpy(), rows["a"].to_numpy() < 500)
    assert 0.4 < rows["b"].null_count / len(rows) < 0.6


def test_k_is_lowered_in_small_regions_and_a_single_row_is_copied_and_both_are_said(tmp_path: object) -> None:
    X, rare = points()
    for rows, said in ((3, "label=rare: 3 rows, k lowered from 5 to 2"), (1, "label=rare: 1 rows, k lowered from 5 to 0: rows are copied")):
        keep = np.concatenate([np.flatnonzero(~rare), np.flatnonzero(rare)[:rows]])
        generator = fitted(Interpolation(), tmp_path, as_table(X[keep], rare[keep]))
        assert generator.notice == (said,)
        values = np.column_stack([generator.block(1, 1)[name].to_numpy() for name in "abc"])
        assert (len(np.unique(values, axis=0)) == 1) == (rows == 1)


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"kind": "smoke"}, {"k": 0}, {"around": 0}):
        with pytest.raises(SettingError):
            Interpolation(**wrong)


def test_danger_is_told_at_the_true_imbalance_when_common_rows_are_thinned(tmp_path: object) -> None:
    """60 rare rows anywhere among 3,000: about one row in fifty around them is rare, with all rows and with 300 of them."""
    X, rare = np.random.default_rng(0).random((3060, 3)), np.arange(3060) >= 3000
    table = as_table(X, rare)
    shares = [fitted(Interpolation("adasyn", cap=cap), f"{tmp_path}/{cap}", table).arrays["weight"][-60:].mean() for cap in (5000, 300)]
    assert shares[0] == pytest.approx(0.98, abs=0.01)
    assert shares[1] == pytest.approx(shares[0], abs=0.03)


@pytest.mark.parametrize("kind", ["borderline", "adasyn", "svm"])
def test_a_class_cut_into_cells_starts_where_it_starts_whole(kind: str, tmp_path: object) -> None:
    X, rare = points()
    sex = pa.array(np.where(np.arange(400) % 3 == 0, "F", "M"))
    whole = fitted(Interpolation(kind), f"{tmp_path}/whole", as_table(X, rare)).arrays["weight"][-RARE:] > 0
    cut = as_table(X, rare).append_column("sex", sex)
    found = fitted(Interpolation(kind), f"{tmp_path}/cut", cut, ("label", "sex"))
    own = np.concatenate([np.flatnonzero(rare & (np.asarray(sex) == cell)) for cell in "FM"]) - (400 - RARE)
    same = (found.arrays["weight"][-RARE:] > 0) == whole[own]
    # A machine for each cell has vectors of its own.
    assert same.mean() > 0.7 if kind == "svm" else same.all()


LARGE = """
import resource, sys
import numpy as np, pyarrow as pa
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.interpolation import Interpolation
from tables import LocalWorker, with_regions
rows, cap, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
label = pa.array(np.arange(rows) % 10 == 0).cast(pa.string())
data = FitData.of(*with_regions(pa.table({f"x{i}": rng.normal(size=rows) for i in range(50)} | {"label": label}), "label", ("label",)), 1)
Interpolation(cap=cap).fit(data, LocalWorker(Folder(folder)))
print(len(Interpolation().load(Folder(folder)).block(1, 1)), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("cap", [10_000, 1_000_000])
def test_a_million_rows_of_fifty_columns_fit_in_four_gibibytes(cap: int, tmp_path: object) -> None:
    """The table itself, 400 MB, among them; with the cap of the defaults, and with every row kept and its neighbours sought."""
    here = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, "1000000", str(cap), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": here},
    )
    drawn, peak = map(int, done.stdout.split())
    assert drawn == 2048
    assert peak * 1024 < 4 * 2**30, f"{peak / 2**20:.1f} GiB"

"""majority_map: the kernel distance and the triplet loss in closed form, danger as imbalanced-learn sees it, and that rows arrive."""

from itertools import count, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from imblearn.over_sampling import BorderlineSMOTE
from scipy.spatial.distance import cdist

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.majority_map import FittedMajorityMap, MajorityMap, borderline, safe
from codsa_ray.neighbours import Space
from codsa_ray.nn import train as loop
from codsa_ray.nn.translator import MARGIN, SPREAD, Translator, discrepancy, triplet

from tables import LocalWorker, digest, with_regions

QUICK = MajorityMap(steps=120, batch=128, width=64, block=1024)


def points(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rare = np.arange(n) >= n * 5 // 6
    X = rng.normal(size=(n, 3)) * np.where(rare, 0.5, 1.0)[:, None] + 1.5 * rare[:, None]
    return X / X.std(axis=0), rare


def fit(settings: MajorityMap, path: Path, X: np.ndarray, rare: np.ndarray) -> Folder:
    table = pa.table({**{f"x{i}": column for i, column in enumerate(X.T)}, "label": np.where(rare, "rare", "common")})
    found, schema, regions = with_regions(table, "label", ("label",))
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(found, schema, regions, 1), worker)
    return worker.folder


def numbers(generator: FittedMajorityMap, region: int) -> np.ndarray:
    rows = generator.block(region, 1)
    return np.column_stack([rows[f"x{i}"] for i in range(3)])


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(discrepancy(torch.from_numpy(one), torch.from_numpy(other)))


def test_two_points_are_apart_by_the_kernel_at_one_bandwidth() -> None:
    """h is their distance: 1 + 1 - 2 exp(-1 / 2)."""
    assert apart(np.zeros((1, 2)), np.array([[3.0, 4.0]])) == pytest.approx(2 - 2 * np.exp(-0.5))


def test_the_kernel_distance_is_the_mean_over_all_pairs() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1
    h = np.sort([np.linalg.norm(a - b) for a, b in product(one, other)])[17 - 1 + 1]  # torch's median of 35: the 18th
    mean = [
        np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * h**2)) for a, b in product(p, q)])
        for p, q in ((one, one), (other, other), (one, other))
    ]
    assert apart(one, other) == pytest.approx(mean[0] + mean[1] - 2 * mean[2])


def test_a_sample_is_not_apart_from_itself_and_its_gradient_is_finite() -> None:
    rows = torch.zeros(4, 2, requires_grad=True)
    value = discrepancy(rows, torch.zeros(4, 2)) + triplet(rows, torch.zeros(2, 2), torch.zeros(3, 2))
    value.backward()
    assert apart(np.ones((4, 2)), np.ones((4, 2))) == pytest.approx(0)
    assert torch.isfinite(rows.grad).all()


def test_the_triplet_loss_in_closed_form() -> None:
    towards, away = torch.tensor([[0.0, 0.0], [0.0, 4.0]]), torch.tensor([[10.0, 0.0]])
    image = torch.tensor([[1.0, 0.0], [9.0, 0.0]])
    # The danger rows are 4 apart: the first image is nearer to them by 8, the second farther by 8.
    asked = MARGIN + SPREAD * 4
    assert triplet(image, towards, away).item() == pytest.approx((max(0, 1 - 9 + asked) + (9 - 1 + asked)) / 2, rel=1e-4)
    assert triplet(image[:1], towards[:1], away).item() == pytest.approx(max(0, 1 - 9 + MARGIN))


def test_danger_is_borderline_smote_s() -> None:
    X, rare = points()
    sampler = BorderlineSMOTE(m_neighbors=5, random_state=0)
    sampler.fit_resample(X, rare)
    known = sampler._in_danger_noise(sampler.nn_m_, X[rare], True, rare, kind="danger")
    assert 0 < known.sum() < rare.sum()
    found = borderline(Space.of(X, np.ones(3, dtype=bool)), rare, np.ones(len(X)), 5)
    assert np.array_equal(found[rare], known)


def test_safe_donors_are_the_farther_quarter() -> None:
    donors, own = np.arange(100.0)[:, None] + 1, np.zeros((3, 1))
    assert sorted(safe(donors, own, np.random.default_rng(0)).ravel()) == list(range(76, 101))


def test_layers_double_up_to_the_bound_and_mirror() -> None:
    network = Translator(3, 40)
    assert [layer[0].out_features for layer in network.down] == [6, 12, 24, 40, 40]
    assert [layer[0].out_features for layer in network.up] == [40, 24, 12, 6]
    assert network(torch.zeros(2, 3)).shape == (2, 3)


def test_the_loss_falls_and_rows_come_nearer_to_their_region(tmp_path: Path) -> None:
    X, rare = points()
    folder = fit(QUICK, tmp_path, X, rare)
    (told,) = folder.read_json("maps.json")["history"]
    assert told[-1][1] < 0.5
    rows, own = numbers(QUICK.load(folder), 1), X[rare]
    assert apart(rows, own) < 0.2 * apart(X[~rare], own)
    assert (rows >= own.min(axis=0) - 1e-6).all()
    assert (rows <= own.max(axis=0) + 1e-6).all()
    assert len(np.unique(rows, axis=0)) <= (~rare).sum()


def test_a_region_to_which_balance_adds_nothing_is_drawn_again(tmp_path: Path) -> None:
    X, rare = points()
    rows = numbers(QUICK.load(fit(QUICK, tmp_path, X, rare)), 0)
    assert cdist(rows, X[~rare]).min(axis=1).max() < 1e-6
    assert len(np.unique(rows, axis=0)) > 0.8 * (~rare).sum()


def test_running_means_of_the_norms_are_kept(tmp_path: Path) -> None:
    """The averaged network, which draws, has the trained one's norms; as they start, the loss would be far off."""
    X, rare = points()
    arrays = fit(QUICK, tmp_path, X, rare).read_arrays("maps.safetensors")
    assert arrays["maps/1/down.0.1.num_batches_tracked"] == QUICK.steps
    assert np.abs(arrays["maps/1/down.0.1.running_mean"]).max() > 0.01


def test_the_same_seed_fits_the_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    X, rare = points(80)
    settings, found, before = MajorityMap.tiny(), set(), torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(digest(settings.load(fit(settings, tmp_path / str(threads), X, rare)).block(1, 1)))
    torch.set_num_threads(before)
    assert len(found) == 1


def test_a_single_region_is_refused_in_one_line(tmp_path: Path) -> None:
    X, rare = points()
    with pytest.raises(SettingError, match="rows in at least two regions"):
        fit(QUICK, tmp_path, X[rare], rare[rare])


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"batch": 1}, {"triplet": -0.1}, {"steps": 0}):
        with pytest.raises(SettingError):
            MajorityMap(**wrong)


def test_danger_is_told_by_classes_and_at_the_true_imbalance() -> None:
    """Weights of 4 for the rows of one class are that class given four times over, but for where the k-th lies."""
    X, rare = points()
    space, k = Space.of(X, np.ones(3, dtype=bool)), 5
    near = space.nearest(np.arange(300), np.arange(300), k, 1.0)[0]
    found = borderline(space, rare, np.where(rare, 1.0, 4.0), k)
    for row in np.flatnonzero(rare):
        around = [other for other in near[row] for _ in range(1 if rare[other] else 4)][:k]
        outside = np.mean(~rare[around])
        assert found[row] == (0.5 < outside < 1)


def test_a_map_that_takes_an_hour_leaves_nothing_to_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, rare = points()
    table = pa.table({"x": X[:, 0], "y": X[:, 1], "label": np.array(["a", "b", "c"])[rare + (X[:, 2] > 1.5) * ~rare * 2]})
    found, schema, regions = with_regions(table, "label", ("label",))
    settings, files = MajorityMap(steps=250, batch=32, width=8), []
    for hour in (0, 3600):
        clock = count(0, hour or 1e-3)
        monkeypatch.setattr(loop, "monotonic", lambda clock=clock: next(clock))
        worker = LocalWorker(Folder(str(tmp_path / str(hour))))
        settings.fit(FitData.of(found, schema, regions, 1), worker)
        files.append((tmp_path / str(hour) / "maps.safetensors").read_bytes())
    assert len(settings.load(worker.folder).maps) == 2
    assert files[0] == files[1]

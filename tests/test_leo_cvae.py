"""leo_cvae: entropy and losses against reference formulas, and what gamma does to the rows that are drawn."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from torch.distributions import Normal, kl_divergence

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.leo_cvae import LeoCvae, entropies
from codsa_ray.neighbours import Space
from codsa_ray.nn.cvae import divergence, mismatch
from codsa_ray.nn.layout import Layout
from codsa_ray.nn.precondition import CODE

from tables import LocalWorker, digest, with_regions

SIGMAS = 5.0
QUICK = LeoCvae(steps=300, rate=5e-3, block=4000)


def points(n: int = 240, away: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    rare = np.arange(n) >= n * 3 // 4
    X = rng.normal(size=(n, 3)) + away * rare[:, None]
    return X / X.std(axis=0), rare


def fit(settings: LeoCvae, path: Path, table: pa.Table) -> Folder:
    found, schema, regions = with_regions(table, "label", ("label",))
    worker = LocalWorker(Folder(str(path)))
    settings.fit(FitData.of(found, schema, regions, 1), worker)
    return worker.folder


def as_table(X: np.ndarray, rare: np.ndarray) -> pa.Table:
    return pa.table({**{f"x{i}": column for i, column in enumerate(X.T)}, "label": np.where(rare, "rare", "common")})


def test_local_entropy_is_scipy_s_of_the_fifteen_nearest() -> None:
    X, rare = points()
    found = entropies(Space.of(X, np.ones(3, dtype=bool)), rare.astype(int), np.ones(len(X)), 15)
    near = np.argsort(cdist(X, X) + np.where(np.eye(len(X)) > 0, np.inf, 0), axis=1)[:, :15]
    known = [entropy([rare[row].mean(), 1 - rare[row].mean()], base=2) for row in near]
    assert found == pytest.approx(known)
    assert 0 < found.mean() < 1


def test_entropy_is_zero_for_classes_apart_and_for_a_single_row() -> None:
    X, rare = points(away=50.0)
    assert entropies(Space.of(X, np.ones(3, dtype=bool)), rare.astype(int), np.ones(len(X)), 15).max() == 0
    assert entropies(Space.of(X[:1], np.ones(3, dtype=bool)), np.zeros(1, dtype=int), np.ones(1), 15).tolist() == [0]


def test_divergence_is_torch_s() -> None:
    mean, spread = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    known = kl_divergence(Normal(mean, (spread / 2).exp()), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, spread), known, atol=1e-5)


def test_mismatch_is_squares_and_cross_entropies() -> None:
    layout = Layout(1, ((2, 2),))
    clean = torch.tensor([[0.5, CODE, 0, 0, CODE]])
    raw = torch.tensor([[2.0, 1.0, 0.0, 3.0, 0.0]])
    known = 1.5**2 + np.log(1 + np.exp(-1)) + np.log(1 + np.exp(3))
    assert mismatch(raw, clean, layout).item() == pytest.approx(known, rel=1e-5)


def test_the_loss_falls_on_rows_held_out(tmp_path: Path) -> None:
    X, rare = points()
    # Ten columns of three directions: something that a code can tell.
    wide = X @ np.random.default_rng(1).normal(size=(3, 10))
    meta = fit(LeoCvae(steps=200, rate=5e-3, beta=0.2), tmp_path, as_table(wide, rare)).read_json("cvae.json")
    history = np.array(meta["history"])
    assert history[-1, 2] < history[0, 2]
    assert meta["step"] == history[history[:, 2].argmin(), 0]


def test_seeds_are_drawn_in_proportion_to_one_plus_entropy_to_the_gamma(tmp_path: Path) -> None:
    X, rare = points()
    weight = fit(LeoCvae(gamma=0.0, steps=1), tmp_path / "a", as_table(X, rare)).read_arrays("cvae.safetensors")["weight"]
    assert set(weight) == {1.0}
    far = entropies(Space.of(X, np.ones(3, dtype=bool)), rare.astype(int), np.ones(len(X)), 15) > 0.9
    # A cell is null where the seed's is: the share of nulls is that of the seeds that are marked.
    mark = pa.array([None if f else 1.0 for f in far], pa.float64())
    table = as_table(X, rare).append_column("mark", mark)
    folder = fit(LeoCvae(gamma=2.5, steps=1, block=20_000), tmp_path / "b", table)
    arrays = folder.read_arrays("cvae.safetensors")
    own = slice(*arrays["starts"][1:3])
    marked = arrays["nulls"][own].any(axis=1)
    share = arrays["weight"][own][marked].sum() / arrays["weight"][own].sum()
    assert share > 1.2 * marked.mean()
    drawn = LeoCvae(gamma=2.5, steps=1, block=20_000).load(folder).block(1, 3)["mark"].null_count / 20_000
    assert abs(drawn - share) < SIGMAS * np.sqrt(share * (1 - share) / 20_000)


def test_drawn_rows_lie_where_their_region_does(tmp_path: Path) -> None:
    X, rare = points(away=3.0)
    generator = QUICK.load(fit(QUICK, tmp_path, as_table(X, rare)))
    for region, own in enumerate((X[~rare], X[rare])):
        rows = np.column_stack([generator.block(region, 1)[f"x{i}"] for i in range(3)])
        assert np.abs(rows.mean(axis=0) - own.mean(axis=0)).max() < 0.25
        assert (rows >= own.min(axis=0) - 1e-6).all()
        assert (rows <= own.max(axis=0) + 1e-6).all()


def test_the_same_seed_fits_the_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    X, rare = points(80)
    settings, found, before = LeoCvae.tiny(), set(), torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.add(digest(settings.load(fit(settings, tmp_path / str(threads), as_table(X, rare))).block(1, 1)))
    torch.set_num_threads(before)
    assert len(found) == 1


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"gamma": -1.0}, {"held_out": 1.0}, {"steps": 0}):
        with pytest.raises(SettingError):
            LeoCvae(**wrong)


def test_entropy_is_that_of_all_rows_when_a_class_is_thinned() -> None:
    """Half rare, half common; of the common a fifth is kept: the share of each is even again, and the entropy near its one bit."""
    rng = np.random.default_rng(0)
    X, rare = rng.random((4000, 2)), rng.random(4000) < 0.5
    kept = rare | (rng.random(4000) < 0.2)
    found = []
    for some, weight in ((np.ones(4000, dtype=bool), np.ones(4000)), (kept, np.where(rare, 1.0, 5.0)), (kept, np.ones(4000))):
        space = Space.of(X[some], np.ones(2, dtype=bool))
        found.append(entropies(space, rare[some].astype(int), weight[some], 15)[rare[some]].mean())
    assert found[0] > 0.9
    assert abs(found[1] - found[0]) < 0.6 * abs(found[2] - found[0])


def test_nearly_all_rows_held_out_leave_one_of_each_region_to_learn_from(tmp_path: Path) -> None:
    X, rare = points()
    some = np.concatenate([np.flatnonzero(~rare)[:10], np.flatnonzero(rare)[:10]])
    settings = LeoCvae(steps=2, block=8, held_out=0.99)
    assert len(settings.load(fit(settings, tmp_path, as_table(X[some], rare[some]))).block(1, 1)) == 8
    data = FitData.of(*with_regions(as_table(X[some], rare[some]), "label", ("label",)), seed=1)
    assert [len(part) for part in data.split(0.99)] == [2, 18]

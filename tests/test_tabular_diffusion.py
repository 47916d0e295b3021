"""Tabular diffusion: what is drawn follows the region, the fit goes on where it died, and bytes depend on seeds alone."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pytest
import torch

from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import FittedTabularDiffusion, TabularDiffusion
from codsa_ray.nn.denoising import DROP_REGION, DenoisingLoss, LatentRows
from codsa_ray.nn.layout import Layout
from codsa_ray.regions import Regions
from codsa_ray.schema import Schema

from failing import Died, Mortal
from tables import LocalWorker, mixed_table, with_regions

SMALL = replace(TabularDiffusion.tiny(), steps=400, width=64, rate=4e-3, block=2048)


def fit(settings: TabularDiffusion, table: pa.Table, schema: Schema, regions: Regions, seed: int = 1) -> FittedTabularDiffusion:
    worker = LocalWorker(Folder(mkdtemp(prefix="diffusion-")))
    settings.fit(FitData.of(table, schema, regions, seed), worker)
    return settings.load(worker.folder)


def crossed(counts: dict[tuple[str, str], int], seed: int = 0) -> tuple[pa.Table, Schema, Regions]:
    """Rows (x, y, z, label, group): x ~ N(3 [label=b], 1), y ~ N(3 [group=v], 1), z = x + N(0, .3^2)."""
    rng, parts = np.random.default_rng(seed), []
    for (label, group), n in counts.items():
        x, y = rng.normal(3 * (label == "b"), 1, n), rng.normal(3 * (group == "v"), 1, n)
        parts.append(pa.table({"x": x, "y": y, "z": x + rng.normal(0, 0.3, n), "label": [label] * n, "group": [group] * n}))
    return with_regions(pa.concat_tables(parts), "label", ("label", "group"))


@cache
def normals() -> FittedTabularDiffusion:
    return fit(SMALL, *crossed({("a", "u"): 900, ("a", "v"): 500, ("b", "u"): 500, ("b", "v"): 20}))


@pytest.mark.parametrize(("region", "x", "y"), [(0, 0, 0), (1, 0, 3), (2, 3, 0)])
def test_each_region_is_drawn_around_its_own_means(region: int, x: float, y: float) -> None:
    rows = normals().block(region, 0)
    assert [np.mean(rows["x"]), np.mean(rows["y"])] == pytest.approx([x, y], abs=0.25)
    assert [np.std(rows["x"]), np.std(rows["y"])] == pytest.approx([1, 1], abs=0.25)


def test_dependence_between_columns_is_drawn() -> None:
    rows = normals().block(0, 0)
    assert np.corrcoef(rows["x"], rows["z"])[0, 1] > 0.85


def test_factors_bring_a_region_of_twenty_rows_nearer_to_the_truth() -> None:
    """Against the same fit told the region alone, over seeds. It need not beat the rows' own mean: measured, it does not."""
    settings, errors = replace(SMALL, steps=800, batch=256), np.zeros(2)
    for seed in range(3):
        table, schema, regions = crossed({("a", "u"): 900, ("a", "v"): 500, ("b", "u"): 500, ("b", "v"): 20}, seed)
        bare = replace(regions, items=tuple(replace(item, factors=()) for item in regions.items), levels=())
        for index, known in enumerate((regions, bare)):
            rows = fit(settings, table, schema, known, seed).block(3, 0)
            errors[index] += (np.mean(rows["x"]) - 3) ** 2 + (np.mean(rows["y"]) - 3) ** 2
    assert errors[0] < errors[1]


def test_a_rare_region_is_drawn_and_not_remembered() -> None:
    rows = normals().block(3, 0)
    assert np.corrcoef(rows["x"], rows["z"])[0, 1] > 0.85
    assert len(np.unique(rows["x"])) > 1000


@pytest.mark.parametrize("rows", [50, 1])
def test_few_rows_of_one_column_are_enough(rows: int) -> None:
    table, schema, regions = with_regions(pa.table({"x": np.arange(float(rows)), "label": ["a"] * rows}), "label", ("label",))
    drawn = fit(TabularDiffusion.tiny(), table, schema, regions).block(0, 0)
    assert drawn.column_names == ["x"]
    assert 0 <= min(drawn["x"].to_pylist()) <= max(drawn["x"].to_pylist()) < rows


def test_a_table_whose_columns_the_region_fixes_has_rows_and_no_column() -> None:
    table, schema, regions = with_regions(pa.table({"label": ["a", "b"] * 20}), "label", ("label",))
    drawn = fit(TabularDiffusion.tiny(), table, schema, regions).block(1, 0)
    assert (len(drawn), drawn.column_names) == (256, [])


def test_sixty_four_columns_of_whole_numbers_are_drawn() -> None:
    rng = np.random.default_rng(0)
    pixels = {f"p{i}": np.clip(rng.normal(8 * (i % 2), 3, 200), 0, 16).astype(np.int64) for i in range(64)}
    table, schema, regions = with_regions(pa.table({**pixels, "label": ["a", "b"] * 100}), "label", ("label",))
    drawn = fit(TabularDiffusion.tiny(), table, schema, regions).block(0, 0)
    assert all(abs(np.mean(drawn[name]) - values.mean()) < 2 for name, values in pixels.items())


def test_a_fit_that_died_ends_with_the_bytes_of_one_that_did_not(tmp_path: Path) -> None:
    table, schema, regions = mixed_table(300)
    settings, data = replace(TabularDiffusion.tiny(), checkpoint=40), FitData.of(table, schema, regions, 3)
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_at=100))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    for name in ("denoiser.safetensors", "denoiser.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


def loss_of(rank: int, world: int, tmp_path: Path) -> DenoisingLoss:
    latents = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    rows = LatentRows(latents, torch.arange(100) % 4, torch.linspace(0.01, 1, 100).double())
    factors = torch.tensor([[0, 0], [0, 1], [1, 2], [1, 3]])
    return DenoisingLoss(Layout(2), rows, factors, torch.float32, 64, LocalWorker(Folder(str(tmp_path)), rank, world))


def test_the_shares_of_two_workers_make_the_batch_of_one(tmp_path: Path) -> None:
    def network(rows: torch.Tensor, level: torch.Tensor, factors: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return rows * level + (factors * keep).sum(1, keepdim=True)

    def mean(rank: int, world: int) -> float:
        return float(loss_of(rank, world, tmp_path)(network, torch.Generator().manual_seed(9)))  # type: ignore[arg-type]

    assert (mean(0, 2) + mean(1, 2)) / 2 == pytest.approx(mean(0, 1), rel=1e-5)


def test_the_region_s_own_embedding_is_dropped_more_often_than_its_factors(tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []

    def network(rows: torch.Tensor, level: torch.Tensor, factors: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        kept.append(keep)
        return rows

    for seed in range(100):
        loss_of(0, 1, tmp_path)(network, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    share = torch.cat(kept).mean(0).tolist()
    assert share == pytest.approx([0.9, 0.9 * (1 - DROP_REGION)], abs=0.02)


def test_batches_hold_regions_at_their_natural_share_however_many_rows_were_kept() -> None:
    mass = torch.cat([torch.full((20,), 0.9 / 20), torch.full((20,), 0.1 / 20)]).double().cumsum(0)
    rows = LatentRows(torch.zeros(40, 1), torch.arange(40) // 20, mass)
    drawn = rows.regions[rows.draw(1000, torch.Generator().manual_seed(0))]
    assert int((drawn == 0).sum()) == pytest.approx(900, abs=1)


def digest(rows: pa.Table) -> str:
    return hashlib.sha256("".join(str(rows[name].to_pylist()) for name in rows.column_names).encode()).hexdigest()


def test_bytes_do_not_depend_on_the_caller_s_threads_which_are_left_as_they_were() -> None:
    before, digests = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            digests.add(digest(normals().block(1, 4)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_draw_settings_need_no_refit() -> None:
    worker = LocalWorker(Folder(mkdtemp(prefix="diffusion-")))
    TabularDiffusion.tiny().fit(FitData.of(*mixed_table(200), seed=1), worker)
    slower = TabularDiffusion(evaluations=20, guidance=1.5, block=100).load(worker.folder)
    assert len(slower.block(0, 1)) == 100

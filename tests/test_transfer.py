"""Transfer: a source teaches what it can know, nothing that the target's rows could not hold, and a fit that died ends alike."""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import SHARED, FittedTabularDiffusion, TabularDiffusion, adapted
from codsa_ray.job import Job
from codsa_ray.nn.adapters import merged
from codsa_ray.nn.denoising import DenoisingLoss, LatentRows
from codsa_ray.nn.layout import Layout
from codsa_ray.nn.networks import ResidualMLP
from codsa_ray.nn.phases import Phase, reached
from codsa_ray.nn.precondition import losses
from codsa_ray.nn.table_codec import TableCodec
from codsa_ray.pipeline import run
from codsa_ray.schema import Column

import runs
from failing import Died, Mortal
from tables import LocalWorker, digest, mixed_table, with_regions

TINY = replace(TabularDiffusion.tiny(), steps=60, pretrain=60, checkpoint=20, batch=64)


def pairs(n: int, seed: int, names: tuple[str, ...] = ("x", "z")) -> pa.Table:
    """Rows of two columns that differ by .3 of their spread, and a label that moves both by 2."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.5
    x = rng.normal(2 * label, 1)
    return pa.table({names[0]: x, names[1]: x + rng.normal(0, 0.3, n), "label": np.where(label, "b", "a")})


def of(table: pa.Table, source: pa.Table | None, seed: int = 1) -> FitData:
    """The rows, and a source read by their schema."""
    data = FitData.of(*with_regions(table, "label", ("label",)), seed)
    return data if source is None else replace(data, source=related(data, source))


def related(data: FitData, source: pa.Table) -> FitData:
    found, _, regions = with_regions(source, "label", ("label",))
    for column in data.schema.columns:
        if column.name not in found.column_names:
            found = found.append_column(column.name, pa.nulls(len(found), column.arrow))
    return FitData.of(found, data.schema, replace(data.regions, items=regions.items), 9)


def fit(settings: TabularDiffusion, data: FitData) -> FittedTabularDiffusion:
    worker = LocalWorker(Folder(mkdtemp(prefix="transfer-")))
    settings.fit(data, worker)
    return settings.load(worker.folder)


@pytest.mark.parametrize("lora", [0, 4])
def test_twenty_rows_learn_from_a_source_what_they_cannot_show(lora: int) -> None:
    """The dependence of two columns, whose closed form is a correlation of 1 / sqrt(1 + .3^2) within a label."""
    settings, few = replace(TINY, steps=40, pretrain=200, lora=lora, block=1024), pairs(20, 0)
    errors = []
    for fitted in (fit(replace(settings, steps=240), of(few, None)), fit(settings, of(few, pairs(2000, 100)))):
        rows = [fitted.block(region, 0) for region in (0, 1)]
        errors.append(sum(abs(np.corrcoef(block["x"], block["z"])[0, 1] - 1 / np.sqrt(1.09)) for block in rows))
    assert errors[1] < 0.5 * errors[0]


def test_a_column_that_the_source_lacks_is_learned_from_the_target_alone() -> None:
    table = pairs(300, 0).append_column("new", pa.array(np.random.default_rng(1).normal(50, 1, 300)))
    fitted = fit(replace(TINY, steps=120, block=512), of(table, pairs(500, 1)))
    rows = fitted.block(0, 0)
    assert np.mean(rows["new"]) == pytest.approx(50, abs=0.5)
    assert fitted.before is not None
    assert fitted.before["new"] == ["new"]
    assert fitted.before["known"] == pytest.approx(2 / 3, abs=0.05)
    assert fitted.notice[0].startswith("pretrained on 500 rows of the source; ")
    assert fitted.notice[0].endswith("of their latents are known to DATA, nothing of new")


@pytest.mark.parametrize(("lora", "step"), [(0, 20), (0, 100), (4, 100)])
def test_a_fit_that_died_in_either_phase_ends_with_the_bytes_of_one_that_did_not(lora: int, step: int, tmp_path: Path) -> None:
    """Of 60 steps each, with two checkpoints."""
    settings, data = replace(TINY, lora=lora), of(pairs(60, 0), pairs(200, 1))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "whole"))))
    with pytest.raises(Died):
        settings.fit(data, Mortal(Folder(str(tmp_path / "died")), dies_saved=step))
    settings.fit(data, LocalWorker(Folder(str(tmp_path / "died"))))
    for name in ("denoiser.safetensors", "denoiser.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "died" / name).read_bytes()


def test_without_pretraining_a_source_changes_no_byte() -> None:
    settings, few = replace(TINY, pretrain=0, steps=20), pairs(60, 0)
    alone, beside = (fit(settings, of(few, source)) for source in (None, pairs(200, 1)))
    assert digest(alone.block(1, 3)) == digest(beside.block(1, 3))
    assert not settings.needs.source
    assert TINY.needs.source


def test_a_source_without_a_row_in_a_region_is_refused() -> None:
    data = of(pairs(60, 0), None)
    empty = replace(data, blocks=lambda: iter([data.table().slice(0, 0)]))
    with pytest.raises(SettingError, match="rows of the source that lie in a group"):
        fit(TINY, replace(data, source=empty))


def test_cells_that_the_target_s_rows_could_not_hold_are_unknown() -> None:
    columns = (
        Column("n", "numeric", "double"),
        Column("c", "categorical", "string", categories=("a", "b")),
        Column("e", "integer", "int64"),
    )
    learned = pa.table({"n": [1.0, 2.0, 3.0, 4.0, 5.0], "c": ["a", "b", "a", "b", "a"], "e": [1, 2, 1, 2, 1]})
    codec = TableCodec.of(columns, learned)
    other = pa.table({"n": [1.5, 9.0, None], "c": ["z", "b", "a"], "e": pa.array([None, None, None], pa.int64())})
    known, latents = codec.known(other), codec.encode(other)
    reals, (c, e) = known[:, 0], (known[:, 1:3], known[:, 3:5])
    assert reals.tolist() == [True, False, False]
    assert c.all(axis=1).tolist() == [False, True, True]
    assert not e.any()
    assert not latents[~known].any() or abs(latents[1, 0]) == pytest.approx(np.abs(codec.encode(learned)[:, 0]).max())
    assert codec.known(learned).all()


def test_unknown_latents_cost_nothing_and_are_not_looked_at() -> None:
    """The loss of a row with unknown parts is that of the known parts alone, by the number of all parts."""
    rng = torch.Generator().manual_seed(0)
    layout, known_layout = Layout(2, ((2, 3),)), Layout(1, ((1, 3),))
    raw, clean, noisy = (torch.randn(5, 8, generator=rng) for _ in range(3))
    known = torch.tensor([1.0, 0, 0, 0, 0, 1, 1, 1]).expand(5, 8)
    kept, sigma = [0, 5, 6, 7], torch.full((5,), 0.7)
    parts = losses(raw[:, kept], clean[:, kept], noisy[:, kept], sigma, known_layout) * known_layout.parts
    assert torch.allclose(losses(raw, clean, noisy, sigma, layout, known), parts / layout.parts)

    seen: list[torch.Tensor] = []

    def network(rows: torch.Tensor, level: torch.Tensor, factors: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return rows

    rows = LatentRows.natural(np.ones((4, 2), np.float32), np.zeros(4, np.int64), mixed_table(100)[2], np.array([[True, False]] * 4))
    loss = DenoisingLoss(Layout(2), rows, torch.zeros((4, 1), dtype=torch.int64), torch.float32, 8, LocalWorker(Folder(mkdtemp())))
    loss(network, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    assert not seen[0][:, 1].any()
    assert seen[0][:, 0].all()


def test_adapters_start_at_nothing_leave_shared_layers_and_are_worked_in_exactly() -> None:
    torch.manual_seed(0)
    network = ResidualMLP(3, 16, 2, (2,))
    nn.init.normal_(network.leave.weight)
    told = torch.randn(7, 3), torch.randn(7, 1), torch.zeros((7, 1), dtype=torch.int64), torch.ones((7, 1))
    before, plain = network(*told), {name: value.clone() for name, value in network.state_dict().items()}
    adapted(network, 2, 0)
    assert torch.equal(network(*told), before)
    free = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {name.partition(".lora_")[0] for name in free if "lora_" in name} == {
        *(f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("up", "down")),
        "conditions.noise.0",
        "conditions.noise.2",
    }
    assert {name for name in free if "lora_" not in name} == {
        "enter.weight",
        "enter.bias",
        "leave.weight",
        "leave.bias",
        "conditions.table.weight",
    }
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    state = merged({name: value.numpy() for name, value in network.state_dict().items()})
    again = ResidualMLP(3, 16, 2, (2,))
    again.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    assert torch.allclose(again(*told), network(*told), atol=1e-5)
    assert not torch.equal(again(*told), before)
    assert all(name.startswith(SHARED) or torch.equal(plain[name], again.state_dict()[name]) for name in plain)


def test_a_phase_resumes_from_its_own_checkpoints_only(tmp_path: Path) -> None:
    worker = LocalWorker(Folder(str(tmp_path)))
    first = Phase.of(worker, "first")
    assert reached(worker, "second") is None
    first.save(5, {"a": np.ones(1)}, {"step": 5})
    second = Phase.of(worker, "second", 100, {"told": 1})
    assert second.resume() is None
    assert first.resume() == (5, {"a": np.ones(1)}, {"step": 5})
    second.save(3, {"a": np.zeros(1)}, {"step": 3})
    assert worker.resume() is not None
    assert worker.resume()[0] == 103  # type: ignore[index]
    assert second.resume() == (3, {"a": np.zeros(1)}, {"step": 3})
    assert first.resume() is None
    assert reached(worker, "second") == {"told": 1}


def test_a_whole_run_pretrains_on_its_source_and_says_so(here: None, tmp_path: Path) -> None:
    """The source has classes that DATA has not; its other columns are left alone, and a fit without it stands beside."""
    table = runs.patients().select(["age", "weight kg", "marker", "state"])
    state = np.where(np.arange(90) < 10, "unknown", runs.patients(90, seed=5)["state"].to_numpy(zero_copy_only=False))
    source = runs.patients(90, seed=5).select(["age", "marker", "ward"]).append_column("state", pa.array(state))
    tiny = replace(TINY, steps=20, pretrain=20)
    settings: dict[str, Any] = {
        "generator": (tiny, replace(tiny, pretrain=0)),
        "learner": "logistic",
        "trials": 2,
        "draws": 1,
        "folds": 2,
        "workers": 2,
    }
    data, other = runs.written(tmp_path, table), runs.written(tmp_path, source, "source.parquet")
    report = run(Job(data=data, target="state", out=str(tmp_path / "run"), source=other, repeats=1, **settings))
    told = [notice for notice in report.facts["notices"] if "pretrained" in notice]
    assert len(told) == 1
    assert "pretrained on 80 rows of the source" in told[0]
    assert told[0].endswith("10 rows lie in no group, nothing of weight kg")
    assert not [notice for notice in report.facts["notices"] if "the source was not used" in notice]

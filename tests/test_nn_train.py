"""The training loop: resumed, stopped and averaged as it says."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codsa_ray.folder import Folder
from codsa_ray.nn.train import Training, train

from tables import LocalWorker

SETTINGS = Training(steps=60, rate=0.05, warmup=5, every=10, patience=100, checkpoint=20)


class Died(RuntimeError):
    pass


@dataclass
class Mortal(LocalWorker):
    """Raises at one report, as a worker that dies."""

    dies_at: int = 0

    def report(self, step: int, metrics: dict[str, float]) -> None:
        super().report(step, metrics)
        if step == self.dies_at:
            raise Died


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))


def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
    rows = torch.randn(32, 3, generator=generator)
    return (module(rows)[:, 0] - rows.prod(1) - 2).square().mean()


def score(module: nn.Module) -> float:
    with torch.no_grad():
        return float(loss(module, torch.Generator().manual_seed(5)))


def test_a_resumed_training_ends_with_the_same_bytes_as_an_undisturbed_one(tmp_path: Path) -> None:
    undisturbed = train(network(), loss, score, SETTINGS, LocalWorker(Folder(str(tmp_path / "a"))), 1)
    folder = Folder(str(tmp_path / "b"))
    with pytest.raises(Died):
        train(network(), loss, score, SETTINGS, Mortal(folder, dies_at=50), 1)
    worker = LocalWorker(folder)
    resumed = train(network(), loss, score, SETTINGS, worker, 1)
    assert [step for step, _ in worker.reports] == [50, 60], "it went on from step 40"
    assert resumed.history == undisturbed.history
    assert {name: a.tobytes() for name, a in resumed.weights.items()} == {name: a.tobytes() for name, a in undisturbed.weights.items()}


def test_a_resumed_training_without_scores_ends_alike_too(tmp_path: Path) -> None:
    undisturbed = train(network(), loss, None, SETTINGS, LocalWorker(Folder(str(tmp_path / "a"))), 1)
    with pytest.raises(Died):
        train(network(), loss, None, SETTINGS, Mortal(Folder(str(tmp_path / "b")), dies_at=50), 1)
    resumed = train(network(), loss, None, SETTINGS, LocalWorker(Folder(str(tmp_path / "b"))), 1)
    assert all(np.array_equal(resumed.weights[name], undisturbed.weights[name]) for name in undisturbed.weights)


def test_it_learns_and_the_seed_makes_the_weights(tmp_path: Path) -> None:
    def trained(seed: int) -> Any:
        return train(network(), loss, score, replace(SETTINGS, steps=200), LocalWorker(Folder(str(tmp_path))), seed)

    settings_free = [trained(1), trained(2)]
    assert settings_free[0].history[-1][2] < 0.5 * settings_free[0].history[0][2]
    assert not np.array_equal(settings_free[0].weights["0.weight"], settings_free[1].weights["0.weight"])


def test_it_stops_after_patience_and_keeps_the_best_weights(tmp_path: Path) -> None:
    scores = iter([5.0, 3.0, 4.0, 4.0, 4.0, 1.0])
    kept: list[dict[str, np.ndarray]] = []

    def falling(module: nn.Module) -> float:
        kept.append({name: value.numpy().copy() for name, value in module.state_dict().items()})
        return next(scores)

    trained = train(network(), loss, falling, replace(SETTINGS, patience=3), LocalWorker(Folder(str(tmp_path))), 1)
    assert (trained.step, trained.history[-1][0]) == (20, 50)
    assert all(np.array_equal(trained.weights[name], kept[1][name]) for name in kept[1])


def test_the_kept_weights_are_the_moving_average(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def watching(module: nn.Module, generator: torch.Generator) -> Tensor:
        seen.append(module[0].weight.detach().clone())  # type: ignore[index]
        return loss(module, generator)

    module = network()
    trained = train(module, watching, None, SETTINGS, LocalWorker(Folder(str(tmp_path))), 1)
    average = seen[0]
    for step, weight in enumerate([*seen[1:], module[0].weight.detach()]):  # type: ignore[index]
        average = torch.lerp(weight, average, min(SETTINGS.average, (1 + step) / (10 + step)))
    assert np.allclose(trained.weights["0.weight"], average.numpy(), atol=1e-6)


def test_slower_layers_get_their_share_of_the_rate_and_frozen_ones_stay(tmp_path: Path) -> None:
    """One step of Adam moves each weight by the rate; weight decay is no part of that here."""
    settings, module = replace(SETTINGS, steps=1, warmup=1, average=0.0, slower=(("0.", 0.1),)), network()
    module[2].bias.requires_grad_(False)  # type: ignore[index, union-attr]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(module, loss, None, settings, LocalWorker(Folder(str(tmp_path))), 1)
    moved = {name: float((value - before[name]).abs().median()) for name, value in module.state_dict().items()}
    assert moved["2.weight"] == pytest.approx(SETTINGS.rate, rel=0.05)
    assert moved["0.weight"] == pytest.approx(0.1 * SETTINGS.rate, rel=0.05)
    assert moved["2.bias"] == 0


def test_weights_that_training_only_makes_worse_are_kept_as_they_were(tmp_path: Path) -> None:
    scores = iter([1.0, 5.0, 4.0, 3.0])
    module = network()
    before = {name: value.numpy().copy() for name, value in module.state_dict().items()}
    settings = replace(SETTINGS, steps=30, untrained=True)
    trained = train(module, loss, lambda _: next(scores), settings, LocalWorker(Folder(str(tmp_path))), 1)
    assert [entry[0] for entry in trained.history] == [0, 10, 20, 30]
    assert trained.step == 0
    assert all(np.array_equal(trained.weights[name], before[name]) for name in before)

"""The training loop: resumed, stopped and averaged as it says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from codsa_ray.errors import PLUGIN_FAILURES, CandidateError
from codsa_ray.folder import Folder
from codsa_ray.nn import train as loop
from codsa_ray.nn.here import train_here
from codsa_ray.nn.train import Score, Trained, Training, train

from failing import Died, Mortal
from tables import LocalWorker

SETTINGS = Training(steps=60, rate=0.05, warmup=5, every=10, patience=100, checkpoint=20)


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


@pytest.mark.parametrize("score", [None, score])
def test_a_training_whose_loss_is_no_number_any_more_ends(score: Score | None, tmp_path: Path) -> None:
    def diverged(module: nn.Module, generator: torch.Generator) -> Tensor:
        return loss(module, generator) * torch.nan

    with pytest.raises(FloatingPointError, match=r"the loss is nan, held out \w+, after 10 steps; lower the rate"):
        train(network(), diverged, score, SETTINGS, LocalWorker(Folder(str(tmp_path))), 1)
    assert issubclass(FloatingPointError, PLUGIN_FAILURES), "a generator's is listed and the run goes on"


def test_a_held_out_score_that_is_no_number_ends_a_training_and_a_learner_s_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="held out inf, after 10 steps"):
        train(network(), loss, lambda module: np.inf, SETTINGS, LocalWorker(Folder(str(tmp_path))), 1)
    with pytest.raises(CandidateError, match=r"diverged: the loss is .* held out inf, after 10 steps"):
        train_here(network(), loss, lambda module: np.inf, SETTINGS, "cpu", 1)


def test_a_resumed_training_without_scores_ends_alike_too(tmp_path: Path) -> None:
    undisturbed = train(network(), loss, None, SETTINGS, LocalWorker(Folder(str(tmp_path / "a"))), 1)
    with pytest.raises(Died):
        train(network(), loss, None, SETTINGS, Mortal(Folder(str(tmp_path / "b")), dies_at=50), 1)
    resumed = train(network(), loss, None, SETTINGS, LocalWorker(Folder(str(tmp_path / "b"))), 1)
    assert all(np.array_equal(resumed.weights[name], undisturbed.weights[name]) for name in undisturbed.weights)


def bytes_of(trained: Trained) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in trained.weights.items()}


@pytest.mark.parametrize("minutes", [float("inf"), 0.0])
def test_however_often_it_dies_the_bytes_are_those_of_an_undisturbed_training(tmp_path: Path, minutes: float) -> None:
    """In parts, with a held-out stop, saved by steps or at every check: killed before, at and after a checkpoint, five times."""
    settings = replace(SETTINGS, steps=200, patience=5, checkpoint=20 if minutes else 1000, parts=3, minutes=minutes)

    def score(module: nn.Module) -> float:
        # The less is learned the better, so that scores soon say stop.
        with torch.no_grad():
            return -float(loss(module, torch.Generator().manual_seed(5)))

    undisturbed = train(network(), loss, score, settings, LocalWorker(Folder(str(tmp_path / "a"))), 1)
    stopped = undisturbed.history[-1][0]
    assert undisturbed.step < stopped < settings.steps, "held-out rows stop it"
    folder = Folder(str(tmp_path / "b"))
    for death in ({"dies_at": 10}, {"dies_saved": 20}, {"dies_at": 30}, {"dies_saved": 40}, {"dies_at": stopped}):
        with pytest.raises(Died):
            train(network(), loss, score, settings, Mortal(folder, **death), 1)
    resumed = train(network(), loss, score, settings, LocalWorker(folder), 1)
    assert (resumed.history, resumed.step) == (undisturbed.history, undisturbed.step)
    assert bytes_of(resumed) == bytes_of(undisturbed)


def test_the_gradient_of_parts_is_that_of_their_mean(tmp_path: Path) -> None:
    """Of 1/b sum (w x - y)^2 it is 2/b sum (w x - y) x; over k parts of b rows, the mean of k such, which is that of all k b rows."""
    parts: list[Tensor] = []

    def squares(module: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randn(8, 4, generator=generator)
        parts.append(rows)
        return (module(rows[:, :3])[:, 0] - rows[:, 3]).square().mean()

    line = nn.Linear(3, 1, bias=False)
    before = line.weight.detach().clone()
    trained = train(line, squares, None, replace(SETTINGS, steps=1, every=1, parts=5), LocalWorker(Folder(str(tmp_path))), 1)
    rows = torch.cat(parts)
    assert len(parts) == 5
    assert len(rows.unique(dim=0)) == 40, "each part draws rows of its own"
    off = rows[:, :3] @ before[0] - rows[:, 3]
    assert line.weight.grad is not None
    assert line.weight.grad[0].numpy() == pytest.approx((2 * off @ rows[:, :3] / len(rows)).numpy(), rel=1e-5)
    assert trained.history[0][1] == pytest.approx(float(off.square().mean()), rel=1e-6)


def test_minutes_make_a_checkpoint_at_the_step_they_end_with_and_steps_do_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 60))
    monkeypatch.setattr(loop, "monotonic", lambda: next(seconds))
    worker = Mortal(Folder(str(tmp_path)))
    # A clock that goes on a minute each time it is read, which it is at the start, at each step without another reason to save and at
    # each checkpoint. Scores are ten steps apart.
    train(network(), loss, score, replace(SETTINGS, steps=36, checkpoint=15, minutes=7.0), worker, 1)
    assert worker.saved == [7, 14, 15, 22, 29, 30]


def test_bfloat16_multiplies_in_it_and_keeps_float32_weights(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()

    def watching(module: nn.Module, generator: torch.Generator) -> Tensor:
        rows = torch.randn(32, 3, generator=generator)
        made = module(rows)
        seen.add(made.dtype)
        return (made[:, 0].float() - rows.prod(1) - 2).square().mean()

    def trained(dtype: torch.dtype) -> Trained:
        seen.clear()
        return train(network(), watching, score, replace(SETTINGS, dtype=dtype), LocalWorker(Folder(str(tmp_path / str(dtype)))), 1)

    exact = trained(torch.float32)
    assert seen == {torch.float32}
    fast = trained(torch.bfloat16)
    assert seen == {torch.bfloat16}
    assert {array.dtype for array in fast.weights.values()} == {np.dtype(np.float32)}
    assert fast.history[-1][1:] == pytest.approx(exact.history[-1][1:], rel=0.05)
    assert fast.history != exact.history


def test_a_score_leaves_running_means_and_weights_as_they_were(tmp_path: Path) -> None:
    """A score is computed by the module itself, with averaged weights, and may move what a training module keeps of its batches."""

    def normed() -> nn.Module:
        return nn.Sequential(network(), nn.BatchNorm1d(1))

    def careless(module: nn.Module) -> float:
        return float(loss(module, torch.Generator().manual_seed(5)))

    scored = train(normed(), loss, careless, SETTINGS, LocalWorker(Folder(str(tmp_path / "a"))), 1)
    plain = train(normed(), loss, None, replace(SETTINGS, steps=scored.step), LocalWorker(Folder(str(tmp_path / "b"))), 1)
    assert [entry[1] for entry in scored.history[: len(plain.history) - 1]] == [entry[1] for entry in plain.history[:-1]]


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

"""The one training loop: steps, averaged weights, held-out stops and checkpoints; knows no data and no cluster.

Step t draws from a generator seeded by (seed, t) alone, so a resumed run needs no random state to end where an undisturbed one ends.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.schedules import cosine
from codsa_ray.seeds import seed_of

Loss = Callable[[nn.Module, torch.Generator], Tensor]
"""(wrapped module, generator of the step) -> this rank's mean loss."""
Score = Callable[[nn.Module], float]
"""(module with averaged weights) -> held-out loss, the same on every rank."""


@dataclass(frozen=True)
class Training:
    """How long and how fast.

    Args:
        steps: optimizer steps at most.
        rate: peak learning rate of AdamW (Loshchilov & Hutter 2019).
        warmup: steps of linear rise before the cosine.
        average: decay of the exponential moving average of the weights, which is what is kept; lower at the start (1 + t) / (10 + t).
        every: steps between held-out scores.
        patience: held-out scores without a new best before the fit stops.
        checkpoint: steps between checkpoints.
        slower: (start of parameter names, their share of the rate): layers that knew something before learn slower (Howard & Ruder 2018).
        untrained: the weights at the start are scored too, and kept where training brings nothing better.
    """

    steps: int = 1200
    rate: float = 2e-3
    warmup: int = 50
    average: float = 0.999
    every: int = 100
    patience: int = 5
    checkpoint: int = 500
    slower: tuple[tuple[str, float], ...] = ()
    untrained: bool = False

    def share(self, name: str) -> float:
        """Of the rate, for the parameter of that name."""
        return next((share for start, share in self.slower if name.startswith(start)), 1.0)


@dataclass
class State:
    """Where a training stands, but for the module, its average and the optimizer."""

    step: int = 0
    stale: int = 0
    best_step: int = 0
    best_score: float | None = None
    history: list[list[float]] = field(default_factory=list)
    best: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What a training gives.

    Args:
        weights: the averaged weights of the best held-out score, or of the last step where nothing was scored.
        step: the step they are of.
        history: [step, training loss, held-out loss if there is one] of each check.
    """

    weights: dict[str, np.ndarray]
    step: int
    history: list[list[float]]


def train(module: nn.Module, loss: Loss, score: Score | None, settings: Training, worker: Worker, seed: int) -> Trained:
    """Trains `module` in place.

    Every rank calls this with the same module, settings and seed; `loss` takes its own share of the global batch.

    Args:
        module: float32 weights; `worker.prepare` may wrap it but must leave the parameters the module's own. Frozen ones stay as they are.
        loss: of one step.
        score: held-out loss, or None to run all steps.
        settings: how long and how fast.
        worker: where it runs, and where it saves.
        seed: of the batches.

    Returns:
        The kept weights.
    """
    wrapped, optimizer = worker.prepare(module, partial(_optimizer, settings, [name for name, _ in module.named_parameters()]))
    average = copy.deepcopy(module).requires_grad_(False)
    state = _resumed(worker, module, average, optimizer)
    device = next(module.parameters()).device
    if settings.untrained and score is not None and not state.history:
        _check(state, average, _loss(wrapped, loss, seed, "start", 0).detach(), score, worker, device)
    while state.step < settings.steps and state.stale < settings.patience:
        value = _advance(wrapped, loss, optimizer, state.step, settings, seed)
        _follow(average, module, min(settings.average, (1 + state.step) / (10 + state.step)))
        state.step += 1
        if state.step % settings.every == 0 or state.step == settings.steps:
            _check(state, average, value, score, worker, device)
        if state.step % settings.checkpoint == 0 and state.step < settings.steps:
            worker.save(state.step, *_packed(state, module, average, optimizer))
    weights = state.best or _arrays(average)
    return Trained(weights, state.best_step if state.best else state.step, state.history)


def _optimizer(settings: Training, names: list[str], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW with one group for each share of the rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in zip(names, parameters, strict=True):
        if parameter.requires_grad:
            groups.setdefault(settings.share(name), []).append(parameter)
    return torch.optim.AdamW([{"params": own, "share": share} for share, own in groups.items()], lr=settings.rate, fused=True)


def _loss(wrapped: nn.Module, loss: Loss, seed: int, purpose: str, step: int) -> Tensor:
    return loss(wrapped, torch.Generator().manual_seed(seed_of(seed, purpose, step)))


def _advance(wrapped: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, step: int, settings: Training, seed: int) -> Tensor:
    for group in optimizer.param_groups:
        group["lr"] = settings.rate * group["share"] * cosine(step, settings.steps, settings.warmup)
    value = _loss(wrapped, loss, seed, "step", step)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    optimizer.step()
    return value.detach()


@torch.no_grad()
def _follow(average: nn.Module, module: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(module.parameters()), 1 - decay)
    # Running means of batch norms and the like are averages already.
    for kept, now in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(now)


def _check(state: State, average: nn.Module, value: Tensor, score: Score | None, worker: Worker, device: torch.device) -> None:
    # Averaged over ranks, so that all of them stop at the same step whatever their hardware rounds to.
    told = torch.tensor([float(value), score(average) if score else float("nan")], dtype=torch.float64, device=device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(told)
        told /= torch.distributed.get_world_size()
    training, held_out = told.tolist()
    state.history.append([state.step, training, held_out] if score else [state.step, training])
    if score is not None:
        state.stale += 1
        if state.best_score is None or held_out < state.best_score:
            state.stale, state.best_step, state.best_score, state.best = 0, state.step, held_out, _arrays(average)
    worker.report(state.step, {"loss": training} | ({"held_out": held_out} if score else {}))


def _arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy().copy() for name, value in module.state_dict().items()}


def _packed(
    state: State, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    moments = {
        f"{index}.{name}": value.cpu().numpy() for index, slots in optimizer.state_dict()["state"].items() for name, value in slots.items()
    }
    kinds = {"module": _arrays(module), "average": _arrays(average), "best": state.best, "optimizer": moments}
    arrays = {f"{kind}/{name}": value for kind, values in kinds.items() for name, value in values.items()}
    return arrays, vars(replace(state, best={}))


def _resumed(worker: Worker, module: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    saved = worker.resume()
    if saved is None:
        return State()
    _, arrays, meta = saved
    kinds: dict[str, dict[str, np.ndarray]] = {"module": {}, "average": {}, "best": {}, "optimizer": {}}
    for path, value in arrays.items():
        kind, _, name = path.partition("/")
        kinds[kind][name] = value
    for target, kind in ((module, "module"), (average, "average")):
        target.load_state_dict({name: torch.from_numpy(value) for name, value in kinds[kind].items()})
    slots: dict[int, dict[str, Tensor]] = {}
    for path, value in kinds["optimizer"].items():
        index, _, name = path.partition(".")
        slots.setdefault(int(index), {})[name] = torch.from_numpy(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return State(**{**meta, "best": kinds["best"]})

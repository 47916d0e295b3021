"""The one training loop: steps, averaged weights, held-out stops and checkpoints; knows no data and no cluster.

Part p of step t draws from a generator seeded by (seed, t, p) alone. So a checkpoint holds the step, held-out scores, weights, their
average, the best average and the optimizer's moments, and that is all: the rate is a function of the step, the sampler and its random
state are made anew from the seed, and bfloat16 needs no loss scale.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from time import monotonic
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codsa_ray.contracts import Worker
from codsa_ray.nn.schedules import cosine
from codsa_ray.nn.shards import Saved
from codsa_ray.nn.weights import Weights, packed_moments, unpack_moments
from codsa_ray.seeds import seed_of

LOOK = 5
"""Steps between two looks that several processes take at their clocks: each look waits for all of them."""
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
        minutes: after so many since the last one there is a checkpoint; one process looks at every step, several at every LOOKth and
            by the mean of their clocks, which count from their own last checkpoint and so need not agree on the time.
        parts: losses of which a step takes the mean, one after the other: the batch of `parts` losses in the memory of one.
        dtype: bfloat16 multiplies in it (autocast) while weights, average and moments stay float32; float32 leaves losses as they are.
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
    minutes: float = 10.0
    parts: int = 1
    dtype: torch.dtype = torch.float32
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
        weights: the averaged weights of the best held-out score, or of the last step where nothing was scored; of shards rank 0 alone
            gets them, whole.
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
        module: float32 weights, whole or cut by `shards.shard`; `worker.prepare` may wrap it but must leave the parameters the module's
            own. Frozen ones stay as they are.
        loss: of one part of a step.
        score: held-out loss, or None to run all steps.
        settings: how long and how fast.
        worker: where it runs, and where it saves.
        seed: of the batches.

    Returns:
        The kept weights.

    Raises:
        FloatingPointError: a loss that is looked at is no finite number; on all ranks alike.
    """
    wrapped, optimizer = worker.prepare(module, partial(_optimizer, settings, [name for name, _ in module.named_parameters()]))
    weights = Weights.of(module)
    state = _resumed(worker, weights, optimizer)
    if settings.untrained and score is not None and not state.history:
        with torch.no_grad(), _fast(weights, settings):
            value = loss(wrapped, _drawing(seed, "start", 0))
        _check(state, weights, value, score, settings, worker)
    saved = monotonic()
    while state.step < settings.steps and state.stale < settings.patience:
        value = _advance(wrapped, weights, loss, optimizer, state.step, settings, seed)
        weights.follow(min(settings.average, (1 + state.step) / (10 + state.step)))
        state.step += 1
        if state.step % settings.every == 0 or state.step == settings.steps:
            _check(state, weights, value, score, settings, worker)
        due = state.step % settings.checkpoint == 0 or _late(state.step, saved, settings, value)
        if due and state.step < settings.steps:
            worker.save(state.step, *_packed(state, weights, optimizer, worker.rank == 0))
            saved = monotonic()
    kept = weights.gathered(state.best or weights.averages(), worker.rank == 0)
    return Trained(kept, state.best_step if state.best else state.step, state.history)


def _optimizer(settings: Training, names: list[str], parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW with one group for each share of the rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in zip(names, parameters, strict=True):
        if parameter.requires_grad and parameter.numel():
            groups.setdefault(settings.share(name), []).append(parameter)
    return torch.optim.AdamW([{"params": own, "share": share} for share, own in groups.items()], lr=settings.rate, fused=True)


def _drawing(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, *names))


def _fast(weights: Weights, settings: Training) -> AbstractContextManager[Any]:
    if settings.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(weights.average[0].device.type, settings.dtype)


def _advance(
    wrapped: nn.Module, weights: Weights, loss: Loss, optimizer: torch.optim.Optimizer, step: int, settings: Training, seed: int
) -> Tensor:
    """One step by the gradient of the mean over its parts; returns that mean."""
    for group in optimizer.param_groups:
        group["lr"] = settings.rate * group["share"] * cosine(step, settings.steps, settings.warmup)
    optimizer.zero_grad(set_to_none=True)
    values = []
    for part in range(settings.parts):
        # Gradients of copies are summed over processes once a step. Those of shards are at every part: kept whole, they would need the
        # memory that cutting saves.
        alone = part + 1 < settings.parts and isinstance(wrapped, DistributedDataParallel)
        with wrapped.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with _fast(weights, settings):
                value = loss(wrapped, _drawing(seed, "step", step, *([part] if part else [])))
            (value / settings.parts).backward()
        values.append(value.detach())
    optimizer.step()
    return torch.stack(values).mean()


def _late(step: int, saved: float, settings: Training, near: Tensor) -> bool:
    """Whether it is `minutes` since the last checkpoint; of several processes all say the same."""
    if _several() and step % LOOK:
        return False
    minutes = (monotonic() - saved) / 60
    return (_mean([minutes], near)[0] if _several() else minutes) >= settings.minutes


def _several() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _mean(values: list[float], near: Tensor) -> list[float]:
    """Over ranks, so that all of them stop and save at the same step whatever their hardware rounds to and their clocks show."""
    told = torch.tensor(values, dtype=torch.float64, device=near.device)
    if _several():
        torch.distributed.all_reduce(told)
        told /= torch.distributed.get_world_size()
    found: list[float] = told.tolist()
    return found


def _check(state: State, weights: Weights, value: Tensor, score: Score | None, settings: Training, worker: Worker) -> None:
    """Scores, notes and tells."""
    held_out = float("nan")
    if score is not None:
        with weights.averaged() as module, torch.no_grad(), _fast(weights, settings):
            held_out = score(module)
    training, held_out = _mean([float(value), held_out], weights.average[0])
    if not isfinite(training) or (score is not None and not isfinite(held_out)):
        raise FloatingPointError(f"the loss is {training}, held out {held_out}, after {state.step} steps; lower the rate")
    state.history.append([state.step, training, held_out] if score else [state.step, training])
    if score is not None:
        state.stale += 1
        if state.best_score is None or held_out < state.best_score:
            state.stale, state.best_step, state.best_score, state.best = 0, state.step, held_out, weights.averages()
    worker.report(state.step, {"loss": training} | ({"held_out": held_out} if score else {}))


def _packed(state: State, weights: Weights, optimizer: torch.optim.Optimizer, lead: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return weights.packed(state.best, lead) | packed_moments(optimizer, lead), vars(replace(state, best={}))


def _resumed(worker: Worker, weights: Weights, optimizer: torch.optim.Optimizer) -> State:
    found = worker.resume()
    if found is None:
        return State()
    _, arrays, meta = found
    saved = Saved.of(arrays)
    best = weights.unpack(saved)
    unpack_moments(optimizer, saved)
    return State(**{**meta, "best": best})

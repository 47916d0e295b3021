"""Pretraining: a module taught by a source's rows and then tuned on those it is for, behind one worker; knows no data and no network."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from codsa_ray.contracts import Worker
from codsa_ray.nn.phases import Phase, reached
from codsa_ray.nn.train import Loss, Score, Training, train

TUNE = "tune"


@dataclass(frozen=True, eq=False)
class Taught:
    """What a source teaches.

    Args:
        loss, score: on its rows.
        seed: of the batches.
        rows, aside: how many teach, of which none may, and how many lie in no region.
        facts: plain data of what else there is to be said of it.
        settle: applied in place to the module that it taught.
    """

    loss: Loss
    score: Score | None
    seed: int
    rows: int
    aside: int
    facts: dict[str, Any] = field(default_factory=dict)
    settle: Callable[[nn.Module], None] = lambda module: None


def begun(
    make: Callable[[], nn.Module], source: Callable[[], Taught] | None, training: Training, worker: Worker, steps: int, share: float
) -> tuple[nn.Module, Training, Worker, dict[str, Any] | None]:
    """(the module to train, how, the worker as that training sees it, what came of the source).

    A fit that died while it was tuned goes on with that: its checkpoint holds the module.

    Args:
        make: the untrained module, the same each time; data parallelism wraps a module once.
        source: None where there is none: nothing is changed then. Asked only where its rows have still to teach.
        training: of a module that no source taught.
        steps: on the source's rows, at most.
        share: of the rate, after that.
    """
    module = make()
    if source is None or not training.steps:
        return module, training, worker, None
    told = reached(worker, TUNE)
    if told is None:
        taught = source()
        if not taught.rows:
            return module, training, worker, {"rows": 0, "aside": taught.aside}
        trained = train(make(), taught.loss, taught.score, replace(training, steps=steps), Phase.of(worker, "pretrain"), taught.seed)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in trained.weights.items()})
        taught.settle(module)
        told = {"rows": taught.rows, "aside": taught.aside, **taught.facts, "step": trained.step, "history": trained.history}
    tuned = replace(training, rate=training.rate * share, untrained=True)
    return module, tuned, Phase.of(worker, TUNE, steps, told), told


def told_of(before: dict[str, Any] | None) -> tuple[str, ...]:
    """What the report should say of a source."""
    if before is None:
        return ()
    if not before["rows"]:
        return ("the source taught nothing: no row of it lies in a group and has what is drawn",)
    aside = f", {before['aside']:,} rows lie in no group" if before["aside"] else ""
    return (f"pretrained on {before['rows']:,} rows of the source{aside}",)

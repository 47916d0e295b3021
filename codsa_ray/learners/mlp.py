"""A small neural network, trained the tuned plain way (Shwartz-Ziv et al. 2023); knows no encoding beyond numbers without NaN."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from codsa_ray.aside import levelled, set_aside
from codsa_ray.contracts import Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import CandidateError
from codsa_ray.last_layer import retrained
from codsa_ray.nn.longer import longer
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, best_constant, log_probabilities
from codsa_ray.seeds import rng_of, seed_of


@dataclass(frozen=True)
class Mlp:
    """ReLU layers with dropout; AdamW (Loshchilov & Hutter 2019) with a cosine rate; the best checkpoint on held-out rows is kept.

    An undertrained network flatters every kind of over-sampling, so this one has a least number of steps however few the rows are, keeps
    `held` of each class aside to choose its checkpoint, and leaves batch size and smoothing to the search. Weights are scaled to mean 1.

    Sharpness-aware steps (Foret et al. 2021) climb rho grad L / |grad L| before they look where down is. SAM-A (Shwartz-Ziv et al. 2023)
    climbs farther for small classes; the paper's schedule is not known to us. Ours: L = sum_c L_c by class, and each class's part of the
    climb has a radius of its own, sum_c rho_c grad L_c / |grad L| with rho_c = rho (weight of the largest class / weight of c)^asymmetry.

    Rows of negative weight (bias.py) subtract their log loss, which a network drives up without end. So it counts up to log C, what chance
    costs, and a fit whose held-out loss falls below 0 all the same is refused.

    Args:
        width, layers: hidden units and layers.
        batch: rows per step; smaller for more imbalance (Shwartz-Ziv et al. 2023, section 4).
        rate, decay, dropout: of AdamW (peak) and of the hidden units.
        epochs, least, most: steps are those of `epochs` passes, within [least, most].
        checks, patience: held-out losses in a full training; how many without a gain end it.
        held: share of each class held out for them.
        smoothing: label smoothing of a vanishing class, falling to 0 for the largest (class-conditional).
        rho: length of the ascent step of sharpness-aware minimisation; 0 leaves it out.
        asymmetry: of SAM-A; 0 is plain SAM.
    """

    width: int = 128
    layers: int = 2
    batch: int = 64
    rate: float = 3e-3
    decay: float = 0.1
    dropout: float = 0.3
    epochs: int = 20
    least: int = 600
    most: int = 3000
    checks: int = 30
    patience: int = 8
    held: float = 0.2
    smoothing: float = 0.0
    rho: float = 0.0
    asymmetry: float = 0.0

    @property
    def needs(self) -> Needs:
        """One core. Regression is by squared error."""
        return Needs(tasks=frozenset({"classification", "regression"}), offset=True, negative=True, holds_out=True)

    def variants(self) -> tuple[Self, ...]:
        """These settings; slower; slower in small batches, for few or rare rows; a large batch, for many; longer (nn/longer.py).

        Balanced log loss after the offset, mean of four cells with 3 to 70 rare rows (benchmarks/claims_plain_training.py): .54, .36, .31,
        .78; smoothing on top of slower steps gives .30, SAM-A .38 in 2.5 times the time.
        """
        slow = replace(self, rate=self.rate / 3)
        return (self, slow, replace(slow, batch=max(1, self.batch // 4)), replace(self, batch=4 * self.batch), longer(self))

    def encoder(self, train: pa.Table, schema: Schema) -> OneHot:
        """Standardised and one-hot columns."""
        return OneHot.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The checkpoint with the least held-out loss.

        Raises:
            CandidateError: the loss stopped being a number; with negative weights also where it fell below 0, or where a class has no more
                than 0 in all.
        """
        present, labels = np.unique(y, return_inverse=True) if classes else (np.zeros(1, dtype=np.int64), np.zeros(len(y), dtype=np.int64))
        if classes and len(present) == 1:
            return OneClass(int(present[0]), classes)
        centre = 0.0 if classes else float(np.average(y, weights=weight))
        spread = 1.0 if classes else float(np.sqrt(np.average((y - centre) ** 2, weights=weight))) or 1.0
        target = torch.from_numpy(labels) if classes else torch.from_numpy((y - centre) / spread).float()
        total = np.bincount(labels, weights=weight, minlength=len(present))
        if total.min() <= 0:
            raise CandidateError(f"wanted classes of positive weight in all; got {total.min():.3g}; weigh no row below 0")
        fixed = np.zeros((len(y), len(present))) if offset is None else np.asarray(offset, dtype=np.float64)[:, present]
        start = best_constant(fixed, labels, weight)
        inner = set_aside(labels, self.held, seed)
        scaled = torch.from_numpy(levelled(weight / weight.mean(), labels, inner)).float()
        rows = Rows(torch.from_numpy(np.array(X, dtype=np.float32)), target, scaled, torch.from_numpy(fixed).float())
        # One thread, since the order of a sum must not depend on the machine; fits run side by side anyway.
        with threadpool_limits(1):
            layers = self._train(rows.take(~inner), rows.take(inner), start, total, seed)
        if classes:
            return Classifier(layers, present, classes)
        return Regressor(layers, centre, spread)

    def retrained(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, last: np.ndarray, *, classes: int, seed: int) -> Predictor:
        """Fitted on `weight`; then the last layer again, on weights `last` (last_layer.py)."""
        fitted = self.fit(X, y, weight, classes=classes, seed=seed)
        if not isinstance(fitted, Classifier):
            return fitted
        *inner, slope, start = fitted.layers

        def features(places: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                hidden = torch.from_numpy(np.array(X[places], dtype=np.float32))
                for index in range(0, len(inner), 2):
                    hidden = F.relu(torch.addmm(torch.from_numpy(inner[index + 1]), hidden, torch.from_numpy(inner[index])))
            return hidden.numpy()

        labels = np.searchsorted(fitted.present, y)
        with threadpool_limits(1):
            return replace(fitted, layers=(*inner, *retrained(features, slope, start, labels, last, self.held, seed)))

    def _smoothing(self, total: np.ndarray) -> Tensor:
        """(P,) from the weight of each class."""
        return torch.from_numpy(self.smoothing * (1 - total / total.max())).float()

    def _reach(self, total: np.ndarray) -> Tensor:
        """(P,) rho_c of each class, from its weight."""
        return torch.from_numpy(self.rho * (total.max() / total) ** self.asymmetry).float()

    def _train(self, rows: "Rows", held: "Rows", start: np.ndarray, total: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
        parameters = _initial(rows.X.shape[1], self.width, self.layers, start, seed)
        steps = int(np.clip(self.epochs * len(rows.X) / self.batch, self.least, self.most))
        optimizer = torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=steps, pct_start=0.1, cycle_momentum=False)
        random = torch.Generator().manual_seed(seed_of(seed, "dropout"))
        smoothing, reach, plain = self._smoothing(total), self._reach(total), torch.zeros(len(total))
        signed = bool((rows.weight < 0).any())
        best, kept, waited = np.inf, [p.detach().clone() for p in parameters], 0
        every = max(1, steps // self.checks)
        for step, picked in zip(range(1, steps + 1), _batches(len(rows.X), self.batch, seed), strict=False):
            self._step(parameters, optimizer, rows.take(picked), smoothing, reach, random)
            schedule.step()
            if step % every and step < steps:
                continue
            loss = _loss(forward(parameters, held.X), held, plain).item()
            if not np.isfinite(loss) or (signed and loss < 0):
                raise CandidateError(f"the network's held-out loss is {loss:.3g} after {step} steps")
            if loss < best:
                best, kept, waited = loss, [p.detach().clone() for p in parameters], 0
            elif (waited := waited + 1) >= self.patience:
                break
        return tuple(p.numpy() for p in kept)

    def _step(
        self,
        parameters: list[Tensor],
        optimizer: torch.optim.Optimizer,
        rows: "Rows",
        smoothing: Tensor,
        reach: Tensor,
        random: torch.Generator,
    ) -> None:
        # Both passes of SAM see the same dropout masks, so that they differ by the ascent step alone.
        masks = _masks(len(rows.X), self.width, self.layers, self.dropout, random)
        climb = self._climb(parameters, rows, smoothing, reach, masks) if self.rho else []
        with torch.no_grad():
            if climb:
                torch._foreach_add_(parameters, climb)
        optimizer.zero_grad()
        _loss(forward(parameters, rows.X, masks), rows, smoothing).backward()
        with torch.no_grad():
            if climb:
                torch._foreach_sub_(parameters, climb)
        optimizer.step()

    def _climb(self, parameters: list[Tensor], rows: "Rows", smoothing: Tensor, reach: Tensor, masks: list[Tensor]) -> list[Tensor]:
        """The ascent step of each parameter."""
        losses = _losses(forward(parameters, rows.X, masks), rows, smoothing)
        slopes = torch.autograd.grad(losses.mean(), parameters, retain_graph=True)
        length = torch.sqrt(sum((g.square().sum() for g in slopes), torch.zeros(()))) + 1e-12
        if not self.asymmetry or rows.target.is_floating_point():
            return [g * (self.rho / length) for g in slopes]
        parts = torch.autograd.grad((reach[rows.target] * losses).mean(), parameters)
        return [g / length for g in parts]

    @classmethod
    def tiny(cls) -> Self:
        """A narrow network and few steps."""
        return cls(width=32, least=150, most=400)


@dataclass(frozen=True)
class Rows:
    """Rows of a fit.

    Args:
        X: (n, d) float32.
        target: (n,) int64 columns of the true class, or float32 values.
        weight: (n,) float32.
        offset: (n, P) float32.
    """

    X: Tensor
    target: Tensor
    weight: Tensor
    offset: Tensor

    def take(self, picked: np.ndarray) -> "Rows":
        """The rows of a mask or of indices."""
        index = torch.from_numpy(picked)
        return Rows(self.X[index], self.target[index], self.weight[index], self.offset[index])


def _batches(rows: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    random = rng_of(seed, "batches")
    while True:
        order = random.permutation(rows)
        for start in range(0, max(rows - batch, 0) + 1, batch):
            yield order[start : start + batch]


def _initial(inputs: int, width: int, layers: int, start: np.ndarray, seed: int) -> list[Tensor]:
    """Weight and bias of each layer (He et al. 2015); the last layer gives the (P,) start alone, so that no step is spent on the prior."""
    random = torch.Generator().manual_seed(seed_of(seed, "weights"))
    sizes = [inputs, *[width] * layers, len(start)]
    parameters = []
    for index, (fan, out) in enumerate(pairwise(sizes)):
        scale = 0.0 if index == layers else (2 / max(fan, 1)) ** 0.5
        parameters += [torch.randn(fan, out, generator=random) * scale, torch.zeros(out)]
    parameters[-1] = torch.from_numpy(start).float()
    return [p.requires_grad_() for p in parameters]


def _masks(rows: int, width: int, layers: int, dropout: float, random: torch.Generator) -> list[Tensor]:
    if not dropout:
        return []
    return [(torch.rand(rows, width, generator=random) >= dropout).float() / (1 - dropout) for _ in range(layers)]


def forward(parameters: list[Tensor], X: Tensor, masks: list[Tensor] | None = None) -> Tensor:
    """(n, P) scores without the offset."""
    hidden = X
    for index in range(0, len(parameters) - 2, 2):
        hidden = F.relu(torch.addmm(parameters[index + 1], hidden, parameters[index]))
        if masks:
            hidden = hidden * masks[index // 2]
    return torch.addmm(parameters[-1], hidden, parameters[-2])


def _losses(scores: Tensor, rows: Rows, smoothing: Tensor) -> Tensor:
    """(n,) weighted log loss (of rows of negative weight at most log P) or squared error."""
    scores = scores + rows.offset
    if rows.target.is_floating_point():
        return rows.weight * (scores[:, 0] - rows.target).square()
    logs = F.log_softmax(scores, dim=1)
    true = logs.gather(1, rows.target[:, None])[:, 0]
    soft = smoothing[rows.target]
    costs = -((1 - soft) * true + soft * logs.mean(dim=1))
    negative = rows.weight < 0
    if negative.any():
        costs = torch.where(negative, costs.clamp(max=float(np.log(logs.shape[1]))), costs)
    return rows.weight * costs


def _loss(scores: Tensor, rows: Rows, smoothing: Tensor) -> Tensor:
    """Their mean: over the weights' expected sum, so that a batch's own weights are no ratio."""
    return _losses(scores, rows, smoothing).mean()


def _outputs(layers: tuple[np.ndarray, ...], X: np.ndarray) -> np.ndarray:
    with torch.no_grad(), threadpool_limits(1):
        scores = forward([torch.from_numpy(layer) for layer in layers], torch.from_numpy(np.array(X, dtype=np.float32)))
    return scores.numpy().astype(np.float64)


@dataclass(frozen=True)
class Classifier:
    """A fitted network.

    Args:
        layers: weight, bias of each layer.
        present: (P,) class ids.
        classes: C.
    """

    layers: tuple[np.ndarray, ...]
    present: np.ndarray
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        return log_probabilities(_outputs(self.layers, X), self.present, self.classes)


@dataclass(frozen=True)
class Regressor:
    """A fitted network of a standardised target."""

    layers: tuple[np.ndarray, ...]
    centre: float
    spread: float

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n,) predictions."""
        return _outputs(self.layers, X)[:, 0] * self.spread + self.centre

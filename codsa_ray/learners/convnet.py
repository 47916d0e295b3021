"""A convolutional network of a picture and the table columns beside it: small, or a vision model tuned; knows no format of pictures.

Sources: He et al. 2016 (residual blocks), Ioffe & Szegedy 2015 (norms over batches), Zhang et al. 2018 (mixup), Shorten & Khoshgoftaar
2019 (moving and mirroring), Gidaris et al. 2018 (turned pictures), which Yang & Xu 2020 found to help imbalanced classes, Polyak & Juditsky
1992 (averaged weights, which are what is kept, at the best loss on held-out rows).
What differs, and why:
- Rows are drawn as often as they weigh (`sampled`): with weights that balance classes this is class-balanced sampling, with the same
  expected gradient as weights on losses and less noise. Priors are the correction's business (correct.py).
- The last layer starts at the best constant, so that no step is spent on the prior.

Cost, one core: some 0.5 ms a 28 x 28 picture and step (width 24), 10 s for 300 steps of 64. Memory: pictures as bytes, a batch at a time as
floats. Not for: texts, which are refused; several columns of pictures; with a base, CPUs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.aside import levelled, set_aside
from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.errors import SettingError
from codsa_ray.last_layer import retrained
from codsa_ray.nn.augmenting import FLIP, KINDS, SHIFT, augmented, shares, turned
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.here import train_here
from codsa_ray.nn.longer import longer
from codsa_ray.nn.mass import Mass
from codsa_ray.nn.picture_classifiers import PictureClassifier, SmallTrunk
from codsa_ray.nn.train import Training
from codsa_ray.nn.vision_bases import VisionBase
from codsa_ray.pictured import Pictured, taken_apart
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, best_constant, log_probabilities
from codsa_ray.seeds import seed_of

RATE, BASE_RATE, TRUNK_SHARE = 1e-2, 5e-4, 0.1
"""Peak rate of the small network; with a base that of the last layers, and the share of it that the base's own learn at."""
LARGEST = 32
SCORED = 256
"""Rows scored at a time."""
STATISTICS = 2000
"""Rows that the mean and spread of pixels are taken from."""


@dataclass(frozen=True)
class Convnet:
    """Settings of the method.

    Args:
        base: folder or name of a vision model of transformers (or of timm, where timm is installed); None: a small residual network.
        size: longer side at most; None: 32, or the base's own squares.
        width: channels at the first grid.
        hidden: units that picture and columns meet in, where there are columns.
        augment: none, shift (moved), flip (moved and mirrored).
        mixup: alpha of mixed rows; 0 mixes none.
        sampled: how far rows are drawn as often as they weigh (1) rather than have their losses weighed (0).
        pretrain: steps of learning how pictures were turned, before labels; 0 leaves it out.
        batch: rows per step.
        rate: peak, of AdamW (Loshchilov & Hutter 2019); None: what the network usually needs.
        dropout: of what the last layer sees.
        epochs, least, most: steps are those of `epochs` passes, within [least, most].
        checks, patience: held-out losses in a full training; how many without a gain end it.
        held: share of each class held out for them.
        gpus: GPUs of one fit; with 0 it runs on CPUs.
    """

    base: str | None = None
    size: int | None = None
    width: int = 24
    hidden: int = 128
    augment: str = SHIFT
    mixup: float = 0.0
    sampled: float = 1.0
    pretrain: int = 0
    batch: int = 64
    rate: float | None = None
    dropout: float = 0.2
    epochs: int = 20
    least: int = 400
    most: int = 3000
    checks: int = 20
    patience: int = 6
    held: float = 0.2
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.augment not in KINDS or self.width % 8 or not 0 <= self.sampled <= 1 or not 0 <= self.dropout < 1:
            wanted = f"augment of {', '.join(KINDS)}, a width that 8 divides, sampled of 0 to 1, dropout of 0 to 1"
            raise SettingError(wanted, repr(self), "change what is not")
        if min(self.width, self.batch, self.least, self.checks, self.patience) < 1 or min(self.mixup, self.pretrain, self.epochs) < 0:
            raise SettingError("counts of 1 or more, mixup, pretrain and epochs of 0 or more", repr(self), "change what is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs. Regression is by squared error."""
        kinds, tasks = TABLE_KINDS | {"image"}, frozenset({"classification", "regression"})
        return Needs(gpus=self.gpus, kinds=kinds, tasks=tasks, offset=True, holds_out=True)

    def variants(self) -> tuple[Self, ...]:
        """These settings; pictures mirrored too; mixed rows; slower; longer (nn/longer.py)."""
        others = (replace(self, augment=FLIP), replace(self, mixup=0.2), replace(self, rate=self._rate / 3), longer(self))
        return (self, *(other for other in others if other != self))

    @property
    def _rate(self) -> float:
        return self.rate or (BASE_RATE if self.base else RATE)

    def ready(self) -> None:
        """Raises SettingError where the base is not there."""
        if self.base is not None:
            VisionBase.read(self.base)

    def encoder(self, train: pa.Table, schema: Schema) -> Pictured:
        """Pictures as bytes of one size, the other columns standardised and one-hot.

        Raises:
            SettingError: the base cannot be read. SchemaError: no column of pictures, or several.
        """
        if self.base is None:
            return Pictured.learn(train, schema, self.size or LARGEST)
        return Pictured.learn(train, schema, self.size or VisionBase.read(self.base).side, square=True, channels=3)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The averaged weights of the least held-out loss; rows without a picture (a plain (n, D) array) are columns alone.

        Raises:
            CandidateError: the loss stopped being a number. SettingError: the base cannot be read.
        """
        present, labels = np.unique(y, return_inverse=True) if classes else (np.zeros(1, dtype=np.int64), np.zeros(len(y), dtype=np.int64))
        if classes and len(present) == 1:
            return OneClass(int(present[0]), classes)
        centre = 0.0 if classes else float(np.average(y, weights=weight))
        spread = 1.0 if classes else float(np.sqrt(np.average((y - centre) ** 2, weights=weight))) or 1.0
        target = torch.from_numpy(labels) if classes else torch.from_numpy((y - centre) / spread).float()
        fixed = np.zeros((len(y), len(present))) if offset is None else np.asarray(offset, dtype=np.float64)[:, present]
        start = best_constant(fixed, labels, weight) if classes else np.zeros(1)
        pictures, columns = taken_apart(X)
        inner = set_aside(labels, self.held, seed)
        scaled = torch.from_numpy(levelled(weight / weight.mean(), labels, inner))
        rows = Rows(pictures, columns, np.arange(len(y)), target, scaled, torch.from_numpy(fixed).float())
        with one_thread():
            module = self._network(rows, torch.from_numpy(start).float(), seed)
            learned, held = rows.take(np.flatnonzero(~inner)), rows.take(np.flatnonzero(inner))
            if self.pretrain and self.base is None and pictures is not None:
                self._pretrain(module, learned, seed)
            self._train(module, learned, held, seed)
        return Seen(module, present, classes, centre, spread)

    def retrained(self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, last: np.ndarray, *, classes: int, seed: int) -> Predictor:
        """Fitted on `weight`; then the last layer again, on weights `last` (last_layer.py)."""
        fitted = self.fit(X, y, weight, classes=classes, seed=seed)
        if not isinstance(fitted, Seen) or not classes:
            return fitted
        layer, labels = fitted.module.leave, np.searchsorted(fitted.present, y)
        slope, start = (array.detach().cpu().numpy() for array in (layer.weight.T, layer.bias))
        with threadpool_limits(1):
            slope, start = retrained(lambda places: fitted.features(X[places]), slope, start, labels, last, self.held, seed)
        layer.weight.data.copy_(torch.from_numpy(slope.T.copy()))
        layer.bias.data.copy_(torch.from_numpy(start))
        return fitted

    @property
    def _device(self) -> str:
        return "cuda" if self.gpus and torch.cuda.is_available() else "cpu"

    def _network(self, rows: "Rows", start: Tensor, seed: int) -> PictureClassifier:
        """Untrained; first weights depend on the seed alone."""
        middle = spread = torch.ones(1)
        trunk: Any = None
        base = VisionBase.read(self.base) if self.base and rows.pictures is not None else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "weights"))
            if base is not None:
                trunk, middle, spread = base.trunk(), torch.tensor(base.middle), torch.tensor(base.spread)
            elif rows.pictures is not None:
                some = rows.some(STATISTICS)
                middle, spread = some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp(min=1.0)
                trunk = SmallTrunk(some.shape[1], max(some.shape[2:]), self.width)
            module: Any = PictureClassifier(trunk, rows.columns.shape[1], self.hidden, start, middle, spread)
        return module.to(self._device, memory_format=torch.channels_last)

    def _pretrain(self, module: PictureClassifier, rows: "Rows", seed: int) -> None:
        """Teaches the trunk by how much each picture was turned."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "turned"))
            turning: Any = Turning(module)
        turning.to(self._device)
        mass, device = Mass.of(np.ones(len(rows.index))), self._device

        def loss(network: nn.Module, generator: torch.Generator) -> Tensor:
            pictures, _ = rows.seen(mass.draw(self.batch, generator), device)
            views, way = turned(augmented(pictures, self.augment, generator), generator)
            return functional.cross_entropy(network.train()(views), way.to(device))

        trained = train_here(turning, loss, None, self._training(self.pretrain), device, seed_of(seed, "turns"))
        turning.load_state_dict({name: torch.from_numpy(array) for name, array in trained.weights.items()})

    def _train(self, module: PictureClassifier, rows: "Rows", held: "Rows", seed: int) -> None:
        steps = int(np.clip(self.epochs * len(rows.index) / self.batch, self.least, self.most))
        loss, device = ClassifierLoss.of(self, rows, self._device), self._device
        score = partial(weighed, rows=held, device=device)
        trained = train_here(module, loss, score, self._training(steps), device, seed_of(seed, "train"))
        module.load_state_dict({name: torch.from_numpy(array) for name, array in trained.weights.items()})
        module.eval().requires_grad_(False)

    def _training(self, steps: int) -> Training:
        slower = (("trunk", TRUNK_SHARE),) if self.base else ()
        every = max(1, steps // self.checks)
        return Training(
            steps, self._rate, every=every, patience=self.patience, checkpoint=steps + 1, dtype=gpu_dtype(self._device), slower=slower
        )

    @classmethod
    def tiny(cls) -> Self:
        """A narrow network and few steps."""
        return cls(width=8, hidden=32, least=150, most=300, rate=5e-3)


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a fit, left where they are until a batch asks for them.

    Args:
        pictures: (N, H, W, C) uint8, or None.
        columns: (N, D).
        index: (n,) places of these rows among the N.
        target: (N,) int64 columns of the true class, or float32 values.
        weight: (N,) float64 of mean 1.
        offset: (N, P) float32.
    """

    pictures: np.ndarray | None
    columns: np.ndarray
    index: np.ndarray
    target: Tensor
    weight: Tensor
    offset: Tensor

    def take(self, places: np.ndarray) -> "Rows":
        """The rows at these places, by target: batches drawn evenly over them hold each class's share."""
        chosen = self.index[places]
        return replace(self, index=chosen[np.argsort(self.target[torch.from_numpy(chosen)].numpy(), kind="stable")])

    def some(self, most: int) -> Tensor:
        """(m, C, H, W) float32 pictures of at most so many rows, evenly spaced."""
        assert self.pictures is not None
        places = np.linspace(0, len(self.index) - 1, min(most, len(self.index))).round().astype(np.int64)
        return torch.from_numpy(self.pictures[self.index[places]]).permute(0, 3, 1, 2).float()

    def seen(self, places: Tensor, device: str) -> tuple[Tensor, Tensor]:
        """(pictures (m, C, H, W) float32, empty where there are none, columns (m, D) float32) of rows at these places."""
        chosen = self.index[places.numpy()]
        columns = torch.from_numpy(np.array(self.columns[chosen], dtype=np.float32)).to(device)
        if self.pictures is None:
            return torch.zeros(len(chosen), 0, 1, 1, device=device), columns
        return torch.from_numpy(self.pictures[chosen]).to(device).permute(0, 3, 1, 2).float(), columns

    def told(self, places: Tensor, device: str) -> tuple[Tensor, Tensor, Tensor]:
        """(target, weight float32, offset) of rows at these places."""
        chosen = torch.from_numpy(self.index[places.numpy()])
        return self.target[chosen].to(device), self.weight[chosen].float().to(device), self.offset[chosen].to(device)


def costs(scores: Tensor, target: Tensor, offset: Tensor) -> Tensor:
    """(n,) log loss with the offset, or squared error."""
    if target.is_floating_point():
        return (scores[:, 0] - target).square()
    return functional.cross_entropy(scores.float() + offset, target, reduction="none")


@dataclass(frozen=True, eq=False)
class ClassifierLoss:
    """The loss of a batch, whose expectation is the weighted mean over all rows.

    Args:
        settings: batch, augmentation, mixup and dropout.
        rows: to learn from.
        mass: rows come w^sampled as often.
        rest: (n,) float32 what is left of each row's weight for its loss.
        device: of the network.
    """

    settings: Convnet
    rows: Rows
    mass: Mass
    rest: Tensor
    device: str

    @staticmethod
    def of(settings: Convnet, rows: Rows, device: str) -> "ClassifierLoss":
        """Splits weights into how often a row is drawn and how much its loss counts then."""
        weight = rows.weight[torch.from_numpy(rows.index)].numpy()
        often = weight**settings.sampled
        rest = weight ** (1 - settings.sampled) * (often.sum() / weight.sum())
        return ClassifierLoss(settings, rows, Mass.of(often), torch.from_numpy(rest).float(), device)

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over a batch, all of whose randomness is the generator's."""
        settings, module = self.settings, network.train()
        places = self.mass.draw(settings.batch, generator)
        pictures, columns = self.rows.seen(places, self.device)
        target, _, offset = self.rows.told(places, self.device)
        rest = self.rest[places].to(self.device)
        pictures = augmented(pictures, settings.augment, generator) if pictures.shape[1] else pictures
        keep = (torch.rand(len(places), int(network.features), generator=generator) >= settings.dropout).float() / (1 - settings.dropout)  # type: ignore[arg-type]
        keep = keep.to(self.device)
        if not settings.mixup:
            return (rest * costs(module(pictures, columns, keep), target, offset)).mean()
        other = torch.randperm(len(places), generator=generator).to(self.device)
        share = shares(len(places), settings.mixup, generator).to(self.device)
        pictures = torch.lerp(pictures[other], pictures, share[:, None, None, None])
        scores = module(pictures, torch.lerp(columns[other], columns, share[:, None]), keep)
        mine, theirs = costs(scores, target, offset), costs(scores, target[other], offset[other])
        return (share * rest * mine + (1 - share) * rest[other] * theirs).mean()


def weighed(network: nn.Module, rows: Rows, device: str) -> float:
    """Weighted mean loss over all rows, as they are scored."""
    network.eval()
    total = weight = 0.0
    for places in torch.arange(len(rows.index)).split(SCORED):
        target, own, offset = rows.told(places, device)
        with torch.no_grad():
            total += float((own * costs(network(*rows.seen(places, device)), target, offset)).sum())
        weight += float(own.sum())
    return total / weight


class Turning(nn.Module):
    """A classifier's trunk with a head that says by how many quarters a picture was turned."""

    def __init__(self, classifier: PictureClassifier) -> None:
        super().__init__()
        self.trunk, self.around = classifier.trunk, (classifier,)
        self.leave = nn.Linear(classifier.trunk.width, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        """(n, 4) from (n, C, H, W) of values 0 to 255."""
        classifier = self.around[0]
        return self.leave(self.trunk((pictures - classifier.middle) / classifier.spread))


@dataclass(frozen=True, eq=False)
class Seen:
    """A fitted network.

    Args:
        module: in the state that it scores in.
        present: (P,) class ids.
        classes: C, or 0 for values.
        centre, spread: of values.
    """

    module: PictureClassifier
    present: np.ndarray
    classes: int
    centre: float
    spread: float

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities, or (n,) predictions."""
        found = self._each(X, self.module, len(self.present))
        if self.classes:
            return log_probabilities(found, self.present, self.classes)
        return found[:, 0] * self.spread + self.centre

    def features(self, X: np.ndarray) -> np.ndarray:
        """(n, F) float64 what scores are linear in."""
        return self._each(X, self.module.told, self.module.features)

    def _each(self, X: np.ndarray, say: Callable[[Tensor, Tensor], Tensor], width: int) -> np.ndarray:
        """(n, width) what `say` says of rows, some at a time."""
        pictures, columns = taken_apart(X)
        nothing = torch.zeros(0)
        rows = Rows(pictures, columns, np.arange(len(X)), nothing, nothing, nothing)
        device = str(next(self.module.parameters()).device)
        with torch.no_grad(), one_thread():
            parts = [say(*rows.seen(places, device)).float().cpu() for places in torch.arange(len(X)).split(SCORED)]
        return torch.cat(parts).numpy().astype(np.float64) if len(X) else np.zeros((0, width))

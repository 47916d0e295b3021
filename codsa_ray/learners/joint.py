"""Joint: trees of the table, a linear model of the texts and a network of each picture, their log-probabilities added; knows no format.

Late fusion. Sources: Wolpert 1992 (stacking: how much each model counts is learned on rows that it has not seen); Breiman 1996 (weights
of 0 or more); Ting & Witten 1999 (probabilities of classes are what is stacked). Each model sees its own modality alone, so that one which
says nothing gets a weight near 0, and for a row that lacks a picture or a text the mean of the others' log-probabilities stands in for it
(and a flag in the table says that a picture is not there). What needs two modalities at once (a
text that contradicts its picture) no late fusion sees.

Texts are places among the topics of the training rows (embedding.py). Cost: `folds` + 1 fits of each model; without pictures some seconds
for ten thousand rows, with them as convnet for each fit. With one modality it is that model alone, fitted once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
import xgboost as xgb
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.aside import levelled, set_aside
from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.errors import CandidateError, SettingError
from codsa_ray.fusion import folds_of, heard, stacked
from codsa_ray.modalities import TABLE, TEXTS, Modalities, absent, taken
from codsa_ray.nn.augmenting import SHIFT, augmented
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.here import train_here
from codsa_ray.nn.longer import longer
from codsa_ray.nn.mass import Mass
from codsa_ray.nn.picture_classifiers import PictureClassifier, SmallTrunk
from codsa_ray.nn.train import Training
from codsa_ray.ridge import solved
from codsa_ray.schema import Schema
from codsa_ray.scores import OneClass, best_constant, log_probabilities
from codsa_ray.seeds import seed_of

STACKED, AVERAGE = "stacked", "average"
STEPS = 1000
"""L-BFGS iterations of the text model at most."""
SCORED = 256
"""Pictures scored at a time."""
STATISTICS = 2000
"""Rows that the mean and spread of pixels are taken from."""


@dataclass(frozen=True)
class Joint:
    """Settings of the method.

    Args:
        fusion: stacked (weights learned out of fold) or average.
        folds: of the training rows, that weights are learned on.
        depth, rounds, rate, ridge: of the table's trees, as of boosted.
        topics: of each text column at most.
        penalty: of the texts' linear model, as of logistic.
        size: longer side of pictures at most.
        width: channels of the picture network's first grid.
        batch, picture_rate, epochs, least, most: its pictures per step and peak rate; its steps are those of `epochs` passes, within
            [least, most].
        held: share of each class held out to tell when its training stops.
    """

    fusion: str = STACKED
    folds: int = 3
    depth: int = 4
    rounds: int = 150
    rate: float = 0.1
    ridge: float = 10.0
    topics: int = 100
    penalty: float = 1e-3
    size: int = 32
    width: int = 16
    batch: int = 64
    picture_rate: float = 2e-3
    epochs: int = 20
    least: int = 300
    most: int = 2000
    held: float = 0.15

    def __post_init__(self) -> None:
        if self.fusion not in (STACKED, AVERAGE) or self.width % 8 or self.folds < 2:
            raise SettingError("fusion of stacked, average; a width that 8 divides; folds of 2 or more", repr(self), "change what is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(kinds=TABLE_KINDS | {"text", "image"}, tasks=frozenset({"classification"}), holds_out=True)

    def variants(self) -> tuple[Self, ...]:
        """These settings; averaged; a lighter penalty on words; pictures longer (nn/longer.py), which rows without them do not feel."""
        others = (replace(self, fusion=AVERAGE), replace(self, penalty=self.penalty / 10), longer(self))
        return (self, *(other for other in others if other != self))

    def encoder(self, train: pa.Table, schema: Schema) -> Modalities:
        """The table standardised and one-hot, texts as topics, pictures as bytes of one size each."""
        return Modalities.learn(train, schema, self.topics, self.size)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """All models on all rows, and how much each counts.

        Raises:
            CandidateError: an offset, which it has no place for; a model that could not be fitted.
        """
        if offset is not None:
            raise CandidateError("wanted no offset; got one; take the learner logistic, mlp or convnet")
        present, labels = np.unique(y, return_inverse=True)
        if len(present) == 1:
            return OneClass(int(present[0]), classes)
        rows, share = taken(X), weight / weight.mean()
        models = {name: self._model(name, values, labels, share, len(present), seed_of(seed, name)) for name, values in rows.items()}
        counts, start = np.full(len(models), 1.0 / len(models)), np.zeros(len(present))
        if self.fusion == STACKED and len(models) > 1:
            found, known = self._unseen(rows, labels, share, len(present), seed)
            told = np.unique(labels[known])
            if len(told) > 1:
                # No model is to blame for a class that it never saw, and no constant makes up for it.
                some = np.searchsorted(told, labels[known])
                counts, start[told] = stacked(found[:, known][:, :, told], some, share[known])
        return Fused(models, counts, start, present, classes)

    def _unseen(
        self, rows: Mapping[str, np.ndarray], labels: np.ndarray, weight: np.ndarray, classes: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(models, n, P) log-probabilities of rows by models that have not seen them, and (n,) bool whether those saw the row's class."""
        fold = folds_of(labels, self.folds, seed)
        found, known = np.zeros((len(rows), len(labels), classes)), np.zeros(len(labels), dtype=bool)
        for out in range(self.folds):
            kept, left = np.flatnonzero(fold != out), np.flatnonzero(fold == out)
            known[left] = np.isin(labels[left], labels[kept])
            for place, (name, values) in enumerate(rows.items()):
                mine, own = np.unique(labels[kept], return_inverse=True)
                model: Any = OneClass(int(mine[0]), classes)
                if len(mine) > 1:
                    model = self._model(name, values[kept], own, weight[kept], len(mine), seed_of(seed, name, out))
                    found[place, left] = log_probabilities(model.odds(values[left]), mine, classes)
                else:
                    found[place, left] = model.scores(values[left])
        return heard(found, np.stack([absent(name, values) for name, values in rows.items()])), known

    def _model(self, name: str, values: np.ndarray, labels: np.ndarray, weight: np.ndarray, classes: int, seed: int) -> "Model":
        if name == TABLE:
            return Trees.fit(self, values, labels, weight, classes, seed)
        if name == TEXTS:
            with threadpool_limits(1):
                return Linear(solved(values, labels, weight, None, classes, self.penalty, STEPS))
        with one_thread():
            return Seen.fit(self, values, labels, weight, classes, seed)

    @classmethod
    def tiny(cls) -> Self:
        """Few trees, topics and steps."""
        return cls(folds=2, depth=2, rounds=20, rate=0.3, topics=8, width=8, least=40, most=60, picture_rate=5e-3)


@dataclass(frozen=True, eq=False)
class Trees:
    """Gradient-boosted trees in XGBoost's own format, and the (P,) constant under them."""

    trees: bytes
    start: np.ndarray

    @staticmethod
    def fit(settings: Joint, X: np.ndarray, labels: np.ndarray, weight: np.ndarray, classes: int, seed: int) -> "Trees":
        """Weights sum to the effective number of rows (Kish 1965), as boosted's do."""
        weight = weight * (weight.sum() / np.square(weight).sum())
        start = best_constant(np.zeros((len(labels), classes)), labels, weight)
        told: dict[str, Any] = {"objective": "multi:softprob", "num_class": classes, "tree_method": "hist", "nthread": 1}
        told |= {"max_depth": settings.depth, "eta": settings.rate, "min_child_weight": 0.1, "reg_lambda": settings.ridge}
        told |= {"seed": seed % 2**31, "base_score": 0.0, "verbosity": 0}
        rows = xgb.QuantileDMatrix(X, label=labels, weight=weight, base_margin=np.tile(start, (len(labels), 1)), nthread=1)
        try:
            return Trees(bytes(xgb.train(told, rows, num_boost_round=settings.rounds).save_raw("ubj")), start)
        except xgb.core.XGBoostError as error:
            raise CandidateError(f"xgboost: {str(error).splitlines()[0]}") from error

    def odds(self, X: np.ndarray) -> np.ndarray:
        """(n, P)."""
        booster = xgb.Booster({"nthread": 1}, model_file=bytearray(self.trees))
        margins = booster.predict(xgb.DMatrix(X, nthread=1), output_margin=True).astype(np.float64)
        return np.asarray(margins.reshape(len(X), len(self.start)) + self.start)


@dataclass(frozen=True, eq=False)
class Linear:
    """(d + 1, P) coefficients, intercepts last."""

    coefficients: np.ndarray

    def odds(self, X: np.ndarray) -> np.ndarray:
        """(n, P)."""
        with threadpool_limits(1):
            return np.asarray(X.astype(np.float64) @ self.coefficients[:-1] + self.coefficients[-1])


@dataclass(frozen=True, eq=False)
class Seen:
    """A network of pictures."""

    network: PictureClassifier

    @staticmethod
    def fit(settings: Joint, pictures: np.ndarray, labels: np.ndarray, weight: np.ndarray, classes: int, seed: int) -> "Seen":
        """The averaged weights of the least held-out loss; rows come as often as they weigh."""
        aside = set_aside(labels, settings.held, seed)
        inner, outer = np.flatnonzero(~aside), np.flatnonzero(aside)
        start = best_constant(np.zeros((len(labels), classes)), labels, weight)
        network = _network(settings, _entered(pictures[_some(len(pictures))]), torch.from_numpy(start).float(), seed)
        mass, target = Mass.of(levelled(weight, labels, aside)[inner]), torch.from_numpy(labels)

        def loss(module: nn.Module, generator: torch.Generator) -> Tensor:
            places = inner[mass.draw(settings.batch, generator).numpy()]
            seen = augmented(_entered(pictures[places]), SHIFT, generator)
            return functional.cross_entropy(module.train()(seen, torch.zeros(len(places), 0)), target[torch.from_numpy(places)])

        def score(module: nn.Module) -> float:
            costs = -log_softmax(_odds(module, pictures[outer]), axis=1)[np.arange(len(outer)), labels[outer]]
            return float(np.average(costs, weights=weight[outer]))

        steps = int(np.clip(settings.epochs * len(inner) / settings.batch, settings.least, settings.most))
        training = Training(steps, settings.picture_rate, every=max(1, steps // 10), patience=4, checkpoint=steps + 1)
        trained = train_here(network, loss, score, training, "cpu", seed_of(seed, "train"))
        network.load_state_dict({name: torch.from_numpy(array) for name, array in trained.weights.items()})
        return Seen(network.eval().requires_grad_(False))

    def odds(self, X: np.ndarray) -> np.ndarray:
        """(n, P)."""
        with one_thread():
            return _odds(self.network, X)


Model = Trees | Linear | Seen


def _some(rows: int) -> np.ndarray:
    return np.linspace(0, rows - 1, min(STATISTICS, rows)).round().astype(np.int64)


def _entered(pictures: np.ndarray) -> Tensor:
    """(n, C, H, W) float32 of (n, H, W, C) bytes."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()


def _network(settings: Joint, some: Tensor, start: Tensor, seed: int) -> PictureClassifier:
    """Untrained; first weights depend on the seed alone."""
    middle, spread = some.mean((0, 2, 3)), some.std((0, 2, 3)).clamp(min=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        trunk = SmallTrunk(some.shape[1], max(some.shape[2:]), settings.width)
        return PictureClassifier(trunk, 0, 0, start, middle, spread)


@torch.no_grad()
def _odds(network: Any, pictures: np.ndarray) -> np.ndarray:
    found = [np.zeros((0, int(network.leave.out_features)))]
    # Norms are over the batch: a row's scores go by the training rows' and not by those beside it.
    network.eval()
    for first in range(0, len(pictures), SCORED):
        some = _entered(pictures[first : first + SCORED])
        found.append(network(some, torch.zeros(len(some), 0)).double().numpy())
    return np.concatenate(found)


@dataclass(frozen=True, eq=False)
class Fused:
    """Models by modality, (M,) how much each counts, (P,) constants, (P,) class ids present, C."""

    models: Mapping[str, Model]
    counts: np.ndarray
    start: np.ndarray
    present: np.ndarray
    classes: int

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n, C) log-probabilities."""
        rows: Mapping[str, np.ndarray] = taken(X)
        found: Sequence[np.ndarray] = [self._own(name, model, rows[name]) for name, model in self.models.items()]
        said = heard(np.stack(found), np.stack([absent(name, rows[name]) for name in self.models]))
        return log_probabilities(np.tensordot(self.counts, said, axes=1) + self.start, self.present, self.classes)

    def _own(self, name: str, model: Model, values: np.ndarray) -> np.ndarray:
        """(n, P) log-probabilities of one model, clipped as they were when it was weighed."""
        return log_probabilities(model.odds(values), np.arange(len(self.present)), len(self.present))

"""An autoencoder of usual rows whose reconstruction error tells anomalies (CoDSA, section 4.5); knows numbers without NaN, and pixels."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from scipy.special import logit
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from codsa_ray.contracts import TABLE_KINDS, Needs, Predictor
from codsa_ray.encode import OneHot
from codsa_ray.errors import CandidateError
from codsa_ray.pictured import Pictured, taken_apart
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of, seed_of

SHIFT = 3.0  # deviations by which anomalies' log error is taken to exceed that of usual rows
LONGEST = 16.0  # log-odds are kept within +- this: probabilities of 1e-7


@dataclass(frozen=True)
class Autoencoder:
    """inputs - hidden - code - hidden - inputs, ReLU between, Adam on the squared error, trained on rows of truth 0 alone.

    Steps are fixed: with fixed epochs more rows are more gradient steps, and the gain of synthesis is partly that of longer training
    (CoDSA trains 20 epochs, whatever the rows; `epochs` does so). A tenth of the usual rows is kept aside to tell how large errors of
    rows not trained on are: z = (log error - their mean) / their deviation. Scores are the log-odds that hold if z is normal with
    deviation 1 and mean 0 for usual rows, SHIFT for anomalies, at the training rows' share of anomalies:

        SHIFT z - SHIFT^2 / 2 + logit(share).

    Increasing in the error, so AUC is the error's own; calibration mends slope and level.

    Args:
        hidden, code: units of the layers at most: the paper's for 784 inputs.
        size: longer side of pictures at most; their pixels, as shares of white, are inputs beside the columns.
        squeeze: the code is at most inputs / squeeze and the hidden layer at most 4 inputs, so that a short row is squeezed too.
        steps, batch, rate: of Adam.
        epochs: where not 0, steps are those of so many passes.
    """

    hidden: int = 128
    code: int = 32
    size: int = 28
    squeeze: float = 2.0
    steps: int = 1500
    batch: int = 256
    rate: float = 1e-3
    epochs: float = 0.0

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(kinds=TABLE_KINDS | {"image"}, tasks=frozenset({"anomaly"}))

    def variants(self) -> tuple[Self, ...]:
        """These settings; a tighter code, twice."""
        return (self, replace(self, squeeze=2 * self.squeeze), replace(self, code=max(1, self.code // 4)))

    def encoder(self, train: pa.Table, schema: Schema) -> OneHot | Pictured:
        """Standardised and one-hot columns; pictures as bytes beside them.

        Raises:
            SchemaError: more than one column of pictures.
        """
        pictures = any(column.kind == "image" for column in schema.features)
        return Pictured.learn(train, schema, self.size) if pictures else OneHot.learn(train, schema)

    def fit(
        self, X: np.ndarray, y: np.ndarray, weight: np.ndarray, *, classes: int, seed: int, offset: np.ndarray | None = None
    ) -> Predictor:
        """The network after the last step.

        Raises:
            CandidateError: fewer than three rows of truth 0, or errors that are not numbers.
        """
        assert offset is None, "needs.offset is False"
        usual = np.flatnonzero(y == 0)
        if len(usual) < 3:
            raise CandidateError(f"autoencoder: wanted three rows of truth 0; got {len(usual)}; bring more usual rows")
        order = rng_of(seed, "kept aside").permutation(usual)
        aside, rows = np.split(order, [max(1, len(usual) // 10)])
        with threadpool_limits(1):
            layers = self._train(flat(X[rows]), weight[rows] / weight[rows].mean(), seed)
            error = log_errors(layers, flat(X[aside]))
        if not np.isfinite(error).all():
            raise CandidateError("autoencoder: reconstruction errors are not numbers")
        middle = float(np.average(error, weights=weight[aside]))
        # One row kept aside, or rows all alike, show no deviation; then a factor e of the error counts as one.
        spread = float(np.sqrt(np.average((error - middle) ** 2, weights=weight[aside]))) or 1.0
        share = float(np.average(y > 0, weights=weight))
        return Errors(layers, middle, spread, float(logit(np.clip(share, 0.001, 0.5))))

    def _train(self, X: np.ndarray, weight: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
        width = X.shape[1]
        code = max(1, min(self.code, int(width / self.squeeze)))
        hidden = max(code, min(self.hidden, 4 * width))
        parameters = initial((width, hidden, code, hidden, width), seed)
        rows, scaled = torch.from_numpy(X), torch.from_numpy(weight).float()
        steps = round(self.epochs * len(X) / self.batch) if self.epochs else self.steps
        optimizer = torch.optim.Adam(parameters, lr=self.rate)
        random = torch.Generator().manual_seed(seed_of(seed, "batches"))
        for _ in range(max(1, steps)):
            picked = torch.randint(len(X), (min(self.batch, len(X)),), generator=random)
            batch = rows[picked]
            optimizer.zero_grad()
            (scaled[picked] * (forward(parameters, batch) - batch).square().mean(dim=1)).mean().backward()
            optimizer.step()
        return tuple(p.detach().numpy() for p in parameters)

    @classmethod
    def tiny(cls) -> Self:
        """Few steps of a small network."""
        return cls(hidden=32, steps=300, batch=64, rate=3e-3)


def flat(X: np.ndarray) -> np.ndarray:
    """(n, d) float32 of encoded rows: pixels as shares of white, then columns."""
    pictures, columns = taken_apart(X)
    if pictures is None:
        return np.asarray(columns, dtype=np.float32)
    return np.hstack([pictures.reshape(len(X), -1).astype(np.float32) / 255, columns])


def initial(sizes: tuple[int, ...], seed: int) -> list[Tensor]:
    """Weight (He et al. 2015) and bias of each layer."""
    random = torch.Generator().manual_seed(seed_of(seed, "weights"))
    parameters = []
    for fan, out in pairwise(sizes):
        parameters += [torch.randn(fan, out, generator=random) * (2 / max(fan, 1)) ** 0.5, torch.zeros(out)]
    return [p.requires_grad_() for p in parameters]


def forward(parameters: list[Tensor], X: Tensor) -> Tensor:
    """(n, d) reconstruction."""
    hidden = X
    for index in range(0, len(parameters) - 2, 2):
        hidden = F.relu(torch.addmm(parameters[index + 1], hidden, parameters[index]))
    return torch.addmm(parameters[-1], hidden, parameters[-2])


def log_errors(layers: tuple[np.ndarray, ...], X: np.ndarray) -> np.ndarray:
    """(n,) log of the mean squared error of each row; errors below 1e-9 are all the same."""
    with torch.no_grad(), threadpool_limits(1):
        rows = torch.from_numpy(np.array(X, dtype=np.float32))
        error = (forward([torch.from_numpy(layer) for layer in layers], rows) - rows).square().mean(dim=1)
    return np.log(error.numpy().astype(np.float64) + 1e-9)


@dataclass(frozen=True)
class Errors:
    """A fitted autoencoder.

    Args:
        layers: weight, bias of each layer.
        middle, spread: of the log error of usual rows not trained on.
        prior: log-odds of an anomaly among training rows.
    """

    layers: tuple[np.ndarray, ...]
    middle: float
    spread: float
    prior: float

    def scores(self, X: np.ndarray) -> np.ndarray:
        """(n,) log-odds of anomaly."""
        z = (log_errors(self.layers, flat(X)) - self.middle) / self.spread
        return np.clip(SHIFT * z - SHIFT**2 / 2 + self.prior, -LONGEST, LONGEST)

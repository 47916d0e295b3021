"""Density ratio: how much likelier rows of other domains are in the target's, by a domain classifier; knows no label and no learner.

Source: Shimodaira 2000 (weights p_target(x) / p_others(x) make a fit on other rows one for the target's, where the label's law given x is
the same); Bickel, Brueckner & Scheffer 2009 (the ratio as the odds of a classifier that tells the two apart); Ionides 2008 (truncation).

What is done about the ratio's known troubles:
- a classifier that has seen a row knows where it came from: it is cross-fitted in PARTS, and a row asks the one that has not seen it;
- it has few target rows to learn from: it sees one principal component for every `ROWS_PER_COLUMN` of them, with a ridge;
- its odds are calibrated by Platt's line (shrunk, `Calibration`), fitted on the out-of-part odds;
- a few huge weights would be all the data there are: no ratio is above mean x sqrt(n) (n rows of other domains), its root is a second way
  to weigh (Shimodaira's flattening), and the mean weight is made 1.

Rows of the target domain weigh 1. Texts and pictures are seen by their embedding (embedding.py). Not for domains that differ in the law
of the label given x: there the weights are right and the fit is not, which the held-out loss of the candidate says.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from codsa_ray.basis import Basis
from codsa_ray.correct import Calibration
from codsa_ray.domain import POWERS
from codsa_ray.embedding import Numbers
from codsa_ray.errors import CandidateError
from codsa_ray.pilot import LOGISTIC
from codsa_ray.schema import Schema
from codsa_ray.seeds import hash_rows, rng_of

PARTS = 5
LEAST_ROWS = 10  # of either side
ROWS_PER_COLUMN = 5
MOST_COLUMNS = 40
CLASSIFIER = replace(LOGISTIC, ridge=1e-2)
LONGEST = 30.0  # log ratios are kept within +- this, so that no exponential overflows


@dataclass(frozen=True)
class Ratio:
    """A fitted ratio: weights of any row of another domain, whoever asks.

    Args:
        points, basis: what the classifiers see.
        classifiers: (PARTS, p + 1) coefficients; part k has not seen the rows of part k.
        scaling: Platt's line.
        limit: the largest ratio that counts as it is.
        rows, cut: of other domains: training rows, and those at the limit.
        means, sizes: of each of POWERS of the training rows' ratios: the mean, and how many equal weights are worth as much (Kish 1965).
        seed: of the parts.
    """

    points: Numbers
    basis: Basis
    classifiers: np.ndarray
    scaling: Calibration
    limit: float
    rows: int
    cut: int
    means: dict[float, float]
    sizes: dict[float, float]
    seed: int

    @staticmethod
    def of(table: pa.Table, own: np.ndarray, keys: np.ndarray, schema: Schema, seed: int) -> "Ratio":
        """Fits on training rows.

        Args:
            table: canonical rows of all domains.
            own: (n,) bool rows of the target domain.
            keys: (n,) ids; rows of one id (a row's position, its unit) are in one part.
            schema: of the rows.
            seed: of the parts.

        Raises:
            CandidateError: under LEAST_ROWS of either side, nothing that varies, or a classifier that does not converge.
        """
        rare = int(min(own.sum(), (~own).sum()))
        if rare < LEAST_ROWS:
            raise CandidateError(f"{rare} rows are too few to tell domains apart, importance weights want {LEAST_ROWS}")
        points = Numbers.learn(table, schema)
        X = points.encode(table)
        many = int(np.clip(rare // ROWS_PER_COLUMN - 1, 1, MOST_COLUMNS))
        basis = Basis.of([X[~own], X[own]], many, rng_of(seed, "density ratio basis"))
        D, part = basis.design(X), _parts(keys, seed)
        classifiers = np.stack([_classifier(D, own, part != k) for k in range(PARTS)])
        scaling = Calibration.fit(_odds(D, classifiers, part), own.astype(np.int64), np.where(own, 0.5 / own.sum(), 0.5 / (~own).sum()))
        ratio = np.exp(np.clip(scaling.apply(_odds(D, classifiers, part)[~own]), -LONGEST, LONGEST))
        limit = float(ratio.mean() * np.sqrt(len(ratio)))
        kept = {power: np.minimum(ratio, limit) ** power for power in POWERS.values()}
        means = {power: float(values.mean()) for power, values in kept.items()}
        sizes = {power: float(values.sum() ** 2 / np.square(values).sum()) for power, values in kept.items()}
        return Ratio(points, basis, classifiers, scaling, limit, len(ratio), int((ratio > limit).sum()), means, sizes, seed)

    def weights(self, table: pa.Table, keys: np.ndarray, power: float = 1.0) -> np.ndarray:
        """(n,) float64 > 0 weights of canonical rows of other domains: a power of the ratio (one of POWERS), of mean 1 in training."""
        D = self.basis.design(self.points.encode(table))
        odds = self.scaling.apply(_odds(D, self.classifiers, _parts(keys, self.seed)))
        return np.asarray(np.minimum(np.exp(np.clip(odds, -LONGEST, LONGEST)), self.limit) ** power / self.means[power])

    @property
    def notice(self) -> str:
        """What a reader should know of the weights."""
        cut = f"; {self.cut:,} of them were cut to the largest weight allowed" if self.cut else ""
        full, half = (self.sizes[power] for power in POWERS.values())
        worth = f"worth {full:,.0f} of equal weight, their roots {half:,.0f}"
        return f"importance weights make {self.rows:,} rows of other domains {worth}{cut}"


def _parts(keys: np.ndarray, seed: int) -> np.ndarray:
    return (hash_rows(keys, seed, "density ratio") % np.uint64(PARTS)).astype(np.int64)


def _classifier(D: np.ndarray, own: np.ndarray, taught: np.ndarray) -> np.ndarray:
    """(p + 1,) coefficients of the log odds where both sides weigh the same."""
    if not (own & taught).any() or not (~own & taught).any():
        raise CandidateError("a part of the rows leaves one side of the domain classifier empty; give more rows")
    return CLASSIFIER.fit(D[~own & taught], D[own & taught])


def _odds(D: np.ndarray, classifiers: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(n,) log odds of the target domain, each row's by the classifier that has not seen it."""
    return np.asarray(np.einsum("np,np->n", D, classifiers[part]))

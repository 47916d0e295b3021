"""Per-row losses of each task and their balance over the target mix, with standard errors; knows no candidate and no correction."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import log_softmax

from codsa_ray.contracts import Task
from codsa_ray.errors import CandidateError, InternalError, SettingError

CLIP = 1e-7
WORST_LOG_LOSS = -float(np.log(CLIP))


@dataclass(frozen=True)
class Classification:
    """Log loss of (n, C) log-probabilities (or any logits: they are normalised here), probabilities clipped at 1e-7."""

    classes: int
    name: str = "classification"

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) nats; a truth of -1 (a label never seen in training) costs the worst loss.

        Raises:
            CandidateError: a score is NaN or +inf, or the shape is not (n, classes).
        """
        _check(scores, (len(truth), self.classes))
        known = truth >= 0
        picked = log_softmax(scores, axis=1)[np.arange(len(truth)), np.where(known, truth, 0)]
        return np.where(known, np.clip(-picked, 0.0, WORST_LOG_LOSS), WORST_LOG_LOSS)


@dataclass(frozen=True)
class Regression:
    """Squared error of (n,) predictions."""

    name: str = "regression"

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) squared units of the target."""
        _check(scores, (len(truth),))
        return np.square(np.asarray(scores, dtype=np.float64) - truth)


@dataclass(frozen=True)
class Absolute:
    """Absolute error of (n,) predictions: the best constant is the median."""

    name: str = "regression"

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) units of the target."""
        _check(scores, (len(truth),))
        return np.abs(np.asarray(scores, dtype=np.float64) - truth)


@dataclass(frozen=True)
class Pinball:
    """Pinball loss of (n,) predictions (Koenker & Bassett 1978): the best constant is the quantile at `level`.

    Args:
        level: in (0, 1); each unit below the truth costs `level`, each above it 1 - `level`. At .5 it is half the absolute error.
    """

    level: float
    name: str = "regression"

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) units of the target."""
        _check(scores, (len(truth),))
        short = truth - np.asarray(scores, dtype=np.float64)
        return np.maximum(self.level * short, (self.level - 1) * short)


@dataclass(frozen=True)
class Anomaly:
    """Log loss of sigmoid(score) against truth 0 (usual) or 1 (anomaly); scores (n,) are log-odds."""

    name: str = "anomaly"

    def losses(self, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,) nats, clipped as in classification."""
        _check(scores, (len(truth),))
        against = np.where(np.asarray(truth) > 0, -1.0, 1.0) * scores
        return np.clip(np.logaddexp(0.0, against), 0.0, WORST_LOG_LOSS)


def task_of(name: str, classes: int = 0, loss: str = "") -> Task:
    """The task by name.

    Args:
        classes: C for classification.
        loss: of a regression: squared (the default), absolute or pinball:Q; "" is the task's own.

    Raises:
        SettingError: an unknown name or loss, or a loss that the task does not have.
    """
    tasks: dict[str, Task] = {"classification": Classification(classes), "regression": Regression(), "anomaly": Anomaly()}
    if name not in tasks:
        raise SettingError(f"a task among {sorted(tasks)}", repr(name), "name one of them")
    if not loss:
        return tasks[name]
    if name != "regression":
        raise SettingError("--loss with --task regression alone", f"{loss!r} with {name}", "leave it out")
    return _regression(loss)


def _regression(loss: str) -> Task:
    kind, _, level = loss.partition(":")
    if kind == "pinball":
        try:
            found = Pinball(float(level))
        except ValueError:
            found = Pinball(0.0)
        if 0 < found.level < 1:
            return found
    elif loss in ("squared", "absolute"):
        return Regression() if loss == "squared" else Absolute()
    raise SettingError("--loss squared, absolute or pinball:Q with Q between 0 and 1", repr(loss), "write for instance pinball:0.9")


def _check(scores: np.ndarray, shape: tuple[int, ...]) -> None:
    if scores.shape != shape:
        raise CandidateError(f"wanted scores of shape {shape}; got {scores.shape}; the predictor breaks its contract")
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise CandidateError("wanted finite scores; got NaN or +inf; the fit diverged")


def indicator(index: np.ndarray, size: int) -> sparse.csr_array:
    """(size, n) sparse matrix that sums rows by index: its product is a sum in a fixed order, whatever the threads."""
    n = len(index)
    return sparse.csr_array((np.ones(n), (index, np.arange(n))), shape=(size, n))


def group_sums(losses: np.ndarray, groups: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(sum (G,), count (G,) int64) of the losses of each group; rows of group -1 are in neither."""
    kept = groups >= 0
    count = np.bincount(groups[kept], minlength=size)
    return np.bincount(groups[kept], weights=losses[kept], minlength=size), count


def group_means(losses: np.ndarray, groups: np.ndarray, size: int) -> np.ndarray:
    """(G,) mean loss of each group, NaN for a group without rows."""
    total, count = group_sums(losses, groups, size)
    return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)


def absent(groups: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Groups that the target mix weighs and that have no row: `row_weights` shares their weight among the others."""
    count = np.bincount(groups[groups >= 0], minlength=len(mix))
    return np.flatnonzero((np.asarray(mix) > 0) & (count == 0))


def row_weights(groups: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """(n,) weights mix_g / n_g that make a weighted mean the balanced loss.

    Rows of group -1 weigh 0. The mix is renormalised over the groups that have rows (`absent` names the others), so the weights sum to 1.

    Raises:
        InternalError: no row is in a group that the mix weighs.
    """
    mix = np.asarray(mix, dtype=np.float64)
    count = np.bincount(groups[groups >= 0], minlength=len(mix))
    held = np.where(count > 0, mix, 0.0)
    if held.sum() <= 0:
        raise InternalError("wanted rows in at least one group of the target mix; got none; check the groups of the scored rows")
    share = held / held.sum() / np.maximum(count, 1)
    return np.where(groups >= 0, share[groups], 0.0)


def balanced(losses: np.ndarray, groups: np.ndarray, mix: np.ndarray) -> float:
    """The mean of group means under the target mix (see `row_weights` for absent groups and rows of group -1)."""
    return float(np.sum(row_weights(groups, mix) * losses))


def worst(losses: np.ndarray, groups: np.ndarray, size: int) -> float:
    """The largest group mean."""
    return float(np.nanmax(group_means(losses, groups, size)))


@dataclass(frozen=True)
class Estimate:
    """Balanced means of P columns of losses (or of paired differences of losses).

    Args:
        mean, se, df: (P,) balanced mean, its standard error, and Satterthwaite's degrees of freedom.
        excluded: rows of group -1, left out.
        absent: groups of the mix without rows.
    """

    mean: np.ndarray
    se: np.ndarray
    df: np.ndarray
    excluded: int
    absent: tuple[int, ...]


def strata_of(groups: np.ndarray, units: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sampling units and their strata.

    A unit (a patient, say) may have rows in several groups; its stratum is the rarest of them, so that resampling keeps rare groups.

    Args:
        groups: (n,) group of each row, none negative.
        units: (n,) any ids, or None where every row is a unit of its own.

    Returns:
        (n,) index of each row's unit, (U,) stratum of each unit (a group's index).
    """
    if units is None:
        return np.arange(len(groups)), groups
    _, index = np.unique(units, return_inverse=True)
    count = np.bincount(groups)
    order = np.lexsort((groups, count[groups], index))
    first = np.unique(index[order], return_index=True)[1]
    return index, groups[order][first]


def estimate(losses: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None = None, floor: bool = False) -> Estimate:
    """Balanced means with standard errors: stratified by group, clustered by unit.

    With units of one row the variance is sum_g mix_g^2 s_g^2 / n_g. In general it is, per stratum, that of the sum of the units' influences
    mix_g (loss - mean_g) / n_g (linearisation; Woodruff 1971). A stratum of one unit shows no variance of its own and takes the floor.

    Args:
        losses: (n,) or (n, P).
        groups: (n,) group ids, -1 where none.
        mix: (G,) target mix.
        units: (n,) unit ids or None.
        floor: take no stratum's variance to be below what the variance pooled over all groups would give it: a group of ten rows
            often has not shown its tail.
    """
    kept = groups >= 0
    columns, inside = losses.reshape(len(losses), -1)[kept], groups[kept]
    weight = row_weights(groups, mix)[kept]
    by_group = indicator(inside, len(mix))
    count = np.bincount(inside, minlength=len(mix))
    spread = columns - (by_group @ columns / np.maximum(count, 1)[:, None])[inside]
    pooled = np.square(spread).sum(0) / max(len(inside) - np.count_nonzero(count), 1)
    unit, stratum = strata_of(inside, None if units is None else units[kept])
    influence = indicator(unit, len(stratum)) @ (weight[:, None] * spread)
    own, size = _stratum_variances(influence, stratum, len(mix))
    least = np.bincount(stratum[unit], weights=np.square(weight), minlength=len(mix))[:, None] * pooled
    parts = np.maximum(own, least) if floor else np.where(size[:, None] > 1, own, least)
    total = parts.sum(0)
    df = np.square(total) / np.maximum((np.square(parts) / np.maximum(size - 1, 1)[:, None]).sum(0), np.finfo(float).tiny)
    gone = tuple(int(g) for g in absent(groups, mix))
    return Estimate((weight[:, None] * columns).sum(0), np.sqrt(total), np.maximum(df, 1.0), int((~kept).sum()), gone)


def _stratum_variances(influence: np.ndarray, stratum: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    by_stratum = indicator(stratum, size)
    count = np.bincount(stratum, minlength=size)
    centred = influence - (by_stratum @ influence / np.maximum(count, 1)[:, None])[stratum]
    scale = np.where(count > 1, count / np.maximum(count - 1, 1), 0.0)
    return scale[:, None] * (by_stratum @ np.square(centred)), count


def influences(columns: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What each unit adds to the balanced means of columns (n, P) beyond its groups' means (linearisation; Woodruff 1971).

    Returns:
        (U, P) influences, (U,) stratum of each unit; rows of group -1 belong to no unit.
    """
    kept = groups >= 0
    inside, weight, values = groups[kept], row_weights(groups, mix)[kept], columns[kept]
    count = np.bincount(inside, minlength=len(mix))
    spread = values - (indicator(inside, len(mix)) @ values / np.maximum(count, 1)[:, None])[inside]
    unit, stratum = strata_of(inside, None if units is None else units[kept])
    return np.asarray(indicator(unit, len(stratum)) @ (weight[:, None] * spread)), stratum


def covariance(columns: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None = None) -> np.ndarray:
    """(P, P) covariance of the balanced means of columns (n, P): stratified by group, clustered by unit, as `estimate` has it.

    A stratum of one unit shows no variance and adds none.
    """
    influence, stratum = influences(columns, groups, mix, units)
    size = np.bincount(stratum, minlength=len(mix))
    centred = influence - (indicator(stratum, len(mix)) @ influence / np.maximum(size, 1)[:, None])[stratum]
    scale = np.where(size > 1, size / np.maximum(size - 1, 1), 0.0)[stratum]
    return np.asarray((scale[:, None] * centred).T @ centred)


def paired(
    after: np.ndarray, before: np.ndarray, groups: np.ndarray, mix: np.ndarray, units: np.ndarray | None = None
) -> tuple[float, float]:
    """(mean, standard error) of the balanced difference after - before on the same rows."""
    result = estimate(after - before, groups, mix, units)
    return float(result.mean[0]), float(result.se[0])

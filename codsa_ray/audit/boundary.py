"""The decision boundary before and after, on the two leading principal components of rows; knows arrays, no model.

What is drawn are predictions of real rows, smoothed over the plane, not a model asked about points that no row has.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from codsa_ray.audit.picks import even, pick

LEVELS = (0.25, 0.5, 0.75)
GRID = 48
MOST_ROWS = 4_000
MOST_COLUMNS = 2_000
MOST_POINTS = 300
THIN = 0.02  # of the densest point: a grid point with fewer rows around it has no contour


@dataclass(frozen=True)
class Plane:
    """Rows on their two leading components.

    Args:
        points: (n, 2), each component with variance 1.
        explained: (2,) share of the variance.
    """

    points: np.ndarray
    explained: np.ndarray

    @staticmethod
    def of(X: np.ndarray, weight: np.ndarray) -> "Plane | str":
        """The plane of (n, d) encoded rows, columns standardised under the weights (n,), nulls at the mean; or why there is none."""
        if X.ndim != 2:
            return f"rows are encoded as arrays of shape {X.shape[1:]}, not as columns of numbers"
        if X.shape[1] > MOST_COLUMNS:
            return f"rows are encoded in {X.shape[1]:,} columns; at most {MOST_COLUMNS:,} are looked at"
        columns = _standardised(np.asarray(X, dtype=np.float64), weight / weight.sum())
        if columns.shape[1] < 2:
            return "fewer than two encoded columns vary"
        # One thread: the plane must not depend on how many cores the machine has.
        with threadpool_limits(1):
            power, axes = np.linalg.eigh((columns * (weight / weight.sum())[:, None]).T @ columns)
            leading = axes[:, ::-1][:, :2]
            # An eigenvector has no sign of its own: its largest entry is made positive.
            leading = leading * np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(2)])
            points = columns @ leading
        top = np.maximum(power[::-1][:2], 1e-300)
        return Plane(points / np.sqrt(top), top / power.clip(0).sum())


def _standardised(X: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(n, k) the columns that vary, with mean 0 and variance 1."""
    known = np.isfinite(X)
    X = np.where(known, X, 0.0)
    mean = share @ X / np.maximum(share @ known, 1e-300)
    centred = np.where(known, X - mean, 0.0)
    spread = np.sqrt(share @ centred**2)
    varied = spread > 1e-9 * np.maximum(np.abs(mean), 1.0)
    return np.asarray(centred[:, varied] / spread[varied])


def boundary(
    X: np.ndarray, before: np.ndarray, after: np.ndarray, hit: np.ndarray, weight: np.ndarray, seed: int, rows: bool = True
) -> dict[str, Any]:
    """Contours of two models' probabilities of one label, smoothed over the plane, and some of the rows.

    Smoothing: Nadaraya-Watson, Gaussian kernel, Scott's bandwidth m^(-1/6) for Kish's effective number m of rows. Rows beyond 4,000 are
    left out by seed, those of the label last.

    Args:
        X: (n, ...) encoded rows.
        before, after: (n,) probabilities of the label.
        hit: (n,) bool, the label is the true one.
        weight: (n,) >= 0, balanced by the target mix.
        seed: of which rows are looked at.
        rows: False leaves the points out.

    Returns:
        {explained, bandwidth, box: [x0, x1, y0, y1], before, after: [{level, segments: [[x, y, x, y], ...]}], points: [[x, y, 0 or 1]]},
        or {skipped: reason}.
    """
    side = hit.astype(np.int64)
    kept = pick(side, even(np.bincount(side, minlength=2), MOST_ROWS), seed, "boundary")
    kept = kept[weight[kept] > 0]
    plane = Plane.of(X[kept], weight[kept]) if len(kept) > 2 else "fewer than three rows"
    if isinstance(plane, str):
        return {"skipped": plane}
    width = float(_kish(weight[kept]) ** (-1 / 6))
    low, high = np.quantile(plane.points, (0.005, 0.995), axis=0)
    axes = [np.linspace(low[i] - width, high[i] + width, GRID) for i in range(2)]
    shown = pick(side[kept], even(np.bincount(side[kept], minlength=2), MOST_POINTS if rows else 0), seed, "boundary points")
    fields = [smoothed(plane.points, p[kept], weight[kept], axes, width) for p in (before, after)]
    return {
        "explained": plane.explained.round(4).tolist(),
        "bandwidth": round(width, 4),
        "box": [round(float(v), 3) for axis in axes for v in (axis[0], axis[-1])],
        **{name: _lines(field, axes) for name, field in zip(("before", "after"), fields, strict=True)},
        "points": [[round(float(x), 3), round(float(y), 3), int(hit[kept][i])] for i in shown for x, y in (plane.points[i],)],
    }


def _kish(weight: np.ndarray) -> float:
    return float(weight.sum() ** 2 / np.square(weight).sum())


def smoothed(points: np.ndarray, values: np.ndarray, weight: np.ndarray, axes: list[np.ndarray], width: float) -> np.ndarray:
    """(a, b) weighted kernel means of values (n,) at points (n, 2) over the grid of two axes (a,), (b,); NaN where rows are thin."""
    kernels = [np.exp(-0.5 * np.square((axis[:, None] - points[:, i]) / width)) for i, axis in enumerate(axes)]
    with threadpool_limits(1):
        mass = (kernels[0] * weight) @ kernels[1].T
        total = (kernels[0] * (weight * values)) @ kernels[1].T
    return np.where(mass > THIN * mass.max(), total / np.maximum(mass, 1e-300), np.nan)


def _lines(field: np.ndarray, axes: list[np.ndarray]) -> list[dict[str, Any]]:
    return [{"level": level, "segments": contour(field, axes, level).round(3).tolist()} for level in LEVELS]


def contour(field: np.ndarray, axes: list[np.ndarray], level: float) -> np.ndarray:
    """(s, 4) straight pieces x, y, x, y of the curve field = level, linear within cells; cells with a NaN corner have none.

    Marching squares (Lorensen & Cline 1987, in the plane): where two corners that face each other are above and the other two below, the
    mean of the four decides which are joined.
    """
    x, y = axes
    found = []
    for i, j in zip(*np.nonzero(_crossed(field, level)), strict=True):
        corners = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
        values = [field[c] - level for c in corners]
        cuts = {}
        for k in range(4):
            a, b = values[k], values[(k + 1) % 4]
            if (a > 0) != (b > 0):
                (p, q), (r, s), t = corners[k], corners[(k + 1) % 4], a / (a - b)
                cuts[k] = (x[p] + t * (x[r] - x[p]), y[q] + t * (y[s] - y[q]))
        sides = sorted(cuts)
        if len(sides) == 4 and (np.mean(values) > 0) == (values[0] > 0):
            sides = [0, 1, 2, 3]  # corners 1 and 3 are cut off
        elif len(sides) == 4:
            sides = [3, 0, 1, 2]  # corners 0 and 2 are cut off
        found += [[*cuts[sides[k]], *cuts[sides[k + 1]]] for k in range(0, len(sides), 2)]
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def _crossed(field: np.ndarray, level: float) -> np.ndarray:
    """(a - 1, b - 1) cells whose four corners are known and lie on both sides."""
    corners = np.stack([field[:-1, :-1], field[1:, :-1], field[1:, 1:], field[:-1, 1:]])
    above = (corners > level).sum(axis=0)
    return np.asarray(~np.isnan(corners).any(axis=0) & (above > 0) & (above < 4))

"""Basis: rows of numbers projected on their leading principal components; knows neither groups nor models."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.errors import CandidateError

ROWS = 1000
SPANNED = 1e-6  # of the largest variance: a component with less is a redundant column's


@dataclass(frozen=True)
class Basis:
    """Leading principal components of standardised columns, of unit variance; what is not finite is read as the mean.

    Args:
        mean, scale: (d,).
        axes: (d, p).
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray

    @staticmethod
    def of(sides: list[np.ndarray], many: int, rng: np.random.Generator) -> "Basis":
        """From as many rows of each side, ROWS together at most.

        Args:
            sides: (n, d) numbers each.
            many: most components; fewer where the rows span fewer.
            rng: picks the rows.

        Raises:
            CandidateError: no column varies, or their components could not be computed.
        """
        most = min(ROWS // 2, max(map(len, sides)))
        picked = [X[np.sort(rng.permutation(len(X))[:most])] for X in sides]
        X = _finite(np.concatenate(picked), None)
        mean, scale = X.mean(0), X.std(0)
        scale = np.where(scale > 1e-9 * (1 + np.abs(mean)), scale, np.inf)
        Z = (X - mean) / scale
        try:
            values, axes = np.linalg.eigh(Z.T @ Z if Z.shape[1] <= len(Z) else Z @ Z.T)
        except np.linalg.LinAlgError as error:
            raise CandidateError(f"principal components of {Z.shape[1]} encoded columns: {error}") from error
        values, axes = values[::-1], axes[:, ::-1]
        many = min(many, int(np.count_nonzero(values > SPANNED * max(values[0], 1e-12))))
        if not many:
            raise CandidateError("no encoded column varies")
        axes = axes[:, :many] if Z.shape[1] <= len(Z) else Z.T @ axes[:, :many] / np.sqrt(values[:many])
        # A component's sign is the machine's choice: the largest entry is made positive.
        axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(many)])
        return Basis(mean, scale, axes * np.sqrt(len(Z) / values[:many]))

    def design(self, X: np.ndarray) -> np.ndarray:
        """(n, p + 1) components and a column of ones."""
        Z = (_finite(X, self.mean) - self.mean) / self.scale
        return np.column_stack([Z @ self.axes, np.ones(len(Z))])


def _finite(X: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """As float64, entries that are not finite replaced by the mean (of the finite entries of their column)."""
    X = np.asarray(X, dtype=np.float64)
    fine = np.isfinite(X)
    if fine.all():
        return X
    if mean is None:
        mean = np.where(fine, X, 0.0).sum(0) / np.maximum(fine.sum(0), 1)
    return np.where(fine, X, mean)

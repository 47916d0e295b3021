"""Nearest rows of mixed columns, sought block by block; knows no region and no generator."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

PAIRS = 2**22
"""Distances held at once, 32 MiB of each intermediate."""
EXACT, CELL = 10_000, 2_500
"""Rows among which the nearest are surely found, and rows of the cells that more are first cut into, so that time stays linear in rows."""


@dataclass(frozen=True, eq=False)
class Space:
    """Where rows are near (SMOTE-NC; Chawla et al. 2002, section 6.1).

    The squared distance is the sum of squared differences of ordered columns, scaled to unit deviation, and a constant for each category
    that differs.

    Args:
        ordered: (n, P) float64 scaled columns.
        codes: (n, Q) int32 categories.
    """

    ordered: np.ndarray
    codes: np.ndarray

    @staticmethod
    def of(X: np.ndarray, ordered: np.ndarray) -> "Space":
        """Of (n, columns) numbers, those that `ordered` (columns,) does not mark being codes."""
        scaled = np.empty((len(X), int(ordered.sum())))
        for index, column in enumerate(np.flatnonzero(ordered)):
            scaled[:, index] = _scaled(X[:, column])
        return Space(scaled, X[:, ~ordered].astype(np.int32))

    def cost(self, rows: np.ndarray | slice) -> float:
        """What another category costs: the median deviation of the rows' ordered columns, 1 where that is 0 or there is none."""
        deviations = [column[rows].std() for column in self.ordered.T]
        return float(np.median(deviations)) or 1.0 if deviations else 1.0

    def squared(self, rows: np.ndarray, among: np.ndarray, cost: float) -> np.ndarray:
        """(rows, among) squared distances, all at once."""
        found = (
            cdist(self.ordered[rows], self.ordered[among], "sqeuclidean") if self.ordered.shape[1] else np.zeros((len(rows), len(among)))
        )
        for column in self.codes.T:
            found += cost**2 * (column[rows, None] != column[None, among])
        return found

    def nearest(self, rows: np.ndarray, among: np.ndarray, k: int, cost: float) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest other rows of each row, nearest first, those at equal distance by position.

        Exact where `among` has at most EXACT rows; more are cut into cells of at most CELL (or 2 k + 2) at medians of their widest columns
        and a row's neighbours sought in its own cell. Time rows x (EXACT at most) x columns; memory a few times PAIRS numbers.

        Args:
            rows: (m,) increasing positions, each of which is in `among`.
            among: (n,) increasing positions, n > k.
            k: at least 1.
            cost: of another category.

        Returns:
            (m, k) int64 positions and (m, k) distances.
        """
        near, distance = np.empty((len(rows), k), dtype=np.int64), np.empty((len(rows), k))
        for cell in [among] if len(among) <= EXACT else self._cells(among, max(CELL, 2 * k + 2)):
            place = np.minimum(np.searchsorted(rows, cell), max(len(rows) - 1, 0))
            asked = place[rows[place] == cell] if len(rows) else place[:0]
            step = max(1, PAIRS // len(cell))
            for first in range(0, len(asked), step):
                part = asked[first : first + step]
                found = self.squared(rows[part], cell, cost)
                found[np.arange(len(part)), np.searchsorted(cell, rows[part])] = np.inf
                order, squares = _least(found, k)
                near[part], distance[part] = cell[order], np.sqrt(squares)
        return near, distance

    def _cells(self, among: np.ndarray, most: int) -> Iterator[np.ndarray]:
        """Parts of at most `most` rows, each increasing: halves of halves along the column of the largest deviation."""
        if len(among) <= most:
            yield among
            return
        spread = [column[among].std() for column in self.ordered.T]
        line = self.ordered[among, int(np.argmax(spread))] if spread else np.lexsort(self.codes[among].T).argsort()
        order = np.argsort(line, kind="stable")
        for half in (order[: len(order) // 2], order[len(order) // 2 :]):
            yield from self._cells(among[np.sort(half)], most)


def counted(near: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(m, k) how many of the k rows around each row stand at each of its neighbours; 1 each where no row stands for others.

    Neighbours are taken in order of distance, each for as many rows as it weighs, until those are k: thinned rows count as before, in
    expectation, where they are near enough that many of them would be among the k. Where one weighs more than k it stands at its own
    place for rows that lie around it, those before it too: a row of a class as common here as the thinned one looks safer than it is.

    Args:
        near: (m, k) positions, nearest first.
        weight: (n,) rows that each stands for, at least 1.
    """
    own = weight[near]
    return np.clip(near.shape[1] - (own.cumsum(axis=1) - own), 0, own)


def apart(rows: np.ndarray, near: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(m,) share of the k rows around each of `rows` (m,) that have another label; near and weight as in `counted`, labels (n,)."""
    count, same = counted(near, weight), labels[near] == labels[rows, None]
    own, other = np.where(same, count, 0).sum(axis=1), np.where(same, 0, count).sum(axis=1)
    # Exactly 0 where none is another, and 1 where all are, however weights round.
    return np.asarray(other / (own + other))


def commonest(codes: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n,) the commonest of each row's known codes, ties at random: SMOTE-NC's rule for categories.

    Args:
        codes: (n, k).
        known: (n, k) bool, at least one in each row.
        rng: decides ties.
    """
    votes = ((codes[:, :, None] == codes[:, None, :]) & known[:, None, :]).sum(axis=2) + rng.random(codes.shape) / 2
    return np.take_along_axis(codes, np.where(known, votes, -1.0).argmax(axis=1)[:, None], axis=1)[:, 0]


def _scaled(values: np.ndarray) -> np.ndarray:
    # First by a power of two, which is exact, so that the squares of values near 1e308 stay finite.
    small = np.ldexp(values, -int(np.frexp(np.abs(values).max(initial=0.0))[1]))
    deviation = small.std() if len(small) else 0.0
    return small / deviation if deviation > 0 else small


def _least(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, k) positions of each row's k least values in increasing order, the first of equals taken, and the values."""
    limit = np.partition(values, k - 1, axis=1)[:, k - 1 : k]
    below, level = values < limit, values == limit
    # Which of equal values argpartition takes depends on the machine.
    level &= level.cumsum(axis=1) <= k - below.sum(axis=1, keepdims=True)
    chosen = np.nonzero(below | level)[1].reshape(-1, k)
    found = np.take_along_axis(values, chosen, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1), np.take_along_axis(found, order, axis=1)

"""Cut: a fold's training rows in two, those that a generator learns from and those left to the learner; knows neither of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from codsa_ray.fitdata import REGION, ROW
from codsa_ray.rows import UNIT
from codsa_ray.seeds import hash_rows

LEAST = 2
# Hashes of a larger region are not gathered: a plain threshold is off by under a thousandth of its rows.
EXACT_ROWS = 1_000_000


@dataclass(frozen=True)
class Cut:
    """Every region cut at a share (r of Tian & Shen 2025, CoDSA): a row is the generator's where its hash is at most the region's edge.

    One hash ranks the rows for all shares and folds, so that a smaller share's rows are among a larger one's. Rows of one unit have
    one hash: within a region they stay together.

    Args:
        share: of each region's rows that are the generator's, in (0, 1): LEAST at least, and one is left where there are more.
        seed: the job's.
        edges: (K,) hashes.
        given: (K,) rows of the generator.
    """

    share: float
    seed: int
    edges: tuple[int, ...]
    given: tuple[int, ...]


@dataclass(frozen=True)
class Side:
    """One of the two sides; no row is on both, and none on neither."""

    cut: Cut
    generator: bool

    def __call__(self, rows: pa.Table) -> np.ndarray:
        """(n,) bool rows of this side; the table holds `_row`, `_region`, and `_unit` where there are units."""
        edges = np.array(self.cut.edges, dtype=np.uint64)
        mine = _hashes(rows, self.cut.seed) <= edges[rows[REGION].to_numpy()]
        return np.asarray(mine == self.generator)


def cuts(blocks: Iterable[pa.Table], counts: np.ndarray, shares: Sequence[float], seed: int) -> tuple[Cut, ...]:
    """The cut at each share, in one pass; memory is 8 bytes a row of regions up to EXACT_ROWS.

    Args:
        blocks: rows as `Side` takes them.
        counts: (K,) rows of each region.
        shares: in (0, 1).
        seed: the job's.
    """
    edges = np.repeat(np.array([int(share * 2**64) for share in shares], dtype=np.uint64)[:, None], len(counts), axis=1)
    given = np.zeros(edges.shape, dtype=np.int64)
    gathered: list[list[np.ndarray]] = [[] for _ in counts]
    for block in blocks:
        region, hashes = block[REGION].to_numpy(), _hashes(block, seed)
        for k in np.unique(region[region >= 0]):
            mine = hashes[region == k]
            if counts[k] > EXACT_ROWS:
                given[:, k] += (mine <= edges[:, k, None]).sum(axis=1)
            else:
                gathered[k].append(mine)
    for k, parts in enumerate(gathered):
        if parts:
            ranked = np.sort(np.concatenate(parts))
            edges[:, k] = ranked[[_rows(len(ranked), share) - 1 for share in shares]]
            given[:, k] = np.searchsorted(ranked, edges[:, k], side="right")
    found = zip(shares, edges, given, strict=True)
    return tuple(Cut(share, seed, tuple(map(int, edge)), tuple(map(int, rows))) for share, edge, rows in found)


def _rows(rows: int, share: float) -> int:
    least = min(LEAST, rows)
    return int(np.clip(round(share * rows), least, max(rows - 1, least)))


def _hashes(rows: pa.Table, seed: int) -> np.ndarray:
    return hash_rows(rows[UNIT if UNIT in rows.column_names else ROW].to_numpy(), seed, "share")

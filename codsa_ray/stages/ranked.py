"""Ranked: the rows of small groups, where a table has too many rows to rank them all; knows no fold."""

from dataclasses import dataclass

import numpy as np

from codsa_ray.domain import Domain
from codsa_ray.fitdata import ROW
from codsa_ray.folder import Folder
from codsa_ray.groups import Groups
from codsa_ray.split import ranked
from codsa_ray.stages.cluster import spread


@dataclass(frozen=True)
class Ranked:
    """Finds one part's rows of some groups.

    Args:
        folder: of the read stage.
        groups: declared cells.
        wanted: (G,) bool.
        domain: whose rows alone are found; None: all.
    """

    folder: Folder
    groups: Groups
    wanted: np.ndarray
    domain: Domain | None = None

    def __call__(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int64 positions, ascending, and (n,) int32 groups."""
        table = (self.folder / "rows").read_table(part)
        group = self.groups.assign(table).astype(np.int32)
        mine = (group >= 0) & self.wanted[group] & (True if self.domain is None else self.domain.mask(table))
        return table[ROW].to_numpy()[mine], group[mine]


def small_groups(
    folder: Folder, parts: list[str], groups: Groups, domain: Domain | None, workers: int, here: bool
) -> tuple[np.ndarray, np.ndarray, str | None]:
    """(positions, ascending; their groups; what to tell of other groups, None without) of the rows in groups that `split.ranked` names."""
    counts = np.array([group.rows for group in groups.items])
    wanted = ranked(counts)
    work = Ranked(folder, groups, wanted, domain)
    found = dict(spread(parts, lambda: work, workers, here=here))
    positions, group = (np.concatenate([found[i][k] for i in range(len(parts))]) for k in (0, 1))
    if wanted.all():
        return positions, group, None
    told = f"groups of {counts[~wanted].min()} rows and more are split by hash of the row, not by rank within the group"
    return positions, group, f"{counts.sum()} rows: {told}"

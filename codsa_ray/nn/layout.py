"""Layout: what the dimensions of a latent row mean, real numbers first and one-hot codes after; knows no column."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Latent rows of `reals` numbers of about unit variance followed by runs of one-hot codes.

    Args:
        reals: R, dimensions that hold a number.
        runs: (codes, levels) pairs; codes of equal levels stand together, so that one softmax serves a whole run.
    """

    reals: int
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def width(self) -> int:
        """Dimensions of a latent row."""
        return self.reals + sum(codes * levels for codes, levels in self.runs)

    @property
    def parts(self) -> int:
        """Numbers and codes in a row, each counted once."""
        return self.reals + sum(codes for codes, _ in self.runs)

    def codes(self, rows: Tensor) -> list[Tensor]:
        """One view (n, codes, levels) of `rows` (n, width) per run."""
        ends = [self.reals]
        for codes, levels in self.runs:
            ends.append(ends[-1] + codes * levels)
        return [rows[:, a:b].unflatten(1, run) for (a, b), run in zip(pairwise(ends), self.runs, strict=True)]

    def softmax(self, rows: Tensor, scale: float) -> Tensor:
        """`rows` with logits replaced by `scale` times their softmax; the reals are kept."""
        return torch.cat([rows[:, : self.reals], *(scale * run.softmax(-1).flatten(1) for run in self.codes(rows))], dim=1)

"""Layout: what the dimensions of a latent row mean, real numbers first and one-hot codes after; knows no column."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

LARGEST = 60.0  # of logits whose exponentials, and the sums of them, are still exact in float32
WIDEST = 20_000  # dimensions x codes: beyond, a product with the matrix of sums costs more than a softmax each


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

    @cached_property
    def sums(self) -> Tensor:
        """(code dimensions, codes) 1 where the dimension is one of the code's levels."""
        levels = torch.tensor([levels for codes, levels in self.runs for _ in range(codes)])
        return torch.repeat_interleave(torch.eye(len(levels)), levels, dim=0)

    def probabilities(self, rows: Tensor) -> Tensor:
        """(n, code dimensions) softmax of each code's logits in `rows` (n, width).

        On a CPU by one exponential of all and a product with a matrix of ones: a softmax for each run takes six times as long.
        """
        logits = rows[:, self.reals :]
        if self._at_once(logits):
            weights = logits.exp()
            return weights / ((weights @ self.sums) @ self.sums.T)
        return torch.cat([logits[:, :0], *(run.softmax(-1).flatten(1) for run in self.codes(rows))], dim=1)

    def surprise(self, rows: Tensor, hot: Tensor) -> Tensor:
        """(n, codes) cross-entropy of each code's logits in `rows` (n, width) with the one-hot levels `hot` (n, code dimensions).

        On a CPU as `probabilities`: a cross-entropy for each run, and its gradient, take several times as long.
        """
        logits = rows[:, self.reals :]
        if self._at_once(logits):
            return (logits.exp() @ self.sums).log() - (logits * hot) @ self.sums
        codes = zip(self.codes(rows), self.codes(functional.pad(hot, (self.reals, 0))), strict=True)
        return torch.cat([logits[:, :0], *(-(run.log_softmax(-1) * own).sum(-1) for run, own in codes)], dim=1)

    def _at_once(self, logits: Tensor) -> bool:
        small = logits.shape[1] * (self.parts - self.reals) <= WIDEST
        return small and logits.numel() > 0 and logits.device.type == "cpu" and float(logits.detach().abs().amax()) <= LARGEST

    def softmax(self, rows: Tensor, scale: float) -> Tensor:
        """`rows` with logits replaced by `scale` times their softmax; the reals are kept."""
        return torch.cat([rows[:, : self.reals], *(scale * run.softmax(-1).flatten(1) for run in self.codes(rows))], dim=1)

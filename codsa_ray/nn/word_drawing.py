"""Word drawing: a text of each of n rows of a causal model, word by word until all have ended; knows no row and no tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codsa_ray.nn.small_decoder import chosen, shown_of, within
from codsa_ray.nn.text_drawing import Reading


@dataclass(frozen=True, eq=False)
class Drawn:
    """Texts of n rows.

    Args:
        words: of each, without its end.
        ends: (n,) the token that each ended with.
        scores: log-odds after the last word that was fed, of the rows that were still read; ends are not.
    """

    words: list[list[int]]
    ends: np.ndarray
    scores: Tensor


def words(
    reading: Reading,
    scores: Tensor,
    going: np.ndarray,
    allowed: Callable[[int], np.ndarray],
    ends: tuple[int, ...],
    temperature: float,
    rng: np.random.Generator,
    last: bool,
) -> Drawn:
    """Draws until every text has come to an end; those that have wait until the longest has.

    Args:
        reading: of the rows so far.
        scores: (n, vocabulary) log-odds of the first word.
        going: (n,) bool rows that have a text at all; the others end with the first of `ends`.
        allowed: words so far -> tokens that may come next; at some number of words nothing but an end.
        ends: tokens that end a text.
        temperature: log-odds are divided by it.
        rng: of the choices.
        last: nothing is read after these texts, so that rows whose text has ended need not be read on.
    """
    found: list[list[int]] = [[] for _ in going]
    going, came, live, step = going.copy(), np.full(len(going), ends[0], dtype=np.int64), np.arange(len(going)), 0
    while going.any():
        among, picked = allowed(step), np.zeros(len(going), dtype=np.int64)
        # One number for every row there was, so that what is drawn does not depend on which are still read.
        chance = rng.random(len(going), dtype=np.float32)[live]
        picked[live] = among[picks(scores[:, among], temperature, chance)]
        over = going & np.isin(picked, ends)
        came[over], going = picked[over], going & ~over
        for row in np.flatnonzero(going):
            found[row].append(int(picked[row]))
        if last and going.any() and going.sum() <= len(live) // 2:
            reading.only(np.flatnonzero(going[live]))
            live = np.flatnonzero(going)
        if going.any():
            scores = reading.feed([(int(picked[row]),) if going[row] else () for row in live])
        step += 1
    return Drawn(found, came, scores)


def picks(scores: Tensor, temperature: float, chance: np.ndarray, stand: int = 0) -> np.ndarray:
    """(n,) places drawn by (n, L) log-odds with (n,) float32 uniform numbers; the first `stand` stand for the last where there are any."""
    scores, uniform = scores.float() / temperature, torch.from_numpy(chance).to(scores.device)
    found = chosen(scores, uniform)
    return np.asarray((shown_of(found, scores, within(scores, uniform), stand) if stand else found).cpu().numpy())

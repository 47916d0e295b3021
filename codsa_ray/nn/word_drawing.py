"""Word drawing: a text of each of n rows of a causal model, word by word until all have ended; knows no row and no tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from codsa_ray.nn.small_decoder import chosen
from codsa_ray.nn.text_drawing import Reading


@dataclass(frozen=True, eq=False)
class Drawn:
    """Texts of n rows.

    Args:
        words: of each, without its end.
        ends: (n,) the token that each ended with.
        scores: (n, vocabulary) log-odds after the last word that was fed; ends are not.
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
    """
    found: list[list[int]] = [[] for _ in going]
    going, last, step = going.copy(), np.full(len(going), ends[0], dtype=np.int64), 0
    while going.any():
        among = allowed(step)
        picked = among[picks(scores[:, among], temperature, rng)]
        over = going & np.isin(picked, ends)
        last[over], going = picked[over], going & ~over
        for row in np.flatnonzero(going):
            found[row].append(int(picked[row]))
        if going.any():
            scores = reading.feed([(int(token),) if on else () for token, on in zip(picked, going, strict=True)])
        step += 1
    return Drawn(found, last, scores)


def picks(scores: Tensor, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """(n,) places drawn by (n, L) log-odds."""
    chance = torch.from_numpy(rng.random(len(scores), dtype=np.float32)).to(scores.device)
    return np.asarray(chosen(scores.float() / temperature, chance).cpu().numpy())

"""Small decoder: a causal transformer over the columns of a row, in any order, drawn with cached keys and values; knows no value.

Shapes: n rows, C columns, W width, H heads, L_c tokens of column c. Step t of a row is told the token of the column before and which
column comes next; nothing else marks its place, so that one network serves every order of the columns.

Cost per row: C blocks (4 + 2 WIDEN) W^2 + C^2 blocks W + W sum(L) multiplications; drawing keeps 2 C blocks W numbers a row.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WIDEN = 3
SPREAD = 0.3
"""Standard deviation of token vectors at the start."""


@dataclass
class Cache:
    """Keys and values of the steps done, (n, H, C, W / H) for each block, and how many steps those are."""

    keys: list[Tensor]
    values: list[Tensor]
    done: int = 0


class Block(nn.Module):
    """Attention to the steps before, then two linear layers; both added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, WIDEN * width), nn.Linear(WIDEN * width, width)

    def forward(self, steps: Tensor, cache: Cache | None = None, index: int = 0) -> Tensor:
        """(n, T, W) from (n, T, W); with a cache the T steps follow those in it."""
        heads = self.mixed(self.before(steps)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)
        if cache is not None:
            end = cache.done + steps.shape[1]
            cache.keys[index][:, :, cache.done : end], cache.values[index][:, :, cache.done : end] = key, value
            key, value = cache.keys[index][:, :, :end], cache.values[index][:, :, :end]
        told = functional.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        steps = steps + self.joined(told.transpose(1, 2).flatten(2))
        return steps + self.down(functional.gelu(self.up(self.between(steps)), approximate="tanh"))


class SmallDecoder(nn.Module):
    """Log-probabilities of each column's token, given those of the columns before it in the order.

    A token's vector is `known` features times learned weights plus a vector of its own; it serves on the way in and, by the scalar
    product with the last hidden state, on the way out.

    Args:
        known: per column the (L_c, F_c) float32 features of its tokens; F_c may be 0.
        prior: per column the (L_c,) log shares, with which an untrained decoder begins.
        width, blocks, heads: of the network.
    """

    def __init__(self, known: list[np.ndarray], prior: list[np.ndarray], width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads, self.levels = width, heads, [len(part) for part in prior]
        self.ends = [0, *np.cumsum(self.levels).tolist()]
        self.own = nn.Parameter(torch.randn(self.ends[-1], width) * SPREAD)
        self.shared = nn.ParameterList(torch.randn(part.shape[1], width) * SPREAD for part in known)
        self.bias = nn.Parameter(torch.from_numpy(np.concatenate(prior)).float())
        self.asked = nn.Parameter(torch.randn(len(prior), width) * SPREAD)
        for column, part in enumerate(known):
            self.register_buffer(f"known{column}", torch.from_numpy(part).float(), persistent=False)
        self.alike = _alike(self.levels)
        for group, columns in enumerate(self.alike):
            most = max(self.levels[column] for column in columns)
            index = [[self.ends[c] + i if i < self.levels[c] else -1 for i in range(most)] for c in columns]
            self.register_buffer(f"alike{group}", torch.tensor(index), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, width)
        # Nothing at the start, so that the first scores are the log shares.
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        # Nor is a token anything of its own where something is known of it: rare ones are what their kin are.
        self.own.data[torch.cat([torch.from_numpy(part).bool().any(1) for part in known])] = 0.0

    def vectors(self) -> Tensor:
        """(sum of L, W) of all tokens, column after column."""
        known = [getattr(self, f"known{column}") @ weight for column, weight in enumerate(self.shared)]
        return self.own + torch.cat([part.to(self.own.dtype) for part in known])

    def hidden(self, vectors: Tensor, tokens: Tensor, order: Tensor, drop: Tensor | None = None) -> Tensor:
        """(n, C, W) last states, of which number t foretells column order[:, t].

        Args:
            vectors: of all tokens.
            tokens: (n, C) by column.
            order: (n, C) or (1, C) columns in the order of the steps.
            drop: (n, C) 0 where the token at a step is not told to later ones.
        """
        first = torch.tensor(self.ends[:-1], device=tokens.device)
        told = vectors[(tokens + first).gather(1, order.expand_as(tokens))]
        if drop is not None:
            told = told * drop[..., None].to(told.dtype)
        steps = functional.pad(told[:, :-1], (0, 0, 1, 0)) + self.asked[order]
        for block in self.blocks:
            steps = block(steps)
        return self.leave(self.norm(steps)) / math.sqrt(self.width)

    def forward(self, tokens: Tensor, order: Tensor, drop: Tensor | None = None) -> Tensor:
        """(n, C) float32 log-probability of each column's token, by column."""
        vectors = self.vectors()
        states = self.hidden(vectors, tokens, order, drop)
        places = order.argsort(1).expand_as(tokens)
        states = states.gather(1, places[..., None].expand_as(states))
        found = tokens.new_zeros(tokens.shape, dtype=torch.float32)
        for group, columns in enumerate(self.alike):
            index = getattr(self, f"alike{group}")
            some = index.clamp(min=0)
            scores = (states[:, columns].transpose(0, 1) @ vectors[some].transpose(1, 2)).float() + self.bias[some][:, None]
            scores = scores.masked_fill(index[:, None] < 0, -torch.inf).transpose(0, 1)
            found[:, columns] = scores.log_softmax(-1).gather(2, tokens[:, columns, None])[..., 0]
        return found

    def scores(self, vectors: Tensor, state: Tensor, column: int, levels: int) -> Tensor:
        """(n, levels) float32 log-odds of a column's first tokens from (n, W) states."""
        start = self.ends[column]
        return state.float() @ vectors[start : start + levels].float().T + self.bias[start : start + levels].float()


def _alike(levels: list[int]) -> list[list[int]]:
    """Columns that one product serves: their numbers of tokens are within a factor of four, so that little of it is wasted."""
    found: dict[int, list[int]] = {}
    for column, size in enumerate(levels):
        found.setdefault((size - 1).bit_length() // 2, []).append(column)
    return list(found.values())


@dataclass(frozen=True, eq=False)
class Drawing:
    """How tokens are drawn from a decoder.

    Args:
        decoder: on its device, in its dtype.
        drawable: per column how many of its first tokens may be drawn.
        temperature: scores are divided by it.
        stand: per column 0, or how many of its first tokens stand for its last drawable one, which is told to later columns and never
            shown; no column has one where nothing is given.
        cached: False computes all steps anew for every column: as exact, slower, there to be compared with.
    """

    decoder: SmallDecoder
    drawable: tuple[int, ...]
    temperature: float = 1.0
    stand: tuple[int, ...] = ()
    cached: bool = True

    def tokens(self, given: Mapping[int, Tensor], order: list[int], chance: Tensor) -> Tensor:
        """(n, C) int64 tokens by column.

        Args:
            given: column -> (n,) tokens that are not drawn.
            order: columns in the order in which they are drawn.
            chance: (n, C) uniform numbers by column.
        """
        vectors = self.decoder.vectors()
        tokens = torch.zeros(chance.shape, dtype=torch.int64, device=vectors.device)
        states, shown = self._states(vectors, tokens, order), {}
        for column, state in zip(order, states, strict=True):
            stand, uniform = self.stand[column] if self.stand else 0, chance[:, column]
            if column in given and not stand:
                tokens[:, column] = given[column]
                continue
            scores = self.decoder.scores(vectors, state, column, self.drawable[column]) / self.temperature
            tokens[:, column] = given[column] if column in given else chosen(scores, uniform)
            if stand:
                uniform = uniform if column in given else within(scores, uniform)
                shown[column] = shown_of(tokens[:, column], scores, uniform, stand)
        for column, instead in shown.items():
            tokens[:, column] = instead
        return tokens

    def _states(self, vectors: Tensor, tokens: Tensor, order: list[int]) -> Iterator[Tensor]:
        """(n, W) state of each step; `tokens` is filled by the caller in between."""
        decoder, rows = self.decoder, len(tokens)
        if not self.cached:
            for step in range(len(order)):
                yield decoder.hidden(vectors, tokens, torch.tensor([order], device=tokens.device))[:, step]
            return
        shape = (rows, decoder.heads, len(order), decoder.width // decoder.heads)
        cache = Cache([vectors.new_empty(shape) for _ in decoder.blocks], [vectors.new_empty(shape) for _ in decoder.blocks])
        for step, column in enumerate(order):
            told = decoder.asked[column].expand(rows, 1, -1)
            if step:
                before = order[step - 1]
                told = told + vectors[decoder.ends[before] + tokens[:, before]][:, None]
            for index, block in enumerate(decoder.blocks):
                told = block(told, cache, index)
            cache.done += 1
            yield decoder.leave(decoder.norm(told[:, 0])) / math.sqrt(decoder.width)


def shown_of(tokens: Tensor, scores: Tensor, chance: Tensor, stand: int) -> Tensor:
    """(n,) tokens, but one of the first `stand` for each last one, as likely as these are among themselves."""
    return torch.where(tokens == scores.shape[1] - 1, chosen(scores[:, :stand], chance), tokens)


def within(scores: Tensor, chance: Tensor) -> Tensor:
    """(n,) how far in the last token's mass each number fell by which `chosen` took that token: uniform again."""
    last = scores.softmax(1)[:, -1]
    return ((chance - 1 + last) / last).clamp(0, 1 - 2**-24)


def chosen(scores: Tensor, chance: Tensor) -> Tensor:
    """(n,) index of the token at which the cumulated probability of (n, L) log-odds passes (n,) uniform numbers."""
    mass = scores.softmax(1).cumsum(1)
    # Of the last sum, which may round to under 1; rounding up to it is the last token that has any probability.
    past = (mass <= chance[:, None] * mass[:, -1:]).sum(1)
    return torch.minimum(past, (mass < mass[:, -1:]).sum(1))

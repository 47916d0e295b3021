"""Text codec: texts to short vectors and back, by an encoder of words and a decoder that is told the vector; knows no column beside them.

Shapes: n texts, T tokens (words + 1, END last), V of them in all, W width, D dimensions of a vector.
Sources: Bowman et al. 2016 (a sentence from a vector; words forgotten on the decoder's way in, so that it must ask the vector); Vaswani
et al. 2017 (blocks). The vector is added to every step and stands where a text begins.

A vector of tens of numbers holds what a text is about and its commonest words, not its wording: the decoder draws that, given the vector.
Cost per step: batch x T x (2 x 10 blocks W^2 + W V) multiplications.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.nn.device import one_thread
from codsa_ray.nn.lines import Lines, begun
from codsa_ray.nn.small_decoder import SPREAD, Block, Cache
from codsa_ray.nn.text_words import TextWords
from codsa_ray.nn.vectors import Read, Scaling
from codsa_ray.nn.word_drawing import picks

END = 0
UNSEEN = 1e-3
"""Times that a word counts as seen which is not in the texts: a byte that stands alone nowhere."""
CHUNK = 256
"""Texts coded at a time."""


class TextAutoencoder(nn.Module):
    """An encoder whose last states' mean is the vector, and a causal decoder that starts from it.

    Args:
        vocabulary: V.
        longest: T at most.
        width, blocks, heads: of each half.
        size: D.
    """

    def __init__(self, vocabulary: int, longest: int, width: int, blocks: int, heads: int, size: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(longest, width)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=SPREAD)
        self.reading = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.writing = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.before, self.after = nn.LayerNorm(2 * width), nn.LayerNorm(width)
        self.told, self.heard = nn.Linear(2 * width, size), nn.Linear(size, width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.heads = heads

    def encode(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """(n, D) of (n, T) tokens, `inside` (n, T) 1 where a text has one: what its words are, and what its states say."""
        words = self.words(tokens)
        steps = words + self.places.weight[: tokens.shape[1]]
        for block in self.reading:
            steps = block(steps)
        weight = inside[..., None].to(steps.dtype)
        mean = (torch.cat([words, steps], 2) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.told(self.before(mean))

    def scores(self, vectors: Tensor, before: Tensor | None, first: int = 0, cache: Cache | None = None) -> Tensor:
        """(n, T, V) log-odds of the tokens from place `first` on.

        Args:
            vectors: (n, D).
            before: (n, T, W) the words before each, 0 where there is none or it is forgotten; None: the beginning alone.
            first: place of the first of them.
            cache: of the places before.
        """
        heard = self.heard(vectors)[:, None]
        steps = heard if before is None else before + heard
        steps = steps + self.places.weight[first : first + steps.shape[1]]
        for index, block in enumerate(self.writing):
            steps = block(steps, cache, index)
        return self.after(steps) @ self.words.weight.T / math.sqrt(self.words.embedding_dim) + self.bias

    def forward(self, tokens: Tensor, inside: Tensor, keep: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(mean cost of a token given vectors with noise (n, D), the vectors without); `keep` (n, T) is 0 where a word is forgotten."""
        vectors = self.encode(tokens, inside)
        told = self.words(tokens[:, :-1]) * keep[:, :-1, None].to(vectors.dtype)
        odds = self.scores(vectors + noise, functional.pad(told, (0, 0, 1, 0)))
        costs = functional.cross_entropy(odds.float().flatten(0, 1), tokens.flatten(), reduction="none")
        counted = inside.flatten().float()
        return (costs * counted).sum() / counted.sum().clamp(min=1), vectors

    def empty(self, rows: int, places: int) -> Cache:
        """A cache of no step done, with room for `places`."""
        width, some = self.words.embedding_dim, self.words.weight
        shape = (rows, self.heads, places, width // self.heads)
        keys, values = ([some.new_zeros(shape) for _ in self.writing] for _ in range(2))
        return Cache(keys, values)


@dataclass(frozen=True)
class TextForm:
    """How a text is coded.

    Args:
        longest: words of a text at most; longer ones are coded as far as that.
        width, blocks, heads: of each half of the network.
        size: D.
        drop: chance that the decoder forgets a word while it is trained.
    """

    longest: int
    width: int
    blocks: int
    heads: int
    size: int
    drop: float


@dataclass(frozen=True, eq=False)
class TextCodec:
    """One column of texts.

    Args:
        name: of the column.
        words: of its texts.
        form: how they are coded.
        network: trained or not.
        scaling: of its vectors.
    """

    name: str
    words: TextWords
    form: TextForm
    network: TextAutoencoder
    scaling: Scaling

    @staticmethod
    def of(name: str, values: pa.ChunkedArray, vocabulary: int, form: TextForm, seed: int) -> "TextCodec":
        """Untrained, with the words of these texts; it begins with their shares, so that none that is not among them is drawn."""
        texts = values.to_pylist()
        words = TextWords.learn(texts, vocabulary)
        codec = TextCodec.untrained(name, words, form, seed)
        tokens = codec._lines(values).tokens
        shares = np.bincount(tokens, minlength=words.size + 1) + UNSEEN
        codec.network.bias.data.copy_(torch.from_numpy(np.log(shares / shares.sum())))
        return codec

    @staticmethod
    def untrained(name: str, words: TextWords, form: TextForm, seed: int) -> "TextCodec":
        """First weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = TextAutoencoder(words.size + 1, form.longest + 1, form.width, form.blocks, form.heads, form.size)
        return TextCodec(name, words, form, network, Scaling.none(form.size))

    @property
    def size(self) -> int:
        """Dimensions of a latent."""
        return self.form.size

    def reading(self, values: pa.Array) -> Read:
        """Batches of these texts, none of them null, which are kept as tokens."""
        lines = self._lines(pa.chunked_array([values]))

        def read(rows: np.ndarray, generator: torch.Generator | None) -> tuple[Tensor, ...]:
            tokens, inside = (torch.from_numpy(part) for part in lines.rows(rows))
            drop = 0.0 if generator is None else self.form.drop
            keep = (torch.rand(tokens.shape, generator=generator) >= drop).float() if drop else torch.ones(tokens.shape)
            return tokens.long(), inside, keep

        return read

    def vectors(self, values: pa.Array) -> np.ndarray:
        """(n, size) float32 before they are scaled."""
        lines, found = self._lines(pa.chunked_array([values])), [np.zeros((0, self.size), dtype=np.float32)]
        with torch.inference_mode(), one_thread():
            device = next(self.network.parameters()).device
            for first in range(0, len(values), CHUNK):
                tokens, inside = lines.rows(np.arange(first, min(first + CHUNK, len(values))))
                told = self.network.encode(torch.from_numpy(tokens).long().to(device), torch.from_numpy(inside).to(device))
                found.append(told.float().cpu().numpy())
        return np.concatenate(found)

    def encode(self, values: pa.Array) -> np.ndarray:
        """(n, size) float32 latents of texts, none of them null."""
        return self.scaling.enter(self.vectors(values))

    def decode(self, latents: np.ndarray, rng: np.random.Generator, temperature: float) -> pa.Array:
        """(n,) texts, word by word by the chances that the decoder states, its log-odds divided by the temperature."""
        found: list[list[int]] = []
        with torch.inference_mode(), one_thread():
            device = next(self.network.parameters()).device
            for part in torch.from_numpy(self.scaling.leave(latents)).split(CHUNK):
                found += self._drawn(part.to(device), rng, temperature)
        return pa.array(self.words.decode(found), pa.string())

    def _drawn(self, vectors: Tensor, rng: np.random.Generator, temperature: float) -> list[list[int]]:
        cache, before = self.network.empty(len(vectors), self.form.longest), None
        found: list[list[int]] = [[] for _ in vectors]
        going = np.ones(len(vectors), dtype=bool)
        for place in range(self.form.longest):
            odds = self.network.scores(vectors, before, place, cache)[:, 0]
            cache.done += 1
            token = picks(odds, temperature, rng.random(len(vectors), dtype=np.float32))
            going &= token != END
            for row in np.flatnonzero(going):
                found[row].append(int(token[row]) - 1)
            if not going.any():
                break
            before = self.network.words(torch.from_numpy(token).to(vectors.device))[:, None]
        return found

    def _lines(self, values: pa.ChunkedArray) -> Lines:
        """Tokens; the end of a text that was cut short is not learned."""
        known, cut = begun(values, self.form.longest)
        told = [[word + 1 for word in own] for own in self.words.encode([text or "" for text in known])]
        return Lines.texts(told, cut, self.form.longest, END, (END,))

    def to_json(self) -> dict[str, Any]:
        """Plain data; weights and scaling are arrays."""
        return {"kind": "text", "name": self.name, "words": self.words.to_json(), "form": asdict(self.form)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "TextCodec":
        """The inverse, untrained."""
        return TextCodec.untrained(value["name"], TextWords.from_json(value["words"]), TextForm(**value["form"]), seed=0)

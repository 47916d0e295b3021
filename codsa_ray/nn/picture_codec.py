"""Picture codec: pictures of one size to short vectors and back, by a small convolutional autoencoder; knows no column beside them.

Shapes: n pictures, C channels, P x Q as the network sees them, D dimensions of a vector.

Pictures come back as the mean of what the vector leaves open, so they are blurred where D is small: of 8 x 8 digits 24 dimensions keep
nearly all, of photographs they keep layout and colours. Cost: some 2 ms a 28 x 28 picture and step on one core at width 32.
"""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.nn.device import one_thread
from codsa_ray.nn.picture_classifiers import Residual
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.vectors import Read, Scaling

LAST = 4
"""The grid between the halves has at most that many places a side."""
WIDEST = 4
"""Channels there, at most so many times those of the first grid."""
CHUNK = 256
"""Pictures coded at a time."""
GROUPS = 8


def _residual(entering: int, leaving: int, stride: int) -> Residual:
    """Normed over groups (Wu & He 2018), so that no vector depends on its batch."""
    return Residual(entering, leaving, stride, partial(nn.GroupNorm, GROUPS))


def halvings(longer: int) -> int:
    """How often a grid is halved, of pictures of that longer side."""
    return max(1, math.ceil(math.log2(max(longer, 1) / LAST)))


class PictureAutoencoder(nn.Module):
    """Two halves of residual blocks, a linear layer on either side of the vector.

    Args:
        channels: C.
        grid: (P, Q), multiples of 2^`deep`.
        deep: halvings.
        width: channels at the first grid, a multiple of 8.
        size: D.
    """

    def __init__(self, channels: int, grid: tuple[int, int], deep: int, width: int, size: int) -> None:
        super().__init__()
        widths = [min(width * 2**level, width * WIDEST) for level in range(deep + 1)]
        self.small = (widths[-1], grid[0] >> deep, grid[1] >> deep)
        self.enter = nn.Conv2d(channels, width, 3, 1, 1)
        self.down = nn.Sequential(*(_residual(a, b, 2) for a, b in pairwise(widths)))
        self.told, self.read = nn.Linear(math.prod(self.small), size), nn.Linear(size, math.prod(self.small))
        self.up = nn.ModuleList(_residual(b, a, 1) for a, b in reversed(list(pairwise(widths))))
        self.first, self.leave = _residual(widths[-1], widths[-1], 1), nn.Conv2d(width, channels, 3, 1, 1)

    def encode(self, values: Tensor) -> Tensor:
        """(n, D) of (n, C, P, Q) values of about unit variance."""
        return self.told(self.down(self.enter(values)).flatten(1))

    def decode(self, vectors: Tensor) -> Tensor:
        """(n, C, P, Q) of (n, D)."""
        grid = self.first(self.read(vectors).unflatten(1, self.small))
        for block in self.up:
            grid = block(functional.interpolate(grid, scale_factor=2.0, mode="nearest"))
        return self.leave(grid)

    def forward(self, values: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(mean squared error of what comes back of vectors with noise (n, D), the vectors without)."""
        vectors = self.encode(values)
        return functional.mse_loss(self.decode(vectors + noise).float(), values), vectors


@dataclass(frozen=True, eq=False)
class PictureCodec:
    """One column of pictures.

    Args:
        name: of the column.
        frame: the form they are coded in.
        width: of the network.
        network: trained or not.
        scaling: of its vectors.
    """

    name: str
    frame: Frame
    width: int
    network: PictureAutoencoder
    scaling: Scaling

    @staticmethod
    def untrained(name: str, frame: Frame, width: int, size: int, seed: int) -> "PictureCodec":
        """First weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = PictureAutoencoder(frame.channels, frame.padded, halvings(max(frame.height, frame.width)), width, size)
        return PictureCodec(name, frame, width, network, Scaling.none(size))

    @property
    def size(self) -> int:
        """Dimensions of a latent."""
        return len(self.scaling.middle)

    def reading(self, values: pa.Array) -> Read:
        """Batches of these pictures, none of them null, which are kept as pixels."""
        pixels = torch.from_numpy(self.frame.read(values.to_pylist()))
        return lambda rows, generator: (self.frame.enter(pixels[torch.from_numpy(rows)]),)

    def vectors(self, values: pa.Array) -> np.ndarray:
        """(n, size) float32 before they are scaled."""
        found = [np.zeros((0, self.size), dtype=np.float32)]
        with torch.inference_mode(), one_thread():
            device = next(self.network.parameters()).device
            for first in range(0, len(values), CHUNK):
                pixels = torch.from_numpy(self.frame.read(values[first : first + CHUNK].to_pylist()))
                found.append(self.network.encode(self.frame.enter(pixels.to(device))).float().cpu().numpy())
        return np.concatenate(found)

    def encode(self, values: pa.Array) -> np.ndarray:
        """(n, size) float32 latents of pictures, none of them null."""
        return self.scaling.enter(self.vectors(values))

    def decode(self, latents: np.ndarray, rng: np.random.Generator, temperature: float) -> pa.Array:
        """(n,) PNG files; what a vector leaves open is the mean, so neither `rng` nor the temperature is used."""
        files: list[bytes] = []
        with torch.inference_mode(), one_thread():
            device = next(self.network.parameters()).device
            for part in torch.from_numpy(self.scaling.leave(latents)).split(CHUNK):
                files += self.frame.files(self.network.decode(part.to(device)).float())
        return pa.array(files, pa.binary())

    def to_json(self) -> dict[str, Any]:
        """Plain data; weights and scaling are arrays."""
        return {"kind": "image", "name": self.name, "frame": self.frame.to_json(), "width": self.width, "size": self.size}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "PictureCodec":
        """The inverse, untrained."""
        return PictureCodec.untrained(value["name"], Frame.from_json(value["frame"]), value["width"], value["size"], seed=0)

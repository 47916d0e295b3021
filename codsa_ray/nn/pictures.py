"""Pictures: encoded bytes as arrays of one size that a network takes, and drawn arrays as bytes; knows no network and no column.

Shapes: n pictures, C channels, H x W as they are drawn, P x Q as the network sees them (padded by repeating the edge).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from codsa_ray.errors import SettingError
from codsa_ray.picture import decoded, encoded, fitted, header

GREY, COLOURED = 1, 3
GREYS = ("1", "L", "LA", "La", "I", "F")
"""Modes that `picture.decoded` reads as one channel, beside I;16 and its kin."""
HALF = 127.5


@dataclass(frozen=True)
class Frame:
    """The one form that pictures are learned and drawn in.

    Args:
        height, width: H and W.
        channels: C.
        mean, spread: pixel values are centred and scaled by; a network sees (v - mean) / spread.
        padded: P and Q.
        written: height, width and channels of the files that are drawn: those of most training pictures, grey where all of them are.
    """

    height: int
    width: int
    channels: int
    mean: float
    spread: float
    padded: tuple[int, int]
    written: tuple[int, int, int]

    @staticmethod
    def of(pictures: Sequence[bytes], size: int, multiple: Callable[[int], int], square: bool) -> "Frame":
        """The frame that keeps most pictures as they are; reads headers alone.

        Args:
            pictures: encoded, one or more.
            size: longer side at most; larger pictures are shrunk, their aspect that of most of them.
            multiple: of H or W, the longer one, to what P and Q shall be multiples of.
            square: P is Q.

        Raises:
            SettingError: there is no picture. PictureError: one that is none.
        """
        if not pictures:
            raise SettingError("a picture to learn from", "none: all are null", "leave the column out or name another generator")
        headers = [header(picture) for picture in pictures]
        sizes = Counter((found.height, found.width) for found in headers)
        height, width = max(sizes, key=lambda shape: (sizes[shape], shape))
        channels = GREY if all(found.mode in GREYS or found.mode.startswith("I;16") for found in headers) else COLOURED
        shrunk = min(1.0, size / max(height, width))
        tall, wide = (max(1, round(side * shrunk)) for side in (height, width))
        step = multiple(max(tall, wide))
        high, broad = (step * -(-side // step) for side in (tall, wide))
        padded = (max(high, broad),) * 2 if square else (high, broad)
        return Frame(tall, wide, channels, HALF, HALF, padded, (height, width, channels))

    def centred(self, pixels: np.ndarray) -> "Frame":
        """With the mean and the spread of (n, C, H, W) pixels: one for all channels, so that colours keep their balance."""
        return replace(self, mean=float(pixels.mean()), spread=float(pixels.std()) or 1.0)

    def squared(self, side: int, channels: int) -> "Frame":
        """The same files seen as a base wants them: squares of that side, values in [-1, 1]."""
        return replace(self, height=side, width=side, channels=channels, mean=HALF, spread=HALF, padded=(side, side))

    def read(self, pictures: Iterable[bytes]) -> np.ndarray:
        """(n, C, H, W) uint8 of encoded pictures."""
        found = [fitted(decoded(picture, self.channels), self.height, self.width).transpose(2, 0, 1) for picture in pictures]
        return np.stack(found) if found else np.zeros((0, self.channels, self.height, self.width), dtype=np.uint8)

    def enter(self, pixels: Tensor) -> Tensor:
        """(n, C, P, Q) float32 of (n, C, H, W) uint8."""
        low, right = self.padded[0] - self.height, self.padded[1] - self.width
        values = (pixels.float() - self.mean) / self.spread
        return functional.pad(values, (0, right, 0, low), mode="replicate") if low or right else values

    def pixels(self, values: Tensor) -> Tensor:
        """(n, C, H, W) uint8 of (n, C, P, Q) drawn values; a value beyond black or white is that."""
        inside = values[:, :, : self.height, : self.width].float() * self.spread + self.mean
        return inside.round().clamp(0, 255).to(torch.uint8)

    def files(self, values: Tensor) -> list[bytes]:
        """PNG files of (n, C, P, Q) drawn values."""
        height, width, channels = self.written
        pictures = self.pixels(values).permute(0, 2, 3, 1).cpu().numpy()
        return [encoded(fitted(_recoloured(picture, channels), height, width)) for picture in pictures]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Frame":
        """The inverse of `to_json`."""
        return Frame(**{**value, "padded": tuple(value["padded"]), "written": tuple(value["written"])})


def _recoloured(picture: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, channels); colours as greys by their ITU-R 601 luma."""
    if picture.shape[2] == channels:
        return picture
    if channels == COLOURED:
        return np.repeat(picture, COLOURED, axis=2)
    return np.rint(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[:, :, None]

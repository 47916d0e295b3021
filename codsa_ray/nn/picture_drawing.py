"""Picture drawing: files of pictures by a network that is told region and columns; knows no training and no table."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codsa_ray.nn.device import one_thread
from codsa_ray.nn.noising import Noising, Raw
from codsa_ray.nn.picture_bases import Coder
from codsa_ray.nn.pictures import Frame

CHUNK, CHUNK_GPU = 32, 256
"""Pictures drawn at a time: what a core's cache holds, and what fills a GPU."""


@dataclass(frozen=True, eq=False)
class PictureDrawing:
    """What it takes.

    Args:
        network: called with noisy, time, factors, keep, columns.
        noising: that the network was trained with.
        frame: of pictures.
        coder: latents to pictures; None where the network sees pixels.
        shape: (c, p, q) of what the network sees.
    """

    network: nn.Module
    noising: Noising
    frame: Frame
    coder: Coder | None
    shape: tuple[int, int, int]

    def enter(self, values: Tensor) -> Tensor:
        """Pixels (n, C, H, W) as the network sees them; latents are so already."""
        return self.frame.enter(values) if self.coder is None else values

    @torch.no_grad()
    def own(self, many: int, factors: Tensor, columns: int, evaluations: int, seed: int) -> Tensor:
        """(many, ...) pictures of a base as it is, drawn told nothing, as `enter` takes them; of factors (1, F) the number counts alone."""
        with one_thread():
            values = self.values(factors, torch.zeros(many, columns), 0.0, evaluations, 1.0, torch.Generator().manual_seed(seed)).cpu()
        return values if self.coder is not None else self.frame.pixels(values)

    def values(
        self, factors: Tensor, columns: Tensor, keep: float, evaluations: int, guidance: float, generator: torch.Generator
    ) -> Tensor:
        """(n, c, p, q) of one region's factors (1, F) and each picture's columns (n, D), which `keep` 0 leaves untold."""
        some = next(self.network.parameters())
        size = CHUNK if some.device.type == "cpu" else CHUNK_GPU
        found = []
        for told in columns.split(size):
            noise = torch.randn(len(told), *self.shape, generator=generator).to(some.device)
            raw = self._raw(factors.to(some.device), told.to(some.device), keep, guidance)
            found.append(self.noising.drawn(raw, noise, evaluations).float())
        return torch.cat(found) if found else torch.zeros(0, *self.shape, device=some.device)

    def files(self, values: Tensor) -> list[bytes]:
        """PNG files of (n, c, p, q)."""
        if not len(values):
            return []
        return self.frame.files(values if self.coder is None else self.coder.pictures(values))

    def _raw(self, factors: Tensor, columns: Tensor, keep: float, guidance: float) -> Raw:
        """What the network says, guided: linear in it, so that noise, v, picture and velocity are guided alike (Ho & Salimans, eq. 6)."""

        def said(noisy: Tensor, time: Tensor, kept: float) -> Tensor:
            own = factors.expand(len(noisy), -1)
            keeping = torch.full(own.shape, kept, device=own.device)
            return self.network(noisy=noisy, time=time, factors=own, keep=keeping, columns=columns * kept)

        def raw(noisy: Tensor, time: Tensor) -> Tensor:
            told = said(noisy, time, keep).float()
            return told if guidance == 1.0 else torch.lerp(said(noisy, time, 0.0).float(), told, guidance)

        return raw

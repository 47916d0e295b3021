"""Conditional variational autoencoder (Sohn, Lee & Yan 2015): rows to a normal code and back, given the region; knows no entropy.

Shapes: n rows, D latent dimensions of a table's rows, K regions, W width, Z code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.nn.layout import Layout

LEAK = 0.2
"""Slope of the LeakyReLU below 0."""
FLAT = 8.0
"""Bound of |ln variance|: beyond it exp over- or underflows in a few bad steps."""


class Cvae(nn.Module):
    """Encoder D + K -> W -> W / 2 -> mean and ln variance; decoder Z + K -> W / 2 -> W -> D.

    Cost per row: about 2 (D + K) W + W^2 + 3 Z W / 2 multiplications.
    """

    def __init__(self, size: int, regions: int, width: int, code: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        self.regions, self.code = regions, code
        self.encoder = nn.Sequential(
            nn.Linear(size + regions, width), nn.LeakyReLU(LEAK), nn.Linear(width, half), nn.LeakyReLU(LEAK), nn.Linear(half, 2 * code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code + regions, half), nn.LeakyReLU(LEAK), nn.Linear(half, width), nn.LeakyReLU(LEAK), nn.Linear(width, size)
        )

    def encode(self, rows: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
        """(n, Z) mean and (n, Z) ln variance of rows (n, D) of regions (n,) int64."""
        mean, spread = self.encoder(self._with(rows, region)).chunk(2, dim=1)
        return mean, spread.clamp(-FLAT, FLAT)

    def decode(self, code: Tensor, region: Tensor) -> Tensor:
        """(n, D) raw output, numbers then logits, of codes (n, Z)."""
        return self.decoder(self._with(code, region))

    def forward(self, rows: Tensor, region: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(n, D) raw output at mean + deviation x noise (n, Z), and the (n,) divergence of the codes from N(0, I)."""
        mean, spread = self.encode(rows, region)
        return self.decode(mean + (spread / 2).exp() * noise, region), divergence(mean, spread)

    def _with(self, rows: Tensor, region: Tensor) -> Tensor:
        return torch.cat([rows, functional.one_hot(region, self.regions).to(rows.dtype)], dim=1)


def divergence(mean: Tensor, spread: Tensor) -> Tensor:
    """(n,) KL(N(mean, e^spread) || N(0, I)) in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1)


def mismatch(raw: Tensor, clean: Tensor, layout: Layout) -> Tensor:
    """(n,) squared error of the numbers plus the cross-entropy of each code, of raw output (n, D) against latents (n, D)."""
    total = (raw[:, : layout.reals] - clean[:, : layout.reals]).square().sum(1)
    for logits, codes in zip(layout.codes(raw), layout.codes(clean), strict=True):
        crossed = functional.cross_entropy(logits.flatten(0, 1), codes.argmax(-1).flatten(), reduction="none")
        total = total + crossed.unflatten(0, codes.shape[:2]).sum(1)
    return total

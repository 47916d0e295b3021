"""LEO-CVAE: an autoencoder that cares most for rows among whose neighbours the labels disagree; knows no cluster.

Source: Zare et al. 2025, arXiv:2509.25334 (v3), by the names of the paper's parts and in the steps of the authors' code.
- Local entropy of a row: H = -sum_c p_c log2 p_c over the labels of its k nearest rows ("LES").
- Loss: mean of w_y (1 + H)^gamma |x - x'|^2 + beta max(KL, least), w_y = N / (C n_y) ("LEWL"); see nn/cvae.py for the network.
- Drawing ("sampling"): a real row of the region, chances in proportion to (1 + H)^gamma, its code with the encoder's noise, decoded.
What we changed, and why:
- Neighbours are sought over columns of unit deviation and within blocks; the paper's, over columns as they come, follow the widest one.
- Rows of a region that `cap` thinned count for those that they stand for among a row's neighbours (neighbours.py).
- Columns are quantile normals and one-hot codes with cross-entropy (nn/table_codec.py): squared error on raw columns is what heavy tails
  spoil. A drawn number stays within what its region showed; a level is drawn with the decoder's chance.
- w_y is how often a row is in a batch instead of a weight: the same mean of errors, without gradients of N / C times the usual size. The
  divergence is so averaged over balanced rows too, where the paper averages it over rows as they come, and so mostly over the common.
- Where regions are cells of a label, a region stands for y in w_y and in what the network is told, since rows are asked for by region; the
  label itself decides the entropy alone. By label, a cell of few rows would hardly be learned from.
- Seeds are all of the region's rows, those held out for stopping among them (the published code draws from its 80 % alone), and the
  weights kept are the averaged ones of the best held-out loss (there a reference to the last). No dropout: held-out rows stop the fit.
- Nulls are the seed row's.

(1 + H)^gamma, not scaled to mean 1, weighs rows against rows and, as it is at least 1, the error against beta KL: part of what gamma does
is a smaller beta. benchmarks/claims_leo.py tells the two apart.

Cost, n = min(rows, cap), D latent dimensions (one per number, one per level): neighbours n x min(n, 10,000) x columns; fit steps x batch x
(4 D width + 2 width^2) multiplications and drawing the same per row; memory 8 n D bytes. Not for: labels that are wrong, whose
neighbourhoods have the largest entropy of all; data without overlap, where it is a plain CVAE; where the spread of the drawn rows has to
be right (a decoder gives means, and beta 4 shrinks codes of weak directions to nothing); columns with thousands of levels.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from scipy.special import xlogy
from torch import Tensor, nn

from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.filled import Filled
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.neighbours import Space, counted
from codsa_ray.nn.cvae import Cvae, mismatch
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.layout import Layout
from codsa_ray.nn.mass import Mass
from codsa_ray.nn.region_codec import RegionCodec
from codsa_ray.nn.train import Score, Training, train
from codsa_ray.seeds import rng_of, seed_of

FEWEST = 10
"""Rows of a region of which some are held out."""
SCORED = 4096
"""Rows of one held-out score."""


@dataclass(frozen=True)
class LeoCvae:
    """Settings of the method.

    Args:
        gamma: how much a row's entropy counts; 0 is a plain CVAE. The paper takes 0.5 for two classes and 2.5 for more.
        neighbours: k of the entropy.
        beta, least: of the divergence: its weight, and what of it costs nothing more (nats).
        width, code: of the network's first layer and of its code.
        steps: optimizer steps at most; held-out rows may stop the fit before.
        batch: rows of one step, regions evenly.
        rate: peak learning rate.
        held_out: share of each region's rows kept for early stopping; 0 runs all steps.
        cap: rows kept at most; beyond it the larger regions are thinned.
        block: rows drawn at a time.
    """

    gamma: float = 0.5
    neighbours: int = 15
    beta: float = 4.0
    least: float = 0.1
    width: int = 64
    code: int = 16
    steps: int = 2000
    batch: int = 64
    rate: float = 1e-3
    held_out: float = 0.2
    cap: int = 20_000
    block: int = 2048

    def __post_init__(self) -> None:
        if min(self.neighbours, self.width, self.code, self.steps, self.batch, self.cap, self.block) < 1:
            raise SettingError(
                "neighbours, width, code, steps, batch, cap and block of at least 1", repr(self), "raise the one that is not"
            )
        if min(self.gamma, self.beta, self.least) < 0 or not 0 <= self.held_out < 1:
            raise SettingError("gamma, beta and least of at least 0 and held_out in [0, 1)", repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(block=self.block)

    @classmethod
    def tiny(cls) -> Self:
        """A small network, a few steps."""
        return cls(steps=60, width=32, code=4, rate=1e-2, block=256)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Measures the entropies and trains the network; writes cvae.safetensors and cvae.json under worker.folder."""
        if worker.rank:
            return
        filled = Filled.of(data.table(self.cap), data.schema, data.regions)
        codec, latents = RegionCodec.of(filled)
        space = Space.of(filled.matrix(), filled.ordered)
        weight = (1 + entropies(space, filled.labels, filled.weight, self.neighbours)) ** self.gamma
        held = _held(filled.starts, self.held_out, data.seed)
        rows = _Rows(torch.from_numpy(latents), torch.from_numpy(filled.region), torch.from_numpy(weight.astype(np.float32)))
        loss = _Loss(self, codec.codec.layout, rows, _even(filled.region, ~held))
        score = _score(loss, _even(filled.region, held), seed_of(data.seed, "held out")) if held.any() else None
        network = self._network(latents.shape[1], len(data.regions), seed_of(data.seed, "network"))
        training = Training(steps=self.steps if latents.shape[1] else 0, rate=self.rate, checkpoint=self.steps)
        with one_thread():
            trained = train(network, loss, score, training, worker, seed_of(data.seed, "train"))
        plain, arrays = codec.to_json()
        arrays |= {"latents": latents, "nulls": filled.nulls, "starts": filled.starts, "weight": weight}
        worker.folder.write_arrays("cvae.safetensors", arrays | {f"network/{name}": a for name, a in trained.weights.items()})
        meta: dict[str, Any] = {"settings": asdict(self), "columns": plain, "step": trained.step, "history": trained.history}
        worker.folder.write_json("cvae.json", meta)

    def load(self, folder: Folder) -> "FittedLeoCvae":
        """The fitted autoencoder, drawn from with this object's block."""
        meta, arrays = folder.read_json("cvae.json"), folder.read_arrays("cvae.safetensors")
        network = LeoCvae(**meta["settings"])._network(arrays["latents"].shape[1], len(arrays["starts"]) - 1, seed=0)
        network.load_state_dict({name[8:]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("network/")})
        network.requires_grad_(False)
        return FittedLeoCvae(self.block, RegionCodec.from_json(meta["columns"], arrays), network, arrays)

    def _network(self, size: int, regions: int, seed: int) -> Cvae:
        # Initial weights depend on the seed alone and leave the caller's random state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Cvae(size, regions, self.width, self.code)


def entropies(space: Space, labels: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """(n,) local entropy in bits of (n,) labels among each row's k nearest others, or as many as there are; rows count by weight."""
    rows = np.arange(len(labels))
    k = min(k, len(rows) - 1)
    if k < 1:
        return np.zeros(len(rows))
    near = space.nearest(rows, rows, k, space.cost(rows))[0]
    count, told = counted(near, weight), labels[near]
    total = count.sum(axis=1)
    shares = (np.where(told == label, count, 0).sum(axis=1) / total for label in np.unique(labels))
    return np.asarray(sum((-xlogy(share, share) / np.log(2) for share in shares), np.zeros(len(rows))))


@dataclass(frozen=True, eq=False)
class FittedLeoCvae:
    """A trained autoencoder and the rows whose codes are drawn around.

    Args:
        rows: rows of a block.
        codec: of the drawn columns.
        network: in float32.
        arrays: latents (n, D), nulls (n, columns), weight (n,) of each row as a seed; starts (K + 1,).
    """

    rows: int
    codec: RegionCodec
    network: Cvae
    arrays: dict[str, np.ndarray]

    def block(self, region: int, seed: int) -> pa.Table:
        """Drawn rows of the region.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = (int(edge) for edge in self.arrays["starts"][region : region + 2])
        if start == stop:
            raise ShortOfRows(f"wanted rows of region {region} to draw around; got none; leave the region out or merge it")
        rng = rng_of(seed, "leo_cvae", region)
        mass = np.cumsum(self.arrays["weight"][start:stop])
        found = np.searchsorted(mass, rng.random(self.rows) * mass[-1], side="right")
        seeds = start + np.minimum(found, stop - start - 1)
        noise = rng.standard_normal((self.rows, self.network.code), dtype=np.float32)
        with torch.inference_mode(), one_thread():
            latents, same = torch.from_numpy(self.arrays["latents"][seeds]), torch.full((self.rows,), region)
            raw, _ = self.network(latents, same, torch.from_numpy(noise))
        return self.codec.decode(raw.numpy(), region, self.arrays["nulls"][seeds], rng)


@dataclass(frozen=True, eq=False)
class _Rows:
    """(n, D) latents, their (n,) regions, and (n,) weights of their errors."""

    latents: Tensor
    region: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class _Loss:
    """LEWL of one batch."""

    settings: LeoCvae
    layout: Layout
    rows: _Rows
    drawn: Mass

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        return self.of(network, self.drawn.draw(self.settings.batch, generator), generator)

    def of(self, network: nn.Module, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Of the rows at these positions."""
        clean = self.rows.latents[chosen]
        noise = torch.randn(len(chosen), self.settings.code, generator=generator)
        raw, divergence = network(clean, self.rows.region[chosen], noise)
        error = (self.rows.weight[chosen] * mismatch(raw, clean, self.layout)).mean()
        return error + self.settings.beta * divergence.mean().clamp(min=self.settings.least)


def _score(loss: _Loss, held: Mass, seed: int) -> Score:
    """The loss on held-out rows, the same ones with the same noise at every check."""

    @torch.no_grad()
    def score(network: nn.Module) -> float:
        generator = torch.Generator().manual_seed(seed)
        return float(loss.of(network, held.draw(SCORED, generator), generator))

    return score


def _even(region: np.ndarray, among: np.ndarray) -> Mass:
    """Regions alike and the rows of each alike, of those among (n,) rows alone."""
    counts = np.bincount(region[among], minlength=int(region.max(initial=0)) + 1)
    mass = np.where(among, 1 / np.maximum(counts, 1)[region], 0.0)
    return Mass.of(mass)


def _held(starts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(n,) bool: `share` of the rows of each region that has FEWEST, but one row at least is left."""
    held = np.zeros(int(starts[-1]), dtype=bool)
    for region in np.flatnonzero(np.diff(starts) >= FEWEST):
        rows = rng_of(seed, "held out", int(region)).permutation(np.arange(starts[region], starts[region + 1]))
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return held

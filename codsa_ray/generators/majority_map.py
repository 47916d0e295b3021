"""Majority map: rows of other regions moved onto a region by a learned map (MOMS); knows no cluster.

Source: Cha & Kim 2026, MOMS, arXiv:2509.11511 (majority-to-minority mapping), in the steps of the authors' public implementation.
- f is trained on L = MMD^2(f(donors), region) + lambda mean relu(min |f(x) - danger| - min |f(x) - safe| + 1 + .3 mean |danger - danger'|),
  the squared kernel distance of Gretton et al. 2012 (equation 5, bandwidth the median cross distance of each step) and a triplet loss that
  keeps images nearer to the region's border than to the donors' interior (nn/translator.py).
- Danger: rows of the region more than half, but not all, of whose k nearest are of another class (Borderline-SMOTE). Safe: donors farther
  from the region than three quarters of them. Without danger, the kernel distance alone.
- A drawn row is f of a donor.
What we changed, and why:
- Regions for classes: each region that full balance adds rows to has a map of its own, its donors are the rows of all other regions. The
  others have none: a row of such a region is a real one drawn again, as the paper leaves its majority alone.
- Danger is told by classes (Regions.labels); rows of a thinned region count for those that they stand for (neighbours.py), and are donors
  as often.
- Latents for standardised columns (nn/table_codec.py), so that mixed tables can be mapped: f gives logits of levels, their softmax enters
  the loss, and a level is drawn with that chance. A number stays within what the region showed.
- Batches for full batches, widths bounded, averaged weights, no gradient clipping (latents are bounded): cost no longer grows with rows.
- Donors are drawn with replacement; the published code maps each once and stops. More rows than donors repeat images.
- Nulls are those of a random row of the region.

Cost: mapped regions x steps x batch x 3 (1,400 D^2, or 8 width^2 once 32 D is over the bound) multiplications and as many x batch x D
for the kernels, D latent dimensions, whatever the number of rows; neighbours besides, as in SMOTE. Memory 8 D n bytes.

Not for: a single region; many regions (a fit each); regions of a handful of rows, which the map learns by heart (a kernel distance to five
points is least at them); columns with thousands of levels.
"""

from dataclasses import asdict, dataclass
from math import inf
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError, ShortOfRows
from codsa_ray.filled import Filled
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.neighbours import Space, apart
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.layout import Layout
from codsa_ray.nn.mass import Mass
from codsa_ray.nn.precondition import CODE
from codsa_ray.nn.region_codec import RegionCodec
from codsa_ray.nn.train import Training, train
from codsa_ray.nn.translator import Translator, discrepancy, triplet
from codsa_ray.seeds import rng_of, seed_of

SAFE = 0.75
"""Quantile of the donors' distances to the region beyond which a donor is safe."""
LOOKED = 2048
"""Rows of either side among which safe donors are sought."""
ANCHORS = 256
"""Danger rows, and safe ones, in the triplet loss at most."""


@dataclass(frozen=True)
class MajorityMap:
    """Settings of the method.

    Args:
        triplet: lambda; 0 trains by the kernel distance alone.
        k: neighbours that tell danger.
        steps: optimizer steps of each region's map.
        batch: donors of one step, and rows of the region at most.
        rate: peak learning rate.
        width: bound on a layer's width.
        cap: rows kept at most; beyond it the larger regions are thinned.
        block: rows drawn at a time.
    """

    triplet: float = 0.01
    k: int = 5
    steps: int = 500
    batch: int = 128
    rate: float = 0.01
    width: int = 128
    cap: int = 20_000
    block: int = 2048

    def __post_init__(self) -> None:
        if min(self.k, self.steps, self.width, self.cap, self.block) < 1 or self.batch < 2 or self.triplet < 0:
            wanted = "k, steps, width, cap and block of at least 1, batch of at least 2 and triplet of at least 0"
            raise SettingError(wanted, repr(self), "raise the one that is not")

    @property
    def needs(self) -> Needs:
        """One core."""
        return Needs(block=self.block)

    @classmethod
    def tiny(cls) -> Self:
        """A narrow map, a few steps."""
        return cls(steps=15, batch=64, width=32, block=256)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains the maps; writes maps.safetensors and maps.json under worker.folder.

        Raises:
            SettingError: one region holds all rows: there is nothing to map from.
        """
        if worker.rank:
            return
        if np.count_nonzero(data.regions.counts) < 2:
            raise SettingError("rows in at least two regions to map between", "one", "declare groups or take another generator")
        filled = Filled.of(data.table(self.cap), data.schema, data.regions)
        codec, latents = RegionCodec.of(filled)
        region, counts = filled.region, np.diff(filled.starts)
        mass = filled.weight
        danger = borderline(Space.of(filled.matrix(), filled.ordered), filled.labels, mass, self.k)
        arrays: dict[str, np.ndarray] = {"latents": latents, "nulls": filled.nulls, "starts": filled.starts, "mass": mass}
        history = []
        wanted = data.regions.deficits if data.regions.gap > 0 else np.ones(len(counts))
        for index in np.flatnonzero(np.minimum(counts, wanted)) if latents.shape[1] else ():
            own = region == index
            towards = latents[own & danger][:: max(1, int((own & danger).sum()) // ANCHORS)][:ANCHORS]
            away = safe(latents[~own], latents[own], rng_of(data.seed, "safe", int(index)))
            weights, told = self._mapped(latents, mass, own, (towards, away), codec.codec.layout, worker, seed_of(data.seed, int(index)))
            arrays |= {f"maps/{index}/{name}": value for name, value in weights.items()}
            history.append(told)
        plain, coded = codec.to_json()
        worker.folder.write_arrays("maps.safetensors", arrays | coded)
        worker.folder.write_json("maps.json", {"settings": asdict(self), "columns": plain, "history": history})

    def _mapped(
        self,
        latents: np.ndarray,
        mass: np.ndarray,
        own: np.ndarray,
        anchors: tuple[np.ndarray, np.ndarray],
        layout: Layout,
        worker: Worker,
        seed: int,
    ) -> tuple[dict[str, np.ndarray], list[list[float]]]:
        """Weights of the map onto the rows that `own` marks, and how its loss fell."""
        towards, away = (torch.from_numpy(part) for part in anchors)
        rows = (torch.from_numpy(latents[~own]), torch.from_numpy(latents[own]))
        loss = _Loss(self, layout, *rows, Mass.of(mass[~own]), towards, away)
        network = self._network(latents.shape[1], seed_of(seed, "network"))
        # No checkpoint, however long it takes: the next map would resume from it, and maps that are done would be made again all the same.
        training = Training(steps=self.steps, rate=self.rate, checkpoint=self.steps, minutes=inf)
        with one_thread():
            trained = train(network, loss, None, training, worker, seed_of(seed, "train"))
        return trained.weights, trained.history

    def load(self, folder: Folder) -> "FittedMajorityMap":
        """The fitted maps, drawn from with this object's block."""
        meta, arrays = folder.read_json("maps.json"), folder.read_arrays("maps.safetensors")
        maps: dict[int, Translator] = {}
        for index in sorted({int(name.split("/")[1]) for name in arrays if name.startswith("maps/")}):
            maps[index] = MajorityMap(**meta["settings"])._network(arrays["latents"].shape[1], seed=0)
            start = f"maps/{index}/"
            maps[index].load_state_dict({n.removeprefix(start): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(start)})
            maps[index].requires_grad_(False).eval()
        return FittedMajorityMap(self.block, RegionCodec.from_json(meta["columns"], arrays), maps, arrays)

    def _network(self, size: int, seed: int) -> Translator:
        # Initial weights depend on the seed alone and leave the caller's random state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Translator(size, self.width)


def borderline(space: Space, labels: np.ndarray, weight: np.ndarray, k: int) -> np.ndarray:
    """(n,) bool: more than half, but not all, of a row's k nearest have another label; rows count by weight."""
    rows = np.arange(len(space.ordered))
    k = min(k, len(rows) - 1)
    if k < 1:
        return np.zeros(len(rows), dtype=bool)
    outside = apart(rows, space.nearest(rows, rows, k, space.cost(rows))[0], labels, weight)
    return (outside > 0.5) & (outside < 1)


def safe(donors: np.ndarray, own: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(at most ANCHORS, D) donors beyond the quantile SAFE of the distances to the nearest row of the region; one at least."""
    donors, own = (rows[np.sort(rng.permutation(len(rows))[:LOOKED])] for rows in (donors, own))
    distance = cdist(donors, own).min(axis=1)
    far = donors[distance >= np.quantile(distance, SAFE)]
    return far[rng.permutation(len(far))[:ANCHORS]]


@dataclass(frozen=True, eq=False)
class FittedMajorityMap:
    """Trained maps and the rows that they move.

    Args:
        rows: rows of a block.
        codec: of the drawn columns.
        maps: by region.
        arrays: latents (n, D), nulls (n, columns), mass (n,) of each row as a donor; starts (K + 1,).
    """

    rows: int
    codec: RegionCodec
    maps: dict[int, Translator]
    arrays: dict[str, np.ndarray]

    def block(self, region: int, seed: int) -> pa.Table:
        """Drawn rows of the region.

        Raises:
            ShortOfRows: the region has no row.
        """
        start, stop = (int(edge) for edge in self.arrays["starts"][region : region + 2])
        if start == stop:
            raise ShortOfRows(f"wanted rows of region {region} to map onto; got none; leave the region out or merge it")
        rng = rng_of(seed, "majority_map", region)
        if region not in self.maps:
            rows = rng.integers(start, stop, self.rows)
            return self.codec.decode(self.codec.certain(self.arrays["latents"][rows]), region, self.arrays["nulls"][rows], rng)
        mass = self.arrays["mass"].copy()
        mass[start:stop] = 0
        total = np.cumsum(mass)
        donors = np.minimum(np.searchsorted(total, rng.random(self.rows) * total[-1], side="right"), len(mass) - 1)
        with torch.inference_mode(), one_thread():
            raw = self.maps[region](torch.from_numpy(self.arrays["latents"][donors])).numpy()
        return self.codec.decode(raw, region, self.arrays["nulls"][rng.integers(start, stop, self.rows)], rng)


@dataclass(frozen=True, eq=False)
class _Loss:
    """The map's loss on a batch of donors and of the region's rows."""

    settings: MajorityMap
    layout: Layout
    donors: Tensor
    own: Tensor
    drawn: Mass
    towards: Tensor
    away: Tensor

    def __call__(self, network: nn.Module, generator: torch.Generator) -> Tensor:
        image = self.layout.softmax(network(self.donors[self.drawn.draw(self.settings.batch, generator)]), CODE)
        own = self.own[torch.randperm(len(self.own), generator=generator)[: self.settings.batch]]
        value = discrepancy(image, own)
        if self.settings.triplet and len(self.towards):
            value = value + self.settings.triplet * triplet(image, self.towards, self.away)
        return value

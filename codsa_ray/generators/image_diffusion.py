"""Image diffusion: pictures drawn by a denoiser told the region and the row's columns; a small one, or a base tuned; knows no cluster.

Sources: Karras et al. 2022 (EDM: preconditioning, levels), Ho & Salimans 2022 (guidance), Lu et al. 2022b (DPM-Solver++), Peebles & Xie
2023 (DiT), Hang et al. 2023 (min-SNR), Hu et al. 2022 (LoRA), Ruiz et al. 2023 (prior preservation: the base's own pictures in batches).
What differs, and why:
- A region is the sum of embeddings of its factors and one of its own, dropped more often, so that a rare one borrows.
- The weights kept are averages (EMA) at the best loss on held-out pictures, weighted as balance would draw: the rare over-train first.
- A square of `patch` pixels is one place of the network: half the cost at 28 x 28, and what CPUs can pay.
- With a source (`--source`, or rows of other domains) the network, or the base's adapters, first learns its pictures, told the same
  regions, and is then tuned on the rows themselves (CoDSA's transfer): `pretrain`, `tune`.
- With `base` (a pipeline of diffusers: pixels or latents, Stable Diffusion's kind, DiT, Stable Diffusion 3's kind) the base keeps its
  levels and what it predicts (noise, v, the picture, a velocity). One that reads is told the region as text ("label 3, sex F"), plus a
  learned vector, which is all that others are told.

Table columns beside the picture are those of real rows of the region, drawn again, and the picture is drawn for them: p(columns | region)
is the training rows' own. So a row's columns are never new; to draw all columns of several kinds jointly is another method's business.
Guidance above 1 draws what is typical, at twice the time; name the generator once per guidance, and the search weighs them like any.

Cost without a base, one core, 28 x 28 pictures at the defaults: 6 minutes to fit whatever their number, 26 s per 1,000 drawn at 20
evaluations, twice that with guidance; 1 byte a pixel of memory.
Not for: pictures beyond some 64 pixels a side on CPUs; regions of a handful of pictures with nothing in common with others, which are
remembered; with a base, anything on CPUs but tests. A base may have seen the pictures before: what looks faithful may be memory.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from codsa_ray.contracts import TABLE_KINDS, Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData, known_share
from codsa_ray.folder import Folder
from codsa_ray.hub import unfetched
from codsa_ray.nn.beside_picture import BesidePictures
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.noising import Edm
from codsa_ray.nn.picture_bases import CHUNK, PictureBase, present
from codsa_ray.nn.picture_drawing import PictureDrawing
from codsa_ray.nn.picture_loss import PictureLoss, PictureRows, natural, needed
from codsa_ray.nn.picture_networks import ByVector
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.pretraining import Taught, begun, told_of
from codsa_ray.nn.small_denoiser import DIT, UNET, small
from codsa_ray.nn.train import Training, train
from codsa_ray.nn.tuned import Tuned, settle
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of, seed_of

SMALL, ADAPTERS, WEIGHTS = (3000, 32, 3e-3), (1000, 8, 1e-4), (1000, 8, 1e-5)
"""What `steps`, `batch` and `rate` are where they are not given: from nothing, a base's adapters, all its weights."""
EVERY, PATIENCE = 100, 8
PRESERVED = 0.5
"""Share of a base's own pictures in a batch (Ruiz et al. 2023 weigh them 1 to 1)."""
LARGEST, PLACES = 64, 16
"""Longer side without a base, and places of a side that `patch` is chosen for; one half more is borne."""


@dataclass(frozen=True)
class ImageDiffusion:
    """Settings of the method.

    Args:
        base: folder or name of a diffusers pipeline with safetensors weights; None: a small network of our own.
        lora: rank of the base's adapters; 0 tunes all its weights.
        size: longer side at most; with a base, of its squares (None: 64; the base's own).
        backbone: unet or dit, without a base.
        width, layers: of the network: channels at its finest grid and blocks a grid (unet), or of all its blocks (dit).
        patch: pixels of a square that are one place; None: as few as leave 16 places a side, at most 4.
        steps, batch, rate: optimizer steps at most, pictures of one step, peak learning rate; None: what the model usually needs.
        evenly: 0 learns from regions as frequent as they are, 1 from all as often.
        preserve: a base's own pictures that are mixed in, 0 for none; they are half of each batch.
        bound: gamma of min-SNR weighting, with a base of discrete levels; infinity leaves it out.
        pretrain: steps at most on a source's pictures, where there is one; 0 leaves it out.
        tune: share of the rate at which the rows themselves then teach.
        held_out: share of each region's rows kept for early stopping; 0 runs all steps.
        rows: rows kept in memory at most; beyond it large regions are thinned.
        evaluations: network evaluations per picture.
        guidance: classifier-free guidance; 1 is none.
        checkpoint, minutes: steps between checkpoints, and after how long there is one all the same.
        parts: pieces in which a step works through its pictures, so that it needs the memory of one.
        compiled: torch.compile on GPUs: a minute at the start, for fits and pools that take many.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
    """

    base: str | None = None
    lora: int = 8
    size: int | None = None
    backbone: str = UNET
    width: int = 32
    layers: int = 1
    patch: int | None = None
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    evenly: float = 0.5
    preserve: int = 0
    bound: float = 5.0
    pretrain: int = 2000
    tune: float = 0.3
    held_out: float = 0.1
    rows: int = 100_000
    evaluations: int = 20
    guidance: float = 1.5
    checkpoint: int = 500
    minutes: float = 10.0
    parts: int = 1
    compiled: bool = False
    block: int = 256
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.backbone not in (UNET, DIT) or self.width % 16 or self.patch not in (None, 1, 2, 4, 8):
            raise SettingError("a backbone of unet, dit, a width that 16 divides, a patch of 1, 2, 4, 8", repr(self), "change what is not")
        whole = (self.width, self.layers, self.evaluations, self.parts, self.block, self.rows)
        if min(whole) < 1 or self.guidance < 0 or not 0 <= self.evenly <= 1 or self.bound <= 0 or min(self.lora, self.preserve) < 0:
            wanted = "counts of 1 or more, guidance of 0 or more, evenly of 0 to 1, a bound above 0"
            raise SettingError(wanted, repr(self), "change what is not")

        if self.pretrain < 0 or not 0 < self.tune <= 1:
            raise SettingError("pretrain of 0 or more, tune above 0 and at most 1", repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        kinds = TABLE_KINDS | {"image"}
        # A base's own pictures, which are learned from, take evaluations too.
        drawing = ("guidance", "block", "compiled", *(() if self.preserve else ("evaluations",)))
        return Needs(gpus=self.gpus, block=self.block, kinds=kinds, drawing=drawing, distributed=True, source=self.pretrain > 0)

    @classmethod
    def tiny(cls) -> Self:
        """A small network, a few steps."""
        return cls(steps=25, width=16, batch=16, rate=3e-3, evaluations=3, block=64)

    def ready(self) -> None:
        """Raises SettingError where the base is not there."""
        if self.base is not None:
            present(self.base)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains or tunes; rank 0 writes pictures.json, network.safetensors and rows.parquet under worker.folder.

        Raises:
            SettingError: no column of pictures or several; a base that cannot be read, or is of another kind.
        """
        name, regions = _column(data.schema), data.regions
        tables = data.split_by_region(self.held_out, self.rows)
        beside = BesidePictures.of(data, name, pa.concat_tables(tables))
        factors, levels = regions.conditions
        base = self._base(self.base, _texts(regions.items), worker.device)
        frame, values = self._seen([picture for table in tables for picture in _pictures(table, name)], base)
        drawing, names = self._drawing(frame, base, levels, beside.width, seed_of(data.seed, "network"))
        learned, held = self._lessons(tables, values, regions, beside, drawing)
        training, batch = self._training(gpu_dtype(worker.device))
        if base is not None and self.preserve:
            drawing.network.to(worker.device)
            own = drawing.own(self.preserve, torch.from_numpy(factors[:1]), beside.width, self.evaluations, seed_of(data.seed, "own"))
            learned = learned.beside(own, PRESERVED)
        loss = PictureLoss(learned, torch.from_numpy(factors), drawing.noising, batch, worker)
        score = loss.score(held, seed_of(data.seed, "held out")) if len(held.region) else None
        make, source = _making(drawing, names, worker.device), None
        if data.source is not None and self.pretrain:
            source = partial(self._taught, data.source, loss, base, beside, drawing)
        module, training, worker, before = begun(make, source, training, worker, self.pretrain, self.tune)
        trained = train(module, loss, score, training, worker, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain, arrays = beside.write(worker.folder)
            meta: dict[str, Any] = {"settings": asdict(self), "beside": plain, "frame": frame.to_json(), "before": before}
            meta |= {"texts": list(base.texts) if base else [], "base": base.mark if base else "", "dtype": str(training.dtype)}
            meta |= {"factors": factors.tolist(), "levels": levels}
            worker.folder.write_arrays("network.safetensors", arrays | {f"network/{n}": a for n, a in trained.weights.items()})
            worker.folder.write_json("pictures.json", meta | {"step": trained.step, "history": trained.history})

    def load(self, folder: Folder) -> "FittedImageDiffusion":
        """The fitted network, drawn from with this object's evaluations, guidance and block.

        Raises:
            SettingError: the base is not the one that was tuned.
        """
        meta, arrays = folder.read_json("pictures.json"), folder.read_arrays("network.safetensors")
        weights = {name[8:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("network/")}
        fitted, device = ImageDiffusion(**meta["settings"]), "cuda" if self.gpus else "cpu"
        base = fitted._base(self.base or (fitted.base and unfetched(fitted.base)), meta["texts"], device)
        if base is not None and base.mark != meta["base"]:
            raise SettingError("the base that was tuned", "one with other weights", "put back the base as it was, or fit again")
        beside = BesidePictures.read(folder, meta["beside"], arrays)
        drawing, names = fitted._drawing(Frame.from_json(meta["frame"]), base, meta["levels"], beside.width, seed=0)
        if names is None:
            drawing.network.load_state_dict(weights)
        else:
            settle(drawing.network, names, weights)
        drawing.network.to(device, getattr(torch, meta["dtype"].removeprefix("torch."))).requires_grad_(False)
        if self.compiled and self.gpus:
            drawing.network.compile()
        return FittedImageDiffusion(self, drawing, beside, torch.tensor(meta["factors"]), meta["before"])

    def _base(self, base: str | None, texts: list[str], device: str) -> PictureBase | None:
        return PictureBase.read(base, texts, self.bound, gpu_dtype(device), device) if self.base and base else None

    def _seen(self, pictures: list[bytes], base: PictureBase | None) -> tuple[Frame, Tensor]:
        """How pictures are seen, and all of them so: pixels, or a base's latents."""
        if base is None:
            frame = Frame.of(pictures, self.size or LARGEST, self._multiple, self.backbone == DIT)
            pixels = frame.read(pictures)
            return frame.centred(pixels), torch.from_numpy(pixels)
        side = self.size or base.side
        base.check(side)
        frame = Frame.of(pictures, side, lambda longer: 1, True).squared(side, base.channels)
        return frame, _values(frame, pictures, base)

    def _lessons(
        self, tables: tuple[pa.Table, pa.Table], values: Tensor, regions: Regions, beside: BesidePictures, drawing: PictureDrawing
    ) -> tuple[PictureRows, PictureRows]:
        """(learned, held-out) pictures of such rows: the former by how often regions are, the latter as balance would draw them."""
        shown = [table.filter(table[beside.picture].is_valid()) for table in tables]
        weights = natural(regions, self.evenly, known_share(tables[0], beside.picture, len(regions))), needed(regions)
        learned, held = (
            PictureRows.of(part, beside.told(table), table[REGION].to_numpy().astype(np.int64), weight, drawing.enter)
            for part, table, weight in zip(values.split([len(table) for table in shown]), shown, weights, strict=True)
        )
        return learned, held

    def patched(self, longer: int) -> tuple[int, int]:
        """(pixels of a square that are one place, grids of the network) for pictures of that longer side."""
        patch = self.patch or next((patch for patch in (1, 2) if longer <= (PLACES + 8) * patch), 4)
        return patch, max(2, math.ceil(math.log2(max(longer / patch, 8) / 8)) + 1)

    def _multiple(self, longer: int) -> int:
        patch, grids = self.patched(longer)
        return patch * 2 ** (grids - 1) if self.backbone == UNET else 2 * patch

    def _drawing(
        self, frame: Frame, base: PictureBase | None, levels: list[int], columns: int, seed: int
    ) -> tuple[PictureDrawing, tuple[str, ...] | None]:
        """What draws, untrained, and which of its parameters are tuned (None: all); first weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if base is None:
                squares = self.patched(max(frame.height, frame.width))
                network = small(self.backbone, self.width, self.layers, frame, squares, tuple(levels), columns)
                return PictureDrawing(network, Edm(), frame, None, (frame.channels, *frame.padded)), None
            network = base.network(tuple(levels), columns)
            names = _tuned(network, self.lora)
        network.eval().requires_grad_(False)
        return PictureDrawing(network, base.noising, frame, base.coder, base.shape(frame.padded[0])), names

    def _taught(
        self, source: FitData, loss: PictureLoss, base: PictureBase | None, beside: BesidePictures, drawing: PictureDrawing
    ) -> Taught:
        """What its pictures teach, seen as those of the rows are."""
        tables = source.split_by_region(self.held_out, self.rows)
        values = _values(drawing.frame, [picture for table in tables for picture in _pictures(table, beside.picture)], base)
        learned, held = self._lessons(tables, values, source.regions, beside, drawing)
        mine, many = replace(loss, rows=learned), sum(map(len, tables)) if len(learned.region) else 0
        score = mine.score(held, seed_of(source.seed, "held out")) if len(held.region) else None
        return Taught(mine, score, seed_of(source.seed, "train"), many, source.aside)

    def _training(self, dtype: torch.dtype) -> tuple[Training, int]:
        steps, batch, rate = SMALL if self.base is None else ADAPTERS if self.lora else WEIGHTS
        steps, batch, rate = self.steps or steps, self.batch or batch, self.rate or rate
        training = Training(steps, rate, every=EVERY, patience=PATIENCE, parts=self.parts, dtype=dtype, untrained=self.base is not None)
        return replace(training, checkpoint=self.checkpoint, minutes=self.minutes), -(-batch // self.parts)


def _column(schema: Schema) -> str:
    """The name of the column of pictures.

    Raises:
        SettingError: there is none, or more than one.
    """
    names = [column.name for column in schema.columns if column.kind == "image"]
    if len(names) != 1:
        got = ", ".join(map(repr, names)) or "none"
        raise SettingError("one column of pictures (kind image)", got, "leave the others out with --schema, or name another generator")
    return names[0]


def _pictures(table: pa.Table, name: str) -> list[bytes]:
    found: list[bytes] = table[name].drop_null().to_pylist()
    return found


def _values(frame: Frame, pictures: list[bytes], base: PictureBase | None) -> Tensor:
    """Pixels in that frame, or a base's latents."""
    if base is None or base.coder is None:
        return torch.from_numpy(frame.read(pictures))
    chunks = (pictures[first : first + CHUNK] for first in range(0, len(pictures), CHUNK))
    return torch.cat([base.coder.latents(frame.enter(torch.from_numpy(frame.read(chunk)))) for chunk in chunks])


def _making(drawing: PictureDrawing, names: tuple[str, ...] | None, device: str) -> Callable[[], nn.Module]:
    """What is trained, untrained."""
    if names is None:
        return lambda: deepcopy(drawing.network)
    return partial(Tuned, drawing.network.to(device), names)


def _texts(regions: Sequence[Region]) -> list[str]:
    """What a base that reads is told of each region: its constants, and where they do not tell it apart its name too."""
    found = [", ".join(f"{column} {value}" for column, value in item.constants if value is not None) for item in regions]
    often = Counter(found)
    return [
        text if text and often[text] == 1 else ", ".join(filter(None, (text, item.name))) for text, item in zip(found, regions, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class FittedImageDiffusion:
    """A trained network: settings to draw with, what draws, rows to draw for, (K, F) factors of each region, what a source did."""

    settings: ImageDiffusion
    drawing: PictureDrawing
    beside: BesidePictures
    factors: Tensor
    before: dict[str, Any] | None = None

    @property
    def notice(self) -> tuple[str, ...]:
        """What the report should say of the fit."""
        others = [name for name in self.beside.rows.column_names if name != self.beside.picture]
        told = [*told_of(self.before)]
        told += [f"{', '.join(others)} beside the drawn pictures are those of training rows"] if others else []
        undrawn = self.beside.undrawn
        told += [f"{undrawn:,} rows with values that may not be drawn lend none"] if undrawn else []
        return tuple(told)

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region."""
        rows = self.beside.drawn(region, self.settings.block, rng_of("image_diffusion", seed, region))
        generator = torch.Generator().manual_seed(seed_of("image_diffusion", seed, region))
        columns = torch.from_numpy(self.beside.told(rows.filter(rows[self.beside.picture])))
        with torch.inference_mode(), one_thread():
            own, settings = self.factors[region : region + 1], self.settings
            values = self.drawing.values(own, columns, 1.0, settings.evaluations, settings.guidance, generator)
            return self.beside.filled(rows, self.drawing.files(values))


def _tuned(network: nn.Module, rank: int) -> tuple[str, ...]:
    """Puts adapters beside the model's layers; the names of the parameters that are tuned: the condition's, and adapters or all."""
    if rank:
        from peft import LoraConfig, inject_adapter_in_model

        kinds = (nn.Linear, nn.Conv2d) if isinstance(network, ByVector) else (nn.Linear,)
        inside = [name for name, part in network.named_modules() if isinstance(part, kinds) and name.startswith("model.")]
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=inside), network)
    return tuple(n for n, _ in network.named_parameters() if n.startswith("condition.") or "lora_" in n or not rank)

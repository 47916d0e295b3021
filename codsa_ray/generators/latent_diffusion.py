"""Latent diffusion: tables, pictures and texts of a row drawn together, by one denoiser of their joined latents; knows no cluster.

Source: CoDSA (Tian & Shen 2025, section 4): codecs pretrained on a source data set, a diffusion of their latents conditioned on the region,
drawn rows decoded; Rombach et al. 2022 (codecs first, diffusion after); the denoiser is tabular_diffusion's (Karras et al. 2022, Lu et
al. 2022b). What differs from CoDSA and why:
- A codec per kind of column: quantiles and codes (nn/table_codec.py), a convolutional autoencoder (nn/picture_codec.py), an encoder and a
  causal decoder of words (nn/text_codec.py). ONE diffusion draws all their latents, so that a picture and its text agree beyond their
  region; audit/coupling.py measures whether they do.
- Region and factors are embeddings that add up, rows come at their natural frequency, and the weights kept are those of the best loss on
  held-out rows weighted as balance would draw regions: so a rare region borrows and does not over-train.

With a source its rows teach the codecs of pictures and texts, which are then frozen (CoDSA) or tuned (`tune`); the diffusion learns from
the target's rows alone. A column that the source lacks is taught by the target.

Cost: codecs as they say, then the diffusion as tabular_diffusion's. Memory: pixels and tokens of all rows, 4 D bytes a row. Not for:
pictures whose detail matters (image_diffusion: a vector of tens of numbers gives blurred ones), texts whose wording does (text_lm).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from codsa_ray.contracts import TABLE_KINDS, Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.nn.codec_lessons import Lessons, lessons_of
from codsa_ray.nn.denoising import DenoisingLoss, LatentRows
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.joined_codec import CODED, JoinedCodec
from codsa_ray.nn.networks import ResidualMLP
from codsa_ray.nn.phases import Phase
from codsa_ray.nn.picture_codec import PictureCodec, halvings
from codsa_ray.nn.pictures import Frame
from codsa_ray.nn.precondition import Denoiser, Scales, denoised, guided, log_priors
from codsa_ray.nn.schedules import karras
from codsa_ray.nn.solvers import dpm_2m, start
from codsa_ray.nn.text_codec import TextCodec, TextForm
from codsa_ray.nn.text_gate import TextGate, evened
from codsa_ray.nn.text_words import BROKEN, garbled
from codsa_ray.nn.train import Training, train
from codsa_ray.nn.vector_codecs import VectorCodec, arrays_of, restored
from codsa_ray.nn.vectors import Scaling
from codsa_ray.schema import Column
from codsa_ray.seeds import rng_of, seed_of

SIGMA_LOW, SIGMA_HIGH = 0.05, 10.0
"""Noise levels drawn through, as tabular_diffusion's."""
DIFFUSION = "diffusion"
COPIED, STRANGE, UNREADABLE = "copies a training text", "reads like another region", "bytes that are no text"


@dataclass(frozen=True)
class LatentDiffusion:
    """Settings of the method.

    Args:
        steps, batch, rate: of the diffusion: optimizer steps at most, rows of one step, peak learning rate.
        width, blocks: of its residual MLP.
        codec_steps, codec_batch, codec_rate: of each codec's training.
        size: dimensions of a picture's or a text's vector.
        shake: standard deviation of the noise on vectors that decoders learn with; theirs is 1.
        picture: longer side of pictures at most; larger ones are shrunk.
        picture_width: channels of the picture codec's first grid.
        vocabulary: words at most, 256 bytes among them.
        longest: words of one text at most; longer ones are learned from as far as that.
        text_width, text_blocks, heads: of each half of the text codec.
        drop: chance that the text decoder forgets a word while it is trained, so that it asks the vector.
        pretrain: steps of each codec on a source data set, where there is one; 0 leaves it out.
        tune: share of `codec_rate` at which codecs that a source taught learn from the rows themselves; 0 freezes them.
        held_out: share of each region's rows kept for early stopping and for the gate; 0 runs all steps.
        gate: drawn texts that copy training texts, or read like another region's, are drawn again.
        confidence: share of real texts that pass each part of the gate.
        rows: rows kept in memory at most; beyond it large regions are thinned.
        checkpoint: steps between checkpoints.
        evaluations: network evaluations per drawn row.
        guidance: classifier-free guidance; 1 is none.
        temperature: of drawing words; below 1 texts are more alike.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
    """

    steps: int = 2000
    batch: int = 512
    rate: float = 2e-3
    width: int = 256
    blocks: int = 3
    codec_steps: int = 1500
    codec_batch: int = 64
    codec_rate: float = 3e-3
    size: int = 32
    shake: float = 0.15
    picture: int = 64
    picture_width: int = 24
    vocabulary: int = 2000
    longest: int = 64
    text_width: int = 96
    text_blocks: int = 2
    heads: int = 4
    drop: float = 0.2
    pretrain: int = 1500
    tune: float = 0.0
    held_out: float = 0.1
    gate: bool = True
    confidence: float = 0.99
    rows: int = 200_000
    checkpoint: int = 500
    evaluations: int = 20
    guidance: float = 1.0
    temperature: float = 1.0
    block: int = 512
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.text_width % self.heads or self.picture_width % 8 or self.temperature <= 0 or not 0.5 <= self.confidence <= 1:
            wanted = "a text_width that heads divide, a picture_width that 8 divides, temperature above 0, confidence of .5 to 1"
            raise SettingError(wanted, repr(self), "change the one that is not")
        if min(self.steps, self.batch, self.codec_steps, self.codec_batch, self.size, self.longest, self.evaluations, self.block) < 1:
            raise SettingError(
                "steps, batches, size, longest, evaluations and block of 1 or more", repr(self), "change the one that is not"
            )

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        kinds = TABLE_KINDS | {"text", "image"}
        drawing = ("evaluations", "guidance", "temperature", "block")
        return Needs(gpus=self.gpus, block=self.block, kinds=kinds, drawing=drawing, distributed=True, source=self.pretrain > 0)

    @classmethod
    def tiny(cls) -> Self:
        """Small networks, a few steps."""
        small = cls(steps=150, width=48, batch=128, rate=1e-2, evaluations=6, block=128, codec_steps=40, codec_batch=32, codec_rate=5e-3)
        return replace(small, size=8, picture_width=8, vocabulary=300, longest=12, text_width=32, text_blocks=1, heads=2, pretrain=40)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains codecs, then the diffusion; rank 0 writes latents.json, latents.safetensors and codecs/ under worker.folder.

        Raises:
            SettingError: settings that do not go together. PictureError: a picture that cannot be read.
        """
        tables = data.split_by_region(self.held_out, self.rows)
        columns = tuple(column for column in data.schema.columns if column.name not in data.regions.constant_columns)
        lessons, codecs = self._lessons(columns, tables, data)
        codecs, told = lessons.given(codecs, worker)
        codecs = {name: _scaled(codec, tables[0], name) for name, codec in codecs.items()}
        joined = JoinedCodec.of(columns, pa.concat_tables(tables), codecs)
        factors, levels = data.regions.conditions
        network = self._network(joined.layout.width, levels, seed_of(data.seed, "network"))
        learned, held = ((joined.encode(table), table[REGION].to_numpy().astype(np.int64)) for table in tables)
        rows = LatentRows.natural(*learned, data.regions)
        network.leave.bias.data += log_priors(rows.latents, joined.layout)
        loss = DenoisingLoss(joined.layout, rows, torch.from_numpy(factors), gpu_dtype(worker.device), self.batch, worker)
        score = loss.score(LatentRows.needed(*held, data.regions), seed_of(data.seed, "held out")) if len(held[1]) else None
        training = Training(self.steps if joined.layout.width else 0, self.rate, checkpoint=self.checkpoint)
        phase = Phase.of(worker, DIFFUSION, lessons.steps, told)
        trained = train(network, loss, score, training, phase, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain, arrays = joined.to_json()
            arrays |= {f"network/{name}": array for name, array in trained.weights.items()} | self._gates(joined, tables, len(data.regions))
            for place, codec in enumerate(joined.codecs):
                arrays |= {f"codec{place}/{name}": array for name, array in arrays_of(codec).items()}
            meta: dict[str, Any] = {"settings": asdict(self), "rows": plain, "codecs": [codec.to_json() for codec in joined.codecs]}
            meta |= {
                "factors": factors.tolist(),
                "levels": levels,
                "dtype": str(loss.dtype),
                "step": trained.step,
                "history": trained.history,
            }
            texts = [codec.name for codec in joined.codecs if isinstance(codec, TextCodec)]
            meta["garbled"] = [name for name in texts if garbled(tables[0][name].to_pylist())]
            worker.folder.write_arrays("latents.safetensors", arrays)
            worker.folder.write_json("latents.json", meta | {"lessons": told, "source": _sourced(data, lessons)})

    def load(self, folder: Folder) -> "FittedLatentDiffusion":
        """The fitted model, drawn from with this object's evaluations, guidance, temperature, gate and block."""
        meta, arrays = folder.read_json("latents.json"), folder.read_arrays("latents.safetensors")
        device = "cuda" if self.gpus else "cpu"
        codecs = tuple(restored(plain, _under(arrays, f"codec{place}/"), device) for place, plain in enumerate(meta["codecs"]))
        joined = JoinedCodec.from_json(meta["rows"], arrays, codecs)
        network = LatentDiffusion(**meta["settings"])._network(joined.layout.width, meta["levels"], seed=0)
        network.load_state_dict({name: torch.from_numpy(array) for name, array in _under(arrays, "network/").items()})
        network.to(device, getattr(torch, meta["dtype"].removeprefix("torch."))).requires_grad_(False)
        texts = [codec.name for codec in codecs if isinstance(codec, TextCodec)]
        gates = {name: _under(arrays, f"gate/{place}/") for place, name in enumerate(texts)}
        found = {name: TextGate.from_arrays(own) if own and self.gate else None for name, own in gates.items()}
        factors, odd = torch.tensor(meta["factors"]), frozenset(meta["garbled"])
        return FittedLatentDiffusion(self, joined, network, factors, found, odd, meta["source"])

    def _lessons(
        self, columns: tuple[Column, ...], tables: tuple[pa.Table, pa.Table], data: FitData
    ) -> tuple[Lessons, dict[str, VectorCodec]]:
        """What codecs are taught, and the codecs, untrained."""
        source = data.source if self.pretrain and data.source is not None and data.source.regions.counts.sum() else None
        others = None if source is None else source.split_by_region(self.held_out, self.rows)
        alone = Training(self.codec_steps, self.codec_rate, checkpoint=self.checkpoint)
        before = replace(alone, steps=self.pretrain)
        tuned = replace(alone, steps=self.codec_steps if self.tune else 0, rate=self.codec_rate * self.tune, untrained=True)
        items, codecs = [], {}
        for place, column in enumerate(column for column in columns if column.kind in CODED):
            known = [*tables, *(others or ())]
            values = pa.chunked_array([chunk for table in known for chunk in table[column.name].chunks], column.arrow).drop_null()
            if tables[0][column.name].null_count == len(tables[0]):
                continue
            taught = None if source is None or others is None else (others, source.regions, source.seed)
            items += lessons_of(column.name, place, (tables, data.regions, data.seed), taught, (before, tuned, alone))
            codecs[column.name] = self._codec(column, values, tables, seed_of(data.seed, "codec", place))
        return Lessons(tuple(items), self.shake, self.codec_batch, DIFFUSION), codecs

    def _codec(self, column: Column, values: pa.ChunkedArray, tables: tuple[pa.Table, pa.Table], seed: int) -> VectorCodec:
        """Untrained. Pictures are seen as the target's, words are those of the source's texts too."""
        if column.kind == "text":
            form = TextForm(self.longest, self.text_width, self.text_blocks, self.heads, self.size, self.drop)
            return TextCodec.of(column.name, values, self.vocabulary, form, seed)
        pictures = [picture for table in tables for picture in table[column.name].drop_null().to_pylist()]
        frame = Frame.of(pictures, self.picture, lambda longer: int(2 ** halvings(longer)), False)
        return PictureCodec.untrained(column.name, frame.centred(frame.read(pictures)), self.picture_width, self.size, seed)

    def _network(self, size: int, levels: list[int], seed: int) -> ResidualMLP:
        # Initial weights depend on the seed alone and leave the caller's random state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResidualMLP(size, self.width, self.blocks, tuple(levels))

    def _gates(self, joined: JoinedCodec, tables: tuple[pa.Table, pa.Table], regions: int) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for place, codec in enumerate(codec for codec in joined.codecs if isinstance(codec, TextCodec) and self.gate):
            learned, held = (table[codec.name].to_pylist() for table in tables)
            gate = TextGate.learn(learned, tables[0][REGION].to_numpy().astype(np.int64), held, regions, self.confidence)
            found |= {f"gate/{place}/{name}": array for name, array in gate.to_arrays().items()}
        return found


def _scaled(codec: VectorCodec, table: pa.Table, name: str) -> VectorCodec:
    """To unit variance on the target's rows, whoever taught it."""
    return replace(codec, scaling=Scaling.of(codec.vectors(table[name].combine_chunks().drop_null())))


def _sourced(data: FitData, lessons: Lessons) -> dict[str, Any] | None:
    taught = [lesson.column for lesson in lessons.items if lesson.name.endswith("-source")]
    return {"rows": int(data.source.regions.counts.sum()), "columns": taught} if taught and data.source is not None else None


def _under(arrays: dict[str, np.ndarray], mark: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(mark): array for name, array in arrays.items() if name.startswith(mark)}


@dataclass(frozen=True, eq=False)
class FittedLatentDiffusion:
    """A trained model.

    Args:
        settings: evaluations, guidance, temperature and block to draw with.
        codec: of the drawn columns.
        network: in the dtype it was fitted for.
        factors: (K, F) int64 levels of each region's factors, the region itself last.
        gates: of each text column, or None where there is none.
        garbled: text columns whose training texts hold what bytes that are no text read as.
        source: rows of the source and the columns that it taught, or None.
    """

    settings: LatentDiffusion
    codec: JoinedCodec
    network: ResidualMLP
    factors: Tensor
    gates: dict[str, TextGate | None]
    garbled: frozenset[str]
    source: dict[str, Any] | None = None

    @property
    def notice(self) -> tuple[str, ...]:
        """What the report should say of the gates and of the source."""
        found = tuple(said for name, gate in self.gates.items() if gate is not None for said in gate.notice(name))
        if self.source is None:
            return found
        return (
            *found,
            f"codecs of {', '.join(self.source['columns'])} taught by {self.source['rows']:,} rows of the source",
        )

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region; random are the starting noise and the choice of words."""
        with torch.inference_mode(), one_thread():
            generator = torch.Generator().manual_seed(seed_of("latent_diffusion", seed, region))
            noise = torch.randn(self.settings.block, self.codec.layout.width, generator=generator)
            denoise = guided(self._denoiser(region, 1.0), self._denoiser(region, 0.0), self.settings.guidance)
            sigmas = karras(self.settings.evaluations, SIGMA_LOW, SIGMA_HIGH)
            rows = dpm_2m(denoise, start(denoise, noise.to(next(self.network.parameters()).device), SIGMA_HIGH), sigmas)
            return self.codec.decode(rows.cpu().numpy(), rng_of("latent_diffusion", seed, region), self.settings.temperature)

    def refused(self, table: pa.Table, region: int) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool drawn rows that are drawn again for it."""
        found: dict[str, np.ndarray] = {}
        told = np.zeros(len(table), dtype=bool)
        for name, gate in self.gates.items():
            texts: list[Any] = table[name].to_pylist()
            told |= np.array([text is not None for text in texts])
            broken = np.array([name not in self.garbled and text is not None and BROKEN in text for text in texts])
            found[f"{name!r} {UNREADABLE}"] = broken
            if gate is not None:
                copies, strange = gate.refused(texts, region)
                found |= {f"{name!r} {COPIED}": copies, f"{name!r} {STRANGE}": strange}
        return evened(found, told)

    def _denoiser(self, region: int, keep: float) -> Denoiser:
        layout, factors = self.codec.layout, self.factors[region : region + 1].to(next(self.network.parameters()).device)
        kept = torch.full(factors.shape, keep, device=factors.device)

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            scales = Scales.at(sigma)
            return denoised(self.network(scales.enter * noisy, scales.level, factors, kept), noisy, sigma, layout)

        return denoise

"""Text language model: rows that hold texts, drawn by a causal transformer trained or tuned on them; knows no cluster.

Sources: Radford et al. 2019 (GPT-2: the decoder, words from bytes); Keskar et al. 2019 (CTRL: a condition is a token before the text);
what a row's table columns say stands before its texts as it does in Borisov et al. 2023 (GReaT); Hu et al. 2022 (LoRA).
A row is drawn from prod_t p(token_t | region, tokens before): texts know the columns of their row, later texts the earlier ones.
What differs and why:
- Each place allows its own tokens alone: categories exist, numbers are in bounds, drawing always ends. Without `base` a table column is one
  token (nn/row_sequences.py); a base is told it in words, spelled by its grammar (nn/row_prose.py). Texts are free.
- A region is the sum of what it shares with others (a token per factor) and a token of its own, so that a rare one borrows words; a base
  is told the region's constants.
- The weights kept are those of the best loss on held-out rows, weighted as balance would draw regions.
- With a source (`--source`, or rows of other domains) the decoder, or the base's adapters, first learns its texts, told the same regions,
  and is then tuned on the rows themselves (Howard & Ruder 2018; CoDSA's transfer); what tells them apart is in `pretrain` and `tune`.
- Drawn texts pass a gate (nn/text_gate.py): copies of training texts and texts that another region would rather have said are drawn
  again, and counted; the cuts are such that `confidence` of real texts that the measure has not seen pass.

Cost per step, small: batch x tokens x (12 blocks W^2 + W vocabulary) multiplications to fit; per drawn token the same for one row (some 90
texts of 60 tokens a second and core with the defaults); 4 bytes a token of training texts. With a base: 2 per weight and token to draw,
three times that to fit, and 4 bytes x vocabulary per token of a step's part. Not for: more than some ten thousand texts on CPUs, where
the small one learns words and little else and a base is slow; texts whose meaning matters more than their words. A base may have read
the texts before: what looks new may be memory; texts of a source may be drawn as they stand there.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from codsa_ray.contracts import TABLE_KINDS, Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.hub import unfetched
from codsa_ray.nn.causal_base import CausalBase
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.line_drawing import LineDrawing
from codsa_ray.nn.line_loss import Forgetful, LineLoss, forgetful, plain
from codsa_ray.nn.pretrained import CAUSAL, present
from codsa_ray.nn.pretraining import Taught, begun, told_of
from codsa_ray.nn.prose_drawing import ProseDrawing
from codsa_ray.nn.row_loss import natural, needed
from codsa_ray.nn.row_prose import Prose, RowProse
from codsa_ray.nn.row_sequences import RowSequences
from codsa_ray.nn.shards import shard
from codsa_ray.nn.text_gate import TextGate, evened
from codsa_ray.nn.text_words import BROKEN, garbled
from codsa_ray.nn.train import Score, Training, train
from codsa_ray.schema import Schema
from codsa_ray.seeds import rng_of, seed_of

Form = RowSequences | RowProse
Split = tuple[pa.Table, pa.Table]
Lessons = tuple[LineLoss, Score | None]
SMALL, ADAPTERS, WEIGHTS = (1500, 32, 2e-3), (1000, 32, 5e-4), (1000, 32, 5e-5)
"""What `steps`, `batch` and `rate` are where they are not given: for the small decoder, a base's adapters, all its weights."""
EVERY, PATIENCE = 50, 4
SCORED = 512
"""Held-out rows of one score, small; a base reads a quarter of them."""
COPIED, STRANGE, UNREADABLE = "copies a training text", "reads like another region", "bytes that are no text"
SHORTEN = "lower longest, leave columns out or take another base"


@dataclass(frozen=True)
class TextLm:
    """Settings of the method.

    Args:
        base: folder or name of a causal language model that transformers reads, with safetensors weights; None: a small one of our own.
        lora: rank of the base's adapters; 0 tunes all its weights.
        steps, batch, rate: optimizer steps at most, rows of one step, peak learning rate; None: what the model's size usually needs.
        width, blocks, heads: of the small decoder.
        vocabulary: of the small one: words at most, 256 bytes among them.
        longest: words (of a base its tokens) of one text at most; longer ones are learned from as far as that.
        bins: of the small one: per ordered table column at most.
        drop: chance that the small one forgets a token while training.
        held_out: share of each region's rows kept for early stopping and for the gate; 0 runs all steps.
        confidence: share of real texts that pass each gate; 1 refuses nothing but copies.
        rows: rows kept in memory at most; beyond it large regions are thinned.
        checkpoint, minutes: steps between checkpoints, and after how long there is one all the same.
        parts: pieces in which a step works through its rows, so that it needs the memory of one.
        pretrain: steps at most on a source's texts, where there is one; 0 leaves it out, as does a sharded fit.
        tune: share of the rate at which the rows themselves then teach.
        sharded: where several workers fit it, weights, average and moments are cut over them (FSDP2): for a base that one GPU could not
            train. Drawing needs it whole.
        temperature: of drawing words; below 1 texts are more alike.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
    """

    base: str | None = None
    lora: int = 8
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    width: int = 128
    blocks: int = 3
    heads: int = 4
    vocabulary: int = 2000
    longest: int = 128
    bins: int = 30
    drop: float = 0.1
    held_out: float = 0.1
    confidence: float = 0.99
    rows: int = 200_000
    checkpoint: int = 500
    minutes: float = 10.0
    parts: int = 1
    pretrain: int = 1000
    tune: float = 0.3
    sharded: bool = False
    temperature: float = 1.0
    block: int = 256
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.temperature <= 0 or not 0.5 <= self.confidence <= 1 or self.longest < 1:
            wanted = "a width that heads divide, temperature above 0, confidence of .5 to 1, longest of 1 or more"
            raise SettingError(wanted, repr(self), "change the one that is not")
        if self.pretrain < 0 or not 0 < self.tune <= 1:
            raise SettingError("pretrain of 0 or more, tune above 0 and at most 1", repr(self), "change the one that is not")
        if self.parts < 1 or not 0 <= self.minutes < float("inf"):
            raise SettingError("one part or more, and minutes of 0 or more", repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        source = self.pretrain > 0 and not self.sharded
        needs = Needs(gpus=self.gpus, block=self.block, kinds=TABLE_KINDS | {"text"}, drawing=("temperature", "block"), source=source)
        return replace(needs, distributed=True, sharded=self.sharded)

    @classmethod
    def tiny(cls) -> Self:
        """A small decoder, a few steps."""
        return cls(steps=60, width=32, heads=2, blocks=1, batch=32, rate=1e-2, vocabulary=300, longest=12, bins=10, block=64)

    def ready(self) -> None:
        """Raises SettingError where the base is not there."""
        if self.base is not None:
            present(self.base, CAUSAL)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains or tunes; rank 0 writes rows.json and model.safetensors under worker.folder.

        Raises:
            SettingError: the base cannot be read, cannot spell the table or cannot read rows of that length.
        """
        tables, source = data.split_by_region(self.held_out, self.rows), data.source if self.needs.source else None
        others = None if source is None else _telling(source.split_by_region(self.held_out, self.rows), data.schema)
        base = CausalBase.read(self.base, self.lora, worker.device, seed_of(data.seed, "adapters")) if self.base else None
        rows, training = self._form(data, tables, base, others), self._training(gpu_dtype(worker.device))
        make, taught = partial(self._module, rows, base, worker, data.seed), None
        loss, score = self._lessons(rows, base, worker, tables, data)
        training = replace(training, steps=0) if loss.lines.open.all() else training
        if source is not None and others is not None and training.steps:
            lessons = partial(self._lessons, rows, base, worker, others, source, foreign=True)
            taught = partial(_taught, others, source, lessons, (loss, score))
        module, training, worker, before = begun(make, taught, training, worker, self.pretrain, self.tune)
        trained = train(module, loss, score, training, worker, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain_, arrays = rows.to_json()
            gates = _gates(rows.texts, *tables, len(data.regions), self.confidence)
            arrays |= {f"gate{place}/{name}": array for place, gate in enumerate(gates) for name, array in gate.to_arrays().items()}
            arrays |= {f"network/{name.removeprefix('network.')}": array for name, array in trained.weights.items()}
            worker.folder.write_arrays("model.safetensors", arrays)
            meta: dict[str, Any] = {"settings": asdict(self), "rows": plain_, "dtype": str(training.dtype), "before": before}
            meta |= {"base": base.mark if base else "", "garbled": [n for n in rows.texts if garbled(tables[0][n].to_pylist())]}
            worker.folder.write_json("rows.json", meta | {"step": trained.step, "history": trained.history})

    def load(self, folder: Folder) -> "FittedTextLm":
        """The fitted model, drawn from with this object's temperature and block.

        Raises:
            SettingError: the base is not the one that was tuned.
        """
        meta, arrays = folder.read_json("rows.json"), folder.read_arrays("model.safetensors")
        fitted, device = TextLm(**meta["settings"]), "cuda" if self.gpus else "cpu"
        weights = {name[8:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("network/")}
        rows: Form
        if fitted.base is None:
            rows = RowSequences.from_json(meta["rows"], arrays)
            network = _network(fitted, rows, seed=0)
            network.load_state_dict(weights)
        else:
            base = CausalBase.read(self.base or unfetched(fitted.base), fitted.lora, device, seed=0)
            rows = RowProse.from_json(meta["rows"], arrays, base.tokenizer, Prose(base.words, base.size))
            network = base.settled(weights, meta["base"])
        network.to(device, getattr(torch, meta["dtype"].removeprefix("torch."))).requires_grad_(False).eval()
        gates = []
        for place in range(len(rows.texts)):
            mark = f"gate{place}/"
            gates.append(TextGate.from_arrays({name.removeprefix(mark): a for name, a in arrays.items() if name.startswith(mark)}))
        return FittedTextLm(self, rows, network, tuple(gates), frozenset(meta["garbled"]), meta["before"])

    def _form(self, data: FitData, tables: Split, base: CausalBase | None, others: Split | None) -> Form:
        """What rows are told as; the words of our own are those of a source's texts too."""
        columns = tuple(c for c in data.schema.columns if c.name not in data.regions.constant_columns)
        if base is None:
            read = None if others is None else others[0]
            return RowSequences.of(columns, tables[0], data.regions, self.bins, self.vocabulary, self.longest, read)
        prose = Prose(base.words, base.size)
        rows = RowProse.of(columns, pa.concat_tables(tables), data.regions, base.tokenizer, prose, self.longest)
        base.check(rows.most, SHORTEN)
        return rows

    def _module(self, rows: Form, base: CausalBase | None, worker: Worker, seed: int) -> nn.Module:
        """What is trained, cut over the workers where that is asked for and there are several."""
        cut, dtype = self.sharded and worker.world > 1, gpu_dtype(worker.device)
        if base is not None:
            return base.trainable(cut, worker.device, dtype)
        assert isinstance(rows, RowSequences)
        decoder = Forgetful(_network(self, rows, seed_of(seed, "network")))
        if cut:
            shard(decoder, worker.device, dtype)
        return decoder

    def _training(self, dtype: torch.dtype) -> Training:
        steps, _, rate = self._usual
        training = Training(self.steps or steps, self.rate or rate, every=EVERY, patience=PATIENCE, dtype=dtype, parts=self.parts)
        return replace(training, checkpoint=self.checkpoint, minutes=self.minutes)

    @property
    def _usual(self) -> tuple[int, int, float]:
        return SMALL if self.base is None else ADAPTERS if self.lora else WEIGHTS

    def _lessons(self, rows: Form, base: CausalBase | None, worker: Worker, tables: Split, data: FitData, foreign: bool = False) -> Lessons:
        """What is learned of (learned, held-out) rows, and how it is scored."""
        learned, held = tables
        mass = natural(learned[REGION].to_numpy(), np.zeros(len(learned), dtype=bool), data.regions)
        batch, read = -(-(self.batch or self._usual[1]) // self.parts), forgetful if base is None else plain
        loss = LineLoss(rows.told(learned, foreign), mass, batch, worker, read, self.drop if base is None else 0.0)
        if not len(held):
            return loss, None
        mine = replace(loss, lines=rows.told(held, foreign), mass=needed(held[REGION].to_numpy(), data.regions), drop=0.0)
        count, seed = SCORED // (1 if self.base is None else 4), seed_of(data.seed, "held out")
        return loss, lambda module: mine.score(module, count, seed)


def _network(settings: TextLm, rows: RowSequences, seed: int) -> nn.Module:
    """An untrained decoder whose first weights depend on the seed alone."""
    # Here, because loading the library takes seconds.
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=rows.size,
        n_positions=rows.most,
        n_embd=settings.width,
        n_layer=settings.blocks,
        n_head=settings.heads,
        # Dropout is the trainer's, with numbers of its own: the library's would take them from the process.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        loss_type="ForCausalLM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def _taught(others: Split, source: FitData, lessons: Callable[[], Lessons], own: Lessons) -> Taught:
    """What texts of a source teach; the target's own stand for what is not there."""
    many = sum(map(len, others)) if len(others[0]) else 0
    return Taught(*(lessons() if many else own), seed_of(source.seed, "train"), many, source.aside)


def _telling(tables: Split, schema: Schema) -> Split:
    """Rows with a text."""
    texts = [column.name for column in schema.columns if column.kind == "text"]

    def telling(table: pa.Table) -> pa.Table:
        there = [np.asarray(table[name].is_valid()) for name in texts]
        return table.filter(pa.array(np.any(there, axis=0) if there else np.zeros(len(table), dtype=bool)))

    return telling(tables[0]), telling(tables[1])


def _gates(texts: tuple[str, ...], learned: pa.Table, held: pa.Table, regions: int, confidence: float) -> list[TextGate]:
    region = learned[REGION].to_numpy().astype(np.int64)
    return [TextGate.learn(learned[name].to_pylist(), region, held[name].to_pylist(), regions, confidence) for name in texts]


@dataclass(frozen=True, eq=False)
class FittedTextLm:
    """A trained or tuned model.

    Args:
        settings: to draw with.
        rows: what they are told as.
        network: in the dtype it was fitted for.
        gates: of each text column.
        garbled: text columns whose training texts hold what bytes that are no text read as.
        before: what a source taught, or None.
    """

    settings: TextLm
    rows: Form
    network: nn.Module
    gates: tuple[TextGate, ...]
    garbled: frozenset[str]
    before: dict[str, Any] | None = None

    @property
    def notice(self) -> tuple[str, ...]:
        """What the report should say of the source and of the gates."""
        gates = [said for name, gate in zip(self.rows.texts, self.gates, strict=True) for said in gate.notice(name)]
        return (*told_of(self.before), *gates)

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region."""
        rng = rng_of("text_lm", seed, region)
        with torch.inference_mode(), one_thread():
            drawing: LineDrawing | ProseDrawing
            if isinstance(self.rows, RowSequences):
                drawing = LineDrawing(self.network, self.rows, self.settings.temperature)
            else:
                drawing = ProseDrawing(self.network, self.rows, self.settings.temperature)
            return drawing.table(region, self.settings.block, rng)

    def refused(self, table: pa.Table, region: int) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool drawn rows that are drawn again for it."""
        found: dict[str, np.ndarray] = {}
        told = np.zeros(len(table), dtype=bool)
        for name, gate in zip(self.rows.texts, self.gates, strict=True):
            texts: list[Any] = table[name].to_pylist()
            told |= np.array([text is not None for text in texts])
            copies, strange = gate.refused(texts, region)
            broken = np.array([name not in self.garbled and text is not None and BROKEN in text for text in texts])
            for reason, rows in ((COPIED, copies), (STRANGE, strange), (UNREADABLE, broken)):
                found[f"{name!r} {reason}"] = rows
        return evened(found, told)

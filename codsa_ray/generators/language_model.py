"""Language model: rows as sequences of a causal decoder, large and tuned or small and trained here; knows no cluster.

Sources: Borisov et al. 2023 (GReaT: definition 1, rows as text; definition 2, in any order), which Nakada et al. 2024 tune on their seed;
Nguyen et al. 2025 (ImbLLM, arXiv 2510.09783: fixed label, interpolated rows, prompts of a label and one feature; its entropy argument
is not used); Hu et al. 2022 (LoRA, eq. 3). A row is drawn from prod_t p(column_t | region, columns before t).
What differs from them, and why:
- Decoding is constrained: at each place only tokens that the schema allows have a probability (nn/grammar.py). The papers sample freely
  and throw away or patch rows that do not parse; here every row parses, categories exist, numbers are in bounds, drawing always ends.
- Without `base` no text is written: a row is one token per column, a category or a bin of about equal mass (nn/table_tokens.py), and the
  decoder is small enough to train from nothing (nn/small_decoder.py). Bins start out like their neighbours. Categories that the schema
  does not keep are one token, told to later columns; in the row stands a kept one, as likely as it was there. With a base they are no text.
- A region is a condition that every row is told (its constants in text; the sum of its factors and itself in tokens), not a filter on
  what was drawn. All rows are learned from, at natural frequency, so that a rare region borrows; ImbLLM learns from the minority alone
  (as this does when it is given nothing else).
- Names of columns are given, not drawn: their order is drawn as it was in training. label_first keeps the table's order.
- The weights kept are those of the best loss on held-out rows, weighted as balance would draw regions; the papers run fixed epochs.
- Temperature is 1, with which the model's own distribution is drawn; GReaT and ImbLLM take .7, which drops rare values.

Cost, small: steps x batch x C (10 blocks W^2 + C W blocks + W L) multiplications to fit whatever the number of rows, and the same per
row to draw (C columns, W width, L tokens a column); 4 C bytes a row. With a base: 5 to 15 readings a column for some 64 rows at once.
Not for: columns bound by exact equations (bins blur what is below their width; take sequential trees), thousands of columns (C^2),
and with a base, more than some thousand rows on CPUs. A base may have read the table before: what looks faithful may be memory.
"""

from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.hub import unfetched
from codsa_ray.nn.between_rows import between_rows
from codsa_ray.nn.causal_base import CausalBase
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.orders import IMBLLM, LABEL_FIRST, MODES, Orders, Run
from codsa_ray.nn.pretrained import CAUSAL, present
from codsa_ray.nn.row_loss import RowLoss, natural, needed
from codsa_ray.nn.rows_as_text import RowsAsText
from codsa_ray.nn.rows_as_tokens import RowsAsTokens
from codsa_ray.nn.shards import shard
from codsa_ray.nn.told import Told
from codsa_ray.nn.train import Score, Training, train
from codsa_ray.seeds import rng_of, seed_of

Form = RowsAsTokens | RowsAsText
SMALL, ADAPTERS, WEIGHTS = (1500, 256, 3e-3), (1000, 32, 5e-4), (1000, 32, 5e-5)
"""What `steps`, `batch` and `rate` are where they are not given: for the small decoder, a base's adapters, all its weights."""
EVERY, PATIENCE = 25, 8
"""Steps between held-out scores, and how many in a row may bring no new best: on 200 rows the best is among the first."""
SCORED = 1024
"""Held-out (row, order) pairs of one score, small; a large model reads an eighth of them."""
STARTS = 1000
"""Rows of each region, and interpolated ones, that starting values are taken from."""


@dataclass(frozen=True)
class LanguageModel:
    """Settings of the method.

    Args:
        mode: great (any order), label_first (the region, then columns in order) or imbllm (interpolated rows, prompts of one feature).
        base: folder or name of a causal language model that transformers reads, with safetensors weights; None: a small one of our own.
        lora: rank of the base's adapters; 0 tunes all its weights.
        steps, batch, rate: optimizer steps at most, rows of one step, peak learning rate; None: what the model's size usually needs.
        width, blocks, heads, bins: of the small decoder; bins per ordered column at most.
        drop: chance that the small decoder forgets a value while training.
        held_out: share of each region's rows kept for early stopping; 0 runs all steps.
        rows: rows kept in memory at most; beyond it large regions are thinned and weighted up again.
        checkpoint, minutes: steps between checkpoints, and after how long there is one all the same.
        parts: pieces in which a step works through its rows, so that it needs the memory of one.
        sharded: where several workers fit it, weights, average and moments are cut over them (FSDP2) and none holds the model whole but
            for a block at a time: for a base that one GPU could not train. Drawing needs it whole.
        temperature: of drawing; below 1 rows are more alike.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
    """

    mode: str = LABEL_FIRST
    base: str | None = None
    lora: int = 8
    steps: int | None = None
    batch: int | None = None
    rate: float | None = None
    width: int = 64
    blocks: int = 2
    heads: int = 4
    bins: int = 100
    drop: float = 0.1
    held_out: float = 0.1
    rows: int = 1_000_000
    checkpoint: int = 500
    minutes: float = 10.0
    parts: int = 1
    sharded: bool = False
    temperature: float = 1.0
    block: int = 2048
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise SettingError(f"a mode of {', '.join(MODES)}", repr(self.mode), "name one of them")
        if self.width % self.heads or self.temperature <= 0:
            raise SettingError("a width that heads divide and a temperature above 0", repr(self), "change the one that is not")
        if self.parts < 1 or not 0 <= self.minutes < float("inf"):
            raise SettingError("one part or more, and minutes of 0 or more", repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        return Needs(gpus=self.gpus, block=self.block, drawing=("temperature", "block"), distributed=True, sharded=self.sharded)

    @classmethod
    def tiny(cls) -> Self:
        """A small decoder, a few steps."""
        return cls(steps=150, width=32, heads=2, blocks=1, batch=64, rate=1e-2, bins=20, block=256)

    def ready(self) -> None:
        """Raises SettingError where the base is not there."""
        if self.base is not None:
            present(self.base, CAUSAL)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains or tunes; rank 0 writes rows.json, model.safetensors and, for imbllm, starts.parquet under worker.folder.

        Raises:
            SettingError: the base cannot be read, or cannot spell the table.
        """
        learned, held = data.split_by_region(self.held_out, self.rows)
        columns = tuple(c for c in data.schema.columns if c.name not in data.regions.constant_columns)
        base = CausalBase.read(self.base, self.lora, worker.device, seed_of(data.seed, "adapters")) if self.base else None
        known = pa.concat_tables([learned, held])
        form: Form
        if base is None:
            form = RowsAsTokens.of(columns, known, data.regions, self.bins)
        else:
            form = RowsAsText.of(columns, known, data.regions, base.tokenizer)
            base.check(form.text.longest, "leave columns out or take another base")
        rows = _told(learned, form)
        if self.mode == IMBLLM:
            wanted = np.minimum(np.ceil(data.regions.deficits), self.rows)
            rows = rows.joined(_told(between_rows(learned, columns, wanted, data.seed), form))
        dtype, orders = gpu_dtype(worker.device), Orders(self.mode, form.conditions, form.ordered)
        training, batch = self._training(len(form.ordered) > form.conditions, dtype)
        mass = natural(rows.region, rows.made, data.regions)
        loss = RowLoss(form.costs(rows.told), mass, torch.from_numpy(rows.made), orders, batch, self.drop, worker)
        score = self._score(loss, _told(held, form), form, data) if len(held) else None
        module = self._module(form, base, worker, dtype, data.seed)
        trained = train(module, loss, score, training, worker, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain, arrays = form.to_json()
            meta = {"settings": asdict(self), "form": plain, "dtype": str(dtype), "base": base.mark if base else ""}
            worker.folder.write_arrays("model.safetensors", arrays | {f"network/{name}": a for name, a in trained.weights.items()})
            worker.folder.write_json("rows.json", meta | {"step": trained.step, "history": trained.history})
            if self.mode == IMBLLM:
                worker.folder.write_table("starts.parquet", rows.few(STARTS, data.seed).table())

    def load(self, folder: Folder) -> "FittedLanguageModel":
        """The fitted model, drawn from with this object's temperature and block.

        Raises:
            SettingError: the base is not the one that was tuned.
        """
        meta, arrays = folder.read_json("rows.json"), folder.read_arrays("model.safetensors")
        weights = {name[8:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("network/")}
        fitted, device = LanguageModel(**meta["settings"]), "cuda" if self.gpus else "cpu"
        form: Form
        if fitted.base is None:
            form = RowsAsTokens.from_json(meta["form"], arrays)
            network: nn.Module = fitted._decoder(form, seed=0)
            network.load_state_dict(weights)
        else:
            base = CausalBase.read(self.base or unfetched(fitted.base), fitted.lora, device, seed=0)
            form, network = RowsAsText.from_json(meta["form"], base.tokenizer), base.settled(weights, meta["base"])
        network.to(device, getattr(torch, meta["dtype"].removeprefix("torch."))).requires_grad_(False)
        starts = Told.read(folder.read_table("starts.parquet")) if fitted.mode == IMBLLM else None
        return FittedLanguageModel(self, form, network, Orders(fitted.mode, form.conditions, form.ordered), starts)

    def _decoder(self, form: RowsAsTokens, seed: int) -> nn.Module:
        # Initial weights depend on the seed alone and leave the caller's random state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return form.network(self.width, self.blocks, self.heads)

    def _module(self, form: Form, base: CausalBase | None, worker: Worker, dtype: torch.dtype, seed: int) -> nn.Module:
        """What is trained, cut over the workers where that is asked for and there are several."""
        cut = self.sharded and worker.world > 1
        if isinstance(form, RowsAsText):
            assert base is not None
            return base.trainable(cut, worker.device, dtype)
        decoder = self._decoder(form, seed_of(seed, "network"))
        if cut:
            shard(decoder, worker.device, dtype)
        return decoder

    def _training(self, moves: bool, dtype: torch.dtype) -> tuple[Training, int]:
        """How long to train, not at all where no column moves, and on how many rows at a time."""
        steps, batch, rate = SMALL if self.base is None else ADAPTERS if self.lora else WEIGHTS
        steps, batch, rate = self.steps or steps, self.batch or batch, self.rate or rate
        training = Training(steps if moves else 0, rate, every=EVERY, patience=PATIENCE, parts=self.parts, dtype=dtype)
        return replace(training, checkpoint=self.checkpoint, minutes=self.minutes), -(-batch // self.parts)

    def _score(self, loss: RowLoss, held: Told, form: Form, data: FitData) -> Score:
        mass, made = needed(held.region, data.regions), torch.zeros(len(held.region), dtype=torch.bool)
        mine = replace(loss, costs=form.costs(held.told), mass=mass, made=made)
        count, seed = SCORED // (1 if self.base is None else 8), seed_of(data.seed, "held out")
        return lambda module: mine.score(module, count, seed)


@dataclass(frozen=True, eq=False)
class FittedLanguageModel:
    """A trained or tuned model.

    Args:
        settings: temperature and block to draw with.
        form: of rows.
        network: in the dtype it was fitted for.
        orders: of columns.
        starts: rows that first values come from, or None.
    """

    settings: LanguageModel
    form: Form
    network: nn.Module
    orders: Orders
    starts: Told | None = None

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region."""
        rng, rows = rng_of("language_model", seed, region), self.settings.block
        with torch.inference_mode(), one_thread():
            runs = self.orders.drawn(rows, rng)
            found = [
                self.form.draw(self.network, region, run, self._given(region, run, rng), rng, self.settings.temperature) for run in runs
            ]
        told = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        return self.form.table(told, rows, rng)

    def _given(self, region: int, run: Run, rng: np.random.Generator) -> dict[int, np.ndarray]:
        """First values: of the region's rows, and of interpolated ones where the column is ordered (ImbLLM)."""
        if self.starts is None or run.start is None:
            return {}
        values = self.starts.told[run.start]
        here = (self.starts.region == region) & self.form.known(run.start, values)
        pool = np.flatnonzero(here & (self.orders.ordered[run.start] | ~self.starts.made))
        return {run.start: values[rng.choice(pool, run.rows)]} if len(pool) else {}


def _told(table: pa.Table, form: Form) -> Told:
    region = table[REGION].to_numpy()
    return Told.of(form.told(table, region), region)

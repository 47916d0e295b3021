"""Text language model: rows that hold texts, drawn by a causal transformer trained on them; knows no cluster.

Sources: Radford et al. 2019 (GPT-2: the decoder, words from bytes); Keskar et al. 2019 (CTRL: a condition is a token before the text);
what a row's table columns say stands before its texts as it does in Borisov et al. 2023 (GReaT), one token each.
A row is drawn from prod_t p(token_t | region, tokens before): texts know the columns of their row, later texts the earlier ones.
What differs and why:
- Each place allows its own tokens alone (nn/row_sequences.py): categories exist, numbers are in bounds, drawing always ends.
- A region is the sum of what it shares with others (a token per factor) and a token of its own, so that a rare one borrows words.
- The weights kept are those of the best loss on held-out rows, weighted as balance would draw regions.
- Drawn texts pass a gate (nn/text_gate.py): copies of training texts and texts that another region would rather have said are drawn
  again, and counted; the cuts are such that `confidence` of real texts that the measure has not seen pass.

Cost per step: batch x tokens x (12 blocks W^2 + W vocabulary) multiplications to fit; per drawn token the same for one row; 4 bytes a
token of training texts. Not for: more than some ten thousand texts on CPUs, where a base tuned on a GPU says more (language_model with a
base handles rows of short values; texts from a base: not yet); texts whose meaning matters more than their words.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional

from codsa_ray.contracts import TABLE_KINDS, Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.nn.device import gpu_dtype, one_thread
from codsa_ray.nn.line_drawing import LineDrawing
from codsa_ray.nn.row_loss import natural, needed
from codsa_ray.nn.row_sequences import Lines, RowSequences
from codsa_ray.nn.schedules import stratified
from codsa_ray.nn.text_gate import TextGate
from codsa_ray.nn.text_words import BROKEN
from codsa_ray.nn.train import Training, train
from codsa_ray.seeds import rng_of, seed_of

EVERY, PATIENCE = 50, 4
SCORED = 512
"""Held-out rows of one score."""
COPIED, STRANGE, UNREADABLE = "copies a training text", "reads like another region", "bytes that are no text"


@dataclass(frozen=True)
class TextLm:
    """Settings of the method.

    Args:
        steps, batch, rate: optimizer steps at most, rows of one step, peak learning rate.
        width, blocks, heads: of the decoder.
        vocabulary: words at most, 256 bytes among them.
        longest: words of one text at most; longer ones are learned from as far as that.
        bins: per ordered table column at most.
        drop: chance that a token is forgotten by those after it while training.
        held_out: share of each region's rows kept for early stopping and for the gate; 0 runs all steps.
        confidence: share of real texts that pass each gate; 1 refuses nothing but copies.
        rows: rows kept in memory at most; beyond it large regions are thinned.
        temperature: of drawing words; below 1 texts are more alike.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
    """

    steps: int = 1500
    batch: int = 32
    rate: float = 2e-3
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
    temperature: float = 1.0
    block: int = 256
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.temperature <= 0 or not 0.5 <= self.confidence <= 1 or self.longest < 1:
            wanted = "a width that heads divide, temperature above 0, confidence of .5 to 1, longest of 1 or more"
            raise SettingError(wanted, repr(self), "change the one that is not")

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        return Needs(gpus=self.gpus, block=self.block, kinds=TABLE_KINDS | {"text"}, distributed=True)

    @classmethod
    def tiny(cls) -> Self:
        """A small decoder, a few steps."""
        return cls(steps=60, width=32, heads=2, blocks=1, batch=32, rate=1e-2, vocabulary=300, longest=12, bins=10, block=64)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains; rank 0 writes rows.json and model.safetensors under worker.folder."""
        columns = tuple(c for c in data.schema.columns if c.name not in data.regions.constant_columns)
        learned, held = (part.sort_by(REGION) for part in data.split(self.held_out, cap=self.rows))
        rows = RowSequences.of(columns, learned, data.regions, self.bins, self.vocabulary, self.longest)
        dtype = gpu_dtype(worker.device)
        mass = natural(learned[REGION].to_numpy(), np.zeros(len(learned), dtype=bool), data.regions)
        loss = LineLoss(rows.told(learned), mass, self.batch, worker, self.drop)
        score = None
        if len(held):
            mine = LineLoss(rows.told(held), needed(held[REGION].to_numpy(), data.regions), self.batch, worker)
            seed = seed_of(data.seed, "held out")
            score = lambda module: mine.score(module, SCORED, seed)  # noqa: E731
        moves = bool((~loss.lines.open).any())
        training = Training(self.steps if moves else 0, self.rate, every=EVERY, patience=PATIENCE, dtype=dtype)
        module = Decoder(_network(self, rows, seed_of(data.seed, "network")))
        trained = train(module, loss, score, training, worker, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain, arrays = rows.to_json()
            gates = _gates(rows.texts, learned, held, len(data.regions), self.confidence)
            arrays |= {f"gate{place}/{name}": array for place, gate in enumerate(gates) for name, array in gate.to_arrays().items()}
            arrays |= {f"network/{name.removeprefix('network.')}": array for name, array in trained.weights.items()}
            worker.folder.write_arrays("model.safetensors", arrays)
            meta = {"settings": asdict(self), "rows": plain, "dtype": str(dtype), "step": trained.step, "history": trained.history}
            worker.folder.write_json("rows.json", meta)

    def load(self, folder: Folder) -> "FittedTextLm":
        """The fitted model, drawn from with this object's temperature and block."""
        meta, arrays = folder.read_json("rows.json"), folder.read_arrays("model.safetensors")
        rows = RowSequences.from_json(meta["rows"], arrays)
        network = _network(TextLm(**meta["settings"]), rows, seed=0)
        network.load_state_dict({name[8:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("network/")})
        network.to("cuda" if self.gpus else "cpu", getattr(torch, meta["dtype"].removeprefix("torch."))).requires_grad_(False).eval()
        gates = []
        for place in range(len(rows.texts)):
            mark = f"gate{place}/"
            gates.append(TextGate.from_arrays({name.removeprefix(mark): a for name, a in arrays.items() if name.startswith(mark)}))
        return FittedTextLm(self, rows, network, tuple(gates))


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


def _gates(texts: tuple[str, ...], learned: pa.Table, held: pa.Table, regions: int, confidence: float) -> list[TextGate]:
    region = learned[REGION].to_numpy().astype(np.int64)
    return [TextGate.learn(learned[name].to_pylist(), region, held[name].to_pylist(), regions, confidence) for name in texts]


class Decoder(nn.Module):
    """The network with words forgotten at random while it learns: (n, T) tokens to (n, T, vocabulary) log-odds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """`keep` (n, T) is 0 where a token is not told to later ones."""
        told = self.network.get_input_embeddings()(tokens)
        if keep is not None:
            told = told * keep[..., None].to(told.dtype)
        return self.network(inputs_embeds=told, use_cache=False).logits


@dataclass(frozen=True, eq=False)
class LineLoss:
    """The training loss of one worker's share of a batch.

    Args:
        lines: told rows, sorted by region.
        mass: (n,) float64 cumulative share of each row in a batch.
        batch: rows of a step, all workers together.
        worker: whose share it is.
        drop: chance that a token is forgotten by those after it.
    """

    lines: Lines
    mass: Tensor
    batch: int
    worker: Worker
    drop: float = 0.0

    def __call__(self, module: nn.Module, generator: torch.Generator) -> Tensor:
        """Mean over the learned tokens of the rows rank, rank + world, ... of the global batch, which every worker draws alike."""
        rank, world = self.worker.rank, self.worker.world
        rows = self._drawn(-(-self.batch // world) * world, generator)
        tokens, learned = self.lines.rows(rows)
        keep = torch.rand(tokens.shape, generator=generator) >= self.drop
        own = slice(rank, None, world)
        costs = self._costs(module, tokens[own], learned[own], keep[own])
        # A mean over all workers' tokens and not over each one's own, whose texts may be shorter.
        return costs.sum() * world / max(int(learned.sum()), 1)

    @torch.no_grad()
    def score(self, module: nn.Module, count: int, seed: int) -> float:
        """Mean cost of a learned token over `count` rows, the same at every check."""
        rows = self._drawn(count, torch.Generator().manual_seed(seed))
        total, learned = 0.0, 0
        for first in range(0, count, self.batch):
            tokens, mine = self.lines.rows(rows[first : first + self.batch])
            total += float(self._costs(module, tokens, mine, None).sum())
            learned += int(mine.sum())
        return total / max(learned, 1)

    def _drawn(self, count: int, generator: torch.Generator) -> np.ndarray:
        return np.asarray(torch.searchsorted(self.mass, stratified(count, generator)).clamp(max=len(self.mass) - 1).numpy())

    def _costs(self, module: nn.Module, tokens: np.ndarray, learned: np.ndarray, keep: Tensor | None) -> Tensor:
        device = next(module.parameters()).device
        told, counted = (torch.from_numpy(part.astype(np.int64)).to(device) for part in (tokens, learned))
        odds = module(told[:, :-1], None if keep is None else keep[:, :-1].to(device))
        costs = functional.cross_entropy(odds.float().flatten(0, 1), told[:, 1:].flatten(), reduction="none")
        return costs * counted[:, 1:].flatten()


@dataclass(frozen=True, eq=False)
class FittedTextLm:
    """A trained model: settings to draw with, what rows are, the network, and a gate for each text column."""

    settings: TextLm
    rows: RowSequences
    network: nn.Module
    gates: tuple[TextGate, ...]

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region."""
        rng = rng_of("text_lm", seed, region)
        with torch.inference_mode(), one_thread():
            drawing = LineDrawing(self.network, self.rows, self.settings.temperature)
            columns, texts = drawing.drawn(region, self.settings.block, rng)
        return self.rows.table(columns, texts, rng)

    def refused(self, table: pa.Table, region: int) -> dict[str, np.ndarray]:
        """Reason -> (n,) bool drawn rows that are drawn again for it."""
        found: dict[str, np.ndarray] = {}
        for name, gate in zip(self.rows.texts, self.gates, strict=True):
            texts: list[Any] = table[name].to_pylist()
            copies, strange = gate.refused(texts, region)
            broken = np.array([text is not None and BROKEN in text for text in texts])
            for reason, rows in ((COPIED, copies), (STRANGE, strange), (UNREADABLE, broken)):
                found[f"{name!r} {reason}"] = rows
        return found

"""Tabular diffusion: one EDM denoiser of all rows, conditioned on the region so that rare regions borrow; knows no cluster.

Source: Karras et al. 2022 (EDM, section 5 and table 1: preconditioning, noise levels), Lu et al. 2022b (DPM-Solver++, algorithm 2), Ho &
Salimans 2022 (algorithms 1 and 2: a condition dropped while training, guidance).
What differs from them, and why:
- Columns become quantile normals and one-hot codes with a cross-entropy head (nn/table_codec.py, nn/precondition.py): standardised
  columns with heavy tails are what tabular diffusion usually fails on.
- The condition is a SUM of embeddings, one per factor of the region and one for the region itself, and the latter is dropped more
  often: the factors must carry it, and a region of few rows leans on them.
- Rows are trained on at their natural frequency: weighting rare regions up makes the network memorise them.
- The weights kept are those of the best loss on held-out rows, weighted as balance would draw regions: the rare ones over-train first.

With a source (FitData.source; CoDSA, Tian & Shen 2025, section 4) it first trains on those rows, then on the target's: shared layers slower
(Howard & Ruder 2018) or by adapters (Hu et al. 2022), the layers of columns and regions in full. CoDSA pretrains an autoencoder; here there
is none, and the denoiser itself is carried over. The target's codec reads the source: cells it could not hold cost nothing. The weights
at the start of tuning are kept where held-out rows find nothing better.

Limits, measured on crossed normals whose rare cell has 20 rows, 6 seeds: with factors the drawn mean is nearer to the truth than without
(RMSE .35 against .52 sd), but no nearer than the 20 rows' own mean (.29), and the drawn spread is 30 to 40 % too wide.

Fewer evaluations by a student or a learned solver were tried and left out: docs/benchmarks/few-steps.md has what they lose and gain.

Cost: steps x batch x (2 D W + 2 blocks W^2) multiplications to fit whatever the number of rows (D latent dimensions: one per number, one
per level); the same per row and evaluation to draw. Memory: 4 D bytes per row. Not for: mostly categorical tables (sequential trees are
as faithful and much faster), regions of a handful of rows that share no factor with others, or columns with thousands of levels.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from codsa_ray.contracts import Needs, Worker
from codsa_ray.errors import SettingError
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.nn.adapters import STRETCH, merged
from codsa_ray.nn.denoising import DenoisingLoss, LatentRows
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.networks import ResidualMLP
from codsa_ray.nn.precondition import Denoiser, Scales, denoised, guided, log_priors
from codsa_ray.nn.pretraining import Taught, begun
from codsa_ray.nn.schedules import karras
from codsa_ray.nn.solvers import dpm_2m, start
from codsa_ray.nn.table_codec import TableCodec
from codsa_ray.nn.train import Training, train
from codsa_ray.seeds import seed_of

SIGMA_LOW, SIGMA_HIGH = 0.05, 10.0
"""Noise levels drawn through. EDM's 80 and .002 are for pictures. Best of five ranges tried at 10 evaluations on two adult seeds (table
C2ST .614; .635 at 30 and .02, which reaches .607 at 25 evaluations); not confirmed on other data."""
SHARED, OWN = ("conditions.noise", "blocks", "norm"), ("conditions.table", "enter", "leave")
"""Starts of parameter names: layers that a source and its target have in common, and those that columns and regions have to themselves."""


@dataclass(frozen=True)
class TabularDiffusion:
    """Settings of the method.

    Args:
        steps: optimizer steps at most; held-out rows may stop the fit before. Twice as many bring more where rows are many
            (docs/benchmarks/training.md) and take twice as long.
        width, blocks: of the residual MLP.
        batch: rows of one step, all workers together.
        rate: peak learning rate. Twice of it brings a little (docs/benchmarks/training.md), but it is that of tuning after a source too.
        held_out: share of each region's rows kept for early stopping; 0 runs all steps.
        rows: rows kept in memory at most; beyond it large regions are thinned and weighted up again.
        checkpoint: steps between checkpoints.
        evaluations: network evaluations per drawn row.
        guidance: classifier-free guidance; above 1 it costs twice and was measured to hurt.
        block: rows drawn at a time.
        gpus: GPUs of one worker; with 0 it fits and draws on CPUs.
        pretrain: optimizer steps at most on a source data set, where there is one; 0 leaves it out.
        lora: rank of the adapters by which shared layers are tuned after that; 0 tunes all their weights.
        shared: share of the rate at which all weights of shared layers are tuned.
        continuous: least share of columns that must stand on quantiles; with fewer the fit is refused.
    """

    steps: int = 2400
    width: int = 192
    blocks: int = 2
    batch: int = 512
    rate: float = 4e-3
    held_out: float = 0.1
    rows: int = 1_000_000
    checkpoint: int = 500
    evaluations: int = 10
    guidance: float = 1.0
    block: int = 2048
    gpus: float = 0.0
    pretrain: int = 1200
    lora: int = 0
    shared: float = 0.1
    continuous: float = 0.0

    @property
    def needs(self) -> Needs:
        """One core or the stated GPUs; the fit may be distributed."""
        drawing = ("evaluations", "guidance", "block")
        return Needs(gpus=self.gpus, block=self.block, drawing=drawing, distributed=True, source=self.pretrain > 0)

    @classmethod
    def tiny(cls) -> Self:
        """A small network, a few steps."""
        return cls(steps=150, width=32, batch=128, rate=1e-2, evaluations=6, block=256, pretrain=150)

    def fit(self, data: FitData, worker: Worker) -> None:
        """Trains the denoiser; rank 0 writes denoiser.safetensors and denoiser.json under worker.folder.

        Raises:
            SettingError: the columns are not what `continuous` asks for, or no row of the source lies in a region.
        """
        learned, held = data.split_by_region(self.held_out, self.rows)
        fixed = data.regions.constant_columns
        columns = tuple(column for column in data.schema.columns if column.name not in fixed)
        codec = TableCodec.of(columns, pa.concat_tables([learned, held]))
        self._check(codec)
        factors, levels = data.regions.conditions
        network = self._network(codec.layout.width, levels, seed_of(data.seed, "network"))
        rows = LatentRows.natural(*_latents(learned, codec), data.regions)
        network.leave.bias.data += log_priors(rows.latents, codec.layout)
        loss = DenoisingLoss(codec.layout, rows, torch.from_numpy(factors), _fast_dtype(worker.device), self.batch, worker)
        score = loss.score(LatentRows.needed(*_latents(held, codec), data.regions), seed_of(data.seed, "held out")) if len(held) else None
        training, taught = Training(self.steps if codec.layout.width else 0, self.rate, checkpoint=self.checkpoint), None
        if data.source is not None and self.pretrain and training.steps:
            taught = partial(self._taught, data.source, codec, loss)
        module, training, worker, before = begun(partial(deepcopy, network), taught, training, worker, self.pretrain, 1.0)
        if taught is not None:
            training = replace(training, slower=self._slower)
            if self.lora:
                adapted(module, self.lora, seed_of(data.seed, "adapters"))
        trained = train(module, loss, score, training, worker, seed_of(data.seed, "train"))
        if worker.rank == 0:
            plain, arrays = codec.to_json()
            weights = {f"network/{name}": array for name, array in merged(trained.weights).items()}
            worker.folder.write_arrays("denoiser.safetensors", arrays | weights)
            meta = {"settings": asdict(self), "columns": plain, "factors": factors.tolist(), "levels": levels, "before": before}
            worker.folder.write_json("denoiser.json", meta | {"dtype": str(loss.dtype), "step": trained.step, "history": trained.history})

    @property
    def _slower(self) -> tuple[tuple[str, float], ...]:
        return tuple((name, self.shared) for name in SHARED) if not self.lora else ()

    def _check(self, codec: TableCodec) -> None:
        many, of = sum(column.quantiles is not None for column in codec.columns), len(codec.columns)
        if many < self.continuous * of:
            wanted = f"at least {self.continuous:.0%} continuous columns"
            raise SettingError(wanted, f"{many} of {of}", "name tabular_diffusion itself to have it all the same")

    def _taught(self, source: FitData, codec: TableCodec, loss: DenoisingLoss) -> Taught:
        """What its rows teach, by columns that the target's codec finds values in."""
        learned, held = source.split_by_region(self.held_out, self.rows)
        if not len(learned):
            raise SettingError("rows of the source that lie in a group", "none", "name its columns and classes as in DATA, or pretrain=0")
        known = codec.known(learned)
        mine = replace(loss, rows=LatentRows.natural(*_latents(learned, codec), source.regions, known))
        scored = LatentRows.natural(*_latents(held, codec), source.regions, codec.known(held)) if len(held) else None
        score = loss.score(scored, seed_of(source.seed, "held out")) if scored is not None else None
        new = [column.name for column in codec.columns if learned[column.name].null_count == len(learned)]
        facts, rows = {"known": float(known.mean()), "new": new}, len(learned) + len(held)
        return Taught(mine, score, seed_of(source.seed, "train"), rows, source.aside, facts, partial(_unentered, known))

    def load(self, folder: Folder) -> "FittedTabularDiffusion":
        """The fitted denoiser, drawn from with this object's evaluations, guidance and block."""
        meta, arrays = folder.read_json("denoiser.json"), folder.read_arrays("denoiser.safetensors")
        codec = TableCodec.from_json(meta["columns"], arrays)
        network = TabularDiffusion(**meta["settings"])._network(codec.layout.width, meta["levels"], seed=0)
        network.load_state_dict({name[8:]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith("network/")})
        dtype = getattr(torch, meta["dtype"].removeprefix("torch."))
        network.to("cuda" if self.gpus else "cpu", dtype).requires_grad_(False)
        return FittedTabularDiffusion(self, codec, network, torch.tensor(meta["factors"]), meta.get("before"))

    def _network(self, size: int, levels: list[int], seed: int) -> ResidualMLP:
        # Initial weights depend on the seed alone and leave the caller's random state as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ResidualMLP(size, self.width, self.blocks, tuple(levels))


@dataclass(frozen=True, eq=False)
class FittedTabularDiffusion:
    """A trained denoiser.

    Args:
        settings: evaluations, guidance and block to draw with.
        codec: of the drawn columns.
        network: in the dtype it was fitted for.
        factors: (K, F) int64 levels of each region's factors, the region itself last.
        before: what pretraining on a source did, or None.
    """

    settings: TabularDiffusion
    codec: TableCodec
    network: ResidualMLP
    factors: Tensor
    before: dict[str, Any] | None = None

    @property
    def notice(self) -> tuple[str, ...]:
        """What the report should say of the source."""
        if self.before is None:
            return ()
        told = f"pretrained on {self.before['rows']:,} rows of the source; {self.before['known']:.0%} of their latents are known to DATA"
        told += f", {self.before['aside']:,} rows lie in no group" if self.before["aside"] else ""
        return (told + (f", nothing of {', '.join(self.before['new'])}" if self.before["new"] else ""),)

    def block(self, region: int, seed: int) -> pa.Table:
        """`settings.block` canonical rows of the region; the only randomness is the starting noise, seeded by (seed, region)."""
        with torch.inference_mode(), one_thread():
            generator = torch.Generator().manual_seed(seed_of("tabular_diffusion", seed, region))
            noise = torch.randn(self.settings.block, self.codec.layout.width, generator=generator)
            denoise = guided(self._denoiser(region, 1.0), self._denoiser(region, 0.0), self.settings.guidance)
            sigmas = karras(self.settings.evaluations, SIGMA_LOW, SIGMA_HIGH)
            rows = dpm_2m(denoise, start(denoise, noise.to(next(self.network.parameters()).device), SIGMA_HIGH), sigmas)
            return self.codec.decode(rows.cpu().numpy())

    def _denoiser(self, region: int, keep: float) -> Denoiser:
        layout, factors = self.codec.layout, self.factors[region : region + 1].to(next(self.network.parameters()).device)
        kept = torch.full(factors.shape, keep, device=factors.device)

        def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
            scales = Scales.at(sigma)
            return denoised(self.network(scales.enter * noisy, scales.level, factors, kept), noisy, sigma, layout)

        return denoise


def adapted(network: nn.Module, rank: int, seed: int) -> None:
    """Puts adapters of that rank beside the shared linear layers, which then stay as they are: at nothing at first, seeded."""
    # Here, because loading the library takes seconds.
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, part in network.named_modules() if isinstance(part, nn.Linear) and not name.startswith(OWN)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=STRETCH * rank, target_modules=linear), network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name or name.startswith(OWN))


def _latents(table: pa.Table, codec: TableCodec) -> tuple[np.ndarray, np.ndarray]:
    return codec.encode(table), table[REGION].to_numpy().astype(np.int64)


def _unentered(known: np.ndarray, network: nn.Module) -> None:
    """A column that the source does not have starts at nothing: tuning begins with the network as the source left it."""
    network.get_parameter("enter.weight").data[:, torch.from_numpy(~known.any(axis=0))] = 0.0


def _fast_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively; it is written down, so that later draws use the same."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return torch.bfloat16 if able.get("amx_bf16") or able.get("avx512_bf16") else torch.float32

"""Fewer evaluations of a fitted tabular_diffusion, learned from its own draws: a solver of its own or a student; knows no page.

Two ways, both from the teacher's deterministic draw, which makes noise and row a pair:
- `solver`: the network stays; noise levels and extrapolations of a multistep solver are learned, 2 K - 2 numbers for K evaluations, by the
  gradient of the end points' distance (Tong et al. 2024, LD3; Shaul et al. 2023, bespoke solvers).
- `student`: the network is trained on from the teacher's weights, each evaluation to jump as far as several of the teacher's. It is what
  progressive distillation (Salimans & Ho 2022) comes to, in one stage, because drawing is cheap here; with one evaluation it is Luhman &
  Luhman 2021: noise to end point.
"""

from copy import deepcopy
from dataclasses import dataclass, replace

import pyarrow as pa
import torch
from torch import Tensor, nn

from codsa_ray.generators.tabular_diffusion import SIGMA_HIGH, SIGMA_LOW, FittedTabularDiffusion
from codsa_ray.nn.device import one_thread
from codsa_ray.nn.precondition import Denoiser, Scales
from codsa_ray.nn.schedules import cosine, karras
from codsa_ray.nn.solvers import dpm_2m, start
from codsa_ray.seeds import seed_of

TEACHER = 12
"""Evaluations of the teacher; its levels hold those of students of 1, 2, 3, 4 and 6."""
SOLVER_STEPS, SOLVER_ROWS, SOLVER_RATE = 120, 256, 0.05
STUDENT_STEPS, STUDENT_ROWS, STUDENT_RATE = 800, 512, 2e-3
BLOCKS = 24
"""Blocks of teacher's draws that a student learns from, regions in turn."""


def solve(denoise: Denoiser, rows: Tensor, levels: Tensor, lean: Tensor) -> Tensor:
    """Rows at level 0 from `rows` at levels[0]; evaluation k's answer is moved on by lean[k] times its difference from the one before."""
    before = None
    for k, now in enumerate(levels):
        clean = denoise(rows, now[None])
        middle = clean if before is None else clean + lean[k] * (clean - before)
        rows = middle if k + 1 == len(levels) else torch.lerp(middle, rows, levels[k + 1] / now)
        before = clean
    return rows


@dataclass(frozen=True, eq=False)
class Fewer:
    """A fitted generator's draw in len(levels) evaluations.

    Args:
        fitted: the teacher, which says where noise starts, too.
        network: evaluated; the teacher's own or a student.
        levels, lean: (K,) of `solve`.
    """

    fitted: FittedTabularDiffusion
    network: nn.Module
    levels: Tensor
    lean: Tensor

    def block(self, region: int, seed: int) -> pa.Table:
        """Canonical rows of the region from the teacher's own noise."""
        with torch.inference_mode(), one_thread():
            generator = torch.Generator().manual_seed(seed_of("tabular_diffusion", seed, region))
            noise = torch.randn(self.fitted.settings.block, self.fitted.codec.layout.width, generator=generator)
            rows = start(_denoiser(self.fitted, region), noise, SIGMA_HIGH)
            return self.fitted.codec.decode(solve(_denoiser(self.fitted, region, self.network), rows, self.levels, self.lean).numpy())


def solver(fitted: FittedTabularDiffusion, evaluations: int, seed: int) -> Fewer:
    """The teacher's network under levels and extrapolations that were learned; they begin as DPM-Solver++(2M)'s."""
    first = karras(evaluations, 2 * SIGMA_LOW, SIGMA_HIGH)[:-1].log()
    widths = (first[:-1] - first[1:]).float()
    gaps = nn.Parameter(widths.log())
    lean = nn.Parameter(torch.cat([torch.zeros(1), widths[1:] / (2 * widths[:-1]), torch.zeros(1)]))
    optimizer = torch.optim.AdamW([gaps, lean], lr=SOLVER_RATE, weight_decay=0.0)
    generator, regions = torch.Generator().manual_seed(seed), len(fitted.factors)
    for step in range(SOLVER_STEPS):
        optimizer.param_groups[0]["lr"] = SOLVER_RATE * cosine(step, SOLVER_STEPS, 20)
        path = _path(fitted, step % regions, SOLVER_ROWS, generator)
        drawn = solve(_denoiser(fitted, step % regions), path[0], _levels(gaps), lean)
        optimizer.zero_grad()
        (drawn - path[-1]).square().sum(1).mean().backward()
        optimizer.step()
    return Fewer(fitted, fitted.network, _levels(gaps).detach(), lean.detach())


def student(fitted: FittedTabularDiffusion, evaluations: int, seed: int) -> Fewer:
    """A network trained on to jump from each of its levels to where the teacher comes at the next."""
    generator, regions, jump = torch.Generator().manual_seed(seed), len(fitted.factors), TEACHER // evaluations
    paths = [torch.stack(_path(fitted, i % regions, fitted.settings.block, generator)[::jump]) for i in range(BLOCKS)]
    levels = karras(TEACHER, SIGMA_LOW, SIGMA_HIGH)[::jump].float()
    network = deepcopy(fitted.network).float().requires_grad_(True)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    optimizer = torch.optim.AdamW(network.parameters(), lr=STUDENT_RATE, fused=True)
    dtype = next(fitted.network.parameters()).dtype
    for step in range(STUDENT_STEPS):
        optimizer.param_groups[0]["lr"] = STUDENT_RATE * cosine(step, STUDENT_STEPS, 50)
        chosen = torch.randint(fitted.settings.block, (STUDENT_ROWS // evaluations,), generator=generator)
        path, denoise = paths[step % BLOCKS][:, chosen], _denoiser(fitted, step % BLOCKS % regions, network)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses = [_jump_loss(fitted, denoise, path[k], path[k + 1], levels[k : k + 2]) for k in range(evaluations)]
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        optimizer.step()
        average.update_parameters(network)
    return Fewer(fitted, average.module.to(dtype).requires_grad_(False), levels[:-1], torch.zeros(evaluations))


def _jump_loss(fitted: FittedTabularDiffusion, denoise: Denoiser, now: Tensor, then: Tensor, levels: Tensor) -> Tensor:
    """Squared error of the clean rows that lead from `now` to `then`, weighted as EDM weighs it for numbers, plain for codes."""
    share, reals = levels[1] / levels[0], fitted.codec.layout.reals
    error = (denoise(now, levels[:1]) - (then - share * now) / (1 - share)).square()
    return (error[:, :reals] / Scales.at(levels[:1]).out ** 2).sum(1).mean() + error[:, reals:].sum(1).mean() / 2


def _path(fitted: FittedTabularDiffusion, region: int, rows: int, generator: torch.Generator) -> list[Tensor]:
    """The teacher's rows at each of its levels, the drawn ones last."""
    seen: list[Tensor] = []
    denoise = _denoiser(fitted, region)

    def noting(noisy: Tensor, sigma: Tensor) -> Tensor:
        seen.append(noisy)
        return denoise(noisy, sigma)

    with torch.no_grad():
        noise = torch.randn(rows, fitted.codec.layout.width, generator=generator)
        last = dpm_2m(noting, start(denoise, noise, SIGMA_HIGH), karras(TEACHER, SIGMA_LOW, SIGMA_HIGH))
    return [*seen, last]


def _levels(gaps: Tensor) -> Tensor:
    return SIGMA_HIGH * torch.exp(-torch.cat([torch.zeros(1), gaps.exp().cumsum(0)]))


def _denoiser(fitted: FittedTabularDiffusion, region: int, network: nn.Module | None = None) -> Denoiser:
    return (fitted if network is None else replace(fitted, network=network))._denoiser(region, 1.0)

"""Fewer evaluations: what is learned stays near the draw it is learned from, and the page says so only where every table does."""

from functools import cache
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import distilled, few_steps
from benchmarks.distilled import Fewer, solve, solver, student
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.tabular_diffusion import SIGMA_HIGH, SIGMA_LOW, FittedTabularDiffusion, TabularDiffusion
from codsa_ray.nn.schedules import karras
from codsa_ray.nn.solvers import dpm_2m, start

from tables import LocalWorker, mixed_table


@cache
def teacher() -> FittedTabularDiffusion:
    worker = LocalWorker(Folder(mkdtemp(prefix="few-")))
    TabularDiffusion.tiny().fit(FitData.of(*mixed_table(300), seed=1), worker)
    return TabularDiffusion.tiny().load(worker.folder)


def ends(fewer: Fewer | None, evaluations: int = distilled.TEACHER) -> Tensor:
    """Latents of the first region from the same noise; without `fewer` the teacher's at so many evaluations."""
    denoise = distilled._denoiser(teacher(), 0)
    noise = torch.randn(512, teacher().codec.layout.width, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        rows = start(denoise, noise, SIGMA_HIGH)
        if fewer is None:
            return dpm_2m(denoise, rows, karras(evaluations, SIGMA_LOW, SIGMA_HIGH))
        return solve(distilled._denoiser(teacher(), 0, fewer.network), rows, fewer.levels, fewer.lean)


def apart(drawn: Tensor) -> float:
    return float((drawn - ends(None)).square().sum(1).mean())


def test_at_the_levels_and_extrapolations_of_dpm_solver_it_is_dpm_solver() -> None:
    levels = karras(6, 0.05, 10.0)
    widths = (levels[:-2] / levels[1:-1]).log()
    lean = torch.cat([torch.zeros(1), widths[1:] / (2 * widths[:-1]), torch.zeros(1)])
    rows = 10 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    def denoise(noisy: Tensor, sigma: Tensor) -> Tensor:
        return noisy / (1 + sigma[:, None] ** 2)

    torch.testing.assert_close(solve(denoise, rows, levels[:-1].float(), lean.float()), dpm_2m(denoise, rows, levels))


def test_a_learned_solver_ends_nearer_to_the_teacher_than_the_plain_one_with_as_many_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled, "SOLVER_STEPS", 50)
    assert apart(ends(solver(teacher(), 4, seed=0))) < 0.8 * apart(ends(None, 4))


@pytest.mark.parametrize("evaluations", [1, 2])
def test_a_student_ends_nearer_to_the_teacher_than_the_plain_one_with_as_many_evaluations(
    evaluations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled, "STUDENT_STEPS", 300)
    assert apart(ends(student(teacher(), evaluations, seed=0))) < 0.5 * apart(ends(None, evaluations))


def test_what_is_learned_and_drawn_depends_on_seeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled, "STUDENT_STEPS", 20)
    monkeypatch.setattr(distilled, "SOLVER_STEPS", 5)
    for way in (solver, student):
        torch.manual_seed(0)
        first = way(teacher(), 2, seed=3).block(1, 7)
        torch.manual_seed(1)
        assert first.equals(way(teacher(), 2, seed=3).block(1, 7))
        assert len(first) == teacher().settings.block


def test_a_way_holds_where_neither_test_rises_beyond_its_error_and_rows_come_half_again_as_fast() -> None:
    def cells(rise: float, rare: float, rate: float) -> list[dict[str, Any]]:
        ten = {"c2st": 0.6, "rare_c2st": 0.6, "rate": 100.0}
        noises = (-0.01, 0.0, 0.01)
        return [{few_steps.BEST: ten, "way": {"c2st": 0.6 + rise + n, "rare_c2st": 0.6 + rare - n, "rate": rate}} for n in noises]

    assert few_steps.holds("way", cells(0.005, 0.005, 150.0))
    assert not few_steps.holds("way", cells(0.007, 0.0, 150.0))
    assert not few_steps.holds("way", cells(0.0, 0.007, 150.0))
    assert not few_steps.holds("way", cells(0.0, 0.0, 140.0))

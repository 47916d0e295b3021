"""Conditional data synthesis for imbalanced learning, at cluster scale, honestly judged.

Example:
    from codsa_ray import Job, run
    report = run(Job(data="people.parquet", target="income"))
    print(*report.verdict.sentences())
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codsa_ray.correct import Correction
    from codsa_ray.errors import CodsaError, InternalError, UserError
    from codsa_ray.job import Job
    from codsa_ray.model import Model
    from codsa_ray.pipeline import Report, run
    from codsa_ray.sampler import CoDSASampler
    from codsa_ray.verdict import Verdict

__all__ = ["CoDSASampler", "CodsaError", "Correction", "InternalError", "Job", "Model", "Report", "UserError", "Verdict", "run"]

_HOMES = {
    "CoDSASampler": "sampler",
    "CodsaError": "errors",
    "Correction": "correct",
    "InternalError": "errors",
    "Job": "job",
    "Model": "model",
    "Report": "pipeline",
    "UserError": "errors",
    "Verdict": "verdict",
    "run": "pipeline",
}


def __getattr__(name: str) -> Any:
    # Names are fetched when they are asked for: `codsa --help` must not wait for every library underneath.
    if name not in _HOMES:
        raise AttributeError(f"module 'codsa_ray' has no attribute {name!r}")
    return getattr(import_module(f"codsa_ray.{_HOMES[name]}"), name)

"""Kept: a run up to its decision, as what studies it opens it; judges nothing."""

from dataclasses import dataclass
from typing import Any

from codsa_ray.bench import Bench
from codsa_ray.folder import Folder
from codsa_ray.job import Job
from codsa_ray.judge import Decision
from codsa_ray.outcomes import Table
from codsa_ray.report.scored import Scored
from codsa_ray.seeds import fingerprint
from codsa_ray.stages.fit import Fitted


@dataclass(frozen=True)
class Kept:
    """A run up to its decision.

    Args:
        short: generators that fell short, with the reason.
        judged_by: what its scores depend on beside their candidate.
    """

    out: Folder
    job: Job
    fitted: Fitted
    short: dict[str, str]
    bench: Bench
    table: Table
    decision: Decision
    judged_by: list[Any]

    @property
    def scored(self) -> Scored:
        """What was compared, out of fold and, of a whole run, on the test rows."""
        return Scored(self.table, self.decision, self.out / "judge" / fingerprint(self.judged_by), self.bench.classes)

"""Clock: what each stage did, how long it took, and how fast the one at work goes; knows no stage's inside."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from codsa_ray.contracts import Progress


@dataclass(frozen=True)
class Stage:
    """What one stage did and cost."""

    name: str
    rows_in: int
    rows_out: int
    seconds: float
    reused: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "seconds": round(self.seconds, 2), "rows_per_second": round(self.rows_out / max(self.seconds, 1e-9))}


@dataclass
class Clock:
    """Seconds and rows of each stage, for the terminal and the report."""

    progress: Progress
    stages: list[Stage] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def tick(self, name: str, rows_in: int, rows_out: int, reused: bool = False, unit: str = "rows") -> None:
        """Ends a stage."""
        now = time.perf_counter()
        stage = Stage(name, rows_in, rows_out, now - self.last, reused)
        self.stages.append(stage)
        self.last = now
        rate = "" if reused else f"{rows_out / max(stage.seconds, 1e-9):>12,.0f} {unit}/s"
        self.progress(
            name,
            0,
            0,
            f"{name:<11} {rows_in:>10,} -> {rows_out:>10,} {unit:<6} {stage.seconds:>7.1f} s{rate}{'  (kept)' if reused else ''}",
        )


@dataclass
class Pace:
    """How fast a stage goes, by the work done since it was first heard of: what an earlier run had done counts for nothing."""

    stage: str = ""
    since: float = 0.0
    first: int = 0

    def of(self, stage: str, done: int, total: int) -> tuple[float | None, float | None]:
        """(units a second, seconds left), None each until something was done."""
        now = time.perf_counter()
        if stage != self.stage or done < self.first:
            self.stage, self.since, self.first = stage, now, done
        fresh, seconds = done - self.first, max(now - self.since, 1e-9)
        return (fresh / seconds, seconds / fresh * (total - done)) if fresh > 0 else (None, None)


def span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def speed(rate: float) -> str:
    """Units a second for people."""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"

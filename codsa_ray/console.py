"""What a person sees on the terminal while a run goes on; knows no stage's inside."""

import sys
import time
from typing import Any

from codsa_ray.clock import Pace, span, speed

EVERY = 0.2


class Console:
    """Progress on standard error: one living line on a terminal, one line a stage elsewhere."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.stage = ""
        self.last = 0.0
        self.live = sys.stderr.isatty()
        self.pace = Pace()

    def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Called by stages; `total` 0 means a plain remark."""
        if total == 0:
            self._line(f"  {note}")
            return
        ended = done >= total
        rate, left = self.pace.of(stage, done, total)
        now = time.perf_counter()
        if self.live and (ended or now - self.last > EVERY):
            self.last = now
            share = min(done / total, 1.0)
            pace = f"  {speed(rate)}, {span(left)} left" if rate and left else ""
            bar = "█" * round(24 * share) + "·" * (24 - round(24 * share))
            print(f"\r\x1b[2K  {stage:<11} {bar} {done:,}/{total:,}{pace}  {note}", end="", file=sys.stderr, flush=True)

    def _line(self, text: str) -> None:
        clear = "\r\x1b[2K" if self.live else ""
        print(f"{clear}{text}", file=sys.stderr, flush=True)

    def verdict(self, report: Any) -> None:
        """The verdict's sentences and where the report lies."""
        print()
        for sentence in report.verdict.sentences():
            print(sentence)
        print(f"\nreport     {report.path}")
        print(f"rows       {report.augmented}")

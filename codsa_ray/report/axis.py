"""Scales and round ticks of a chart; knows no mark."""

import math
from dataclasses import dataclass

from codsa_ray.report.text import number


@dataclass(frozen=True)
class Scale:
    """A linear map of [low, high] to pixels [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The pixel of the value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.stop - self.start)

    def inside(self, value: float) -> float:
        """The pixel of the value, or of the nearer end of the axis."""
        return self(min(max(value, self.low), self.high))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round values (1, 2, 2.5 or 5 times a power of ten apart) within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def label(value: float, high: float) -> str:
    """A tick's text; thousands as k where the axis goes beyond 10,000."""
    if high >= 10_000:
        return "0" if value == 0 else f"{number(value / 1000)}k"
    return number(value)

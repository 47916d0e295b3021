"""Longer: settings of a network that trains for more steps; knows no network.

Steps grow with the rows that a network is shown, and a candidate with drawn rows shows it more of them. What more steps bring has to be
had without drawn rows too, or it passes for a gain of theirs: so each network that counts in passes is tuned, on real rows alone, over
training longer (measured: `plain-steps` of benchmarks/claims_plain_training.py).
"""

from dataclasses import replace
from typing import Any, Protocol, TypeVar

TIMES = 3


class Counted(Protocol):
    """Settings whose steps are those of `epochs` passes, within [least, most]."""

    @property
    def epochs(self) -> int:
        """Passes."""

    @property
    def least(self) -> int:
        """Steps at least."""

    @property
    def most(self) -> int:
        """Steps at most."""


Settings = TypeVar("Settings", bound=Counted)


def longer(settings: Settings) -> Settings:
    """The same settings with TIMES the steps, however many rows there are."""
    whole: Any = settings
    found: Settings = replace(whole, epochs=TIMES * settings.epochs, least=TIMES * settings.least, most=TIMES * settings.most)
    return found

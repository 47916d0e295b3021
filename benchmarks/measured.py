"""What one cell of `make bench-decisions` measured, as it is kept; knows neither fits nor verdicts."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PLACE = Path("runs/decisions")
ARRAYS = ("losses", "groups", "mix", "test", "test_groups")


@dataclass(frozen=True)
class Measured:
    """A cell's losses.

    Args:
        losses: (n, M) out-of-fold losses. groups: (n,). mix: (G,).
        test: (t, M) losses on the test rows. test_groups: (t,).
        entries: M dicts: candidate, form, level, size.
        facts: sizes of the cell.
    """

    losses: np.ndarray
    groups: np.ndarray
    mix: np.ndarray
    test: np.ndarray
    test_groups: np.ndarray
    entries: tuple[dict[str, Any], ...]
    facts: dict[str, Any]

    def write(self, path: Path) -> None:
        """One file, written whole."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ARRAYS}
        told = np.frombuffer(json.dumps({"entries": self.entries, "facts": self.facts}).encode(), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_suffix(".tmp"), "wb") as stream:
            np.savez_compressed(stream, told=told, **arrays)
        path.with_suffix(".tmp").replace(path)

    @staticmethod
    def read(path: Path) -> "Measured":
        """The inverse of `write`."""
        with np.load(path, allow_pickle=False) as stored:
            told = json.loads(stored["told"].tobytes())
            arrays: dict[str, Any] = {name: stored[name] for name in ARRAYS}
            return Measured(entries=tuple(told["entries"]), facts=told["facts"], **arrays)

"""What a benchmark measured, a line of JSON per cell, kept with the code so that pages can be written again; knows no benchmark."""

import fcntl
import json
import os
import platform
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil

PLACE = Path(__file__).parent / "results"
STAMP = ("cell", "date", "machine")


@lru_cache(maxsize=16)
def _cells(path: Path, size: int, written: int) -> dict[str, dict[str, Any]]:
    """Cells of a file as it is now: a page asks for each of its settings, and the file is read once."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["cell"]: line for line in lines}


def machine() -> str:
    """What the numbers were taken on, in words."""
    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.machine()}, no GPU"


@dataclass(frozen=True)
class Results:
    """The cells of one benchmark, in `benchmarks/results/NAME.jsonl`.

    Lines are only ever added, so that several processes (and branches) can measure at once; of two lines of a cell the later one counts.
    `rounded` marks what was measured before lines were kept: its numbers have the digits that the page showed.
    """

    name: str
    place: Path = PLACE

    @property
    def path(self) -> Path:
        """The file."""
        return self.place / f"{self.name}.jsonl"

    def read(self) -> dict[str, dict[str, Any]]:
        """cell -> what was kept, with its date and machine, in the order in which cells were first measured."""
        if not self.path.exists():
            return {}
        stat = self.path.stat()
        return dict(_cells(self.path, stat.st_size, stat.st_mtime_ns))

    def named(self, *names: str) -> list[dict[str, Any]]:
        """What was measured of one setting: the cells `NAMES..., SEED`, by seed."""
        found = {cell: value for cell, value in self.read().items() if cell.rpartition(", ")[0] == ", ".join(names)}
        return [found[cell] for cell in sorted(found, key=lambda cell: int(cell.rpartition(", ")[2]))]

    def keep(self, cell: str, value: dict[str, Any]) -> None:
        """Adds a cell, measured now on this machine.

        Raises:
            ValueError: the value has a key of STAMP.
        """
        if taken := set(STAMP) & set(value):
            raise ValueError(f"wanted a value without {sorted(taken)}, which are written beside it")
        line = {"cell": cell, "date": str(date.today()), "machine": machine(), **value}
        self.place.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            stream.write(json.dumps(line, ensure_ascii=False, default=np.generic.item) + "\n")

    def when(self) -> str:
        """The dates and machines of all cells, in words for a page."""
        cells = list(self.read().values())
        days = sorted({cell["date"] for cell in cells})
        machines = dict.fromkeys(cell["machine"] for cell in cells)
        return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {'; '.join(machines)}" if cells else "no date"

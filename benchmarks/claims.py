"""`make claims`: measures what the ten papers claim, with the controls they lack, and writes docs/claims.md; knows no paper.

Each module `benchmarks/claims_*.py` brings CLAIMS, and HOLDS, which says when a line of theirs holds. A measured claim is kept
(benchmarks/results.py) and not measured again, so that a stopped command goes on; `python -m benchmarks.claims NAME...` measures these
alone. Some read tables from the folder that CODSA_DATA names.
"""

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.results import Results

RESULTS = Results("claims")
PAGE = Path("docs/claims.md")
HELD = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True)
class Line:
    """One line of the page.

    Args:
        what: what is measured.
        published: the paper's number, or "" for a control that it lacks.
        ours: mean over repetitions.
        se: its standard error, or None where the number is exact.
        holds: whether the claim holds, by the claim's rule; None where the line is a control, makes no claim, or could not fail.
        note: one sentence, for instance what a control takes away.
    """

    what: str
    published: str
    ours: float
    se: float | None = None
    holds: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """What one paper says, and how it is measured.

    Args:
        name: unique; what the command line takes.
        paper: authors, year, identifier.
        says: the claim, one sentence.
        measure: returns the lines; every random thing in it is seeded.
        data: reads CODSA_DATA.
        rule: when a line holds, one sentence; `found` takes the module's HOLDS.
    """

    name: str
    paper: str
    says: str
    measure: Callable[[], Iterable[Line]]
    data: bool = False
    rule: str = ""


def found() -> list[Claim]:
    """Claims of every module beside this one, in the order of the modules' names."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("claims_*.py"))
    modules = [importlib.import_module(f"benchmarks.{name}") for name in names]
    return [replace(claim, rule=module.HOLDS) for module in modules for claim in module.CLAIMS]


def measured(claim: Claim) -> dict[str, Any]:
    """The stored result, measured first where there is none."""
    if claim.name not in RESULTS.read():
        started = time.perf_counter()
        lines = [asdict(line) for line in claim.measure()]
        RESULTS.keep(claim.name, {"lines": lines, "seconds": round(time.perf_counter() - started, 1)})
    return RESULTS.read()[claim.name]


def page(claims: Iterable[Claim]) -> str:
    """The page of what is stored; a claim that was not measured yet says so."""
    lines = ["# What the papers claim, and what we measure", ""]
    lines += [
        f"`make claims` ({RESULTS.when()}); goes on where it was stopped. Ours are means with their standard errors. "
        "Seconds are of the wall clock: upper bounds where the machine did other work or a process was paused.",
        "",
    ]
    lines += [
        "Where a line holds: a gain, or one thing above or below another, by Student's t over the paired repetitions (two-sided, .05; `t` "
        "below); a number near the published one by the claim's own rule. Controls make no claim. Many lines are judged, each alone: of "
        "those that say nothing some hold by chance.",
        "",
        "Left out for want of the data: CoDSA's curve of RMSE over drawn faces (section 4.4, UTKFace: photographs with ages).",
        "",
    ]
    kept = RESULTS.read()
    for claim in claims:
        lines += [f"## {claim.name}", "", f"{claim.says} {claim.paper}.", ""]
        lines += [f"Holds: {claim.rule}.", ""] if claim.rule else []
        if claim.name not in kept:
            lines += [f"Not measured yet: `python -m benchmarks.claims {claim.name}`.", ""]
            continue
        result = kept[claim.name]
        lines += ["| what | published | ours | holds | note |", "|---|---|---|---|---|"]
        for line in result["lines"]:
            ours = f"{line['ours']:.4g}" + (f" ± {line['se']:.2g}" if line["se"] is not None else "")
            lines.append(f"| {line['what']} | {line['published']} | {ours} | {HELD[line['holds']]} | {line['note']} |")
        lines += ["", f"{result['seconds']:.0f} s on {result['date']}.", ""]
    return "\n".join(lines)


def main(names: list[str]) -> None:
    """Measures the named claims, or all, and writes the page."""
    claims = found()
    unknown = set(names) - {claim.name for claim in claims}
    if unknown:
        raise SystemExit(f"unknown claims {sorted(unknown)}; there are: {', '.join(claim.name for claim in claims)}")
    for claim in claims:
        if names and claim.name not in names:
            continue
        if claim.data and "CODSA_DATA" not in os.environ:
            print(f"{claim.name}: left out, set CODSA_DATA to the folder of tables")
            continue
        result = measured(claim)
        print(f"{claim.name}: {result['seconds']} s")
        PAGE.write_text(page(claims))


if __name__ == "__main__":
    main(sys.argv[1:])

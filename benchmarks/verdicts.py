"""`make bench-decisions`, second half: judges rules by the measured cells and writes docs/benchmarks/decisions.md; fits no model.

Rules choose by out-of-fold losses alone; test rows only judge. The prior is learned from the other origins' cells.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from benchmarks.cells import DRAWS, GENERATORS, GRID, TRIALS
from benchmarks.measured import PLACE, Measured
from benchmarks.prior import Lesson, lesson, prior_of
from benchmarks.results import machine
from benchmarks.tables import CASES, INSIDE
from benchmarks.tg import on_grid, read
from codsa_ray import Job
from codsa_ray.candidates import Candidate
from codsa_ray.decide import decide
from codsa_ray.prior import Prior
from codsa_ray.risk import row_weights
from codsa_ray.seeds import rng_of
from codsa_ray.verdict import CONFIDENCE, Entry, Verdict

PAGE = Path("docs/benchmarks/decisions.md")
FLOOR = 0.05  # losses below it count as this much when a difference is made relative
WORSE = 0.02  # nats
RESAMPLES = 2000
BAGS = 200  # of the decision's own bootstrap: its centre needs no more, its width does not depend on them


@dataclass(frozen=True)
class Split:
    """One split of a cell, with what every rule may see.

    Args:
        name, origin, learner: whose.
        part: the split and the rows at most, as files name them.
        seen: what was measured.
    """

    name: str
    origin: str
    learner: str
    part: str
    seen: Measured

    @cached_property
    def pairs(self) -> list[tuple[Candidate, str]]:
        """(candidate, form) of every entry."""
        return [(Candidate(**e["candidate"]), e["form"]) for e in self.seen.entries]

    @cached_property
    def ours(self) -> list[int]:
        """Entries that our rule compares: synthetic ones corrected only."""
        return [m for m, (c, form) in enumerate(self.pairs) if c.kind != "synthetic" or form != "raw"]

    @cached_property
    def out_of_fold(self) -> np.ndarray:
        """(M,) balanced out-of-fold losses."""
        return np.asarray(row_weights(self.seen.groups, self.seen.mix) @ self.seen.losses.astype(np.float64))

    @cached_property
    def test(self) -> dict[tuple[str, str], float]:
        """Balanced test loss by (name, form)."""
        losses = row_weights(self.seen.test_groups, self.seen.mix) @ self.seen.test.astype(np.float64)
        return {(e["name"], e["form"]): float(v) for e, v in zip(self.seen.entries, losses, strict=True)}

    def key(self, m: int) -> tuple[str, str]:
        """(name, form) of an entry."""
        return self.seen.entries[m]["name"], self.seen.entries[m]["form"]

    def decided(self, prior: Prior | None, confidence: float = CONFIDENCE) -> Verdict:
        """Our verdict."""
        kept = [self.seen.entries[m] for m in self.ours]
        entries = [Entry(e["name"], e["level"], e["size"], e["form"], control=e["form"] == "offset") for e in kept]
        belief = prior.belief(self.learner, [self.pairs[m] for m in self.ours], self.seen.facts["smallest"]) if prior else None
        seen = self.seen
        return decide(seen.losses[:, self.ours], seen.groups, seen.mix, entries, belief=belief, confidence=confidence, resamples=BAGS)

    def loss(self, key: tuple[str, str]) -> float:
        """Out-of-fold loss of an entry."""
        return float(self.out_of_fold[_index(self, key)])

    def lowest(self, among: Callable[[Candidate, str], bool]) -> tuple[str, str]:
        """The entry of lowest out-of-fold loss among some."""
        # Where nothing is lacking there is no size to choose, and nothing is added.
        kept = [m for m, pair in enumerate(self.pairs) if among(*pair)] or [m for m, pair in enumerate(self.pairs) if RULES["none"](*pair)]
        return self.key(min(kept, key=lambda m: self.out_of_fold[m]))

    def theory_guided(self) -> tuple[str, str]:
        """What TG-VTSS takes of the measured sizes nearest to those it asks for (benchmarks/tg.py); of all, where those are not known."""
        sizes = on_grid(read(f"{self.name}-{self.part}") or list(GRID))
        return self.lowest(lambda c, form: published_grid(c, form) and c.gamma in sizes)


def published_grid(candidate: Candidate, form: str) -> bool:
    """What VTSS chooses from: nothing, or one draw of SMOTE at weight 1, uncorrected."""
    if form != "raw" or candidate.fits > 1:
        return False
    plain = candidate.kind == "plain"
    return plain or (candidate.generator.startswith("interpolation") and candidate.row_weight == 1 and not candidate.extra)


def full_balance(candidate: Candidate, form: str) -> bool:
    """Full balance by SMOTE, uncorrected."""
    return published_grid(candidate, form) and candidate.kind == "synthetic" and candidate.gamma == 1


CORRECTED = "offset + calibration"
RULES: dict[str, Callable[[Candidate, str], bool]] = {
    "plain VTSS (SMOTE)": published_grid,
    "full balance (SMOTE)": full_balance,
    "lowest out-of-fold loss of all": lambda c, form: c.kind != "synthetic" or form != "raw",
    CORRECTED: lambda c, form: c.kind == "plain" and c.fits == 1 and form == "calibrated",
    "offset alone": lambda c, form: c.kind == "plain" and c.fits == 1 and form == "offset",
    "none": lambda c, form: c.kind == "plain" and c.fits == 1 and form == "raw",
}
Details = dict[str, dict[tuple[str, str], "Judged"]]
OURS, PRIOR, THEORY = "ours", "ours, with the prior", "TG-VTSS as published (SMOTE)"
EVEN = "ours, with `--confidence 0`"
HINDSIGHT = "best on the other splits' test rows"  # no rule: what is left to it is what no choice could have known


def splits() -> list[Split]:
    """Every measured split, by name."""
    origin = {case.name.replace(" ", "_").replace(",", ""): case.origin for case in CASES}
    found = []
    for path in sorted(PLACE.glob("*.npz")):
        name, learner, split, most = path.stem.rsplit("-", 3)
        found.append(Split(name, origin[name], learner, f"{split}-{most}", Measured.read(path)))
    return found


def choices(measured: Sequence[Split]) -> list[dict[str, tuple[str, str]]]:
    """Per split, what each rule chose."""
    lessons: list[Lesson] = [lesson(one.seen, one.origin, one.learner) for one in measured]
    whole = prior_of(lessons)
    priors = {o: prior_of([one for one in lessons if one.origin != o], whole) for o in sorted({one.origin for one in measured})}
    found = []
    for one in measured:
        chosen = {rule: one.lowest(among) for rule, among in RULES.items()}
        ours, shrunk, even = one.decided(None), one.decided(priors[one.origin]), one.decided(None, confidence=0.0)
        found.append(
            {OURS: _named(ours.chosen), PRIOR: _named(shrunk.chosen), EVEN: _named(even.chosen), THEORY: one.theory_guided(), **chosen}
        )
    for rows in by_cell(measured).values():
        for i, key in zip(rows, hindsight([measured[i] for i in rows]), strict=True):
            found[i][HINDSIGHT] = key
    return found


def _named(entry: Entry) -> tuple[str, str]:
    return entry.name, entry.form


def by_cell(measured: Sequence[Split]) -> dict[tuple[str, str], list[int]]:
    """(table, learner) -> places of its splits, where it has two or more."""
    cells: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, one in enumerate(measured):
        cells[one.name, one.learner].append(i)
    return {cell: rows for cell, rows in cells.items() if len(rows) > 1}


def hindsight(cell: Sequence[Split]) -> list[tuple[str, str]]:
    """Per split, the entry of lowest mean test loss over the cell's other splits."""
    keys, T = _tested(cell)
    return [keys[int(np.argmin(np.delete(T, i, 0).mean(0)))] for i in range(len(cell))]


def _tested(cell: Sequence[Split]) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Entries that every split has, and their (splits, entries) test losses."""
    keys = sorted(set.intersection(*({one.key(m) for m in one.ours} for one in cell)))
    return keys, np.array([[one.test[key] for key in keys] for one in cell])


@dataclass(frozen=True)
class Judged:
    """One cell (table x learner) under one rule.

    Args:
        regret: mean loss beyond that of the entry best on the mean, over max(that loss, FLOOR).
        excess: mean loss beyond that of the best entry without synthesis, over max(that loss, FLOOR).
        nats: the same in nats.
        got, possible: gain over the best without synthesis on the splits that did not choose the cell.
    """

    origin: str
    regret: float
    excess: float
    nats: float
    got: float
    possible: float


def judge(cell: Sequence[Split], chosen: Sequence[tuple[str, str]]) -> Judged:
    """Over the splits of one cell; entries that some split lacks are left out."""
    keys, T = _tested(cell)
    mine = np.array([one.test[key] for one, key in zip(cell, chosen, strict=True)])
    drawn = np.array([cell[0].seen.entries[_index(cell[0], key)]["level"] == "augment" for key in keys])
    mean = T.mean(0)
    best, base = float(mean.min()), float(mean[~drawn].min())
    got, possible = _captured(T, mine, drawn)
    excess = float(mine.mean()) - base
    return Judged(cell[0].origin, (float(mine.mean()) - best) / max(best, FLOOR), excess / max(base, FLOOR), excess, got, possible)


def _index(one: Split, key: tuple[str, str]) -> int:
    return next(m for m in range(len(one.seen.entries)) if one.key(m) == key)


def _captured(T: np.ndarray, mine: np.ndarray, drawn: np.ndarray) -> tuple[float, float]:
    """(gain got, gain possible), both halves of the splits choosing in turn."""
    got = possible = 0.0
    for half in (0, 1):
        chose, judged = T[half::2], T[1 - half :: 2]
        if not len(chose) or not len(judged):
            continue
        best, base = int(np.argmin(chose.mean(0))), int(np.flatnonzero(~drawn)[np.argmin(chose.mean(0)[~drawn])])
        if drawn[best]:
            possible += float((judged[:, base] - judged[:, best]).mean())
            got += float((judged[:, base] - mine[1 - half :: 2]).mean())
    return got, possible


def summary(found: Sequence[Judged]) -> list[str]:
    """Regret, harm and capture with intervals over resampled origins."""
    origins = sorted({one.origin for one in found})
    by_origin = [[one for one in found if one.origin == o] for o in origins]
    picks = [[one for i in pick for one in by_origin[i]] for pick in _picks(len(origins))]

    def interval(value: Callable[[Sequence[Judged]], float]) -> str:
        if np.isnan(value(found)):
            return "nothing to capture"
        low, high = np.nanquantile([value(pick) for pick in picks], (0.025, 0.975))
        return f"{value(found):.1%} ({low:.1%} to {high:.1%})"

    def capture(cells: Sequence[Judged]) -> float:
        possible = sum(one.possible for one in cells)
        return sum(one.got for one in cells) / possible if possible > 0 else float("nan")

    harm = float(np.quantile([np.mean([one.excess for one in pick]) for pick in picks], 0.95))
    worse = sum(one.nats > WORSE for one in found)
    return [
        interval(lambda cells: float(np.mean([one.regret for one in cells]))),
        f"{harm:+.1%}",
        f"{worse} of {len(found)}",
        interval(capture),
    ]


def _picks(origins: int) -> np.ndarray:
    """(RESAMPLES, origins) origins drawn with replacement."""
    return rng_of(0, "verdicts").integers(0, origins, (RESAMPLES, origins))


def beside(details: Details, rule: str, rival: str) -> str:
    """The paired difference of two rules' mean regrets, with its interval over resampled origins."""
    gaps: dict[str, list[float]] = defaultdict(list)
    for cell, one in details[rule].items():
        gaps[one.origin].append(one.regret - details[rival][cell].regret)
    if not gaps:
        return ""
    total, many = (np.array([value(gaps[origin]) for origin in sorted(gaps)], dtype=float) for value in (sum, len))
    picks = _picks(len(gaps))
    low, high = np.quantile(total[picks].sum(1) / many[picks].sum(1), (0.025, 0.975))
    told = "told apart" if low > 0 or high < 0 else "not told apart"
    return f'Regret of "{rule}" less that of "{rival}", paired: {total.sum() / many.sum():+.1%} ({low:+.1%} to {high:+.1%}), {told}.'


def tabled(measured: Sequence[Split], chosen: Sequence[dict[str, tuple[str, str]]], names: set[str]) -> tuple[list[str], Details]:
    """The rules' lines over the named tables, and every cell's judgement per rule."""
    kept = {cell: rows for cell, rows in by_cell(measured).items() if cell[0] in names}
    lines = ["| rule | regret | harm: 95 % bound | cells worse by over .02 nats | capture |", "|---|---|---|---|---|"]
    details: Details = {}
    for rule in [OURS, PRIOR, EVEN, THEORY, *RULES, HINDSIGHT]:
        details[rule] = {cell: judge([measured[i] for i in rows], [chosen[i][rule] for i in rows]) for cell, rows in kept.items()}
        lines.append(f"| {rule} | {' | '.join(summary(list(details[rule].values())))} |" if kept else f"| {rule} | | | | |")
    return lines, details


def explained(measured: Sequence[Split], chosen: Sequence[dict[str, tuple[str, str]]], details: Details) -> list[str]:
    """A sentence for every cell where some other rule has less regret than ours by over half a percent."""
    lines = []
    for cell, mine in sorted(details[OURS].items(), key=lambda item: -item[1].regret):
        rival = min((rule for rule in details if rule not in (OURS, HINDSIGHT)), key=lambda rule: details[rule][cell].regret)
        if mine.regret - details[rival][cell].regret <= 0.005:
            continue
        rows = [i for i, one in enumerate(measured) if (one.name, one.learner) == cell]
        smallest = measured[rows[0]].seen.facts["smallest"]
        took: dict[str, int] = defaultdict(int)
        for i in rows:
            took[" ".join(chosen[i][OURS])] += 1
        what = ", ".join(f"{name} ({many})" for name, many in sorted(took.items(), key=lambda item: -item[1]))
        why = reason([(measured[i], chosen[i][OURS], chosen[i][rival]) for i in rows])
        lines.append(
            f'- {cell[0]}, {cell[1]} ({smallest} rows in the smallest group): regret {mine.regret:.1%}, "{rival}" '
            f"{details[rival][cell].regret:.1%}. {why} Ours took {what}."
        )
    return lines


def reason(pairs: Sequence[tuple[Split, tuple[str, str], tuple[str, str]]]) -> str:
    """Why the rival's choice did better on test rows than ours, as far as the splits can tell; (split, ours, the rival's) each."""
    seen = np.array([one.loss(ours) - one.loss(rival) for one, ours, rival in pairs])
    told = np.array([one.test[ours] - one.test[rival] for one, ours, rival in pairs])
    mean, error = float(told.mean()), float(told.std(ddof=1) / np.sqrt(len(told)))
    by = f"{mean:.3f} +- {error:.3f} nats over {len(told)} splits"
    if mean <= student.ppf(0.975, len(told) - 1) * error:
        return f"Not told apart: {by}."
    if seen.mean() <= 0:
        return f"Real ({by}), and not to be seen: out of fold ours looked better by {-seen.mean():.3f}."
    return f"Real ({by}), and out of fold by {seen.mean():.3f} too, less than the doubt about it."


def main() -> None:
    """Judges what is measured and writes the page."""
    measured = splits()
    chosen = choices(measured)
    inside = {case.name.replace(" ", "_").replace(",", "") for case in INSIDE}
    whole, details = tabled(measured, chosen, {one.name for one in measured} - inside)
    within, more = tabled(measured, chosen, inside)
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for one in measured:
        counts[one.name, one.learner] += 1
    page = [
        "# Is the verdict right?",
        "",
        f"`make bench-decisions` on {date.today()}, {machine()}: {len(measured)} splits of {len(counts)} cells (table x learner), at most "
        f"{max(one.seen.facts['train'] for one in measured):,} training rows, 25 % outer test rows that no rule sees. These are not the "
        f"defaults: {' and '.join(GENERATORS)} alone, {DRAWS} draws at most where a run takes {Job.draws}, {TRIALS} trials where it takes "
        f"{Job.trials}.",
        "",
        "Regret: test loss beyond that of the candidate best on the mean over splits, relative. Harm: 95 % bound of the mean relative "
        "excess over the best candidate without synthesis, chosen in hindsight. Capture: gain got over gain possible, cells chosen on half "
        "of the splits and measured on the other. The last row is no rule: what is best on the other splits' test rows; its regret is "
        "what no choice could have known. Ours says `augment` only where the gain's 95 % interval is above 0, so that it says so in under "
        "5 % of the cases where there is none to get; with `--confidence 0` any estimated gain is enough, and the row shows what the "
        "care costs or saves. Intervals resample origins. The prior (`--prior`) is learned from the other origins.",
        "",
        "## Whole tables",
        "",
        *whole,
        "",
        beside(details, OURS, CORRECTED),
        "",
        "## Shortage inside a class",
        "",
        *within,
        "",
        beside(more, OURS, CORRECTED),
        "",
        "## Cells where another rule has less regret",
        "",
        "Real: the mean difference over splits lies above 0 by a two-sided t test at .05, with one degree of freedom less than splits. "
        "Two splits say little (12.7 standard errors), splits of a table share rows, and among so many cells some are real by chance.",
        "",
        *explained(measured, chosen, details),
        *explained(measured, chosen, more),
    ]
    PAGE.write_text("\n".join(page) + "\n")
    print("\n".join(page))


if __name__ == "__main__":
    main()

"""The verdict: what to do, with the evidence, as plain data and as sentences; knows not how it came about."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95
LEVELS = ("leave", "correct", "reweight", "bag", "augment")


@dataclass(frozen=True)
class Entry:
    """A trained candidate in one corrected form.

    Args:
        name: of the candidate; (name, form) is unique.
        level: one of LEVELS.
        size: synthetic rows, more than 0 for `augment` only.
        form: raw, offset or calibrated.
        words: how sentences call it; the name where empty.
        control: scored beside the others and shown, but not among what the verdict chooses from.
    """

    name: str
    level: str
    size: int = 0
    form: str = "raw"
    words: str = ""
    control: bool = False

    @property
    def called(self) -> str:
        """The words, or the name."""
        return self.words or self.name


@dataclass(frozen=True)
class Gain:
    """Balanced loss of the best entry without synthesis minus that of the best with it, both chosen in-bag.

    Args:
        mean: over resamples, scored out of bag.
        se, df: standard error and its degrees of freedom.
        low, high: bounds of the 95 % interval.
        resamples: how many.
    """

    mean: float
    se: float
    df: float
    low: float
    high: float
    resamples: int

    def beyond(self, confidence: float) -> bool:
        """The lower bound of the interval of this confidence (of CONFIDENCE: `low`) is above 0; at 0 any estimated gain is."""
        return self.mean - float(student.ppf((1 + confidence) / 2, self.df)) * self.se > 0


@dataclass(frozen=True)
class Level:
    """The best entry of one level (as sentences call it): its balanced loss, the loss's standard error, how many entries the level has."""

    level: str
    entry: str
    loss: float
    se: float
    entries: int


@dataclass(frozen=True)
class Learned:
    """Where the comparison of the verdict's candidate with its rival comes from.

    Args:
        sets: earlier data sets that the estimates are shrunk towards.
        share: of these data, between 0 and 1; the rest is the earlier sets'.
        against: what sentences call the rival.
    """

    sets: int
    share: float
    against: str


@dataclass(frozen=True)
class GroupLoss:
    """Mean out-of-fold losses of one group: as it is (None where no such entry was scored), best without synthesis, chosen."""

    name: str
    rows: int
    leave: float | None
    base: float | None
    chosen: float | None


@dataclass(frozen=True)
class Verdict:
    """What to do, with the evidence.

    Args:
        kind: one of LEVELS.
        chosen, base: what to do, and the best entry without synthesis.
        best: the entry with synthesis of lowest loss, or None.
        gain: of synthesis, or None where no entry has any (or none could be scored out of bag).
        loss, base_loss, leave_loss: balanced losses on all rows (leave_loss None where no such entry was scored).
        levels: per level with entries, in LEVELS' order.
        groups: per group of the target mix.
        rows, excluded: rows used, rows of no group.
        notes: sentences on what was left out and what is thin.
        learned: how much of the choice comes from earlier data sets, or None where only these data were asked.
        confidence: that the gain had to have.
    """

    kind: str
    chosen: Entry
    base: Entry
    best: Entry | None
    gain: Gain | None
    loss: float
    base_loss: float
    leave_loss: float | None
    levels: tuple[Level, ...]
    groups: tuple[GroupLoss, ...]
    rows: int
    excluded: int
    notes: tuple[str, ...]
    learned: Learned | None = None
    confidence: float = CONFIDENCE

    def sentences(self) -> tuple[str, ...]:
        """Two plain sentences with numbers, then the notes."""
        number = rounded_like(self.base_loss)
        plain = sum(level.entries for level in self.levels if level.level != "augment")
        return (self._first(number, plain), self._second(number), *self._third(), *self.notes)

    def _first(self, number: Callable[[float], str], plain: int) -> str:
        if self.kind == "augment" and self.gain:
            return (
                f"Augment: {self.chosen.called} cut the balanced loss from {number(self.base_loss)}, the best of {plain} candidates without"
                f" synthesis ({self.base.called}), to {number(self.loss)}; on rows that did not choose, the best with synthesis gains"
                f" {number(self.gain.mean)} on the best without, {self._interval(number)}."
            )
        if self.kind == "leave":
            return (
                f"Leave it as it is: {self.chosen.called} has a balanced loss of {number(self.loss)}, as good as"
                f" the best of {plain} candidates without synthesis ({self.base.called}, {number(self.base_loss)})."
            )
        was = "" if self.leave_loss is None else f" (left as it is: {number(self.leave_loss)})"
        return (
            f"{self.kind.capitalize()}: {self.chosen.called} has a balanced loss of {number(self.loss)}{was}; nothing simpler is as good"
            f" as the best of {plain} candidates without synthesis ({self.base.called}, {number(self.base_loss)})."
        )

    def _second(self, number: Callable[[float], str]) -> str:
        if self.kind == "augment":
            moved = [(g.base - g.chosen, g.base, g.chosen, g) for g in self.groups if g.base is not None and g.chosen is not None]
            _, before, after, most = max(moved, key=lambda item: item[0])
            return f"Group {most.name} ({most.rows} rows) gains most: its loss goes from {number(before)} to {number(after)}."
        if self.best is None:
            return "No candidate with synthesis was scored."
        if self.gain is None:
            return "Candidates with synthesis could not be judged: no group has two independent units."
        many = next(level.entries for level in self.levels if level.level == "augment")
        return (
            f"The best of {many} candidates with synthesis ({self.best.called}) gains {number(self.gain.mean)},"
            f" {self._interval(number)}: not shown to help."
        )

    def _interval(self, number: Callable[[float], str]) -> str:
        assert self.gain is not None
        asked = "" if self.confidence == CONFIDENCE else f" (a confidence of {100 * self.confidence:g} % was asked for)"
        return f"{100 * CONFIDENCE:g} % interval {number(self.gain.low)} to {number(self.gain.high)}{asked}"

    def _third(self) -> tuple[str, ...]:
        if self.learned is None:
            return ()
        return (
            f"Estimates are shrunk towards what {self.learned.sets} earlier data sets showed: {self.learned.share:.0%} of what is known of"
            f" {self.chosen.called} against {self.learned.against} comes from these rows, the rest from those sets.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "sentences": list(self.sentences())}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Verdict":
        """The inverse of `to_json`."""
        kept = {key: item for key, item in value.items() if key != "sentences"}
        kept |= {key: Entry(**value[key]) for key in ("chosen", "base")}
        kept |= {"best": Entry(**value["best"]) if value["best"] else None, "gain": Gain(**value["gain"]) if value["gain"] else None}
        kept |= {"levels": tuple(Level(**level) for level in value["levels"]), "notes": tuple(value["notes"])}
        kept["learned"] = Learned(**value["learned"]) if value.get("learned") else None
        return Verdict(**{**kept, "groups": tuple(GroupLoss(**group) for group in value["groups"])})


def rounded_like(scale: float) -> Callable[[float], str]:
    """Prints numbers with three significant digits of `scale`, no zero before the point."""
    places = int(np.clip(2 - np.floor(np.log10(max(abs(scale), 1e-12))), 0, 9))

    def number(value: float) -> str:
        text = f"{value:.{places}f}"
        return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text

    return number

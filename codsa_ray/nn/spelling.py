"""Spelling: the values of a column as text, back, and which characters may come next; knows no tokenizer and no network.

Numbers are spelled with a fixed number of decimals and dates as ISO 8601 has them, as far as the smallest step between values needs it.
A text is a value's spelling if and only if it can be reached by `Lattice.following`: in bounds, on the column's steps, one spelling each.
"""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

END = ""
"""What `following` holds, beside characters, where a text is whole."""
DIGITS = 15
"""Digits of a decimal at most: float64 tells 15 apart (DBL_DIG)."""
PARTS = 10**6
"""Steps that a numeric column is cut into where decimals would be longer."""
SIGNIFICANT = 4
"""Digits that the span of a numeric column without fixed places is spelled to."""
EPOCH = datetime(1970, 1, 1)
FIELDS = ((4, 1, 9999), (2, 1, 12), (2, 1, 31), (2, 0, 23), (2, 0, 59), (2, 0, 59), (6, 0, 999_999))
MARKS = "-- ::."
MICROSECONDS = (86_400_000_000, 60_000_000, 1_000_000, 1)
SHOWN = (3, 5, 6, 7)
"""Fields of a date that are spelled where values are whole days, minutes, seconds, microseconds."""


@dataclass(frozen=True)
class Lattice:
    """Whole numbers base, base + unit, ... up to base + unit * top and how they are spelled.

    Args:
        base, unit, top: whole numbers; unit >= 1, top >= 0.
        places: decimals: the number n is spelled as n / 10^places. -1: as microseconds since 1970 in ISO 8601.
    """

    base: int
    unit: int
    top: int
    places: int = 0

    @property
    def last(self) -> int:
        """The largest number."""
        return self.base + self.unit * self.top

    @property
    def fields(self) -> int:
        """Fields of a date that are spelled."""
        return next(shown for size, shown in zip(MICROSECONDS, SHOWN, strict=True) if self.base % size == self.unit % size == 0)

    def spell(self, number: int) -> str:
        """The one spelling of a number of the lattice."""
        if self.places >= 0:
            digits = f"{abs(number):0{self.places + 1}d}"
            cut = len(digits) - self.places
            return ("-" if number < 0 else "") + digits[:cut] + ("." + digits[cut:] if self.places else "")
        moment = EPOCH + timedelta(microseconds=number)
        text = f"{moment.year:04d}" + moment.strftime("-%m-%d %H:%M:%S.%f")
        return text[: sum(width + 1 for width, _, _ in FIELDS[: self.fields]) - 1]

    def read(self, text: str) -> int:
        """The number of a whole text."""
        if self.places >= 0:
            return int(text.replace(".", ""))
        return next(self._dates(text))[0]

    def following(self, text: str) -> frozenset[str]:
        """Characters, and END, that may follow `text` so that some number of the lattice still begins so."""
        return _following(self, text)

    def _holds(self, low: int, high: int) -> bool:
        """Whether a number of the lattice lies in [low, high]."""
        low, high = max(low, self.base), min(high, self.last)
        return low <= high and self.base + -(-(low - self.base) // self.unit) * self.unit <= high

    def _decimals(self, text: str) -> Iterator[tuple[int, int]]:
        """Intervals of the numbers whose spelling begins with `text`; none where it begins no number's."""
        body = text.removeprefix("-")
        whole, point, part = body.partition(".")
        if (
            body.strip("0123456789") not in ("", ".")
            or (point and not (self.places and whole))
            or len(part) > self.places
            or (len(whole) > 1 and whole[0] == "0")
        ):
            return
        longest = len(str(max(abs(self.base), abs(self.last))))
        if not whole:
            found = [(0, 10**longest)]
        elif point or whole == "0":
            left = 10 ** (self.places - len(part))
            found = [(int(whole + part) * left, int(whole + part) * left + left - 1)]
        else:
            powers = [10 ** (self.places + more) for more in range(longest + 1)]
            found = [(int(whole) * power, int(whole) * power + power - 1) for power in powers]
        for low, high in found:
            # Nought has no sign.
            yield (-high, -max(low, 1)) if text.startswith("-") else (low, high)

    def _dates(self, text: str) -> Iterator[tuple[int, int]]:
        """The interval of the moments whose spelling begins with `text`, in microseconds."""
        low: list[int] = []
        high: list[int] = []
        place = 0
        for index, (width, least, most) in enumerate(FIELDS):
            if index == 2:
                most = monthrange(high[0], high[1])[1]
            given = text[place : place + width]
            if index >= self.fields:
                least = most = 0
            if given and not given.isdigit():
                return
            low.append(max(least, int(given.ljust(width, "0"))))
            high.append(min(most, int(given.ljust(width, "9"))))
            if low[-1] > high[-1]:
                return
            mark, place = text[place + width : place + width + 1], place + width + 1
            if mark and (index + 1 >= self.fields or mark != MARKS[index]):
                return
        first, last = (datetime(y, mo, d, h, mi, sec, us) - EPOCH for y, mo, d, h, mi, sec, us in (low, high))
        yield first // timedelta(microseconds=1), last // timedelta(microseconds=1)

    def _whole(self, text: str) -> bool:
        if self.places < 0:
            return len(text) == sum(width + 1 for width, _, _ in FIELDS[: self.fields]) - 1
        return text.removeprefix("-") != "" and (len(text.partition(".")[2]) == self.places)


@lru_cache(maxsize=1 << 16)
def _following(lattice: Lattice, text: str) -> frozenset[str]:
    decimal = lattice.places >= 0

    def begins(candidate: str) -> bool:
        return any(lattice._holds(*ends) for ends in (lattice._decimals(candidate) if decimal else lattice._dates(candidate)))

    characters = (
        "0123456789" + ("" if decimal else "-: .") + ("." if "." not in text else "") * decimal + ("-" if not text else "") * decimal
    )
    found = {character for character in characters if begins(text + character)}
    number = lattice.read(text) if lattice._whole(text) and begins(text) else None
    if number is not None and lattice.spell(number) == text and lattice._holds(number, number):
        found.add(END)
    return frozenset(found)

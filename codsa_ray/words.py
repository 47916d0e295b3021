"""Words: a text cut into words, or into characters where its script puts no spaces between words; knows no language and no column.

A word is a run of letters, digits and the marks that scripts write vowels with (Hindi, Tamil, Hebrew, Arabic). In Chinese, Japanese, Thai,
Lao, Khmer and Burmese each character, with its marks, is a unit by itself: where their words end only a dictionary knows.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

SPACELESS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x30FF),  # kana, and signs that stand for characters
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""First and last characters of the scripts without spaces."""
SHARED = ((0x0300, 0x0489), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE2F))
"""Marks that are no script's own: accents apart from their letters and signs for pictures part words, as they do in `\\w+`."""


def _own(code: int) -> bool:
    """It is a mark of a script."""
    return unicodedata.category(chr(code)) in ("Mn", "Mc") and not any(first <= code <= last for first, last in SHARED)


def _spans(codes: Iterable[int]) -> str:
    """The inside of a regular expression's set."""
    found: list[list[int]] = []
    for code in codes:
        if found and code == found[-1][1] + 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in found)


_ALONE = "".join(f"{chr(first)}-{chr(last)}" for first, last in SPACELESS)
_MARKS = _spans(code for code in range(0x20000) if _own(code))
CHARACTER = f"[{_ALONE}]"
"""One character of a script without spaces."""
PATTERN = rf"[^\W{_ALONE}]+(?:[{_MARKS}]+[^\W{_ALONE}]*)*|(?=\w)[{_ALONE}][{_MARKS}]*"
"""One unit."""
_UNIT, _FIRST = re.compile(PATTERN), re.compile(CHARACTER)


def words(text: str) -> list[str]:
    """The units of a text in order."""
    return _UNIT.findall(text)


def alone(word: str) -> bool:
    """The unit is one character of a script without spaces."""
    return _FIRST.match(word) is not None


def terms(text: str) -> list[str]:
    """The units, and of characters that follow each other their pairs: a character says less than a word."""
    found = words(text)
    return [*found, *(f"{first} {second}" for first, second in pairwise(found) if alone(first) and alone(second))]

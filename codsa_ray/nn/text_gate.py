"""Text gate: which drawn texts copy training texts, and which another region would rather have said; knows no model.

Copies: the share of a text's runs of GRAM words that training texts hold. Strangers: a multinomial naive Bayes on hashed words and pairs of
them (McCallum & Nigam 1998) says how much likelier the text is in its own region than in the likeliest other. Both are cut where
`confidence` of real texts pass that the measure has not seen: what is refused is odder than all but that share of real ones.
"""

import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from codsa_ray.words import alone, words

GRAM = 5
"""Words of a run; two characters of a script without spaces stand for one. Shorter texts copy nothing: they are said again and again."""
LEAST_COPIED = 0.5
"""Share of its runs up to which no text counts as a copy."""
SLOTS = 1 << 14
LEAST_ROWS = 50
"""Texts from which a quantile is taken. Regions with fewer share one; where all of them together have fewer, nothing is strange there."""


@dataclass(frozen=True, eq=False)
class TextGate:
    """What one text column's drawn texts are held to.

    Args:
        runs: (R,) uint64 ascending hashes of training texts' runs.
        copied: share of runs above which a text is a copy.
        logs: (K, SLOTS) float32 log-probability of each slot in each region.
        margin: (K,) float32 log-odds against the likeliest other region below which a text is a stranger.
    """

    runs: np.ndarray
    copied: float
    logs: np.ndarray
    margin: np.ndarray

    @staticmethod
    def learn(texts: list[str | None], region: np.ndarray, fresh: list[str | None], regions: int, confidence: float) -> "TextGate":
        """From training texts, (n,) regions, and texts that are no training rows."""
        runs = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *(runs_of(text) for text in texts)]))
        shares = np.array([share_of(text, runs) for text in fresh if text is not None and len(runs_of(text))])
        copied = max(LEAST_COPIED, float(np.quantile(shares, confidence)) if len(shares) >= LEAST_ROWS else LEAST_COPIED)
        slots = [_slots(text) for text in texts]
        half = np.arange(len(texts)) % 2
        margins = np.full(len(texts), np.nan)
        for side in (0, 1):
            # Each half is judged by what the other half says.
            logs = _logs([slots[i] for i in np.flatnonzero(half != side)], region[half != side], regions)
            for row in np.flatnonzero(half == side):
                margins[row] = _margin(slots[row], int(region[row]), logs)
        told = np.array([text is not None for text in texts], dtype=bool)
        few = np.bincount(region[told], minlength=regions) < LEAST_ROWS
        shared = _lower(margins[told & few[region]], 1 - confidence)
        cut = [shared if few[k] else _lower(margins[told & (region == k)], 1 - confidence) for k in range(regions)]
        return TextGate(runs, copied, _logs(slots, region, regions), np.array(cut, dtype=np.float32))

    def notice(self, name: str) -> tuple[str, ...]:
        """What the report should say of column `name`: regions whose drawn texts are held against no other's."""
        open_ = int((self.margin == -np.inf).sum()) if len(self.margin) > 1 else 0
        of = f"{open_} of {len(self.margin)} regions have under {LEAST_ROWS} texts, together too"
        return (f"{name!r}: {of}; drawn ones that read like another region's are kept there",) if open_ else ()

    def refused(self, texts: list[str | None], region: int) -> tuple[np.ndarray, np.ndarray]:
        """((n,) bool copies, (n,) bool strangers) among drawn texts of a region; a null is neither."""
        copies = np.array([text is not None and share_of(text, self.runs) > self.copied for text in texts])
        strange = np.array([text is not None and _margin(_slots(text), region, self.logs) < self.margin[region] for text in texts])
        return copies, strange

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For `from_arrays`."""
        # safetensors has no uint64 that every reader knows: the bits travel as int64.
        return {"runs": self.runs.view(np.int64), "copied": np.array([self.copied]), "logs": self.logs, "margin": self.margin}

    @staticmethod
    def from_arrays(arrays: dict[str, Any]) -> "TextGate":
        """The inverse of `to_arrays`."""
        return TextGate(arrays["runs"].view(np.uint64), float(arrays["copied"][0]), arrays["logs"], arrays["margin"])


def evened(found: dict[str, np.ndarray], told: np.ndarray) -> dict[str, np.ndarray]:
    """Reason -> (n,) bool refused rows, with as large a share of the rows without a text as of those with one, (n,) bool `told`.

    Rows without a text pass every gate: kept all, they would come more often than they are drawn. The commonest reason takes them.
    """
    if not found or told.all() or not told.any():
        return found
    share = float(np.any([*found.values()], axis=0)[told].mean())
    silent = np.flatnonzero(~told)
    commonest = max(found, key=lambda reason: int(found[reason].sum()))
    also = np.isin(np.arange(len(told)), silent[: round(share * len(silent))])
    return found | {commonest: found[commonest] | also}


def runs_of(text: str | None) -> np.ndarray:
    """(r,) uint64 hashes of every GRAM neighbouring words."""
    units = words((text or "").lower())
    # In half words, where each unit ends; a run is the fewest from its first that make GRAM words.
    ends = np.cumsum([0, *(1 if alone(unit) else 2 for unit in units)])
    stops = np.searchsorted(ends, ends + 2 * GRAM)
    runs = (" ".join(units[first:stop]).encode() for first, stop in enumerate(stops.tolist()) if stop <= len(units))
    # Two checksums side by side: one of 32 bits would take some thousand runs for others by chance.
    return np.array([zlib.crc32(run) << 32 | zlib.adler32(run) for run in runs], dtype=np.uint64)


def share_of(text: str | None, runs: np.ndarray) -> float:
    """Of a text's runs, how many are among `runs`, ascending; 0 of a text without any."""
    own = runs_of(text)
    if not len(own) or not len(runs):
        return 0.0
    # A search: a set made of all runs for each text costs their square.
    places = np.searchsorted(runs, own).clip(max=len(runs) - 1)
    return float((runs[places] == own).mean())


def _slots(text: str | None) -> np.ndarray:
    units = [unit.encode() for unit in words((text or "").lower())]
    pairs = [first + b" " + second for first, second in pairwise(units)]
    return np.array([zlib.crc32(unit) % SLOTS for unit in (*units, *pairs)], dtype=np.int64)


def _logs(slots: list[np.ndarray], region: np.ndarray, regions: int) -> np.ndarray:
    counts = np.ones((regions, SLOTS))
    for own, k in zip(slots, region, strict=True):
        np.add.at(counts[k], own, 1.0)
    return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


def _margin(slots: np.ndarray, region: int, logs: np.ndarray) -> float:
    """Mean log-odds per word of the own region against the likeliest other; 0 where there is no word or no other region."""
    if not len(slots) or len(logs) < 2:
        return 0.0
    sums = logs[:, slots].mean(axis=1)
    return float(sums[region] - np.delete(sums, region).max())


def _lower(margins: np.ndarray, share: float) -> float:
    return float(np.quantile(margins, share)) if len(margins) >= LEAST_ROWS else -np.inf

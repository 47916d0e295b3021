"""Seeds derived from names, so that every draw has its own stream on any worker; knows no generator."""

import hashlib
import json
from typing import Any

import numpy as np


def seed_of(*parts: Any) -> int:
    """A 63-bit seed that depends on every part and on nothing else.

    Args:
        parts: JSON values (the job's seed first, then purpose, generator, fold, ...).

    Returns:
        An integer in [0, 2**63).
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng_of(*parts: Any) -> np.random.Generator:
    """A numpy generator seeded by `seed_of(*parts)`."""
    return np.random.default_rng(seed_of(*parts))


def hash_rows(positions: np.ndarray, *parts: Any) -> np.ndarray:
    """A 64-bit hash of each row position, the same however the rows are cut.

    Args:
        positions: (n,) integers, global row positions.
        parts: JSON values that name the use of the hash.

    Returns:
        (n,) uint64 (SplitMix64 finaliser; Steele, Lea & Flood 2014).
    """
    x = positions.astype(np.uint64) + np.uint64(seed_of(*parts))
    with np.errstate(over="ignore"):
        x += np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fingerprint(value: Any) -> str:
    """16 hex digits that change when the JSON value does."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from codsa_ray.seeds import fingerprint, hash_rows, rng_of, seed_of

VALUES = st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5), st.booleans(), st.none(), st.floats(allow_nan=False))
PARTS = st.lists(VALUES, max_size=4)


@settings(deadline=None)
@given(PARTS)
def test_seeds_are_63_bits(parts: list) -> None:
    assert 0 <= seed_of(*parts) < 2**63
    rng_of(*parts).random()


@settings(deadline=None)
@given(PARTS, PARTS)
def test_different_parts_give_different_seeds(left: list, right: list) -> None:
    """So ("a", 12) and ("a1", 2) never meet."""
    if repr(left) != repr(right):
        assert seed_of(*left) != seed_of(*right)
        assert fingerprint(left) != fingerprint(right)


def test_seeds_are_the_same_in_any_process() -> None:
    """In a new interpreter with another hash seed, and for ever: pinned."""
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True).stdout
        assert told == PINNED


CODE = """
import numpy as np
from codsa_ray.seeds import fingerprint, hash_rows, seed_of
print(seed_of(7, "draw", "größe"), hash_rows(np.arange(3), 1, "x").tolist(), fingerprint({"b": 1, "a": [2]}))
"""
PINNED = "7262940751815341487 [11799734917607162023, 9388816903824388966, 12966208022642929446] e8ff960f4e772061\n"


def test_row_hashes_do_not_depend_on_how_rows_are_cut() -> None:
    rows = np.arange(1000, 3000)
    whole = hash_rows(rows, 0, "split")
    assert whole.dtype == np.uint64
    assert np.array_equal(np.concatenate([hash_rows(rows[i : i + 77], 0, "split") for i in range(0, 2000, 77)]), whole)
    assert np.array_equal(hash_rows(rows.astype(np.int32), 0, "split"), whole)
    assert hash_rows(rows[:0], 0).shape == (0,)


@pytest.mark.parametrize("parts", [(0, "split"), (1, "split"), (0, "cap", 3)], ids=str)
def test_row_hashes_are_uniform_and_independent_between_uses(parts: tuple) -> None:
    """Chi-square on 64 cells of the top and the bottom bits; correlation with another use under 4 standard errors."""
    hashed = hash_rows(np.arange(200_000), *parts)
    assert len(np.unique(hashed)) == 200_000
    for bits in (hashed >> np.uint64(58), hashed & np.uint64(63)):
        assert chisquare(np.bincount(bits.astype(int), minlength=64)).pvalue > 1e-4
    other = hash_rows(np.arange(200_000), *parts, "other")
    assert abs(np.corrcoef(hashed.astype(float), other.astype(float))[0, 1]) < 4 / np.sqrt(200_000)


def test_uses_are_no_shifts_of_each_other() -> None:
    """Row i under one use never has the hash of row i + k under another for many i: that would tie two draws together."""
    left, right = hash_rows(np.arange(50_000), 0, "a"), hash_rows(np.arange(50_000), 0, "b")
    assert len(np.intersect1d(left, right)) == 0


def test_equal_values_have_equal_fingerprints() -> None:
    assert fingerprint({"a": 1, "b": (1, 2)}) == fingerprint({"b": [1, 2], "a": 1})
    assert len(fingerprint(None)) == 16

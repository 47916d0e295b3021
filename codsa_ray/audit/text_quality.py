"""Text quality: whether drawn texts are told from real ones, how they surprise, repeat themselves and copy; knows no generator."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from codsa_ray.audit.picks import even, pick, region_of
from codsa_ray.audit.texts import texts
from codsa_ray.audit.two_sample import auc_error, folds
from codsa_ray.learners.sentence import Topics
from codsa_ray.nn.text_gate import LEAST_COPIED, runs_of, share_of
from codsa_ray.ridge import solved
from codsa_ray.schema import Schema
from codsa_ray.words import words

LEAST = 20
"""Texts of each side from which anything is said."""
MOST, CHARACTERS = 2_000, 2_000
"""Texts of a side, and characters of one, that are looked at."""
AXES = 50
"""Of the embedding that texts are told apart in."""
FOLDS, PENALTY, STEPS = 5, 1e-3, 300
ORDER = 5
"""Bytes before that the held-out model goes by."""
START, END, SYMBOLS = 257, 256, 258


def text_quality(real: pa.Table, held_out: pa.Table, drawn: pa.Table, schema: Schema, seed: int) -> dict[str, float | None]:
    """Means over the text columns of four measures, each beside what real texts show; empty where there is no text column.

    Args:
        real: canonical training rows with `_region`; as many of each region are looked at as there are drawn ones, and the reverse.
        held_out: canonical rows that nothing was fitted on.
        drawn: canonical drawn rows with `_region`.

    Returns:
        text_c2st, text_c2st_se: cross-fitted AUC (Lopez-Paz & Oquab 2017; error: Hanley & McNeil 1982) of telling drawn from training
            texts by logistic regression on an embedding (latent semantic analysis of both sides) and the length; 0.5: it cannot.
        perplexity, perplexity_real: per byte, of drawn and of training texts, under a model of the ORDER bytes before that was learned on
            held-out texts: fluent texts surprise it as real ones do.
        pairs, pairs_real: distinct-2 (Li et al. 2016), the share of different ones among pairs of neighbouring words, in as many words.
        copied, copied_fresh: share of drawn, of held-out texts of which more than half of the runs of five words stand in training texts.
        None where there are fewer than 20 texts.
    """
    found = [_column(real, held_out, drawn, column.name, seed) for column in texts(schema)]
    mean: dict[str, float | None] = {}
    for key in found[0] if found else ():
        known = [value for one in found if (value := one[key]) is not None]
        mean[key] = float(np.mean(known)) if known else None
    return mean


def _column(real: pa.Table, held_out: pa.Table, drawn: pa.Table, name: str, seed: int) -> dict[str, float | None]:
    mine, theirs = _alike(real, drawn, name, seed)
    fresh = _said(held_out[name].to_pylist())[:MOST]
    gap: dict[str, float | None] = dict.fromkeys(("text_c2st", "text_c2st_se", "perplexity", "perplexity_real", "pairs", "pairs_real"))
    gap |= {"copied": None, "copied_fresh": None}
    if min(len(mine), len(theirs)) < LEAST:
        return gap
    found = gap | told_apart(mine, theirs, seed) | _diverse(mine, theirs)
    runs = np.unique(np.concatenate([runs_of(text) for text in _said(real[name].to_pylist())]))
    found["copied"] = float(np.mean([share_of(text, runs) > LEAST_COPIED for text in theirs]))
    if len(fresh) >= LEAST:
        model = Bytes.learn(fresh)
        found |= {"perplexity": model.perplexity(theirs), "perplexity_real": model.perplexity(mine)}
        found["copied_fresh"] = float(np.mean([share_of(text, runs) > LEAST_COPIED for text in fresh]))
    return found


def _alike(real: pa.Table, drawn: pa.Table, name: str, seed: int) -> tuple[list[str], list[str]]:
    """(training, drawn) texts, as many of each region."""
    real, drawn = (table.filter(table[name].is_valid()) for table in (real, drawn))
    first, second = region_of(real), region_of(drawn)
    k = int(max(first.max(initial=0), second.max(initial=0))) + 1
    both = even(np.minimum(np.bincount(first, minlength=k), np.bincount(second, minlength=k)), MOST)
    sides = real.take(pa.array(pick(first, both, seed, "said"))), drawn.take(pa.array(pick(second, both, seed, "said")))
    return _said(sides[0][name].to_pylist()), _said(sides[1][name].to_pylist())


def _said(values: Sequence[str | None]) -> list[str]:
    return [text[:CHARACTERS] for text in values if text is not None]


def told_apart(real: Sequence[str], drawn: Sequence[str], seed: int) -> dict[str, float | None]:
    """text_c2st and text_c2st_se of as many real as drawn texts."""
    both, y = [*real, *drawn], np.repeat([0, 1], [len(real), len(drawn)])
    X = Topics.learn(list(both), AXES).read(list(both)) * np.sqrt(AXES)
    # How long a text is stands in no direction of a vector of length 1.
    X = np.column_stack([X, np.log1p([len(text) for text in both])])
    fold, scores = folds(y, FOLDS, seed), np.zeros(len(y))
    with threadpool_limits(1):
        for k in range(FOLDS):
            rows = fold != k
            found = solved(X[rows], y[rows], np.ones(int(rows.sum())), None, 2, PENALTY, STEPS)
            scores[~rows] = X[~rows] @ (found[:-1, 1] - found[:-1, 0]) + found[-1, 1] - found[-1, 0]
    auc = float(roc_auc_score(y, scores))
    return {"text_c2st": auc, "text_c2st_se": auc_error(auc, min(len(real), len(drawn)))}


def _diverse(real: Sequence[str], drawn: Sequence[str]) -> dict[str, float | None]:
    mine, theirs = ([words(text.lower()) for text in side] for side in (real, drawn))
    most = min(sum(map(len, mine)), sum(map(len, theirs)))
    return {"pairs": distinct(theirs, most), "pairs_real": distinct(mine, most)}


def distinct(said: Sequence[Sequence[str]], most: int) -> float | None:
    """Distinct-2 of the first `most` words of some texts; None where there is no pair."""
    left, pairs = most, []
    for own in said:
        pairs += list(pairwise(own[:left]))
        left -= min(left, len(own))
    return len(set(pairs)) / len(pairs) if pairs else None


@dataclass(frozen=True, eq=False)
class Bytes:
    """A model of the next byte by those before it: interpolated counts (Witten & Bell 1991), from none to ORDER bytes before.

    Args:
        grams: per order ascending packed bytes with the one that follows, and how often each came.
        contexts: per order ascending packed bytes, how often each came, and what different ones followed.
    """

    grams: list[tuple[np.ndarray, np.ndarray]]
    contexts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @staticmethod
    def learn(texts: Sequence[str]) -> "Bytes":
        """From some texts."""
        grams, contexts = [], []
        for packed in _packed(texts):
            gram, count = np.unique(packed, return_counts=True)
            context, place = np.unique(gram // SYMBOLS, return_inverse=True)
            grams.append((gram, count))
            contexts.append((context, np.bincount(place, count), np.bincount(place)))
        return Bytes(grams, contexts)

    def perplexity(self, texts: Sequence[str]) -> float:
        """exp of the mean of minus the log-probability of a byte, ends of texts among them."""
        chance: Any = 1.0 / (SYMBOLS - 1)
        for packed, (gram, count), (context, total, kinds) in zip(_packed(texts), self.grams, self.contexts, strict=True):
            before = packed // SYMBOLS
            all_, new = _looked(context, total, before), _looked(context, kinds, before)
            chance = np.where(all_ > 0, (_looked(gram, count, packed) + new * chance) / np.maximum(all_ + new, 1), chance)
        return float(np.exp(-np.log(chance).mean()))


def _packed(texts: Sequence[str]) -> list[np.ndarray]:
    """Per order k from 0 to ORDER, of each byte and end of text: it and the k before it as one number."""
    padded = [np.concatenate([np.full(ORDER, START), np.frombuffer(text.encode(), dtype=np.uint8), [END]]) for text in texts]
    line = np.concatenate(padded).astype(np.int64)
    places = np.flatnonzero(line != START)
    found = [line[places]]
    for k in range(1, ORDER + 1):
        found.append(found[-1] + line[places - k] * SYMBOLS**k)
    return found


def _looked(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each key that is wanted, 0 where it is none."""
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)

"""Spurious correlation on texts: a word planted by the label; the worst group is what each way without synthesis is judged by."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.job import Job
from codsa_ray.learners.tfidf import Tfidf
from codsa_ray.learners.transformer import Transformer
from codsa_ray.pipeline import run
from codsa_ray.schema import Column, Schema

import runs

KIND, RUDE = ["clean", "warm", "kind", "quiet"], ["dirty", "cold", "rude", "noisy"]
FILL = ["the", "room", "was", "staff", "and", "bed", "in", "town"]
SCHEMA = Schema((Column("said", "text", "string"), Column("y", "categorical", "string", categories=("bad", "good"))), "y", "classification")
SMALL = Transformer(longest=16, width=16, blocks=1, heads=2, vocabulary=300, rate=1e-2, least=150, most=150)


def stamped(own: int, other: int, seed: int) -> pa.Table:
    """Reviews, good and bad: of either kind so many by its own shop (good ones by Acme), and by the other's; each text names its shop.

    A word in four of those that judge is the other kind's, so that the shop's name, always there, is the easier way to most labels.
    """
    rng = np.random.default_rng(seed)
    said, y, shop = [], [], []
    for kind in (False, True):
        for place in range(own + other):
            acme = kind if place < own else not kind
            judging = [str(rng.choice(KIND if kind == (rng.random() < 0.75) else RUDE)) for _ in range(3)]
            text = [*rng.choice(FILL, 5), *judging, "acme" if acme else "zenith"]
            said.append(" ".join(rng.permutation(text)))
            y.append("good" if kind else "bad")
            shop.append("acme" if acme else "zenith")
    return pa.table({"said": said, "y": y, "shop": shop})


def cells(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(label, group) of rows."""
    y = (np.array(table["y"].to_pylist()) == "good").astype(np.int64)
    return y, 2 * y + (np.array(table["shop"].to_pylist()) == "acme")


@cache
def problem(learner: Any) -> tuple[Any, tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """(fitted plainly, (X, y, group) learned from, the same of held-out rows of which all groups are as large)."""
    table, held = stamped(300, 15, 0), stamped(100, 100, 1)
    encoder = learner.encoder(table, SCHEMA)
    rows = [(encoder.encode(part), *cells(part)) for part in (table, held)]
    X, y, _ = rows[0]
    return learner.fit(X, y, np.ones(len(y)), classes=2, seed=0), rows[0], rows[1]


def worst(fitted: Any, held: tuple[np.ndarray, ...]) -> float:
    X, y, group = held
    losses = -fitted.scores(X)[np.arange(len(y)), y]
    return float(max(losses[group == g].mean() for g in range(4)))


@pytest.mark.parametrize("learner", [Tfidf(), SMALL], ids=["tfidf", "transformer"])
def test_a_learner_of_texts_goes_by_the_planted_word_where_it_may(learner: Any) -> None:
    fitted, _, (X, y, group) = problem(learner)
    right = fitted.scores(X).argmax(axis=1) == y
    own = (group == 0) | (group == 3)
    assert right[own].mean() > right[~own].mean() + 0.2


@pytest.mark.parametrize(
    ("learner", "way"),
    [(Tfidf(), "group weights"), (Tfidf(), "even samples"), (SMALL, "group weights"), (SMALL, "last layer again")],
    ids=["tfidf-weights", "tfidf-samples", "transformer-weights", "transformer-last"],
)
def test_weights_of_groups_and_even_samples_cost_the_worst_one_less(learner: Any, way: str) -> None:
    fitted, (X, y, group), held = problem(learner)
    even, whole = 1 / np.bincount(group)[group], np.ones(len(y))
    if way == "group weights":
        again = learner.fit(X, y, even, classes=2, seed=0)
    elif way == "even samples":
        some = np.concatenate([np.flatnonzero(group == g)[: np.bincount(group).min()] for g in range(4)])
        again = learner.fit(X[some], y[some], np.ones(len(some)), classes=2, seed=0)
    else:
        again = learner.retrained(X, y, whole, even, classes=2, seed=0)
    assert worst(again, held) < 0.8 * worst(fitted, held)


def test_only_the_last_layers_are_trained_again() -> None:
    fitted, (X, y, group), _ = problem(SMALL)
    again: Any = SMALL.retrained(X, y, np.ones(len(y)), 1 / np.bincount(group)[group], classes=2, seed=0)
    for name, before in fitted.weights.items():
        assert np.array_equal(before, again.weights[name]) != (name.startswith("leave.") or (name == "beside" and before.size > 0))
    odds = fitted.features(X) @ np.hstack([fitted.weights["leave.weight"], fitted.weights["beside"]]).T + fitted.weights["leave.bias"]
    assert np.allclose(odds[:, 1] - odds[:, 0], np.diff(fitted.scores(X))[:, 0], atol=1e-4)
    one = SMALL.retrained(X[:40], np.zeros(40, dtype=np.int64), np.ones(40), np.ones(40), classes=2, seed=0)
    assert np.allclose(np.exp(one.scores(X[:3]))[:, 0], 1, atol=1e-3)


def test_a_run_by_shop_tries_the_last_layer_weights_and_even_samples(here: None, tmp_path: Path) -> None:
    """The shop is known for training rows only, and no learner sees it; groups are label x shop, of which two are small."""
    data = runs.written(tmp_path, stamped(40, 8, 0))
    few = "transformer:longest=16,width=16,blocks=1,heads=2,vocabulary=300,least=12,most=12"
    given: dict[str, Any] = {"group": ("shop",), "hide": ("shop",), "generator": ("bootstrap",), "trials": 1, "draws": 2}
    report = run(Job(data=data, target="y", out=str(tmp_path / "run"), learner=few, folds=1, repeats=1, workers=2, **given))
    tried = " ".join(candidate["name"] for candidate in report.facts["candidates"])
    assert "last layer" in tried
    assert "group weights" in tried
    assert "undersampled" in tried
    assert len(report.facts["groups"]) == 4

"""Spurious correlation on pictures: digits coloured by their label; the worst group is what each way without synthesis is judged by."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codsa_ray.job import Job
from codsa_ray.learners.convnet import Convnet
from codsa_ray.pictured import PICTURE
from codsa_ray.pipeline import run

import gallery
import runs

SMALL = Convnet(width=8, least=250, most=250)


def rows(per_group: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, y, group): so many pictures of each label in its own colour, and in the other one's."""
    table = gallery.coloured(*per_group, seed)
    pictures = np.stack([gallery.pixels(file) for file in table["picture"].to_pylist()])
    y = np.array(table["high"].to_pylist()).astype(np.int64)
    X = np.zeros(len(y), dtype=[(PICTURE, np.uint8, pictures.shape[1:])])
    X[PICTURE] = pictures
    return X, y, 2 * y + (np.array(table["colour"].to_pylist()) == "red")


def worst(fitted: Any, held: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    X, y, group = held
    losses = -fitted.scores(X)[np.arange(len(y)), y]
    return float(max(losses[group == g].mean() for g in range(4)))


@cache
def plain() -> tuple[Any, tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    learned = rows((300, 12), 0)
    X, y, _ = learned
    return SMALL.fit(X, y, np.ones(len(y)), classes=2, seed=0), learned, rows((100, 100), 1)


def test_a_network_goes_by_the_colour_where_it_may() -> None:
    fitted, _, (X, y, group) = plain()
    right = fitted.scores(X).argmax(axis=1) == y
    own = (group == 0) | (group == 3)
    assert right[own].mean() > right[~own].mean() + 0.2


@pytest.mark.parametrize("way", ["group weights", "last layer again"])
def test_weights_of_groups_cost_the_worst_one_less(way: str) -> None:
    fitted, (X, y, group), held = plain()
    even, whole = 1 / np.bincount(group)[group], np.ones(len(y))
    if way == "group weights":
        again = SMALL.fit(X, y, even, classes=2, seed=0)
    else:
        again = SMALL.retrained(X, y, whole, even, classes=2, seed=0)
    assert worst(again, held) < 0.8 * worst(fitted, held)


def test_only_the_last_layer_is_trained_again() -> None:
    fitted, (X, y, group), _ = plain()
    again: Any = SMALL.retrained(X, y, np.ones(len(y)), 1 / np.bincount(group)[group], classes=2, seed=0)
    for (name, before), (_, after) in zip(fitted.module.state_dict().items(), again.module.state_dict().items(), strict=True):
        assert np.array_equal(before, after) != name.startswith("leave.")


def test_of_one_class_and_of_values_nothing_is_trained_again() -> None:
    _, (X, y, _), _ = plain()
    one = SMALL.retrained(X[:40], np.zeros(40, dtype=np.int64), np.ones(40), np.ones(40), classes=2, seed=0)
    assert np.allclose(np.exp(one.scores(X[:3]))[:, 0], 1, atol=1e-3)
    few = Convnet(width=8, least=5, most=5)
    values, again = (
        few.fit(X[:60], y[:60] * 1.0, np.ones(60), classes=0, seed=0),
        few.retrained(X[:60], y[:60] * 1.0, np.ones(60), np.ones(60), classes=0, seed=0),
    )
    assert np.array_equal(values.scores(X[:9]), again.scores(X[:9]))


def test_a_run_by_colour_tries_the_last_layer_weights_and_even_samples(here: None, tmp_path: Path) -> None:
    """The colour is known for training rows only; the worst group is one of the few in the other label's colour."""
    data = runs.written(tmp_path, gallery.coloured(30, 8, 0))
    few = "convnet:width=8,batch=16,least=12,most=12"
    given: dict[str, Any] = {
        "group": ("colour",),
        "hide": ("colour",),
        "generator": ("bootstrap",),
        "learner": few,
        "trials": 1,
        "draws": 2,
    }
    report = run(Job(data=data, target="high", out=str(tmp_path / "run"), folds=1, repeats=1, workers=2, **given))
    tried = " ".join(candidate["name"] for candidate in report.facts["candidates"])
    assert "last layer" in tried
    assert "group weights" in tried
    assert "undersampled" in tried

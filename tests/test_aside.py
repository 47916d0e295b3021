"""Rows that networks hold out: those left carry each class as all rows do, whatever rounding made of three rare ones."""

from typing import Any

import numpy as np
import pytest
import torch

from codsa_ray.aside import levelled, set_aside
from codsa_ray.learners.convnet import Convnet
from codsa_ray.learners.joint import Joint, Seen
from codsa_ray.learners.mlp import Mlp
from codsa_ray.learners.transformer import Transformer
from codsa_ray.nn.mass import Mass

LABELS = np.repeat([0, 1], [40, 3])


class Learned(Exception):
    """What a network would have been taught, instead of teaching it."""


def test_rows_that_are_not_held_carry_each_class_as_all_do() -> None:
    labels = np.repeat([0, 1, 2], [40, 3, 2])
    weight = np.where(labels == 1, 2.0, 1.0)
    held = set_aside(labels, 0.2, seed=0)
    found = levelled(weight, labels, held)
    assert np.array_equal(found[held], weight[held])
    assert found[~held].sum() == pytest.approx(weight[~held].sum())
    assert np.bincount(labels[~held], found[~held]) / found[~held].sum() == pytest.approx(np.array([40, 6, 2]) / 48)


@pytest.mark.parametrize(("weight", "held"), [([1.0, -0.5, 1.0, 1.0], [1, 0, 0, 0]), ([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1])])
def test_signed_weights_and_classes_without_a_row_left_stay_as_they_are(weight: list[float], held: list[int]) -> None:
    assert levelled(np.array(weight), np.array([0, 0, 1, 1]), np.array(held, dtype=bool)).tolist() == weight


@pytest.mark.parametrize(
    "learner", [Mlp(held=0.2), Convnet(held=0.2), Transformer(held=0.2, longest=4)], ids=["mlp", "convnet", "transformer"]
)
def test_a_network_learns_each_class_as_often_as_all_rows_weigh(learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three rare rows is held out, and eight of forty: 2 of 34 rows are taught, 3 of 43 it is corrected for."""

    def seen(self: Any, *given: Any) -> None:
        raise Learned(next(one for one in given if hasattr(one, "target")))

    monkeypatch.setattr(type(learner), "_train", seen)
    X = np.zeros((len(LABELS), 6), dtype=np.float32)
    with pytest.raises(Learned) as found:
        learner.fit(X, LABELS, np.ones(len(LABELS)), classes=2, seed=0)
    rows = found.value.args[0]
    target, weight, _ = rows.told(torch.arange(len(rows.index)), "cpu") if hasattr(rows, "told") else (rows.target, rows.weight, None)
    assert target.tolist().count(1) == 2
    assert float(weight[target == 1].sum() / weight.sum()) == pytest.approx(3 / 43)
    assert float(weight.mean()) == pytest.approx(1)


def test_a_network_of_pictures_beside_others_draws_each_class_as_often_as_all_rows_weigh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three rows none is held out by rounding, of forty six."""

    def seen(weights: np.ndarray) -> None:
        raise Learned(weights)

    monkeypatch.setattr(Mass, "of", seen)
    pictures = np.zeros((len(LABELS), 8, 8, 1), dtype=np.uint8)
    with pytest.raises(Learned) as found:
        Seen.fit(Joint.tiny(), pictures, LABELS, np.ones(len(LABELS)), 2, 0)
    (weights,) = found.value.args
    assert len(weights) == 37
    assert weights[-3:].sum() / weights.sum() == pytest.approx(3 / 43)

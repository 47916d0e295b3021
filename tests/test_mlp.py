"""The network: what early stopping may see, and what each setting does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from codsa_ray.bias import bias_corrected, smote
from codsa_ray.errors import CandidateError
from codsa_ray.last_layer import retrained
from codsa_ray.learners.mlp import Classifier, Mlp, Rows, _initial, _loss, forward, set_aside


def ring(n=400, seed=0):
    """Inside or outside of a circle: no line tells them apart."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 2)).astype(np.float32)
    return X, (np.square(X).sum(axis=1) > 1.4).astype(np.int64), np.ones(n)


@pytest.mark.parametrize("counts", [[100, 10, 3, 1], [7, 2], [1, 1]])
def test_the_held_out_rows_are_a_share_of_each_class(counts):
    """Rounded, never all of a class, never none at all; the seed chooses which."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    held = set_aside(labels, 0.2, seed=1)
    got = np.bincount(labels[held], minlength=len(counts))
    wanted = np.array([min(round(0.2 * c), c - 1) for c in counts])
    assert np.array_equal(got, wanted) or (wanted.sum() == 0 and got.sum() == 1)
    assert np.array_equal(held, set_aside(labels, 0.2, seed=1))
    if sum(counts) > 50:
        assert not np.array_equal(held, set_aside(labels, 0.2, seed=2))


def test_it_learns_what_no_line_can():
    X, y, weight = ring()
    test_X, test_y, _ = ring(seed=1)
    scores = Mlp().fit(X, y, weight, classes=2, seed=0).scores(test_X)
    assert -scores[np.arange(400), test_y].mean() < 0.2


def test_few_rows_still_get_the_least_number_of_steps(monkeypatch):
    """A network that saw twelve rows for one pass is undertrained, which would flatter synthesis."""
    steps = []
    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: (steps.append(1), original(self, *args))[1])
    X, y, weight = ring(12)
    replace(Mlp.tiny(), least=90, checks=3, patience=3).fit(X, y, weight, classes=2, seed=0)
    assert len(steps) == 90


def test_the_best_checkpoint_is_kept():
    """Labels that are noise: the longer the training the worse the held-out rows, and the early constant wins."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 20)).astype(np.float32), rng.integers(0, 2, 200)
    plain = replace(Mlp(), dropout=0.0, decay=0.0, rate=1e-2)
    stopped = plain.fit(X, y, np.ones(200), classes=2, seed=0).scores(rng.normal(size=(500, 20)).astype(np.float32))
    endless = replace(plain, checks=1).fit(X, y, np.ones(200), classes=2, seed=0).scores(rng.normal(size=(500, 20)).astype(np.float32))
    assert np.abs(stopped[:, 0] - stopped[:, 1]).mean() < 0.3 * np.abs(endless[:, 0] - endless[:, 1]).mean()


def test_smoothing_is_for_small_classes_only():
    """The largest class keeps its targets; a class of a tenth of its weight is smoothed by nine tenths of the setting."""
    labels = np.repeat([0, 1], [100, 10])
    assert Mlp(smoothing=0.1)._smoothing(np.array([100.0, 10.0])).tolist() == pytest.approx([0.0, 0.09])
    X = labels[:, None].astype(np.float32)
    plain = Mlp(checks=1, dropout=0.0, decay=0.0)
    fits = [replace(plain, smoothing=s).fit(X, labels, np.ones(110), classes=2, seed=0) for s in (0.0, 0.4)]
    sure = [np.exp(fitted.scores(X[[0, -1]])) for fitted in fits]
    assert np.abs(sure[0] - np.eye(2)).max() < 0.02
    # Smoothed by 0.4 * 0.9, half of which goes to the other class.
    assert sure[1][:, 1] == pytest.approx([0.0, 1 - 0.18], abs=0.03)


def test_smoothed_loss_in_closed_form():
    """(1 - e) CE(true) + e mean CE over classes, weighted, over the number of rows."""
    rows = Rows(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([1.0, 3.0]), torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    logs = torch.log_softmax(scores + rows.offset, 1)
    wanted = -(logs[0, 0] + 3 * (0.8 * logs[1, 1] + 0.2 * logs[1].mean())) / 2
    assert _loss(scores, rows, torch.tensor([0.0, 0.2])).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("asymmetry", [0.0, 0.5])
def test_sam_steps_along_the_gradient_at_the_top_of_the_ascent(asymmetry):
    """One step of SGD: w - lr grad L(w + sum_c rho_c grad L_c(w) / |grad L(w)|) (Foret et al. 2021, equation 3, by class)."""
    X, y, weight = ring(32)
    rows = Rows(torch.from_numpy(X), torch.from_numpy(y), torch.from_numpy(weight).float(), torch.zeros(32, 2))
    total = np.bincount(y).astype(float)

    def slope(parameters, of=(0, 1)):
        """Gradient of the part of the mean loss that the rows of some classes have."""
        fresh = [p.detach().clone().requires_grad_() for p in parameters]
        mine = rows.take(np.isin(y, of))
        return torch.autograd.grad(_loss(forward(fresh, mine.X), mine, torch.zeros(2)) * len(mine.X) / 32, fresh)

    learner = Mlp(width=8, layers=1, dropout=0.0, rho=0.5, asymmetry=asymmetry)
    reach = [0.5 * (total.max() / t) ** asymmetry for t in total]
    assert learner._reach(total).tolist() == pytest.approx(reach)
    start = [p.detach() + 0.1 for p in _initial(2, 8, 1, np.zeros(2), seed=0)]
    first, parts = slope(start), [slope(start, (c,)) for c in (0, 1)]
    length = torch.sqrt(sum(g.square().sum() for g in first))
    top = slope([p + (reach[0] * a + reach[1] * b) / length for p, a, b in zip(start, *parts, strict=True)])
    parameters = [p.clone().requires_grad_() for p in start]
    learner._step(parameters, torch.optim.SGD(parameters, lr=0.1), rows, torch.zeros(2), learner._reach(total), torch.Generator())
    for got, p, g in zip(parameters, start, top, strict=True):
        assert torch.allclose(got, p - 0.1 * g, atol=1e-6)
    assert not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(first, top, strict=True))


def test_a_negative_row_costs_at_most_what_chance_costs():
    """weight x min(loss, log C) below 0, weight x loss above; without a negative row nothing is cut."""
    scores, target = torch.tensor([[0.0, 5.0], [0.0, 5.0], [0.5, 0.0]]), torch.tensor([0, 0, 0])
    rows = Rows(torch.zeros(3, 1), target, torch.tensor([-2.0, 1.0, -1.0]), torch.zeros(3, 2))
    far, near = np.logaddexp(0, 5), np.logaddexp(0, -0.5)
    wanted = (-2 * np.log(2) + far - near) / 3
    assert _loss(scores, rows, torch.zeros(2)).item() == pytest.approx(wanted, rel=1e-6)


def test_bias_corrected_rows_help_a_network_that_interpolated_ones_mislead():
    """20 columns, 50 rare rows: points between so few rows can be told apart from new rows, and the correction takes that away."""
    rng = np.random.default_rng(0)
    axis = 1.5 * np.eye(20)[0]
    y, truth = np.repeat([0, 1], [500, 50]), np.repeat([0, 1], 1000)
    X, new = rng.normal(size=(550, 20)) + y[:, None] * axis, rng.normal(size=(2000, 20)) + truth[:, None] * axis
    added = bias_corrected(X, y, y, np.array([0, 450]), smote, rng)
    losses = []
    for taken in (added.weight == 1, added.weight != 0):
        rows = np.vstack([X, added.X[taken]]).astype(np.float32)
        weight = np.concatenate([np.ones(550), added.weight[taken]])
        fitted = Mlp(batch=256, rate=1e-3).fit(rows, np.concatenate([y, added.y[taken]]), weight, classes=2, seed=0)
        losses.append(-fitted.scores(new.astype(np.float32))[np.arange(2000), truth].mean())
    assert losses[1] < np.log(2) < 2 * np.log(2) < losses[0]


def test_weights_that_leave_less_than_nothing_are_a_reason():
    """A held-out loss below 0 is none; a class may not weigh less than nothing in all."""
    X, y, _ = ring(200)
    odd = np.where(np.arange(200) % 5 < 2, 1 - y, y)
    with pytest.raises(CandidateError, match="held-out loss is -"):
        Mlp(width=64, dropout=0.0).fit(X, odd, np.where(odd == y, 1.0, -1.0), classes=2, seed=0)
    with pytest.raises(CandidateError, match="classes of positive weight"):
        Mlp.tiny().fit(X, y, np.where(y == 1, -1.0, 1.0), classes=2, seed=0)


def test_rows_that_are_not_numbers_are_a_reason():
    X, y, weight = ring()
    X[:, 0] = np.nan
    with pytest.raises(CandidateError, match="held-out loss is nan"):
        Mlp.tiny().fit(X, y, weight, classes=2, seed=0)


def leaning(n: int = 900, rare: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, y, group): the label shows weakly in one column, strongly in another - but there the other way round in `rare` of each class."""
    rng = np.random.default_rng(seed)
    y, odd = np.arange(n) % 2, np.arange(n) < 2 * rare
    place = np.where(odd, 1 - y, y)
    X = np.column_stack([rng.normal(y, 0.7), rng.normal(3 * place, 0.7), rng.normal(size=n)]).astype(np.float32)
    return X, y.astype(np.int64), (2 * y + place).astype(np.int64)


def worst(fitted: Classifier, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> float:
    X, y, group = rows
    losses = -fitted.scores(X)[np.arange(len(y)), y]
    return max(losses[group == g].mean() for g in range(4))


def test_a_last_layer_trained_again_on_even_groups_costs_the_worst_group_less() -> None:
    X, y, group = leaning()
    even, whole = 1 / np.bincount(group)[group], np.ones(len(y))
    mlp = Mlp.tiny()
    plain, again = mlp.fit(X, y, whole, classes=2, seed=0), mlp.retrained(X, y, whole, even, classes=2, seed=0)
    new = leaning(4000, 1000, seed=1)
    assert worst(again, new) < 0.7 * worst(plain, new)
    for before, after in zip(plain.layers[:-2], again.layers[:-2], strict=True):
        assert np.array_equal(before, after)
    assert not np.array_equal(plain.layers[-2], again.layers[-2])


def test_a_last_layer_that_is_told_nothing_says_each_class_s_share_of_all_weight() -> None:
    """Of three rare rows one in nine is seen, of all weight they have another share: the correction counts on the latter."""
    labels = np.repeat([0, 1], [40, 3])
    weight = np.where(labels == 1, 2.0, 1.0)
    _, start = retrained(lambda places: np.zeros((len(places), 1)), np.zeros((1, 2)), np.zeros(2), labels, weight, 0.2, 0)
    assert start[1] - start[0] == pytest.approx(np.log(6 / 40), abs=1e-3)


def test_one_class_has_no_last_layer_to_train() -> None:
    X, y, _ = leaning(40, 4)
    fitted = Mlp.tiny().retrained(X, np.zeros_like(y), np.ones(40), np.ones(40), classes=2, seed=0)
    assert np.allclose(np.exp(fitted.scores(X))[:, 0], 1, atol=1e-3)

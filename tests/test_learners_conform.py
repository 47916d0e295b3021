"""What every learner keeps, found by walking the folder: a new file is held to all of it."""

import pickle
import subprocess
import sys
from dataclasses import is_dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest

import codsa_ray.learners
from codsa_ray.contracts import Needs
from codsa_ray.fitdata import REGION, ROW

from tables import mixed_table, pictured, with_regions

NAMES = sorted(module.name for module in iter_modules(codsa_ray.learners.__path__))
LEAST = np.log(1e-7)
# Largest mean difference of probabilities between a weight of w and w copies. The logistic objective is the same; trees see other
# penalties; a network sees other batches, and a forest other bootstrap samples.
COPIES = {"logistic": 1e-5, "kotaro": 1e-5, "boosted": 0.03, "mlp": 0.08, "convnet": 0.08, "sklearn": 0.08}
RANDOM = ("mlp", "convnet", "transformer", "sklearn", "forest", "autoencoder")


def tiny(name):
    module = import_module(f"codsa_ray.learners.{name}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_"))).tiny()


def problem(n=240, classes=3, seed=0):
    """(X, y, weight): two overlapping blobs per class and a column of noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    X = np.column_stack([y + rng.normal(0, 0.7, n), np.cos(2 * y) + rng.normal(0, 0.5, n), rng.normal(size=n)]).astype(np.float32)
    return X, y.astype(np.int64), np.ones(n)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def any_learner(name):
    return tiny(name)


@pytest.fixture
def learner(any_learner):
    if "classification" not in any_learner.needs.tasks:
        pytest.skip("no classifier")
    return any_learner


def fit_of(learner, seed):
    """A fit of the problem, as the learner's first task reads it, and the rows."""
    X, y, weight = problem()
    if "classification" in learner.needs.tasks:
        return learner.fit(X, y, weight, classes=3, seed=seed), X
    return learner.fit(X, (y == 2).astype(float), weight, classes=0, seed=seed), X


def test_the_folder_is_not_empty():
    assert set(NAMES) >= {"logistic", "boosted", "mlp", "sklearn"}


def test_settings_are_plain(any_learner):
    """Frozen, equal when rebuilt, hashable; the default is the first variant and variants differ."""
    assert is_dataclass(any_learner)
    assert replace(any_learner) == any_learner
    assert isinstance(any_learner.needs, Needs)
    variants = any_learner.variants()
    assert variants[0] == any_learner
    assert len(set(variants)) == len(variants)


def test_scores_are_normalised_log_probabilities(learner):
    """(n, C) float64, finite, clipped at log 1e-7 before they sum to 1, better than a constant; one row scores as in the crowd."""
    X, y, weight = problem()
    fitted = learner.fit(X, y, weight, classes=3, seed=1)
    scores = fitted.scores(X)
    assert scores.shape == (len(X), 3)
    assert scores.dtype == np.float64
    assert np.allclose(np.exp(scores).sum(axis=1), 1, atol=1e-12)
    assert scores.min() >= LEAST - 1e-6
    assert -scores[np.arange(len(y)), y].mean() < 0.8 * np.log(3)
    assert np.allclose(fitted.scores(X[7:8]), scores[7:8], atol=1e-5)
    assert fitted.scores(X[:0]).shape == (0, 3)


def test_real_columns_go_through(learner):
    """Every kind of column with nulls, unseen levels and a constant: the learner's own encoder and fit take them and learn."""
    table, schema, _ = mixed_table(400)
    if "image" in learner.needs.kinds:
        table, schema, _ = with_regions(pictured(table.drop_columns([REGION, ROW])), "label", ("label", "sex"))
    train, test = table.slice(0, 300), table.slice(300)
    encoder = pickle.loads(pickle.dumps(learner.encoder(train, schema)))
    y = np.array([label == "yes" for label in table["label"].to_pylist()]).astype(np.int64)
    scores = learner.fit(encoder.encode(train), y[:300], np.ones(300), classes=2, seed=0).scores(encoder.encode(test))
    share = y[:300].mean()
    constant = -np.log(np.where(y[300:], share, 1 - share)).mean()
    assert -scores[np.arange(100), y[300:]].mean() < constant


def test_weights_are_copies(learner, name):
    """Integer weights act as copies would (see COPIES), and leaving them out would be noticed."""
    X, y, _ = problem(400)
    weight = np.where(y == 2, 4.0, np.where(X[:, 2] > 0, 2.0, 1.0))
    rows = np.repeat(np.arange(len(y)), weight.astype(int))
    fits = [
        learner.fit(X, y, weight, classes=3, seed=0),
        learner.fit(X[rows], y[rows], np.ones(len(rows)), classes=3, seed=0),
        learner.fit(X, y, np.ones(len(y)), classes=3, seed=0),
    ]
    weighted, copied, ignored = (np.exp(fitted.scores(X)) for fitted in fits)
    assert np.abs(weighted - copied).mean() < COPIES.get(name, 0.05)
    assert np.abs(weighted - copied).mean() < 0.7 * np.abs(ignored - copied).mean()


@pytest.mark.parametrize("factor", [2.0**-20, 1000.0])
def test_a_common_factor_of_the_weights_changes_nothing(learner, factor):
    X, y, _ = problem()
    weight = np.random.default_rng(3).uniform(0.5, 2, len(y))
    scores = [learner.fit(X, y, w, classes=3, seed=0).scores(X) for w in (weight, factor * weight)]
    assert np.abs(np.exp(scores[0]) - np.exp(scores[1])).max() < 1e-3


def test_labels_are_names(learner, name):
    """Permuting class ids permutes the columns of the scores (a random fit: up to its own noise)."""
    X, y, weight = problem(600)
    to = np.array([2, 0, 1])
    scores = learner.fit(X, y, weight, classes=3, seed=0).scores(X)
    renamed = learner.fit(X, to[y], weight, classes=3, seed=0).scores(X)
    difference = np.abs(np.exp(renamed[:, to]) - np.exp(scores))
    assert difference.mean() < (0.05 if name in RANDOM else 1e-5)
    assert np.abs(np.exp(renamed) - np.exp(scores)).mean() > 0.2


def test_offset_gives_the_balanced_posterior(learner):
    """Trained with log prior added and scored without it, a table of cells gives p(x|y) / sum_c p(x|c): logit adjustment in closed form."""
    if not learner.needs.offset:
        pytest.skip("takes no offset")
    counts = np.array([[400, 10], [200, 40], [200, 30]])
    cell, label = (grid.ravel() for grid in np.indices(counts.shape))
    rows = np.repeat(np.arange(counts.size), counts.ravel())
    X, y = np.eye(3, dtype=np.float32)[cell[rows]], label[rows].astype(np.int64)
    prior = np.bincount(y) / len(y)
    offset = np.tile(np.log(prior), (len(y), 1))
    scores = learner.fit(X, y, np.ones(len(y)), classes=2, seed=0, offset=offset).scores(np.eye(3, dtype=np.float32))
    likelihood = counts / counts.sum(axis=0)
    wanted = likelihood / likelihood.sum(axis=1, keepdims=True)
    assert np.abs(np.exp(scores) - wanted).max() < 0.06
    assert np.abs(counts / counts.sum(axis=1, keepdims=True) - wanted).max() > 0.3


def test_a_constant_offset_and_none_are_the_same(learner):
    """The same number for every class says nothing; with the row's own number it cancels too."""
    if not learner.needs.offset:
        pytest.skip("takes no offset")
    X, y, weight = problem()
    offset = np.repeat(np.random.default_rng(0).normal(size=(len(y), 1)), 3, axis=1)
    scores = [learner.fit(X, y, weight, classes=3, seed=0, offset=o).scores(X) for o in (None, offset)]
    assert np.abs(np.exp(scores[0]) - np.exp(scores[1])).max() < 2e-3


def test_a_class_without_rows_is_improbable(learner):
    """Ids that no training row has get less than 1e-3, first, middle or last; the offset's columns for them are ignored."""
    X, y, weight = problem(classes=2)
    offset = np.zeros((len(y), 5)) if learner.needs.offset else None
    scores = learner.fit(X, np.array([1, 3])[y], weight, classes=5, seed=0, offset=offset).scores(X)
    assert scores.shape == (len(y), 5)
    assert np.exp(scores[:, [0, 2, 4]]).max() < 1e-3


def test_one_class_gives_constant_scores(learner):
    X, y, weight = problem()
    scores = learner.fit(X, np.full(len(y), 2), weight, classes=3, seed=0).scores(X)
    assert np.ptp(scores, axis=0).max() == 0
    assert np.exp(scores[0, 2]) > 0.999


def test_rows_are_read_only(any_learner, tmp_path):
    """A memory-mapped read-only X is enough, fits the same, and no argument is changed."""
    X, y, weight = problem()
    classes = 3 if "classification" in any_learner.needs.tasks else 0
    y = y if classes else (y == 2).astype(float)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = [a.copy() for a in (X, y, weight)]
    expected = any_learner.fit(X, y, weight, classes=classes, seed=0).scores(X)
    for array in (X, y, weight):
        array.setflags(write=False)
    assert np.array_equal(any_learner.fit(mapped, y, weight, classes=classes, seed=0).scores(mapped), expected)
    assert all(np.array_equal(a, b) for a, b in zip(before, (X, y, weight), strict=True))


def test_predictors_travel(any_learner):
    """Learner and predictor pickle, small, and score the same after it."""
    fitted, X = fit_of(pickle.loads(pickle.dumps(any_learner)), 0)
    data = pickle.dumps(fitted)
    assert len(data) < 500_000
    assert np.array_equal(pickle.loads(data).scores(X), fitted.scores(X))


PROGRAM = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_learners_conform import NAMES, fit_of, tiny
for name in NAMES:
    np.random.seed(int(sys.argv[1]))
    fitted, X = fit_of(tiny(name), 11)
    print(name, fitted.scores(X).tobytes().hex())
"""


def test_the_same_seed_gives_the_same_bytes_in_any_process():
    """Whatever hash seed, thread count and global state the process has; and another seed moves the fits that have any chance in them."""
    running = []
    for number in ("1", "2"):
        command = [sys.executable, "-c", PROGRAM.format(tests=str(Path(__file__).parent)), number]
        world = {"OMP_NUM_THREADS": number, "OPENBLAS_NUM_THREADS": number, "PYTHONHASHSEED": number, "PATH": "/usr/bin:/bin"}
        world["PYTHONPATH"] = str(Path(__file__).parents[1])
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=world))
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    first, second = (dict(line.split() for line in output.splitlines()) for output in outputs)
    assert set(first) == set(NAMES)
    assert {name for name in NAMES if first[name] != second[name]} == set()
    for name in RANDOM:
        fitted, X = fit_of(tiny(name), 12)
        assert fitted.scores(X).tobytes().hex() != first[name]


def test_global_randomness_is_left_alone(any_learner):
    """Neither read nor moved: numpy's and torch's global states."""
    import torch

    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    fit_of(any_learner, 0)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_negative_weights_where_they_are_taken(learner):
    """Rows that are in with weight 1 and again with weight -1 leave the mean loss as it was, up to its scale."""
    if not learner.needs.negative:
        pytest.skip("takes none")
    X, y, weight = problem()
    more = [np.concatenate([a, a[:60], a[:60]]) for a in (X, y)]
    signed = np.concatenate([weight, np.ones(60), -np.ones(60)])
    plain, again = (np.exp(learner.fit(*rows, classes=3, seed=0).scores(X)) for rows in ((X, y, weight), (*more, signed)))
    assert np.abs(plain - again).mean() < 0.08


def test_anomalies_where_they_are_claimed(any_learner):
    """classes = 0 and truth 0 or 1: (n,) finite log-odds that rank anomalies first; they are higher where anomalies are commoner."""
    if "anomaly" not in any_learner.needs.tasks:
        pytest.skip("no detector")
    rng = np.random.default_rng(0)
    usual, odd = rng.normal(size=(300, 4)), rng.normal(scale=4, size=(30, 4))
    X, y = np.vstack([usual, odd]).astype(np.float32), np.repeat([0.0, 1.0], [300, 30])
    scores = any_learner.fit(X, y, np.ones(330), classes=0, seed=0).scores(X)
    assert scores.shape == (330,)
    assert np.isfinite(scores).all()
    assert (scores[:300, None] < scores[300:]).mean() > 0.8
    heavier = any_learner.fit(X, y, np.where(y == 1, 5.0, 1.0), classes=0, seed=0).scores(X)
    assert (heavier > scores).mean() > 0.9


def test_regression_where_it_is_claimed(any_learner):
    """classes = 0: (n,) predictions in the target's own units, far better than the mean; a constant target is predicted."""
    learner = any_learner
    if "regression" not in learner.needs.tasks:
        pytest.skip("predicts no values")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    y = 1e6 + 1e3 * (2 * X[:, 0] - np.abs(X[:, 1]))
    predictions = learner.fit(X, y, np.ones(400), classes=0, seed=0).scores(X)
    assert predictions.shape == (400,)
    assert np.mean((predictions - y) ** 2) < 0.25 * y.var()
    assert np.allclose(learner.fit(X, np.full(400, 7.0), np.ones(400), classes=0, seed=0).scores(X), 7.0, atol=0.1)

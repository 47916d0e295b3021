"""The autoencoder: what it may learn from, how long it trains, and what its scores mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import logit

from codsa_ray.errors import CandidateError
from codsa_ray.learners.autoencoder import LONGEST, SHIFT, Autoencoder, Errors, flat, log_errors
from codsa_ray.pictured import Pictured
from codsa_ray.portfolio import DEFAULT, learner
from codsa_ray.schema import Column, Schema

import gallery


def sheet(n=400, odd=40, seed=0):
    """Usual rows lie on a plane in eight columns, anomalies (truth 1) in all of them with the same spread."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(8, 8)))[0]
    flat = rng.normal(size=(n, 8)) * [2, 2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    X = np.vstack([flat @ turn, rng.normal(size=(odd, 8)) * np.sqrt(1.0075)])
    return X.astype(np.float32), np.repeat([0.0, 1.0], [n, odd])


def test_rows_off_the_plane_are_told_by_their_error():
    """Column by column the two look alike; new rows, AUC beyond .97."""
    X, y = sheet()
    new, truth = sheet(seed=1)
    scores = Autoencoder(steps=500).fit(X, y, np.ones(len(y)), classes=0, seed=0).scores(new)
    assert (scores[truth == 0, None] < scores[truth == 1]).mean() > 0.97


def test_anomalies_teach_nothing_but_their_share():
    """Other anomalies, the same number: the same bytes."""
    X, y = sheet()
    other = np.where(y[:, None] == 1, 7.0, X).astype(np.float32)
    fits = [Autoencoder.tiny().fit(rows, y, np.ones(len(y)), classes=0, seed=0) for rows in (X, other)]
    assert np.array_equal(fits[0].scores(X), fits[1].scores(X))
    assert fits[0].prior == pytest.approx(logit(40 / 440))


@pytest.mark.parametrize(("settings", "wanted"), [({}, [300, 300]), ({"epochs": 20}, [28, 112])])
def test_steps_do_not_grow_with_rows_unless_epochs_are_asked_for(settings, wanted, monkeypatch):
    """Twenty epochs of 90 and of 360 rows (a tenth is kept aside) in batches of 64 are 28 and 112 steps."""
    steps = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *args: (steps.append(1), original(self, *args))[1])
    X, _ = sheet(400, 0)
    counts = []
    for size in (100, 400):
        steps.clear()
        replace(Autoencoder.tiny(), **settings).fit(X[:size], np.zeros(size), np.ones(size), classes=0, seed=0)
        counts.append(len(steps))
    assert counts == wanted


def test_scores_are_log_odds_of_two_normals():
    """log N(z; SHIFT, 1) - log N(z; 0, 1) + prior log-odds, kept within LONGEST; z from rows that were kept aside."""
    layers = (np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    fitted = Errors(layers, middle=1.0, spread=0.5, prior=-2.0)
    X = np.array([[1.0, 2.0], [3.0, 0.5], [1e4, 1e4]], dtype=np.float32)
    z = (np.log(np.square(X).mean(axis=1)) - 1.0) / 0.5
    assert log_errors(layers, X) == pytest.approx(0.5 * z + 1.0, abs=1e-6)
    wanted = (np.square(z) - np.square(z - SHIFT)) / 2 - 2.0
    assert fitted.scores(X) == pytest.approx(np.clip(wanted, -LONGEST, LONGEST), abs=1e-5)


def test_the_code_is_narrower_than_the_rows_and_no_wider_than_the_papers():
    for width, code, hidden in ((784, 32, 128), (8, 4, 32), (1, 1, 4)):
        fitted = replace(Autoencoder(), steps=1).fit(np.zeros((20, width), np.float32), np.zeros(20), np.ones(20), classes=0, seed=0)
        assert [layer.shape for layer in fitted.layers[::2]] == [(width, hidden), (hidden, code), (code, hidden), (hidden, width)]


def test_a_weighted_row_is_worth_its_weight():
    """Usual rows of two planes: those that weigh more are reconstructed better."""
    one, other = sheet(200, 0)[0], sheet(200, 0, seed=3)[0][:, ::-1]
    X, y = np.vstack([one, other]), np.zeros(400)
    weights = (np.repeat(w, 200) for w in ([10.0, 1.0], [1.0, 10.0]))
    heavy, light = (Autoencoder(code=2, steps=500).fit(X, y, w, classes=0, seed=0).layers for w in weights)
    assert log_errors(heavy, one).mean() < log_errors(light, one).mean() - 0.3


def test_too_few_usual_rows_and_rows_that_are_not_numbers_are_reasons():
    X, y = sheet()
    with pytest.raises(CandidateError, match="three rows of truth 0; got 2"):
        Autoencoder.tiny().fit(X[-42:], np.repeat([0.0, 1.0], [2, 40]), np.ones(42), classes=0, seed=0)
    X[0, 0] = np.nan
    with pytest.raises(CandidateError, match="not numbers"):
        Autoencoder.tiny().fit(X, y, np.ones(len(y)), classes=0, seed=0)


def test_pictures_are_told_by_their_pixels():
    """Of ones and sevens as files: an autoencoder of ones."""
    table = gallery.digits(160, 40).select(["picture", "digit"])
    schema = Schema(
        (Column("picture", "image", "binary"), Column("digit", "categorical", "string", categories=("one", "seven"))), "digit", "anomaly"
    )
    settings = Autoencoder(steps=500)
    encoder = settings.encoder(table.slice(0, 120), schema)
    assert isinstance(encoder, Pictured)
    X = encoder.encode(table)
    shares = np.stack([gallery.pixels(file)[:, :, 0] for file in table["picture"].to_pylist()]).reshape(len(X), -1) / 255
    assert flat(X) == pytest.approx(shares.astype(np.float32))
    fitted = settings.fit(X[:120], np.zeros(120), np.ones(120), classes=0, seed=0)
    scores = fitted.scores(X[120:])
    assert (scores[:40, None] < scores[40:]).mean() > 0.95


def test_the_default_learner_of_anomalies_takes_pictures_and_no_texts():
    assert learner(DEFAULT, frozenset({"numeric", "image"}), "anomaly") == "autoencoder"
    assert {"image"} <= Autoencoder().needs.kinds
    assert "text" not in Autoencoder().needs.kinds

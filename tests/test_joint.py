"""Late fusion: each modality is heard as far as it tells, out of fold; what one lacks the others say."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import log_softmax

from codsa_ray.errors import CandidateError, SettingError
from codsa_ray.fusion import folds_of, heard, stacked
from codsa_ray.learners.joint import Joint
from codsa_ray.modalities import TABLE, TEXTS, taken
from codsa_ray.schema import Schema

from tables import with_regions
from triples import NAMES, triples

TINY = replace(Joint.tiny(), least=60, most=80)
LEARNS = replace(TINY, least=200, most=200)
QUIET = ("calm", "still", "mild")
LOUD = ("harsh", "wild", "keen")


def problem(n: int = 360, seed: int = 0) -> tuple[pa.Table, Schema, np.ndarray]:
    """Labels of two halves, one of which the picture tells (zero or not) and one the text; `noise` tells nothing."""
    rng = np.random.default_rng(seed)
    table = triples(1000)
    zero = np.array([text.split()[1] == "zero" for text in table["remark"].to_pylist()])
    some = np.concatenate([np.flatnonzero(zero)[: n // 3], np.flatnonzero(~zero)[: n - n // 3]])
    some = rng.permutation(some[: len(some)])
    loud = rng.random(len(some)) < 0.4
    said = [" ".join(["it", "is", rng.choice(LOUD if one else QUIET)]) for one in loud]
    label = 2 * zero[some] + loud
    table = pa.table({
        "scan": table["scan"].take(pa.array(some)),
        "said": said,
        "noise": rng.normal(size=len(some)),
        "label": [NAMES[one] for one in label],
    })  # fmt: skip
    table, schema, _ = with_regions(table, "label", ("label",))
    columns = tuple(replace(c, kind="text", categories=()) if c.name == "said" else c for c in schema.columns)
    return table, replace(schema, columns=columns), label.astype(np.int64)


def test_two_halves_of_a_label_are_told_by_two_modalities_and_noise_by_none() -> None:
    table, schema, label = problem()
    train, test = np.arange(len(table)) < 260, np.arange(len(table)) >= 260
    encoder = LEARNS.encoder(table.filter(pa.array(train)), schema)
    X = encoder.encode(table)
    fitted = LEARNS.fit(X[train], label[train], np.ones(train.sum()), classes=4, seed=0)
    assert (fitted.scores(X[test]).argmax(axis=1) == label[test]).mean() > 0.9
    counts = dict(zip(fitted.models, fitted.counts, strict=True))
    assert counts[TABLE] < 0.5 * min(counts[TEXTS], counts["picture0"])
    for name in (TEXTS, "picture0"):
        alone = fitted.models[name].odds(X[test][name])
        assert (alone.argmax(axis=1) == label[test]).mean() < 0.75


def test_a_row_without_picture_or_text_is_scored() -> None:
    table, schema, label = problem(150)
    scans = [None if place % 4 == 0 else scan for place, scan in enumerate(table["scan"].to_pylist())]
    said = [None if place % 3 == 0 else text for place, text in enumerate(table["said"].to_pylist())]
    table = table.set_column(0, "scan", pa.array(scans, pa.binary())).set_column(1, "said", pa.array(said, pa.string()))
    X = TINY.encoder(table, schema).encode(table)
    fitted = TINY.fit(X, label, np.ones(len(label)), classes=4, seed=0)
    scores = fitted.scores(X)
    assert np.isfinite(scores).all()
    assert np.allclose(fitted.scores(X[7:8]), scores[7:8], atol=1e-5)
    assert np.array_equal(scores, TINY.fit(X, label, np.ones(len(label)), classes=4, seed=0).scores(X))


def test_a_row_that_lacks_a_picture_or_a_text_is_judged_by_the_others() -> None:
    table, schema, label = problem(150)
    scans = [None if place % 4 == 0 else scan for place, scan in enumerate(table["scan"].to_pylist())]
    said = [None if place % 3 == 0 else text for place, text in enumerate(table["said"].to_pylist())]
    table = table.set_column(0, "scan", pa.array(scans, pa.binary())).set_column(1, "said", pa.array(said, pa.string()))
    averaged = replace(TINY, fusion="average")
    X = averaged.encoder(table, schema).encode(table)
    assert np.array_equal(X[TABLE][:, -1], np.arange(len(table)) % 4 == 0)
    fitted = averaged.fit(X, label, np.ones(len(label)), classes=4, seed=0)
    own = {name: np.maximum(log_softmax(fitted.models[name].odds(values), axis=1), np.log(1e-7)) for name, values in taken(X).items()}
    for row, there in ((1, own), (4, (TABLE, TEXTS)), (3, (TABLE, "picture0")), (12, (TABLE,))):
        wanted = log_softmax(np.mean([own[name][row] for name in there], axis=0))
        assert np.allclose(fitted.scores(X[row : row + 1])[0], wanted, atol=1e-3)


def test_where_no_model_has_anything_to_go_by_all_are_heard() -> None:
    scores = np.log(np.random.default_rng(0).dirichlet(np.ones(3), (2, 4)))
    absent = np.array([[True, True, False, False], [True, False, True, False]])
    found = heard(scores, absent)
    assert np.array_equal(found[:, [0, 3]], scores[:, [0, 3]])
    assert np.array_equal(found[:, 1], scores[[1, 1], 1])
    assert np.array_equal(found[:, 2], scores[[0, 0], 2])


def test_the_average_is_the_mean_of_log_probabilities() -> None:
    table, schema, label = problem(150)
    averaged = replace(TINY, fusion="average")
    X = averaged.encoder(table, schema).encode(table)
    fitted = averaged.fit(X, label, np.ones(len(label)), classes=4, seed=0)
    parts = [log_softmax(fitted.models[name].odds(values), axis=1) for name, values in taken(X).items()]
    assert len(parts) == 3
    wanted = log_softmax(np.mean(np.maximum(parts, np.log(1e-7)), axis=0), axis=1)
    assert np.allclose(fitted.scores(X), wanted, atol=1e-3)


def test_a_class_of_one_row_says_nothing_of_what_models_are_worth() -> None:
    """The models of the fold that scores it never saw its class: its loss is none of theirs."""
    table, schema, label = problem(150)
    X = TINY.encoder(table, schema).encode(table)
    lone, pair = label.copy(), np.isin(label, [0, 1])
    lone[np.flatnonzero(pair)[0]] = 2
    plain, odd = (TINY.fit(X[pair], own[pair], np.ones(pair.sum()), classes=3, seed=0) for own in (label, lone))
    assert odd.present.tolist() == [0, 1, 2]
    assert odd.start[2] == 0
    assert odd.counts == pytest.approx(plain.counts, abs=0.05)


def test_where_every_class_has_one_row_models_are_averaged() -> None:
    table, schema, label = problem(150)
    X = TINY.encoder(table, schema).encode(table)
    rows = [np.flatnonzero(label == k)[0] for k in range(3)]
    fitted = TINY.fit(X[rows], np.arange(3), np.ones(3), classes=3, seed=0)
    assert fitted.counts == pytest.approx(1 / len(fitted.models))
    assert not fitted.start.any()


def test_what_a_model_is_worth_is_found() -> None:
    """One that states twice the truth's log-odds counts half; one of noise not at all; a constant shift is taken back."""
    rng = np.random.default_rng(0)
    odds = rng.normal(size=(20_000, 3))
    label = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    shift = np.array([1.0, 0.0, -1.0])
    scores = np.stack([log_softmax(2 * odds + 2 * shift, axis=1), log_softmax(rng.normal(size=odds.shape), axis=1)])
    counts, start = stacked(scores, label, np.ones(len(label)))
    assert counts == pytest.approx([0.5, 0.0], abs=0.06)
    assert start - start.mean() == pytest.approx(-shift, abs=0.1)


def test_weights_of_rows_weigh_in_the_fusion() -> None:
    rng = np.random.default_rng(0)
    scores, label = log_softmax(rng.normal(size=(2, 300, 2)), axis=2), rng.integers(0, 2, 300)
    weight = rng.integers(1, 4, 300)
    rows = np.repeat(np.arange(300), weight)
    copied = stacked(scores[:, rows], label[rows], np.ones(len(rows)))
    for a, b in zip(stacked(scores, label, weight.astype(float)), copied, strict=True):
        assert np.allclose(a, b, atol=1e-4)


def test_folds_hold_each_label_s_share() -> None:
    label = np.repeat([0, 1, 2], [30, 9, 2])
    fold = folds_of(label, 3, 0)
    assert np.bincount(fold[label == 0]).tolist() == [10, 10, 10]
    assert np.bincount(fold[label == 1]).tolist() == [3, 3, 3]
    assert np.array_equal(fold, folds_of(label, 3, 0))


def test_wrong_settings_and_offsets_are_refused_in_a_line() -> None:
    with pytest.raises(SettingError, match="fusion of stacked, average"):
        Joint(fusion="none")
    with pytest.raises(CandidateError, match="offset"):
        TINY.fit(np.zeros((4, 1), dtype=np.float32), np.array([0, 1, 0, 1]), np.ones(4), classes=2, seed=0, offset=np.zeros((4, 2)))

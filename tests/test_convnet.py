"""The convolutional network: pictures and columns are both learned from, weights are copies, bases are tuned, and bytes stay bytes."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits

from codsa_ray.errors import CandidateError, PictureError, SchemaError, SettingError
from codsa_ray.infer import infer, refuse
from codsa_ray.learners.convnet import ClassifierLoss, Convnet, Rows, Turning, costs, weighed
from codsa_ray.nn.augmenting import FLIP, NONE, SHIFT, augmented, mirrored, shares, shifted, turned
from codsa_ray.nn.picture_classifiers import PictureClassifier, SmallTrunk
from codsa_ray.picture import decoded, encoded
from codsa_ray.pictured import COLUMNS, PICTURE, Pictured, taken_apart
from codsa_ray.schema import Schema
from codsa_ray.summary import Summary

import bases
from tables import mixed_table, pictured, with_regions

SMALL = Convnet(width=8, hidden=16, least=120, most=120)


def digits(rows: int = 400) -> tuple[pa.Table, Schema]:
    """Pictures of digits, and whether they are odd told by a column that is right in 7 of 10 rows."""
    X, y = load_digits(return_X_y=True)
    kept = np.isin(y, (0, 1, 4))
    X, y = X[kept][:rows], y[kept][:rows]
    files = [encoded((picture.reshape(8, 8, 1) * 15.9).astype(np.uint8)) for picture in X]
    odd = (y == 1) ^ (np.random.default_rng(0).random(len(y)) < 0.3)
    table = pa.table({"scan": pa.array(files, pa.binary()), "odd": pa.array(odd), "digit": pa.array(y.astype(str))})
    table, schema, _ = with_regions(table, "digit", ("digit",))
    return table, schema


def fitted(learner: Convnet, table: pa.Table, schema: Schema, seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """(predictor, encoded rows, labels)."""
    X, y = learner.encoder(table, schema).encode(table), schema.truth(table)
    return learner.fit(X, y, np.ones(len(y)), classes=len(schema.classes), seed=seed), X, y


def test_a_network_that_diverges_is_a_reason() -> None:
    table, schema = digits(120)
    with pytest.raises(CandidateError, match=r"diverged: .* lower the rate"):
        fitted(replace(SMALL, rate=1e30), table, schema)


# encoding


def test_an_encoded_row_is_as_large_as_its_pixels_and_columns() -> None:
    table, schema = digits()
    X = SMALL.encoder(table, schema).encode(table)
    assert X.shape == (len(table),)
    assert X.itemsize == 64 + 4
    assert np.array_equal(X[PICTURE][3], decoded(table["scan"][3].as_py()))
    assert X.nbytes == 68 * len(table)


def test_encoded_rows_are_stored_mapped_joined_and_taken_like_any(tmp_path: Path) -> None:
    table, schema = digits(60)
    alone = pa.table({"scan": table["scan"], "digit": table["digit"]})
    for rows in (table, alone):
        read = rows if rows is table else with_regions(alone, "digit", ("digit",))[0]
        used = schema if rows is table else with_regions(alone, "digit", ("digit",))[1]
        X = SMALL.encoder(read, used).encode(read)
        np.save(tmp_path / "x.npy", X, allow_pickle=False)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r", allow_pickle=False)
        joined = np.concatenate([mapped, X])[np.array([0, 61])]
        assert joined.dtype == X.dtype
        assert np.array_equal(joined[PICTURE][1], X[PICTURE][1])
        pictures, columns = taken_apart(joined)
        assert pictures is not None
        assert columns.shape == (2, X.dtype[COLUMNS].shape[0] if COLUMNS in X.dtype.names else 0)


def test_sizes_colours_and_missing_pictures_are_brought_together() -> None:
    rng = np.random.default_rng(0)
    grey, colour = (rng.integers(0, 255, (6, 4, channels)).astype(np.uint8) for channels in (1, 3))
    files = [encoded(grey)] * 5 + [encoded(colour), encoded(rng.integers(0, 255, (9, 9, 1)).astype(np.uint8)), None]
    table = pa.table({"scan": pa.array(files, pa.binary()), "label": ["a", "b"] * 4})
    table, schema, _ = with_regions(table, "label", ("label",))
    encoder = Pictured.learn(table, schema, 32)
    assert (encoder.height, encoder.width, encoder.channels, encoder.nulls) == (6, 4, 3, True)
    X = encoder.encode(table)
    assert (X[PICTURE][0] == grey).all()
    assert (X[PICTURE][7] == 0).all()
    assert X[COLUMNS][:, -1].tolist() == [0.0] * 7 + [1.0]
    assert Pictured.learn(table, schema, 3).height == 3


def test_what_is_no_picture_and_columns_it_cannot_read_are_refused() -> None:
    table, schema = digits(30)
    encoder = SMALL.encoder(table, schema)
    with pytest.raises(PictureError):
        encoder.encode(table.set_column(0, "scan", pa.array([b"GIF89a"] * 30, pa.binary())))
    with pytest.raises(SchemaError, match="one column of pictures"):
        SMALL.encoder(*mixed_table(100)[:2])
    texts = pa.table(
        {"scan": table["scan"], "digit": table["digit"], "note": [f"this is a note of some words, number {i}" for i in range(30)]}
    )
    told = infer(Summary.of(texts, np.arange(30)), "digit", overrides={"note": {"kind": "text"}})
    with pytest.raises(SchemaError, match="note"):
        refuse(told, SMALL.needs.kinds, "convnet")


# learning


def test_pictures_and_columns_are_both_learned_from() -> None:
    table, schema = digits()
    train, test = table.slice(0, 300), table.slice(300)
    found = {}
    for name, columns in {"both": ["scan", "odd"], "picture": ["scan"]}.items():
        narrow = replace(schema, columns=tuple(c for c in schema.columns if c.name in (*columns, "digit")))
        predictor, _, _ = fitted(SMALL, train, narrow)
        scores = predictor.scores(SMALL.encoder(train, narrow).encode(test))
        found[name] = -scores[np.arange(len(test)), schema.truth(test)].mean()
    assert found["picture"] < 0.35
    blank = table.set_column(0, "scan", pa.array([encoded(np.zeros((8, 8, 1), dtype=np.uint8))] * len(table), pa.binary()))
    predictor, X, y = fitted(SMALL, blank, schema)
    share = np.bincount(y) / len(y)
    assert -predictor.scores(X)[np.arange(len(y)), y].mean() < -np.log(share) @ share - 0.02, "the column alone says something"


@pytest.mark.parametrize("changed", [{"augment": NONE}, {"augment": FLIP}, {"mixup": 0.3}, {"sampled": 0.0}, {"pretrain": 30}])
def test_every_way_to_train_learns_and_repeats_itself(changed: dict[str, Any]) -> None:
    learner = replace(SMALL, least=80, most=80, **changed)
    table, schema = digits(300)
    predictor, X, y = fitted(learner, table, schema)
    scores = predictor.scores(X)
    assert (scores.argmax(axis=1) == y).mean() > 0.65
    again, _, _ = fitted(learner, table, schema)
    assert np.array_equal(scores, again.scores(X))
    assert np.array_equal(pickle.loads(pickle.dumps(predictor)).scores(X), scores)


def test_values_are_predicted_from_pictures() -> None:
    rng = np.random.default_rng(0)
    ink = rng.integers(20, 250, 300)
    files = [encoded(np.full((8, 8, 1), value, dtype=np.uint8)) for value in ink]
    table = pa.table({"scan": pa.array(files, pa.binary()), "weight": 1000.0 + ink, "half": ["a", "b"] * 150})
    table, schema, _ = with_regions(table, "weight", ("half",), "regression")
    X, y = SMALL.encoder(table, schema).encode(table), schema.truth(table)
    predicted = replace(SMALL, augment=NONE).fit(X, y, np.ones(300), classes=0, seed=0).scores(X)
    assert np.mean((predicted - y) ** 2) < 0.1 * y.var()


# weights


def some_rows(weight: np.ndarray, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    many = len(weight)
    pictures, columns = rng.integers(0, 255, (many, 8, 8, 1)).astype(np.uint8), rng.normal(size=(many, 2))
    target = torch.from_numpy(rng.integers(0, 3, many))
    return Rows(pictures, columns, np.arange(many), target, torch.from_numpy(weight / weight.mean()), torch.zeros(many, 3))


def network(seed: int = 0) -> PictureClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = PictureClassifier(SmallTrunk(1, 8, 8), 2, 16, torch.zeros(3), torch.full((1,), 120.0), torch.full((1,), 60.0))
        torch.nn.init.normal_(module.leave.weight, std=0.3)
    return module


def gradient(module: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
    module.zero_grad()
    loss().backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def test_a_weighted_loss_is_that_of_repeated_rows() -> None:
    weight = np.array([3.0, 1.0, 2.0, 1.0, 4.0, 1.0])
    rows, module = some_rows(weight), network()
    again = replace(rows, index=np.repeat(np.arange(6), weight.astype(int)), weight=torch.ones(6, dtype=torch.float64))
    assert weighed(module, rows, "cpu") == pytest.approx(weighed(module, again, "cpu"), rel=1e-5)


@pytest.mark.parametrize("sampled", [0.0, 0.5, 1.0])
def test_however_weights_are_realised_the_expected_gradient_is_the_weighted_one(sampled: float) -> None:
    """Sum over rows of (chance to be drawn) x (what is left of the weight) x gradient = that of the weighted mean loss, in closed form."""
    weight = np.array([3.0, 1.0, 2.0, 1.0, 4.0, 0.5])
    rows, module = some_rows(weight), network()
    loss = ClassifierLoss.of(replace(SMALL, sampled=sampled, augment=NONE, dropout=0.0), rows, "cpu")
    chance = torch.diff(loss.mass.total, prepend=torch.zeros(1, dtype=torch.float64))
    pictures, columns = rows.seen(torch.arange(6), "cpu")
    target, own, offset = rows.told(torch.arange(6), "cpu")

    def each() -> torch.Tensor:
        return costs(module(pictures, columns), target, offset)

    expected = gradient(module, lambda: (chance.float() * loss.rest * each()).sum())
    wanted = gradient(module, lambda: (own * each()).sum() / own.sum())
    assert torch.allclose(expected, wanted, atol=1e-5)


def test_weights_that_balance_classes_draw_every_class_as_often() -> None:
    counts = np.array([90, 9, 1])
    y = np.repeat(np.arange(3), counts)
    rows = replace(some_rows(1 / counts[y]), target=torch.from_numpy(y))
    loss = ClassifierLoss.of(SMALL, rows, "cpu")
    drawn = y[loss.mass.draw(300, torch.Generator().manual_seed(0)).numpy()]
    assert np.bincount(drawn).tolist() == [100, 100, 100]
    assert torch.allclose(loss.rest, torch.ones(100))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rows_mixed_whole_cost_what_plain_ones_do(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of 1 is the row itself, of 0 the other one: the same batch in another order."""
    monkeypatch.setattr("codsa_ray.learners.convnet.shares", lambda many, alpha, generator: torch.full((many,), share))
    rows, module = some_rows(np.linspace(1, 3, 16)), network()
    plain = ClassifierLoss.of(replace(SMALL, augment=NONE, dropout=0.0, batch=16, sampled=0.0), rows, "cpu")
    mixed = replace(plain, settings=replace(plain.settings, mixup=0.2))
    values = [loss(module, torch.Generator().manual_seed(3)).item() for loss in (plain, mixed)]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_shares_of_mixed_rows_are_those_of_a_beta() -> None:
    share = shares(20_000, 0.2, torch.Generator().manual_seed(0))
    assert float(share.min()) >= 0.5
    assert float((2 * share - 1).square().mean()) == pytest.approx(1 / (2 * 0.2 + 1), abs=0.01), "Beta(.2, .2): (2x - 1)^2 is 1 / (2a + 1)"


# augmentation


def test_moved_pictures_are_the_same_pictures_elsewhere() -> None:
    picture = torch.zeros(200, 2, 16, 8)
    picture[:, :, 7, 4] = 1.0
    moved = shifted(picture, torch.Generator().manual_seed(0))
    assert (moved.sum((2, 3)) == 1).all()
    rows, columns = (moved[:, 0].amax(2).argmax(1), moved[:, 0].amax(1).argmax(1))
    assert set(rows.tolist()) == {5, 6, 7, 8, 9}
    assert set(columns.tolist()) == {3, 4, 5}
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_mirrored_and_turned_pictures_are_what_they_say() -> None:
    picture = torch.arange(12.0).view(1, 1, 3, 4).repeat(100, 1, 1, 1)
    found = mirrored(picture, torch.Generator().manual_seed(0))
    flipped = (found != picture).flatten(1).any(1)
    assert 30 < int(flipped.sum()) < 70
    assert torch.equal(found[flipped].flip(3), picture[flipped])
    views, way = turned(picture, torch.Generator().manual_seed(0))
    assert set(way.tolist()) == {0, 1}, "no square: halves"
    assert torch.equal(views[way == 1].flip((2, 3)), picture[way == 1])
    square = picture[:, :, :, :3]
    views, way = turned(square, torch.Generator().manual_seed(0))
    assert set(way.tolist()) == {0, 1, 2, 3}
    assert torch.equal(torch.rot90(views[way == 3], 1, (2, 3)), square[way == 3])


@pytest.mark.parametrize("kind", [NONE, SHIFT, FLIP])
def test_augmentation_is_its_generator_s_alone(kind: str) -> None:
    pictures = torch.rand(8, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    first, second = (augmented(pictures, kind, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)


def test_turning_teaches_the_trunk_that_the_classifier_has() -> None:
    module = network()
    assert Turning(module).trunk is module.trunk
    assert module.trunk is not None


# bases


def tuned(folder: Path | str) -> Convnet:
    return Convnet(base=str(folder), least=4, most=4, batch=8, checks=2)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_vision_model_is_tuned(kind: str, tmp_path: Path) -> None:
    folder = bases.small_vision(tmp_path / kind, kind)
    table, schema = digits(60)
    learner = tuned(folder)
    encoder = learner.encoder(table, schema)
    assert isinstance(encoder, Pictured)
    assert (encoder.height, encoder.width, encoder.channels) == (16, 16, 3)
    predictor, X, _ = fitted(learner, table, schema)
    scores = predictor.scores(X)
    assert scores.shape == (60, 3)
    assert np.array_equal(fitted(learner, table, schema)[0].scores(X), scores)
    names = {name for name, weight in predictor.module.named_parameters() if name.startswith("trunk.model")}
    before = bases.vision_weights(folder)
    assert any(
        not torch.equal(dict(predictor.module.named_parameters())[name], before[name.removeprefix("trunk.model.")]) for name in names
    )


def test_a_model_of_timm_is_tuned_where_timm_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    seen = {"input_size": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    model = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=2, pretrained_cfg=seen))
    model.save_pretrained(tmp_path)
    table, schema = digits(60)
    learner = tuned(tmp_path)
    encoder = learner.encoder(table, schema)
    assert isinstance(encoder, Pictured)
    assert (encoder.height, encoder.width, encoder.channels) == (32, 32, 3)
    predictor, X, _ = fitted(learner, table, schema)
    scores = predictor.scores(X)
    assert scores.shape == (60, 3)
    assert np.array_equal(fitted(learner, table, schema)[0].scores(X), scores)
    before, after = model.state_dict(), dict(predictor.module.named_parameters())
    names = [name for name in after if name.startswith("trunk.model.")]
    assert any(not torch.equal(after[name], before[name.removeprefix("trunk.model.")]) for name in names)


def refusal(folder: Path | str) -> str:
    table, schema = digits(40)
    with pytest.raises(SettingError) as error:
        fitted(tuned(folder), table, schema)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bases_that_cannot_be_are_told_in_one_line(tmp_path: Path) -> None:
    assert "config.json" in refusal(tmp_path / "nowhere")
    assert "safetensors" in refusal(bases.small_vision(tmp_path / "pickled", "resnet", pickled=True))
    assert "another architecture" in refusal(bases.small_gpt2(tmp_path / "words"))
    half = bases.small_vision(tmp_path / "half", "vit")
    (half / "config.json").write_text((half / "config.json").read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    assert "without" in refusal(half)


@pytest.mark.parametrize("bad", [{"augment": "blur"}, {"width": 12}, {"sampled": 2.0}, {"dropout": 1.0}, {"mixup": -1.0}, {"batch": 0}])
def test_settings_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        Convnet(**bad)


def test_pictures_of_a_table_with_every_kind_of_column_go_through() -> None:
    table, schema, _ = with_regions(pictured(mixed_table(200)[0].drop_columns(["_region", "_row"])), "label", ("label", "sex"))
    _, X, _ = fitted(replace(SMALL, least=20, most=20), table, schema)
    assert X[COLUMNS].shape[1] > 5

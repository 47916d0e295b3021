"""Texts and pictures as numbers: like things lie together, each by itself, learned on training rows only, and strata cut by them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer

from codsa_ray.embedding import AXES, SIDE, Embedding, hashed, thumbnail, thumbnails
from codsa_ray.fitdata import REGION, FitData
from codsa_ray.folder import Folder
from codsa_ray.landmarks import Landmarks
from codsa_ray.picture import encoded
from codsa_ray.plugins import make, names
from codsa_ray.regions import Region, Regions
from codsa_ray.schema import Column, Schema

WARM, COLD = ["sun", "beach", "sand", "surf", "shore", "shell"], ["snow", "frost", "ice", "sleet", "hail", "glacier"]


ODD = ["", " ", "שלום עולם", "😀 😀", "a" * 5000]


def chunked(values: list[object], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, kind)])


def spoken(n: int, seed: int = 0) -> tuple[pa.ChunkedArray, np.ndarray]:
    """n texts of one of two sets of words, and which."""
    rng = np.random.default_rng(seed)
    cold = rng.random(n) < 0.4
    return chunked([" ".join(rng.choice(COLD if c else WARM, 12)) for c in cold], pa.string()), cold


def painted(n: int, seed: int = 0) -> tuple[pa.ChunkedArray, np.ndarray]:
    """n pictures of many sizes, bright above or bright below, and which."""
    rng = np.random.default_rng(seed)
    above = rng.random(n) < 0.4
    found = []
    for up in above:
        side = int(rng.integers(8, 40))
        pixels = rng.integers(0, 60, (side, side, 3))
        pixels[: side // 2 if up else None, :, :][slice(None) if up else slice(side // 2, None)] += 150
        found.append(encoded(pixels.astype(np.uint8)))
    return chunked(found, pa.binary()), above


KINDS = {"text": spoken, "image": painted}


@pytest.mark.parametrize("kind", KINDS)
def test_like_things_lie_together(kind: str) -> None:
    values, which = KINDS[kind](200)
    embedding = Embedding.learn("x", kind, values)
    more, other = KINDS[kind](100, seed=1)
    points = embedding.place(more)
    middle = [points[other == side].mean(axis=0) for side in (False, True)]
    told = np.linalg.norm(points - middle[0], axis=1) > np.linalg.norm(points - middle[1], axis=1)
    assert (told == other).mean() > 0.97
    assert points.shape[1] <= AXES
    assert which.any()


@pytest.mark.parametrize("kind", KINDS)
def test_each_place_is_its_own_whatever_it_comes_with(kind: str) -> None:
    values, _ = KINDS[kind](60)
    embedding = Embedding.learn("x", kind, values)
    whole = embedding.place(values)
    order = np.random.default_rng(0).permutation(60)
    assert np.array_equal(embedding.place(values.take(pa.array(order))), whole[order])
    assert np.array_equal(embedding.place(values.slice(7, 1)), whole[7:8])
    assert embedding.place(values.slice(0, 0)).shape == (0, whole.shape[1])
    assert np.std(whole, axis=0).max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_plain_arrays(kind: str, tmp_path: Path) -> None:
    values, _ = KINDS[kind](60)
    embedding = Embedding.learn("x", kind, values)
    folder = Folder(str(tmp_path))
    folder.write_arrays("e.safetensors", embedding.to_arrays())
    again = Embedding.from_arrays("x", kind, folder.read_arrays("e.safetensors"))
    assert np.array_equal(again.place(values), embedding.place(values))
    assert np.array_equal(Embedding.learn("x", kind, values).place(values), embedding.place(values))


def test_words_fall_where_scikit_learn_s_hashing_puts_words_of_a_text_together() -> None:
    """Another hash, the same counts: as many words a text, as many slots, and texts as like each other."""
    values, _ = spoken(40)
    mine = hashed(values.to_pylist(), 2**16, pairs=True)
    theirs = HashingVectorizer(n_features=2**16, norm=None, alternate_sign=False, ngram_range=(1, 2)).transform(values.to_pylist())
    assert np.array_equal(mine.sum(axis=1), np.asarray(theirs.sum(axis=1)).ravel())
    assert np.allclose((mine @ mine.T).toarray(), (theirs @ theirs.T).toarray())


def test_axes_span_what_scikit_learn_finds() -> None:
    values, _ = painted(120)
    embedding = Embedding.learn("x", "image", values)
    pixels = np.stack([thumbnail(value).ravel() / 255 for value in values.to_pylist()])
    found = PCA(AXES, svd_solver="full").fit(pixels)
    scores = found.transform(pixels) / found.explained_variance_[0] ** 0.5 / (119 / 120) ** 0.5
    assert np.allclose(np.abs(embedding.place(values)), np.abs(scores), atol=1e-4)
    texts, _ = spoken(120)
    told = Embedding.learn("x", "text", texts)
    from codsa_ray.embedding import SLOTS, _weighed

    X = _weighed(hashed(texts.to_pylist(), SLOTS, pairs=True), told.weight)
    power = TruncatedSVD(AXES, algorithm="arpack", random_state=0).fit(X).singular_values_
    length = np.linalg.norm(told.axes[:, 0])
    assert np.allclose(np.linalg.norm(told.place(texts), axis=0) / length, power, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.text(max_size=60), st.sampled_from(["", " ", "שלום עולם", "😀 😀", "a" * 5000])), min_size=1, max_size=12
    )
)
def test_any_text_has_a_place(texts: list[str | None]) -> None:
    values = chunked(texts, pa.string())
    points = Embedding.learn("x", "text", values).place(values)
    assert np.isfinite(points).all()
    assert len(points) == len(texts)


def test_pictures_that_are_none_lie_in_the_middle() -> None:
    values, _ = painted(30)
    embedding = Embedding.learn("x", "image", pa.chunked_array([*values.chunks, pa.array([None, b"nothing"], pa.binary())]))
    assert not embedding.place(chunked([None, b"nothing", b""], pa.binary())).any()
    for few in (chunked([None, None], pa.binary()), chunked([values[0].as_py()] * 3, pa.binary())):
        assert Embedding.learn("x", "image", few).place(few).shape == (len(few), 0)


def test_thumbnails_are_placed_as_their_pictures_are() -> None:
    values, _ = painted(30)
    embedding = Embedding.learn("x", "image", values)
    small = pa.chunked_array([thumbnails(values)])
    assert np.array_equal(embedding.place(small), embedding.place(values))
    assert thumbnail(small[0].as_py()).shape == (SIDE, SIDE, 3)


def told(kind: str, n: int = 240) -> tuple[FitData, np.ndarray, np.ndarray]:
    """Rows of one text or picture and a label; their groups; which of its two ways each has."""
    values, which = KINDS[kind](n)
    group = (np.arange(n) % 3 == 0).astype(np.int64)
    columns = (
        Column("x", kind, "string" if kind == "text" else "binary"),
        Column("y", "categorical", "string", categories=("common", "rare")),
    )
    schema = Schema(columns, "y", "classification", order=("x", "y"), types=("string" if kind == "text" else "binary", "string"))
    counts = np.bincount(group)
    items = [Region(name, g, 0, int(counts[g]), (("y", name),)) for g, name in enumerate(("common", "rare"))]
    regions = Regions(tuple(items), (0.5, 0.5))
    table = pa.table({"x": values, "y": np.array(["common", "rare"])[group], REGION: pa.array(group.astype(np.int32))})
    return FitData.of(table, schema, regions, seed=0), group, which


@pytest.mark.parametrize("kind", KINDS)
def test_clusters_of_texts_and_pictures_are_found_in_every_group(kind: str) -> None:
    data, group, which = told(kind)
    rule = make("strata", "clusters:many=2,least=10").fit(data)
    strata = rule.assign(data.table(), group)
    for g in (0, 1):
        mine = group == g
        same = (strata[mine] == which[mine]).mean()
        assert max(same, 1 - same) > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", names("strata"))
def test_every_rule_cuts_texts_and_pictures_and_comes_back(name: str, kind: str, tmp_path: Path) -> None:
    data, group, _ = told(kind)
    settings_ = type(make("strata", name)).tiny()
    rule = settings_.fit(data)
    wanted = rule.assign(data.table(), group)
    rule.save(Folder(str(tmp_path)).make())
    assert np.array_equal(settings_.load(Folder(str(tmp_path))).assign(data.table(), group), wanted)
    assert np.array_equal(rule.assign(data.table().slice(5, 1), group[5:6]), wanted[5:6])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["density", "entropy", "hardness"])
def test_allocators_that_measure_can_measure_them(name: str, kind: str) -> None:
    data, _, _ = told(kind)
    measured = make("allocators", name).measure(data)
    assert measured.shape == (2,)
    assert np.isfinite(measured).all()


def test_landmarks_carry_thumbnails_and_not_the_pictures() -> None:
    data, _, _ = told("image")
    landmarks = Landmarks.among(data, 1000)
    assert {thumbnail(value).shape for value in landmarks.table["x"].to_pylist()} == {(SIDE, SIDE, 3)}
    assert landmarks.table["x"].nbytes < 240 * 1200

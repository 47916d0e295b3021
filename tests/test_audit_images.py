"""Audits of pictures and texts: distances against closed forms, copies and blurs told, drawn ones beside the real ones like them."""

import base64
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from codsa_ray.audit.copies import copies
from codsa_ray.audit.drawn import audit
from codsa_ray.audit.images import SHOWN, apart, contrasts, images, pixels, shrunk
from codsa_ray.audit.nearest import Space
from codsa_ray.audit.two_sample import two_sample
from codsa_ray.fitdata import REGION
from codsa_ray.inspection import measures
from codsa_ray.picture import decoded, encoded
from codsa_ray.regions import Region, Regions
from codsa_ray.report.page import render
from codsa_ray.schema import Column, Schema

import gallery

COLUMNS = (
    Column("photo", "image", "binary", nulls=0.1),
    Column("said", "text", "string", nulls=0.1),
    Column("y", "categorical", "string", categories=("a", "b")),
)
SCHEMA = Schema(COLUMNS, "y", "classification", order=("photo", "said", "y"), types=("binary", "string", "string"))
REGIONS = Regions((Region("y=a", 0, 0, 60), Region("y=b", 1, 0, 20)), (0.5, 0.5))
WORDS = ["the", "room", "was", "clean", "and", "staff", "kind", "we", "loved", "breakfast", "view", "pool", "warm", "food", "good"]


def photo(rng: np.random.Generator, bright: bool, blur: float = 0.0) -> bytes:
    noise = rng.integers(0, 90, (24, 32, 3)) + (120 if bright else 0)
    image = Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    return gallery.written(image)


def rows(n: int, seed: int, blur: float = 0.0) -> pa.Table:
    rng = np.random.default_rng(seed)
    region = (np.arange(n) % 4 == 0).astype(np.int32)
    return pa.table({
        "photo": pa.array([photo(rng, bool(r), blur) for r in region], pa.binary()),
        "said": [" ".join(rng.choice(WORDS, 9)) for _ in region],
        "y": np.array(["a", "b"])[region],
        REGION: region,
    })  # fmt: skip


def flat(level: int, side: int = 8) -> bytes:
    return encoded(np.full((side, side, 1), level, np.uint8))


def pictures(*values: bytes | None) -> pa.Table:
    return pa.table({"photo": pa.array(values, pa.binary())})


# --- distances


def test_pictures_are_as_far_apart_as_their_pixels() -> None:
    held = pixels(pictures(flat(0), flat(255), flat(51, 40), None, b"no picture"), COLUMNS[0])
    found = apart(held, held)
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == pytest.approx(0.2)
    assert (np.diag(found) == 0).all(), "to itself exactly nothing"
    assert found[3, 0] == found[1, 3] == found[4, 2] == 0.5
    assert found[3, 4] == 0
    assert np.allclose(found, found.T)


def test_a_space_adds_pictures_to_the_other_columns() -> None:
    table = rows(40, 0)
    space = Space.of(table, SCHEMA)
    index, distance = space.nearest(table, table)
    assert (index == np.arange(40)).all()
    assert distance == pytest.approx(0, abs=1e-7)
    assert space.columns == 3
    other = table.set_column(0, "photo", pa.array([flat(255)] * 40, pa.binary()))
    far = space.between(table, other)
    assert np.allclose(np.diag(far), apart(pixels(table, COLUMNS[0]), pixels(other, COLUMNS[0]))[np.arange(40), np.arange(40)] / 3)


def test_shrunk_pictures_keep_their_aspect_and_lie_where_they_lay() -> None:
    big = encoded(np.random.default_rng(0).integers(0, 256, (300, 150, 3), dtype=np.uint8))
    table = shrunk(pictures(big, flat(9), None, b"broken"), SCHEMA)
    shapes = [None if value is None else decoded(value).shape for value in table["photo"].to_pylist()]
    assert shapes == [(SHOWN, SHOWN // 2, 3), (8, 8, 1), None, None]
    near = apart(pixels(table, COLUMNS[0]), pixels(pictures(big, flat(9), None, None), COLUMNS[0]))
    assert np.diag(near) == pytest.approx(0, abs=0.02)
    assert [column.name for column in images(SCHEMA)] == ["photo"]


# --- what is told


def test_a_copy_is_known_in_another_file_format_and_a_new_picture_is_none() -> None:
    real = rows(20, 0)
    again = real.set_column(0, "photo", pa.array([gallery.written(Image.fromarray(decoded(p)), "BMP") for p in real["photo"].to_pylist()]))
    assert copies(again, real, SCHEMA).all()
    assert not copies(rows(20, 1), real, SCHEMA).any()


def test_inspect_measures_regions_of_pictures() -> None:
    real, fresh = (shrunk(rows(120, seed), SCHEMA) for seed in (0, 2))
    copied, new = measures(real, fresh, real.slice(0, 60), SCHEMA, 0), measures(real, fresh, shrunk(rows(60, 1), SCHEMA), SCHEMA, 0)
    assert copied["copies"] == 1
    assert new["copies"] == 0
    assert copied["distinct"] == new["distinct"] == 1
    assert copied["membership"] > 0.7 > new["membership"] > 0.3


def test_a_classifier_tells_blurred_pictures_that_are_right_on_the_whole() -> None:
    real, schema = rows(160, 0), Schema((COLUMNS[0], COLUMNS[2]), "y", "classification")
    alike, blurred = (two_sample(real, rows(160, 1, blur), schema, 0) for blur in (0.0, 2.0))
    assert alike is not None
    assert blurred is not None
    assert abs(alike["auc"] - 0.5) < 0.15
    assert blurred["auc"] > 0.95


def test_contrasts_are_means_and_deviations_of_cells() -> None:
    board = np.kron(np.indices((32, 32)).sum(0) % 2 * 255, np.ones((2, 2)))[:, :, None].astype(np.uint8)
    found = contrasts(pictures(encoded(board), flat(77), None), COLUMNS[0])
    assert np.allclose(found[0], 127.5)
    assert np.allclose(found[1], [77] * 48 + [0] * 16)
    assert np.isnan(found[2]).all()


def found(show: bool = True) -> dict[str, Any]:
    real, drawn = rows(80, 0), rows(24, 1)
    some = pa.array([*drawn["photo"].to_pylist()[:-1], None], pa.binary())
    said = [real["said"][3].as_py(), '<script>alert("größe")</script>', "", None, "x " * 2000, *drawn["said"].to_pylist()[5:]]
    drawn = drawn.set_column(0, "photo", some).set_column(1, "said", pa.array(said))
    return audit(real, rows(40, 2), drawn, SCHEMA, REGIONS, 0, show)


def test_drawn_pictures_stand_beside_their_nearest_and_other_real_ones() -> None:
    (told,) = found()["images"]
    assert told["column"] == "photo"
    assert [region["name"] for region in told["regions"]] == ["y=b", "y=a"], "the rarest first"
    real = pixels(shrunk(rows(80, 0), SCHEMA), COLUMNS[0])
    for region in told["regions"]:
        shown = [pixels(pictures(None if data is None else base64.b64decode(data)), COLUMNS[0]) for data in region["drawn"]]
        far = apart(np.concatenate(shown), real)
        assert np.allclose(region["distance"], far.min(axis=1), atol=1e-3)
        near = pixels(pictures(*map(base64.b64decode, region["nearest"])), COLUMNS[0])
        kept = np.array([data is not None for data in region["drawn"]])
        assert np.allclose(np.diag(apart(np.concatenate(shown), near))[kept], far.min(axis=1)[kept], atol=1e-6)
        assert 0 < region["fresh"] < 0.5
        assert len(region["real"]) == 10


def test_drawn_texts_stand_beside_the_real_ones_whose_words_they_share() -> None:
    (told,) = found()["texts"]
    pairs = [item for region in told["regions"] for item in region["rows"]]
    assert {len(region["rows"]) for region in told["regions"]} == {3}
    copied = [item for item in pairs if item["drawn"] and item["drawn"] == item["nearest"]]
    assert all(item["distance"] < 1e-6 for item in copied)
    assert all(len(item["drawn"] or "") < 700 for item in pairs)


def test_the_page_shows_them_escaped_and_without_real_ones_where_none_may_be_shown() -> None:
    page = render(found())
    assert "nearest real" in page
    assert 'alert("größe")' not in page
    hidden = found(show=False)
    html = render(hidden)
    assert "distance to the nearest training picture" in html
    shown = {data for region in hidden["images"][0]["regions"] for data in region["drawn"] if data}
    assert html.count("data:image/png") >= len(shown)
    for value in shrunk(rows(80, 0), SCHEMA)["photo"].to_pylist():
        assert base64.b64encode(value).decode() not in html
    said = [text for text in rows(80, 0)["said"].to_pylist() if text != rows(80, 0)["said"][3].as_py()]
    assert not any(text in html for text in said)

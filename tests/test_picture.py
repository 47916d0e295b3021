"""Pictures: every kind of file to pixels, and every broken one to a typed error."""

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from codsa_ray import picture
from codsa_ray.column import Column
from codsa_ray.errors import PictureError
from codsa_ray.nn.pictures import Frame
from codsa_ray.picture import MOST_PIXELS, decoded, encoded, fitted, header
from codsa_ray.pictured import Pictured
from codsa_ray.schema import Schema

RAMP = np.linspace(0, 255, 48).astype(np.uint8).reshape(4, 12)


def written(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def colours(height: int = 16, width: int = 20, seed: int = 0) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    flat = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], -1)
    return (flat + np.random.default_rng(seed).integers(0, 2, flat.shape)).clip(0, 255).astype(np.uint8)


def bomb(height: int, width: int) -> bytes:
    """A PNG that declares a size and holds almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 99))
def test_pixels_come_back_as_they_were_written(height: int, width: int, channels: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    assert np.array_equal(decoded(encoded(pixels)), pixels)
    assert encoded(pixels) == encoded(pixels.copy())


@pytest.mark.parametrize(("kind", "most"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("PPM", 0), ("WEBP", 30), ("JPEG", 30)])
def test_every_format_gives_the_same_picture(kind: str, most: int) -> None:
    """Those that lose something lose little."""
    found = decoded(written(Image.fromarray(colours()), kind))
    assert found.shape == (16, 20, 3)
    assert np.abs(found.astype(int) - colours()).max() <= most


def test_greys_have_one_channel_unless_three_are_asked_for() -> None:
    data = written(Image.fromarray(RAMP))
    assert np.array_equal(decoded(data)[:, :, 0], RAMP)
    assert np.array_equal(decoded(data, 3), np.repeat(RAMP[:, :, None], 3, 2))
    colour = written(Image.fromarray(colours()))
    luma = colours().astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(decoded(colour, 1)[:, :, 0] - luma).max() <= 1


def test_what_is_transparent_is_white() -> None:
    for mode, clear, solid, wanted in [
        ("RGBA", (9, 9, 9, 0), (10, 20, 30, 255), [10, 20, 30]),
        ("LA", (9, 0), (40, 255), [40]),
    ]:
        image = Image.new(mode, (2, 1), clear)
        image.putpixel((1, 0), solid)
        found = decoded(written(image))
        assert found[0, 0].tolist() == [255] * len(wanted)
        assert found[0, 1].tolist() == wanted
    half = decoded(written(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert abs(int(half[0, 0, 0]) - 127) <= 1


def test_palettes_are_looked_up_and_their_clear_colour_is_white() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.putpixel((1, 0), 1)
    assert decoded(written(image))[0].tolist() == [[200, 10, 10], [10, 200, 10]]
    assert decoded(written(image, transparency=0))[0].tolist() == [[255, 255, 255], [10, 200, 10]]
    assert decoded(written(image, "GIF"))[0].tolist() == [[200, 10, 10], [10, 200, 10]]


def test_print_colours_become_screen_colours() -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind in ("TIFF", "JPEG"):
        found = decoded(written(cyan, kind))
        assert found.shape == (8, 8, 3)
        assert np.abs(found.astype(int) - [0, 255, 255]).max() <= 3


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = (RAMP.astype(np.uint16) * 257).astype(np.uint16)
    deep[0, 0] = 300  # 300 / 257 = 1.17
    wanted = RAMP.copy()
    wanted[0, 0] = 1
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decoded(written(Image.fromarray(deep), kind))[:, :, 0], wanted), kind
    assert np.array_equal(decoded(b"P5\n12 4\n65535\n" + deep.astype(">u2").tobytes())[:, :, 0], wanted)


def test_floats_are_shares_levels_or_stretched() -> None:
    shares = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    as_shares = decoded(written(Image.fromarray(shares), "TIFF"))[:, :, 0]
    assert np.array_equal(as_shares, np.rint(shares * 255).astype(np.uint8))
    assert np.array_equal(decoded(written(Image.fromarray(RAMP.astype(np.float32)), "TIFF"))[:, :, 0], RAMP)
    stretched = decoded(written(Image.fromarray(shares * 2000 - 1000), "TIFF"))[:, :, 0]
    assert np.abs(stretched.astype(int) - as_shares).max() <= 1
    shares[0, 1] = np.nan
    assert decoded(written(Image.fromarray(shares), "TIFF"))[0, 1, 0] == 0
    assert not decoded(written(Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)), "TIFF")).any()


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [Image.new("L", (6, 5), level) for level in (10, 90, 200)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = written(frames[0].convert("RGB"), kind, save_all=True, append_images=[f.convert("RGB") for f in frames[1:]])
        assert np.abs(decoded(data).astype(int) - 10).max() <= 3, kind
        assert header(data).animated, kind


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_cameras_orientation_is_applied(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :8] = 255  # the corner that is drawn first
    found = decoded(written(Image.fromarray(pixels), "JPEG", exif=exif, quality=95))
    assert found.shape[:2] == ((16, 32) if turn < 5 else (32, 16))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[turn]
    assert found[corner].min() > 200
    assert sum(found[y, x].min() > 200 for y in (0, -1) for x in (0, -1)) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_header_says_the_size_of_the_upright_picture(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = written(Image.fromarray(colours(20, 40)), kind, exif=exif)
    found = [header(data, whole) for whole in (False, True)]
    assert [(one.height, one.width) for one in found] == [decoded(data).shape[:2]] * 2 == [(20, 40) if turn < 5 else (40, 20)] * 2


def test_a_note_behind_the_pixels_turns_a_picture_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = written(Image.fromarray(colours(20, 40)), exif=exif)
    start = data.index(b"eXIf") - 4
    note = data[start : start + 12 + struct.unpack(">I", data[start : start + 4])[0]]
    plain = data.replace(note, b"")
    late = plain[:-12] + note + plain[-12:]
    assert (header(late).height, header(late).width) == decoded(late).shape[:2] == (40, 20)


def test_photographs_that_a_phone_turned_are_learned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = written(Image.fromarray(colours(20, 40)), "JPEG", exif=exif)
    frame = Frame.of([data], 64, lambda _: 1, square=False)
    assert (frame.height, frame.width) == frame.written[:2] == (40, 20)
    column = Column("photo", "image", "binary")
    schema = Schema((column, Column("y", "categorical", "string", categories=("a",))), "y", "classification")
    learned = Pictured.learn(pa.table({"photo": pa.array([data], pa.binary()), "y": ["a"]}), schema, 64)
    assert (learned.height, learned.width) == (40, 20)


def test_an_orientation_that_cannot_be_read_is_none() -> None:
    data = written(Image.fromarray(colours()), "JPEG", exif=b"Exif\0\0 this is no list of tags")
    assert decoded(data).shape == (16, 20, 3)


def test_broken_pictures_are_typed_errors() -> None:
    whole = written(Image.fromarray(colours(64, 64)))
    for data in (b"", b"no picture", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", whole[: len(whole) // 2], whole[:40], whole[:8], bytes(1000)):
        with pytest.raises(PictureError, match=r"wanted .*; got .*; "):
            decoded(data)
    damaged = bytearray(whole)
    damaged[60:70] = bytes(10)
    with pytest.raises(PictureError):
        decoded(bytes(damaged))


def test_a_picture_bomb_is_told_by_its_header() -> None:
    side = int(MOST_PIXELS**0.5)
    assert header(bomb(side, side)).height == side
    for height, width in ((side, side + 1), (50_000, 50_000), (1, MOST_PIXELS + 1)):
        with pytest.raises(PictureError, match=f"at most {MOST_PIXELS} pixels"):
            decoded(bomb(height, width))
        with pytest.raises(PictureError, match=f"at most {MOST_PIXELS} pixels"):
            header(bomb(height, width))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP"]), st.data())
def test_no_byte_does_more_than_a_typed_error(kind: str, data: st.DataObject) -> None:
    """Bytes of real files, some of them changed and the end cut off: pixels or PictureError."""
    file = bytearray(written(Image.fromarray(colours()), kind))
    for place in data.draw(st.lists(st.integers(0, min(len(file) - 1, 400)), max_size=6)):
        file[place] = data.draw(st.integers(0, 255))
    cut = bytes(file[: data.draw(st.integers(0, len(file)))])
    for read in (decoded, header):
        with suppress(PictureError):
            read(cut)


def test_shrinking_takes_means_and_growing_keeps_constants() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    means = pixels.reshape(4, 2, 6, 2, 3).mean((1, 3))
    assert np.abs(fitted(pixels, 4, 6) - means).max() <= 1
    flat = np.full((3, 5, 1), 77, dtype=np.uint8)
    for height, width in ((9, 10), (2, 20), (1, 1), (3, 5)):
        found = fitted(flat, height, width)
        assert found.shape == (height, width, 1)
        assert (found == 77).all()
    assert np.array_equal(fitted(pixels, 5, 30), fitted(pixels.copy(), 5, 30))


def test_a_jpeg_may_be_read_smaller_and_is_the_same_picture() -> None:
    whole = colours(256, 512)
    data = written(Image.fromarray(whole), "JPEG", quality=90)
    small = decoded(data, least=60)
    assert small.shape == (64, 128, 3)
    assert np.abs(fitted(small, 16, 32).astype(int) - fitted(decoded(data), 16, 32)).max() <= 4
    assert decoded(data, least=256).shape == decoded(written(Image.fromarray(whole)), least=8).shape == (256, 512, 3)
    for cut in (data[:100], data[: len(data) // 2]):
        with pytest.raises(PictureError):
            decoded(cut, least=60)


def test_pixels_of_another_shape_are_refused() -> None:
    for pixels in (RAMP, RAMP[:, :, None].astype(float), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ValueError, match="pixels must be"):
            encoded(pixels)
    with pytest.raises(ValueError, match="channels"):
        decoded(encoded(colours()), 4)


def test_no_format_that_starts_a_program_is_read() -> None:
    assert not {"EPS", "WMF", "PDF", "FPX", "MIC"} & set(picture.FORMATS)

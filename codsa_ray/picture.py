"""One picture: bytes to pixels and back, within a stated size; knows no column and no model."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from codsa_ray.errors import PictureError

# Those of data sets that photographs and scans come in. Pillow's others are left alone: some start programs (EPS), some are hardly kept.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
# A file beyond this is not read: no picture of MOST_PIXELS is larger, whatever its format.
MOST_BYTES = 1 << 28
# 8192 x 8192: 200 MB once decoded, beyond any camera's picture that a model is trained on.
MOST_PIXELS = 1 << 26
# What pillow's decoders raise on bytes that are no picture of theirs. The machine's own failure (MemoryError) is none of these.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Where a PNG keeps a camera's notes.
NOTES = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
SIDEWAYS = (5, 6, 7, 8)
CHECK = "write it again or take it away"


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before it is decoded.

    Args:
        height, width: pixels of the upright picture, as `decoded` gives it.
        format: one of FORMATS (or MPO, JPEG of several pictures).
        mode: pillow's name of its channels (L, RGB, RGBA, P, CMYK, I;16, F, ...).
        animated: it has more than one frame; the first is the one that counts.
    """

    height: int
    width: int
    format: str
    mode: str
    animated: bool


def header(data: bytes, whole: bool = False) -> Header:
    """Size and kind of a picture; decodes no pixel (but of a PNG with a camera's notes), so that its cost does not depend on its size.

    Args:
        whole: decode it all the same, so that one which is cut short or damaged is told.

    Raises:
        PictureError: no bytes, no picture of FORMATS, more than MOST_PIXELS declared, or more than MOST_BYTES.
    """
    with _opened(data) as image:
        if whole:
            image.load()
        height, width = (image.width, image.height) if _lies(image, data) else (image.height, image.width)
        return Header(height, width, str(image.format), image.mode, bool(getattr(image, "is_animated", False)))


def decoded(data: bytes, channels: int | None = None, least: int | None = None) -> np.ndarray:
    """Pixels of a picture, upright.

    Transparent parts are laid on white. 16-bit channels keep their upper 8 bits' worth (v / 257, rounded). Floats, and integers of 32 bits,
    in [0, 1] are read as shares of white, in [0, 255] as they are, and else stretched from their lowest to their highest; what is not
    finite is black. Of an animation the first frame is read. A camera's orientation (EXIF) is applied, one that cannot be read is ignored.
    Colour profiles are not applied.

    Args:
        channels: 1 for grey (ITU-R 601 luma), 3 for red, green, blue; None for 1 where the file holds greys, else 3.
        least: a JPEG may be decoded at a half, a quarter or an eighth of its size, neither side under this; for thumbnails, several times
            faster. None: at its size.

    Returns:
        (H, W, C) uint8, C being 1 or 3.

    Raises:
        PictureError: no bytes, no picture of FORMATS, corrupt, cut short, more than MOST_PIXELS declared (told before decoding), or
            more than MOST_BYTES.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be None, 1 or 3, not {channels!r}")
    with _opened(data) as image:
        if least:
            image.draft(None, (least, least))
        image.load()
        plain = _plain(_upright(image), str(image.format))
        if channels:
            plain = plain.convert("L" if channels == 1 else "RGB")
        pixels = np.array(plain, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The picture at another size, its aspect not kept: means over areas where it shrinks both ways, else bicubic.

    Integer arithmetic: the same bytes on every machine with the same pillow.

    Args:
        pixels: (H, W, C) uint8, C being 1 or 3.

    Returns:
        (height, width, C) uint8.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    found = np.array(_image(pixels).resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC))
    return found if found.ndim == 3 else found[:, :, None]


def encoded(pixels: np.ndarray) -> bytes:
    """The picture as a PNG file: `decoded` gives the same pixels back; the same bytes for the same pixels and pillow.

    Args:
        pixels: (H, W, C) uint8, C being 1 or 3.
    """
    file = io.BytesIO()
    _image(pixels).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _image(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W, 1 or 3) uint8, not {pixels.shape} {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


@contextmanager
def _opened(data: bytes) -> Iterator[ImageFile.ImageFile]:
    if not data:
        raise PictureError("a picture", "0 bytes", CHECK)
    if len(data) > MOST_BYTES:
        raise PictureError(f"at most {MOST_BYTES} bytes", str(len(data)), "shrink it or take it away")
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes and of damaged metadata; the first are refused here, the second change no pixel.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
                yield image
    except UnidentifiedImageError as error:
        got = f"{len(data)} bytes that start with {data[:8]!r}"
        raise PictureError(f"a picture ({', '.join(FORMATS)})", got, "convert it or take it away") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"at most {MOST_PIXELS} pixels", str(error)[:120], "shrink it or take it away") from error
    except BROKEN as error:
        raise PictureError("a whole picture", f"{len(data)} bytes: {str(error)[:120] or type(error).__name__}", CHECK) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) or image
    except BROKEN:
        return image


def _lies(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Its sides change places where it is turned upright."""
    # Pillow gives a TIFF's sides upright. A PNG's notes may stand behind its pixels, and pillow decodes all of it to look for them.
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in data for mark in NOTES)):
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    except BROKEN:
        return False


def _plain(image: Image.Image, file: str) -> Image.Image:
    """As L or RGB; `file` is the format, which a turned picture has forgotten."""
    if image.mode in ("L", "RGB"):
        return image if "transparency" not in image.info else _on_white(image.convert("RGBA"), image.mode)
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"), "L" if image.mode in ("LA", "La") else "RGB")
    if image.mode.startswith("I;16") or (image.mode == "I" and file in ("PNG", "PPM")):
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float32) / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_eight_bits(np.asarray(image).astype(np.float64)))
    return image.convert("RGB")


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert(mode)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if not known.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = float(values[known].min()), float(values[known].max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    shares = (np.where(known, values, low) - low) / ((high - low) or 1.0)
    return np.asarray(np.where(known, np.rint(shares * 255), 0).astype(np.uint8))

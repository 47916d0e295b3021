"""Tiny PNG files as data addresses, written without an imaging library; knows no report."""

import base64
import struct
import zlib

import numpy as np

ACCENT = (14, 132, 128)


def png(pixels: np.ndarray) -> str:
    """A `data:` address of a picture.

    Args:
        pixels: (h, w) uint8 greys or (h, w, 4) uint8 red, green, blue, alpha.
    """
    height, width = pixels.shape[:2]
    colour = 6 if pixels.ndim == 3 else 0
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(pixels, dtype=np.uint8))
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def picture(flat: list[float], rows: int, columns: int, most: float) -> str:
    """A small picture from flat values in [0, most], row by row: 0 is white, `most` is black, as ink on paper."""
    values = np.clip(np.asarray(flat, dtype=np.float64).reshape(rows, columns) / (most or 1.0), 0, 1)
    return png((255 - values * 255).round().astype(np.uint8))


def heat(matrix: list[list[float]]) -> str:
    """A square of one hue whose opacity is the value in [0, 1]: it sits on a light page and on a dark one."""
    values = np.clip(np.nan_to_num(np.asarray(matrix, dtype=np.float64)), 0, 1)
    pixels = np.empty((*values.shape, 4), dtype=np.uint8)
    pixels[..., :3] = ACCENT
    pixels[..., 3] = (values * 255).round()
    return png(pixels)

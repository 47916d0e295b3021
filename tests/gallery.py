"""Folders of pictures that tests share: scikit-learn's digits as PNG files, and pictures that are wrong in every way."""

import csv
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits

from codsa_ray.picture import encoded

RARE = 30
COMMON = 130


def written(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def digits(common: int = COMMON, rare: int = RARE) -> pa.Table:
    """Ones (common) and sevens (rare) as 8 x 8 grey PNG files with their name below a folder, and the ink they are made of."""
    flat, label = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(label == 1)[:common], np.flatnonzero(label == 7)[:rare]])
    pixels = (255 - flat[rows] * 15.9).astype(np.uint8).reshape(-1, 8, 8, 1)
    names = ["one" if label[row] == 1 else "seven" for row in rows]
    return pa.table({
        "name": [f"{name}/{row:04d}.png" for name, row in zip(names, rows, strict=True)],
        "picture": pa.array([encoded(p) for p in pixels], pa.binary()),
        "ink": flat[rows].sum(1),
        "digit": names,
    })  # fmt: skip


def coloured(own: int, other: int, seed: int) -> pa.Table:
    """Digits told from 0 to 4 apart from higher ones: of either kind so many in its own colour (high ones red), and in the other's."""
    flat, label = load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    pictures, high, colour = [], [], []
    for kind in (False, True):
        rows = random.permutation(np.flatnonzero((label >= 5) == kind))[: own + other]
        for place, row in enumerate(rows):
            red = kind if place < own else not kind
            inked = (flat[row] * 15.9).astype(np.uint8).reshape(8, 8)
            pictures.append(encoded(np.stack([inked * red, inked * (not red), np.zeros_like(inked)], axis=2)))
            high.append(kind)
            colour.append("red" if red else "green")
    return pa.table({"picture": pa.array(pictures, pa.binary()), "high": high, "colour": colour})


def pixels(file: bytes) -> np.ndarray:
    """(H, W, C) uint8."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def class_folder(folder: Path, table: pa.Table) -> Path:
    """FOLDER/label/x.png."""
    for name, data in zip(table["name"].to_pylist(), table["picture"].to_pylist(), strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def beside(folder: Path, table: pa.Table, column: str = "file_name") -> Path:
    """FOLDER/metadata.csv beside FOLDER/label/x.png."""
    class_folder(folder, table)
    with open(folder / "metadata.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([column, "ink", "digit"])
        rows.writerows(zip(*(table[name].to_pylist() for name in ("name", "ink", "digit")), strict=True))
    return folder


def bomb(height: int, width: int) -> bytes:
    """A PNG that declares a size and holds almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")


def odd() -> dict[str, bytes]:
    """Pictures that want a notice, and files that are none."""
    whole = written(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)))
    frames = [Image.new("L", (8, 8), level) for level in (10, 90)]
    return {
        "empty": b"",
        "corrupt": b"\x89PNG\r\n\x1a\nnothing",
        "cut": whole[: len(whole) // 2],
        "bomb": bomb(50_000, 50_000),
        "text": b"not a picture at all",
        "cmyk": written(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"),
        "deep": written(Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))),
        "animated": written(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "large": written(Image.new("L", (900, 700), 30)),
    }


UNREADABLE = ("empty", "corrupt", "cut", "bomb", "text")


def tarred(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if isinstance(name, str):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def webdataset(path: Path, table: pa.Table) -> Path:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for i, row in enumerate(table.to_pylist()):
        members += [
            (f"all/{i:04d}.png", row["picture"]),
            (f"all/{i:04d}.cls", row["digit"].encode()),
            (f"all/{i:04d}.json", json.dumps({"ink": row["ink"]}).encode()),
        ]
    return tarred(path, members)

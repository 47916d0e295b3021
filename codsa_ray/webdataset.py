"""Samples of a WebDataset tar file, read member by member and never unpacked, and written again; knows no column's meaning.

Layout: members that share their name up to the first dot of its last part are one sample, what follows that dot is the field (WebDataset's
convention). Pictures, texts and json are read; arrays, pickles and whatever else lies there is counted and left alone.
"""

import io
import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from codsa_ray.errors import InputError
from codsa_ray.picture import MOST_BYTES
from codsa_ray.picture_columns import checked

PICTURES = ("png", "jpg", "jpeg", "webp", "gif", "tif", "tiff", "bmp", "ppm", "pgm")
IMAGE = "image"
# Fields whose members are text; those of LABELS without the blanks around it, as WebDataset's own decoder reads them.
LABELS = ("cls", "class", "label", "index", "count", "id")
TEXTS = ("txt", "text", "caption", "transcript")
JSON = ("json", "jsn")


@dataclass
class Sample:
    """One sample.

    Args:
        key: its name, without fields.
        pictures: column -> (name of the member, bytes; None where they were not asked for).
        texts: column -> text.
        values: the fields of its json member.
        offset: the byte of the file where it starts, from which it can be read again; None where what stands before is needed too.
    """

    key: str
    pictures: dict[str, tuple[str, bytes | None]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    offset: int | None = None


def samples(
    file: Any, where: str, random: bool, data: bool, span: tuple[int, int] | None, left: Counter[str], first: int = 0
) -> Iterator[Sample]:
    """The samples in order.

    Args:
        file: of the tar file, at its start or at a sample's `offset`.
        where: it lies, fit for logs.
        random: the file can be read from any place, so that what is not asked for is skipped.
        data: read the pictures' bytes.
        span: first sample and the one after the last; None for all.
        left: counts the members of kinds that are not read.
        first: the number of the sample there.

    Raises:
        InputError: no whole tar file; a link, a device, a sparse or oversized member; a name that leads out of its folder; a field twice in
            a sample; a name or text that is not UTF-8, json that is no object or too deep.
    """
    with _explained(where), tarfile.open(fileobj=file, mode="r:" if random else "r|") as tar:
        current, place = None, first - 1
        for member in tar:
            # Python keeps every header for the sake of links, which are refused.
            tar.members = []  # type: ignore[attr-defined]
            if member.isdir():
                continue
            name = _name(member, where)
            key, _, ending = _split(name)
            if current is None or key != current.key:
                if current is not None and _within(place, span):
                    yield current
                # Headers that hold for all that follows are pax's global ones.
                current, place = Sample(key, offset=None if tar.pax_headers else member.offset), place + 1
                if span and place >= span[1]:
                    return
            if _within(place, span):
                _add(current, ending, name, tar, member, data, left, where)
        if current is not None and _within(place, span):
            yield current
        if random:
            file.seek(tar.offset)
        # Python takes a header that is cut short for the end.
        if tar.fileobj is None or tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without a mark of its end")


def _within(place: int, span: tuple[int, int] | None) -> bool:
    return span is None or span[0] <= place < span[1]


def _split(name: str) -> tuple[str, str, str]:
    folder, base = posixpath.split(name)
    stem, dot, ending = base.partition(".")
    return posixpath.join(folder, stem), dot, ending.lower()


def _name(member: tarfile.TarInfo, where: str) -> str:
    if not member.isreg() or member.issparse():
        raise InputError(
            "files and folders in a tar file", f"{member.name[:120]!r} of another kind in {where}", "pack the files themselves"
        )
    if member.size > MOST_BYTES:
        got = f"{member.name[:120]!r} of {member.size} in {where}"
        raise InputError(f"members of at most {MOST_BYTES} bytes", got, "take it away")
    try:
        member.name.encode()
    except UnicodeEncodeError as error:
        # Python keeps such bytes as halves of characters, which no table holds.
        raise InputError("names in UTF-8", f"{member.name[:120]!r} in {where}", "rename it and pack it again") from error
    return checked(member.name, where)


def _add(
    sample: Sample, ending: str, name: str, tar: tarfile.TarFile, member: tarfile.TarInfo, data: bool, left: Counter[str], where: str
) -> None:
    stem, _, kind = ending.rpartition(".")

    def bytes_() -> bytes:
        file = tar.extractfile(member)
        assert file is not None, "a regular member has bytes"
        return file.read()

    def text() -> str:
        try:
            # Without the mark that some editors put first, as in jsonl.
            return bytes_().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError("text in UTF-8", f"another byte at offset {error.start} of {name!r} in {where}", "convert it") from error

    column = (stem or IMAGE) if kind in PICTURES else ending
    if column in sample.pictures or column in sample.texts:
        raise InputError(f"one {column!r} in a sample", f"two in {sample.key!r} of {where}", "name fields apart, such as left.png")
    if kind in PICTURES:
        sample.pictures[column] = name, bytes_() if data else None
    elif ending in LABELS:
        sample.texts[column] = text().strip()
    elif ending in TEXTS:
        sample.texts[column] = text()
    elif ending in JSON:
        sample.values |= _object(text(), name, where)
    else:
        left[f"members .{ending or '(no ending)'} of tar files"] += 1


def _object(text: str, name: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("json", f"{name!r} in {where}: {error}", "correct it") from error
    if not isinstance(value, dict):
        raise InputError("a json object", f"{type(value).__name__} in {name!r} of {where}", "give every value a name")
    return value


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise InputError("a whole tar file", f"{where}: {str(error)[:120]}", "write or copy it again") from error


def packed(rows: Iterable[tuple[str, Mapping[str, Any]]], pictures: Mapping[str, Any]) -> bytes:
    """A tar file of rows; the same rows give the same bytes.

    Args:
        rows: (key, column -> value); a column of LABELS or TEXTS is a member of its own, others are fields of the json member.
        pictures: column -> ending of (bytes) -> str, of the columns of pictures.
    """
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, row in rows:
            values = {}
            for column, value in row.items():
                if column in pictures:
                    if value is not None:
                        stem = "" if column == IMAGE else f"{column}."
                        _put(tar, f"{key}.{stem}{pictures[column](value)}", value)
                elif column in (*LABELS, *TEXTS):
                    if value is not None:
                        _put(tar, f"{key}.{column}", str(value).encode())
                else:
                    values[column] = value
            _put(tar, f"{key}.json", (json.dumps(values, ensure_ascii=False, sort_keys=True, default=str) + "\n").encode())
    return sink.getvalue()


def _put(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))

"""Columns of pictures in a block of rows: files fetched by name, each picture decoded once; knows no format of the rows."""

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.fs as pafs

from codsa_ray.errors import InputError, PictureError, SchemaError
from codsa_ray.filesystem import open_file
from codsa_ray.picture import MOST_BYTES, Header, header
from codsa_ray.values import PICTURE, decoded, is_picture

# A store answers a request in tens of milliseconds however small it is.
FETCHED_AT_ONCE = 16
# Sides that differ by more than this factor are worth a word: every learner and generator brings pictures to one size.
DIFFER = 2
DEEP = ("I", "F")
OUTSIDE = re.compile(r"[\\\0]|^[A-Za-z]:/")  # of other systems' paths


@dataclass(frozen=True)
class Seen:
    """What one column's pictures turned out to be; sums over blocks.

    Args:
        rows: rows that name or hold a picture.
        unread: of them, those that are null now: broken, beyond the stated size, or not there.
        first: the first of these by place, and why: (place, what, why).
        animated, deep, print_colours: pictures of several frames, of more than 8 bits a channel, of CMYK.
        least, most: (height, width) of the picture with the fewest and the most pixels.
    """

    rows: int = 0
    unread: int = 0
    first: tuple[int, str, str] | None = None
    animated: int = 0
    deep: int = 0
    print_colours: int = 0
    least: tuple[int, int] | None = None
    most: tuple[int, int] | None = None

    def merge(self, other: "Seen") -> "Seen":
        """Of both; associative and commutative."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("rows", "unread", "animated", "deep", "print_colours")}
        firsts = [seen.first for seen in (self, other) if seen.first]
        least = [seen.least for seen in (self, other) if seen.least]
        most = [seen.most for seen in (self, other) if seen.most]
        by_area = {"key": lambda size: (size[0] * size[1], size)}
        return Seen(
            **sums,
            first=min(firsts, default=None),
            least=min(least, default=None, **by_area),
            most=max(most, default=None, **by_area),
        )

    def told(self, column: str) -> list[str]:
        """Notices, each with its count.

        Raises:
            SchemaError: there were pictures, and none could be read.
        """
        if self.unread and self.unread == self.rows and self.first:
            got = f"none of {self.rows} can be read, the first of them {self.first[1]}: {self.first[2]}"
            raise SchemaError(f"pictures in column {column!r}", got, f'declare {{"{column}": {{"leave_out": true}}}} with --schema')
        found = []
        if self.unread and self.first:
            found.append(
                f"{self.unread} of {self.rows} cannot be read and count as missing, the first of them {self.first[1]}: {self.first[2]}"
            )
        for count, what in (
            (self.animated, "are animated: their first frame counts"),
            (self.deep, "have more than 8 bits a channel: learners and generators see 8"),
            (self.print_colours, "are in CMYK: learners and generators see RGB"),
        ):
            if count:
                found.append(f"{count} of {self.rows} {what}")
        if self.least and self.most and any(big > DIFFER * small for small, big in zip(self.least, self.most, strict=True)):
            found.append("sizes from {} x {} to {} x {} pixels".format(*self.least, *self.most))
        return [f"pictures of column {column!r}: {text}" for text in found]


@dataclass(frozen=True)
class Shelf:
    """Where the files of pictures lie.

    Args:
        filesystem: of DATA.
        root: DATA's folder on it; no name leads out of it.
    """

    filesystem: pafs.FileSystem = field(repr=False)
    root: str

    def fetch(self, names: Iterable[str | None]) -> Iterator[bytes | str | None]:
        """Of each file below the root its bytes, or why there are none; None for None."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            yield from map(self._one, names)
            return
        with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
            yield from pool.map(self._one, names)

    def weigh(self, names: Iterable[str | None]) -> Iterator[int]:
        """The bytes of each file that is there."""
        paths = [posixpath.join(self.root, checked(name, self.root)) for name in names if name is not None]
        return (info.size or 0 for info in self.filesystem.get_file_info(paths))

    def _one(self, name: str | None) -> bytes | str | None:
        if name is None:
            return None
        path = posixpath.join(self.root, checked(name, self.root))
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            _inside(path, self.root)
        info = self.filesystem.get_file_info(path)
        if info.type != pafs.FileType.File:
            return "no such file"
        if info.size > MOST_BYTES:
            return f"{info.size} bytes, beyond {MOST_BYTES}"
        with open_file(self.filesystem, path) as file:
            return bytes(file.read())


def _inside(path: str, root: str) -> None:
    real, base = os.path.realpath(path), os.path.realpath(root)
    if real != path and os.path.commonpath([real, base]) != base:
        raise InputError(f"pictures inside {root}", f"a link to {real}", "copy the file there")


def checked(name: str, where: str) -> str:
    """A file's name from data, without `.` and doubled slashes.

    Raises:
        InputError: it is absolute, leads out of its folder, or is no name at all.
    """
    plain = posixpath.normpath(name)
    if plain.startswith(("/", "../")) or plain in (".", "..") or OUTSIDE.search(name):
        raise InputError("names of files below the folder of the data", f"{name[:120]!r} in {where}", "name files by their path below it")
    return plain


def named(column: pa.ChunkedArray, below: str, where: str) -> pa.ChunkedArray:
    """Names of files as PICTURE without bytes yet, their paths taken below a folder of DATA (its own: "").

    Raises:
        InputError: see `checked`.
    """
    paths = [
        None if name is None or not name.strip() else posixpath.join(below, checked(name.strip(), where)) for name in column.to_pylist()
    ]
    return pa.chunked_array([_pictures(pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string()))])


def as_picture(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A struct of bytes and path, spelled as it may be, as PICTURE."""
    if column.type == PICTURE:
        return column
    chunks = []
    for chunk in column.chunks:
        parts = dict(zip((item.name for item in chunk.type), chunk.flatten(), strict=True))
        path = parts.get("path", pa.nulls(len(chunk)))
        chunks.append(_pictures(parts["bytes"].cast(pa.binary()), path.cast(pa.string())))
    return pa.chunked_array(chunks, PICTURE)


def _pictures(data: pa.Array, paths: pa.Array) -> pa.StructArray:
    return pa.StructArray.from_arrays([data, paths], fields=list(PICTURE))


@dataclass(frozen=True)
class Pictures:
    """The columns of pictures that take part.

    Args:
        names: of the columns.
    """

    names: tuple[str, ...] = ()

    @staticmethod
    def of(types: pa.Schema, left_out: Iterable[str] = ()) -> "Pictures":
        """Every column of bytes but those that a user leaves out: nobody looks at them."""
        out = set(left_out)
        looks = [item.name for item in types if is_picture(item.type) or pa.types.is_fixed_size_binary(item.type)]
        return Pictures(tuple(name for name in looks if name not in out))

    def read(self, block: pa.Table, shelf: Shelf, places: Sequence[int]) -> tuple[pa.Table, dict[str, Seen]]:
        """The block with its files' bytes; a picture that cannot be read is null (its path stays), and counted.

        Args:
            places: of the block's rows in DATA, for the example in a notice.

        Raises:
            InputError: a link leads out of the folder.
        """
        seen = {}
        for name in self.names:
            column, seen[name] = _read(block[name], shelf, places)
            block = block.set_column(block.column_names.index(name), name, column)
        return block, seen


def _read(column: pa.ChunkedArray, shelf: Shelf, places: Sequence[int]) -> tuple[pa.Array, Seen]:
    pictures = pa.types.is_struct(column.type)
    whole = column.combine_chunks()
    paths = whole.flatten()[1].to_pylist() if pictures else [None] * len(whole)
    held = decoded(whole)
    wanted = [None if data.is_valid else path for data, path in zip(held, paths, strict=True)]
    found: list[bytes | None] = []
    seen = Seen()
    for place, data, path, file in zip(places, held, paths, shelf.fetch(wanted), strict=True):
        given = data.as_py() if data.is_valid else file
        if given is None:
            found.append(None)
            continue
        what = repr(path) if path else f"in row {place + 1}"
        one, bytes_ = _looked_at(given, place, what)
        seen = seen.merge(one)
        found.append(bytes_)
    if not pictures and not seen.unread:
        return whole, seen
    data = pa.array(found, pa.binary())
    return (_pictures(data, pa.array(paths, pa.string())) if pictures else data.cast(column.type)), seen


def _looked_at(given: bytes | str, place: int, what: str) -> tuple[Seen, bytes | None]:
    if isinstance(given, str):
        return Seen(1, 1, (place, what, given)), None
    try:
        head = header(given, whole=True)
    except PictureError as error:
        return Seen(1, 1, (place, what, error.got)), None
    return replace(_of(head), rows=1), given


def _of(head: Header) -> Seen:
    size = head.height, head.width
    deep = head.mode in DEEP or head.mode.startswith("I;")
    return Seen(animated=int(head.animated), deep=int(deep), print_colours=int(head.mode == "CMYK"), least=size, most=size)

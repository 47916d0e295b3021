"""Fragment: a part of DATA that one worker reads, by what lies there: tables, pictures beside or in folders of classes, tar files."""

import hashlib
import os
import posixpath
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from codsa_ray.address import explained, files
from codsa_ray.errors import InputError
from codsa_ray.filesystem import filesystem_of, open_file, open_stream
from codsa_ray.folder import Folder
from codsa_ray.picture_columns import Shelf
from codsa_ray.probes import Probe
from codsa_ray.webdataset import PICTURES

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".tar": "tar"}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
CLASSES = "classes"
"""The format of pictures in a folder per class: columns IMAGE and LABEL."""
IMAGE, LABEL = "image", "label"
PARTS_OF_A_SPLIT = frozenset({"train", "test", "val", "valid", "validation", "dev"})
BLOCK_ROWS = 1 << 17
# Of pictures that one worker holds at a time, and of a parquet file's row groups.
PART_BYTES, GROUP_BYTES = 1 << 26, 1 << 30
# arrow counts the bytes of a column in 31 bits.
COLUMN_BYTES = (1 << 31) - 1
FOOTERS_AT_ONCE = 16
# Samples of a tar file from one place, from which it can be read, to the next.
MARKED = 64
# A second or two of hashing; a larger file that was touched is read again.
HASHED = 1 << 31


@dataclass(frozen=True)
class Fragment:
    """A part of DATA that is read whole by one worker.

    Args:
        address: what names the filesystem; may hold credentials, never shown.
        path: of the file inside the filesystem; of the folder, where pictures lie in a folder per class.
        format: parquet, csv, jsonl, tar or classes.
        groups: parquet row groups; empty for the whole file.
        rows: rows of it, where the format says so without reading.
        stamp: hash of a local file up to HASHED bytes, else its size and time of change; of pictures always these.
        root: DATA's folder, below which files of pictures lie.
        members: files of pictures below the root, in a folder per class.
        images: columns that name files of pictures.
        span: first row and the one after the last; None for all.
        mark: a row at or before the span's first, and the byte where it starts.
        names: of a csv file's columns, where its rows can surely be told apart (`lines.csv_chunks`).
        beside: mean bytes of the pictures that lie beside the table, 0 where none do; of a tar file, its bytes.
    """

    address: str = field(repr=False)
    path: str
    format: str
    groups: tuple[int, ...] = ()
    rows: int | None = None
    stamp: str = ""
    root: str = ""
    members: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    span: tuple[int, int] | None = None
    mark: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()
    beside: int = 0

    @property
    def identity(self) -> list[Any]:
        """JSON value that changes when the rows may have changed."""
        return [self.shown, list(self.groups), self.stamp]

    @property
    def shown(self) -> str:
        """The file, without credentials."""
        return self.path if not Folder(self.address).remote else f"{urlsplit(self.address).scheme}://{self.path}"

    @property
    def shelf(self) -> Shelf:
        """Where its pictures lie."""
        return Shelf(filesystem_of(self.address)[0], self.root)

    @property
    def below(self) -> str:
        """Its own folder, below the root."""
        return _below(posixpath.dirname(self.path), self.root)

    @property
    def seekable(self) -> bool:
        """It can be read from any place: it is not compressed."""
        return not self.path.lower().endswith(COMPRESSED)

    @property
    def plain(self) -> bool:
        """It can be read from place to place without loss: it is local too."""
        return self.seekable and not Folder(self.address).remote

    def open(self) -> Any:
        """The file, for random access, at its mark."""
        file = open_file(filesystem_of(self.address)[0], self.path)
        file.seek(self.mark[1])
        return file

    def stream(self) -> Any:
        """The file's bytes in order from its mark on, decompressed by its name."""
        return self.open() if self.mark[1] else open_stream(filesystem_of(self.address)[0], self.path)

    def cut(self, probe: Probe, typical: float) -> list["Fragment"]:
        """Fragments of rows that weigh about PART_BYTES: with their pictures, or as lines of text that can be read from places in between.

        Args:
            probe: of the fragment.
            typical: bytes of a row's pictures where their weight is not known.
        """
        starts = self._starts(probe, typical)
        names = tuple(name for name, _ in probe.columns) if self.format == "csv" and probe.marks else ()
        if len(starts) < 2:
            return [replace(self, rows=probe.rows, names=names)]
        places = probe.marks if self.seekable else ()
        marks = [places[bisect_right(places, start, key=itemgetter(0)) - 1] if places else (0, 0) for start in starts]
        return [
            replace(self, rows=last - first, span=(first, last), mark=mark, names=names)
            for (first, last), mark in zip(pairwise([*starts, probe.rows]), marks, strict=True)
        ]

    def _starts(self, probe: Probe, typical: float) -> Sequence[int]:
        """Rows where its parts start."""
        each = self.beside / max(probe.rows, 1) if self.format == "tar" else self.beside * len(self.images) or typical * bool(self.images)
        if self.format == CLASSES:
            return [0]
        if each:
            return range(0, probe.rows, int(min(max(PART_BYTES // max(each, 1.0), 1), BLOCK_ROWS)))
        starts, byte = [0], 0
        for row, place in probe.marks if self.seekable else ():
            if place - byte >= PART_BYTES:
                starts, byte = [*starts, row], place
        return starts


def fragments(address: str) -> tuple[Fragment, ...]:
    """The parts of DATA in a fixed order: by path, then by place in the file.

    Parquet row groups are taken together up to BLOCK_ROWS rows or GROUP_BYTES; a csv, jsonl or tar file is one fragment, read in a stream.
    Names that start with `_` or `.` inside a folder are skipped, as Spark and Hive write them. Pictures beside tables are no rows of their
    own; pictures alone are rows, each in a folder that is its class.

    Args:
        address: a file, a folder or a glob (* and ** and [...]; also ? where local); local, or what pyarrow can open.

    Raises:
        InputError: nothing there, out of reach, an empty file, an unknown or a mixed format, pictures that lie in no folder of a class.
    """
    shown = Folder(address).shown
    with explained(shown, address):
        infos = files(address)
        root = _root(address, infos)
    if not infos:
        raise InputError("a file, a folder or a glob with files", f"nothing at {shown}", "check the path")
    pictures = [info for info in infos if _ending(info.path) in PICTURES]
    tables = [info for info in infos if _ending(info.path) not in PICTURES]
    if not tables:
        return tuple(_classes(address, root, pictures))
    strange = next((info.path for info in tables if pictures and not _known(info.path)), None)
    if strange:
        do = f"take it away, or name the pictures: {shown}/*/*.{_ending(pictures[0].path)}"
        raise InputError("pictures, with a table beside them or in folders of classes", _below(strange, root), do)
    found = [Fragment(address, info.path, _format(info.path), stamp=_stamp(address, info), root=root) for info in tables]
    odd = next((fragment for fragment in found if fragment.format != found[0].format), None)
    if odd:
        raise InputError("files of one format", f"{found[0].shown} and {odd.shown}", f"name a glob, such as {shown}/*.{odd.format}")
    empty = next((fragment for fragment, info in zip(found, tables, strict=True) if info.size == 0), None)
    if empty:
        raise InputError("a file with rows", f"{empty.shown} of 0 bytes", "write it again or take it away")
    if found[0].format == "tar":
        found = [replace(fragment, beside=info.size) for fragment, info in zip(found, tables, strict=True)]
    elif pictures:
        mark, mean = _marked(pictures, root), sum(info.size for info in pictures) // len(pictures)
        found = [replace(fragment, stamp=f"{fragment.stamp} {mark}", beside=max(mean, 1)) for fragment in found]
    if found[0].format != "parquet":
        return tuple(found)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return tuple(part for parts in pool.map(_row_groups, found) for part in parts)


def _ending(path: str) -> str:
    return posixpath.splitext(path)[1].lower().lstrip(".")


def _root(address: str, infos: Sequence[pafs.FileInfo]) -> str:
    """The folder itself, that of a file, or what stands before a glob's first sign."""
    _, path = filesystem_of(address)
    if len(infos) == 1 and infos[0].path == path:
        return posixpath.dirname(path)
    if infos and all(info.path.startswith(f"{path.rstrip('/')}/") for info in infos):
        return path.rstrip("/")
    names = path.split("/")
    first = next((index for index, name in enumerate(names) if re.search(r"[*?[]", name)), len(names))
    return "/".join(names[:first])


def _below(path: str, root: str) -> str:
    return path.removeprefix(root).strip("/")


def _known(path: str) -> str | None:
    name = path.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    kind = FORMATS.get(os.path.splitext(name)[1])
    return None if kind == "parquet" and name != path.lower() else kind


def _format(path: str) -> str:
    kind = _known(path)
    if kind is None:
        raise InputError(f"a name that ends in {', '.join(FORMATS)} (text also with .gz)", path, "rename or convert the file")
    return kind


def _stamp(address: str, info: pafs.FileInfo) -> str:
    if Folder(address).remote or info.size > HASHED:
        return f"{info.size}-{info.mtime_ns or 0}"
    with open(info.path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _marked(pictures: Iterable[pafs.FileInfo], root: str) -> str:
    """A digest that changes when a picture comes, goes or may have changed."""
    digest = hashlib.blake2b(digest_size=16)
    for info in pictures:
        digest.update(f"{_below(info.path, root)}\0{info.size}\0{info.mtime_ns or 0}\n".encode())
    return digest.hexdigest()


def _classes(address: str, root: str, pictures: list[pafs.FileInfo]) -> Iterator[Fragment]:
    """About PART_BYTES of pictures each."""
    names = [_below(info.path, root) for info in pictures]
    flat = next((name for name in names if "/" not in name), None)
    if flat:
        do = "put a table beside the pictures, or each picture into a folder of its class"
        raise InputError("rows: a table, or a folder per class", f"a picture alone: {flat!r} in {root}", do)
    if {name.split("/")[0] for name in names} <= PARTS_OF_A_SPLIT:
        got = f"{names[0]!r} in {root}"
        raise InputError("a folder per class", got, f"name {names[0].split('/')[0]!r} itself as DATA (and --test for test pictures)")
    start = weight = 0
    for stop in range(1, len(pictures) + 1):
        weight += pictures[stop - 1].size
        if stop == len(pictures) or weight + pictures[stop].size > PART_BYTES or stop - start == BLOCK_ROWS:
            mine = pictures[start:stop]
            rows, stamp = stop - start, _marked(mine, root)
            yield Fragment(address, root, CLASSES, rows=rows, stamp=stamp, root=root, members=tuple(names[start:stop]), images=(IMAGE,))
            start, weight = stop, 0


def _row_groups(fragment: Fragment) -> list[Fragment]:
    with explained(fragment.shown, fragment.address), pq.ParquetFile(fragment.open()) as file:
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    parts: list[Fragment] = []
    weight = 0
    for index, group in enumerate(groups):
        _refuse_large(group, fragment)
        count, size = group.num_rows, group.total_byte_size
        if parts and (parts[-1].rows or 0) + count <= BLOCK_ROWS and weight + size <= GROUP_BYTES:
            parts[-1] = replace(parts[-1], groups=(*parts[-1].groups, index), rows=(parts[-1].rows or 0) + count)
            weight += size
        else:
            parts.append(replace(fragment, groups=(index,), rows=count))
            weight = size
    return parts or [replace(fragment, rows=0)]


def _refuse_large(group: Any, fragment: Fragment) -> None:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.physical_type == "BYTE_ARRAY" and column.total_uncompressed_size > COLUMN_BYTES:
            got = f"{column.total_uncompressed_size} of {column.path_in_schema!r} in {fragment.shown}"
            raise InputError(f"at most {COLUMN_BYTES} bytes of a column in a row group", got, "write it with smaller row groups")

"""Layout: how rows with pictures are written - as they came: in a table, as files beside one, in folders of classes, in tar files."""

import hashlib
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codsa_ray.errors import FolderError, PictureError
from codsa_ray.folder import Folder
from codsa_ray.fragment import CLASSES, LABEL, Fragment
from codsa_ray.picture import header
from codsa_ray.record import DIGEST_BYTES, Record, as_recorded, write_recorded, write_recorded_bytes
from codsa_ray.values import PICTURE
from codsa_ray.webdataset import PICTURES, packed

TABLE, FILES, TAR = "table", "files", "tar"
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "PPM": "ppm"}


@dataclass(frozen=True)
class Layout:
    """How DATA lies, and so what is written.

    A table is one parquet file. Files: the same with the names of its pictures, which lie below the folder it is in, real ones where they
    lay in DATA, drawn ones in folders of their own; of classes, in the folder of their label. Tar: one tar file of samples.

    Args:
        form: TABLE, FILES, CLASSES or TAR.
        columns: those whose pictures are files of their own.
    """

    form: str = TABLE
    columns: tuple[str, ...] = ()

    @staticmethod
    def of(fragment: Fragment) -> "Layout":
        """Of DATA's first fragment."""
        if fragment.format in (CLASSES, TAR):
            return Layout(fragment.format, fragment.images)
        return Layout(FILES if fragment.images else TABLE, fragment.images)

    @property
    def ending(self) -> str:
        """Of the files that are recorded."""
        return ".tar" if self.form == TAR else ".parquet"

    def write(self, folder: Folder, stem: str, table: pa.Table) -> Record:
        """Writes one part of rows in DATA's columns under the name `stem` + ending; returns what it must be when it is read again."""
        if self.form == TAR:
            return write_recorded_bytes(folder, f"{stem}.tar", self._packed(stem, table), len(table))
        if not self.columns:
            return write_recorded(folder, f"{stem}.parquet", table)
        digest, done = hashlib.blake2b(digest_size=DIGEST_BYTES), set()
        for column in self.columns:
            names = []
            for row, (name, data) in enumerate(self._named(stem, table, column)):
                names.append(name)
                if name is None or name in done:
                    continue
                assert data is not None, f"row {row} has a name and so bytes"
                folder.write_bytes(name, data)
                done.add(name)
                _add(digest, name, data)
            table = table.set_column(table.column_names.index(column), column, pa.array(names, pa.string()))
        return write_recorded(folder, f"{stem}.parquet", table, digest.hexdigest())

    def whole(self, folder: Folder, name: str, record: Record) -> bool:
        """True when a part is there as it was written, its pictures too."""
        if not as_recorded(folder, name, record):
            return False
        if not record.pictures:
            return True
        with pq.ParquetFile(pa.BufferReader(folder.read_bytes(name))) as file:
            table = file.read(columns=list(self.columns))
        digest, done = hashlib.blake2b(digest_size=DIGEST_BYTES), set()
        try:
            for column in self.columns:
                for path in table[column].to_pylist():
                    if path is not None and path not in done:
                        _add(digest, path, folder.read_bytes(path))
                        done.add(path)
        except FolderError:
            return False
        return digest.hexdigest() == record.pictures

    def _named(self, stem: str, table: pa.Table, column: str) -> Iterator[tuple[str | None, bytes | None]]:
        """(name below the folder, bytes) of each row's picture; (None, None) where there is none."""
        labels = table[LABEL].to_pylist() if self.form == CLASSES else [""] * len(table)
        for row, (picture, label) in enumerate(zip(table[column].to_pylist(), labels, strict=True)):
            data = picture and picture["bytes"]
            if data is None:
                yield None, None
                continue
            path = picture["path"]
            if path is None:
                own = "" if len(self.columns) == 1 else f"{column}-"
                path = posixpath.join(label if self.form == CLASSES else "drawn", f"{own}{stem}-{row:06d}.{ending_of(data)}")
            elif posixpath.splitext(path)[1].lower().lstrip(".") not in PICTURES:
                path = f"{path}.{ending_of(data)}"
            yield (_relabelled(path, label) if self.form == CLASSES else path), data

    def _packed(self, stem: str, table: pa.Table) -> bytes:
        pictures = [item.name for item in table.schema if item.type == PICTURE]
        plain: dict[str, Callable[[Any], str]] = dict.fromkeys(pictures, ending_of)

        def rows() -> Iterator[tuple[str, dict[str, Any]]]:
            for place, row in enumerate(table.to_pylist()):
                paths = [row[name]["path"] for name in pictures if row[name] and row[name]["path"]]
                folder, base = posixpath.split(paths[0]) if paths else ("", f"{stem}-{place:06d}")
                key = posixpath.join(folder, base.partition(".")[0])
                yield key, {name: value["bytes"] if name in plain and value else value for name, value in row.items()}

        return packed(rows(), plain)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"form": self.form, "columns": list(self.columns)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Layout":
        """The inverse of `to_json`."""
        return Layout(value["form"], tuple(value["columns"]))


PLAIN = Layout()


def ending_of(data: bytes) -> str:
    """The ending of a picture's file by its bytes; bin where they are none."""
    try:
        kind = header(data).format
    except PictureError:
        return "bin"
    return ENDINGS.get(kind, kind.lower())


def _relabelled(path: str, label: str) -> str:
    """A picture whose label is no longer its folder's (--merge) lies in that of its label, under a name that tells where it came from."""
    first, _, rest = path.partition("/")
    return path if first == label else f"{label}/{first}-{rest}"


def _add(digest: Any, name: str, data: bytes) -> None:
    digest.update(f"{name}\0{len(data)}\0".encode())
    digest.update(data)

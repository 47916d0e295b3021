"""A folder on any pyarrow filesystem (local, s3://, gs://), written whole or not at all; knows no stage."""

import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from codsa_ray.errors import DamagedError, FolderError
from codsa_ray.filesystem import filesystem_of, is_remote, open_file, shown, told

COMPRESSION = "zstd"
TEMPORARY = ".tmp-"
READS = 10  # of an object that is replaced while it is read
PIECE = 1 << 23


@dataclass(frozen=True)
class Folder:
    """A folder by address. Writes go to a temporary name first and are renamed; on object stores one put is atomic.

    Args:
        address: a local path, or an address pyarrow knows (s3://bucket/key, gs://bucket/key).
    """

    address: str

    @property
    def remote(self) -> bool:
        """True when the address names an object store."""
        return is_remote(self.address)

    @property
    def absolute(self) -> "Folder":
        """The same folder for processes with another working directory."""
        return self if self.remote else Folder(self.local())

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self._joined(name))

    def _joined(self, name: str) -> str:
        if not self.remote:
            return f"{self.address.rstrip('/')}/{name}"
        place, mark, settings = self.address.partition("?")
        return f"{place.rstrip('/')}/{quote(name)}{mark}{settings}"

    @property
    def shown(self) -> str:
        """The address without credentials, fit for logs."""
        return shown(self.address)

    def _open(self, name: str = "") -> tuple[pafs.FileSystem, str]:
        return filesystem_of(self._joined(name) if name else self.address)

    @contextmanager
    def _at(self, name: str = "") -> Iterator[tuple[pafs.FileSystem, str]]:
        """The filesystem and the path in it for the block; what a store raises there after all its retries becomes one line.

        Raises:
            FolderError: no such file; a store that is out of reach, without the bucket, or closed to these credentials.
        """
        try:
            yield self._open(name)
        except FileNotFoundError as error:
            if self.remote and "AWS Error" in str(error):
                raise FolderError(*told(error, self.shown, self.address)) from error
            raise FolderError(f"{name} in {self.shown}", "no such file", "run the stage that writes it first") from error
        except (pa.ArrowInvalid, OSError) as error:
            if not self.remote or (isinstance(error, pa.ArrowInvalid) and "filesystem type" not in str(error)):
                raise
            raise FolderError(*told(error, self.shown, self.address)) from error

    def local(self) -> str:
        """The absolute local path.

        Raises:
            FolderError: the folder is on an object store.
        """
        if self.remote:
            raise FolderError("a local folder", self.shown, "name a local path")
        return self._open()[1]

    def exists(self, name: str = "") -> bool:
        """True when the file or folder is there."""
        with self._at(name) as (filesystem, path):
            return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """Names directly inside, sorted; empty when the folder is not there."""
        return sorted(info.base_name for info in self._inside())

    def sizes(self) -> dict[str, int]:
        """Bytes of each file directly inside, by name; empty when the folder is not there."""
        return {info.base_name: info.size for info in self._inside() if info.type == pafs.FileType.File}

    def all_sizes(self) -> dict[str, int]:
        """Bytes of each file inside, and of those in its folders by their path from here; half-written ones are left out."""
        with self._at() as (filesystem, path):
            found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True))
            whole = [info for info in found if info.type == pafs.FileType.File and not info.base_name.startswith(TEMPORARY)]
            return {info.path[len(path.rstrip("/")) + 1 :]: info.size for info in sorted(whole, key=lambda info: info.path)}

    def _inside(self) -> list[pafs.FileInfo]:
        with self._at() as (filesystem, path):
            return list(filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)))

    def make(self) -> "Folder":
        """Creates the folder (and parents); returns it."""
        if not self.remote:
            os.makedirs(self.local(), exist_ok=True)
        return self

    def delete(self, name: str = "") -> None:
        """Deletes a file or a whole folder inside this one, if it is there."""
        with self._at(name) as (filesystem, path):
            kind = filesystem.get_file_info(path).type
            if kind == pafs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == pafs.FileType.File:
                with suppress(FileNotFoundError):  # another process was quicker
                    filesystem.delete_file(path)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes one file so that a reader sees all of it or none."""
        if self.remote:
            with self._at(name) as (filesystem, path), ThreadPoolExecutor(1) as other:
                # Signals reach the main thread alone: one between opening and writing would put an empty object under the name.
                other.submit(_put, filesystem, path, data).result()
            return
        _, path = self._open(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=TEMPORARY)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def read_bytes(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            FolderError: the file is not there, or never as large as its store says.
        """
        with self._at(name) as (filesystem, path):
            for _ in range(READS):
                with open_file(filesystem, path) as file:
                    data = bytes(file.read())
                # A store tells the size first and the bytes after it: of an object replaced in between they are cut.
                if not self.remote or filesystem.get_file_info(path).size == len(data):
                    return data
        raise FolderError(
            f"{name} in {self.shown} as large as its store says", f"other bytes {READS} times", "end what writes there, and run again"
        )

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of one file, PIECE at a time."""
        with self._at(name) as (filesystem, path), open_file(filesystem, path) as file:
            while piece := file.read(PIECE):
                yield bytes(piece)

    def write_json(self, name: str, value: Any) -> None:
        """Writes JSON, keys sorted, so that equal values are equal bytes; NaN and infinity are no JSON and raise ValueError."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        self.write_bytes(name, (text + "\n").encode())

    def read_json(self, name: str) -> Any:
        """The value of a JSON file."""
        return json.loads(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table) -> int:
        """Writes one parquet file (zstd); returns its bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression=COMPRESSION, write_page_checksum=True)
        data = sink.getvalue().to_pybytes()
        self.write_bytes(name, data)
        return len(data)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Reads one parquet file.

        Raises:
            DamagedError: it is not whole.
        """
        with self._parquet(name) as file:
            return file.read(columns=columns)

    def row_groups(self, name: str) -> Iterator[pa.Table]:
        """Reads one parquet file row group by row group, in order."""
        with self._parquet(name) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index)

    @contextmanager
    def _parquet(self, name: str) -> Iterator[pq.ParquetFile]:
        with self._at(name) as (filesystem, path):
            stream = open_file(filesystem, path)
            try:
                file = pq.ParquetFile(stream, page_checksum_verification=True)
            except pa.ArrowInvalid as error:
                raise DamagedError(f"{name} in {self.shown}: wanted a whole file; got a part; delete that folder and run again") from error
            with file:
                yield file

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes named arrays as safetensors: nothing that is read back is ever unpickled."""
        self.write_bytes(name, save_tensors({key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}))

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Reads what `write_arrays` wrote."""
        return dict(load_tensors(self.read_bytes(name)))


def _put(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    with filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(data)

"""A folder on any pyarrow filesystem (local, s3://, gs://), written whole or not at all; knows no stage."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from codsa_ray.errors import FolderError

COMPRESSION = "zstd"


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
        return "://" in self.address and not self.address.startswith("file://")

    @property
    def absolute(self) -> "Folder":
        """The same folder for processes with another working directory."""
        return self if self.remote else Folder(self.local())

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.address.rstrip('/')}/{name}")

    @property
    def shown(self) -> str:
        """The address without credentials, fit for logs."""
        parts = urlsplit(self.address)
        if not parts.scheme or "@" not in parts.netloc:
            return self.address
        return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2], query="").geturl()

    def _open(self, name: str = "") -> tuple[pafs.FileSystem, str]:
        address = f"{self.address.rstrip('/')}/{name}" if name else self.address
        try:
            if self.remote:
                return pafs.FileSystem.from_uri(address)
            return pafs.LocalFileSystem(), os.path.abspath(address.removeprefix("file://"))
        except (pa.ArrowInvalid, OSError) as error:
            raise FolderError("an address pyarrow can open", self.shown, f"check it ({type(error).__name__})") from error

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
        filesystem, path = self._open(name)
        return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """Names directly inside, sorted; empty when the folder is not there."""
        filesystem, path = self._open()
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def make(self) -> "Folder":
        """Creates the folder (and parents); returns it."""
        filesystem, path = self._open()
        if not self.remote:
            filesystem.create_dir(path, recursive=True)
        return self

    def delete(self, name: str = "") -> None:
        """Deletes a file or a whole folder inside this one, if it is there."""
        filesystem, path = self._open(name)
        kind = filesystem.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            filesystem.delete_dir(path)
        elif kind == pafs.FileType.File:
            filesystem.delete_file(path)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes one file so that a reader sees all of it or none."""
        filesystem, path = self._open(name)
        if self.remote:
            with filesystem.open_output_stream(path) as stream:
                stream.write(data)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".tmp-")
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
            FolderError: the file is not there.
        """
        filesystem, path = self._open(name)
        try:
            with filesystem.open_input_stream(path, compression=None) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise self._gone(name) from error

    def _gone(self, name: str) -> FolderError:
        return FolderError(f"{name} in {self.shown}", "no such file", "run the stage that writes it first")

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
        pq.write_table(table, sink, compression=COMPRESSION)
        data = sink.getvalue().to_pybytes()
        self.write_bytes(name, data)
        return len(data)

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Reads one parquet file."""
        with self._parquet(name) as file:
            return file.read(columns=columns)

    def row_groups(self, name: str) -> Iterator[pa.Table]:
        """Reads one parquet file row group by row group, in order."""
        with self._parquet(name) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index)

    def _parquet(self, name: str) -> pq.ParquetFile:
        filesystem, path = self._open(name)
        try:
            return pq.ParquetFile(filesystem.open_input_file(path))
        except FileNotFoundError as error:
            raise self._gone(name) from error

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes named arrays as safetensors: nothing that is read back is ever unpickled."""
        self.write_bytes(name, save_tensors({key: np.ascontiguousarray(value) for key, value in sorted(arrays.items())}))

    def read_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Reads what `write_arrays` wrote."""
        return dict(load_tensors(self.read_bytes(name)))

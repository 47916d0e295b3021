"""Records: rows, size and checksum of a file as it was written, held against it when it is read; knows no stage."""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codsa_ray.errors import DamagedError, FolderError
from codsa_ray.folder import COMPRESSION, Folder

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Record:
    """One file of rows.

    Args:
        rows: how many. size: bytes.
        blake2b: hex digest of the bytes.
        pictures: hex digest of the files of pictures that it names; "" where it names none.
        redrawn: of drawn rows, how many others were dropped for which reason.
    """

    rows: int
    size: int
    blake2b: str
    pictures: str = ""
    redrawn: dict[str, int] = field(default_factory=dict, hash=False)

    def fits(self, data: bytes) -> bool:
        """True for the bytes that were written."""
        return len(data) == self.size and _digest(data) == self.blake2b

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


def write_recorded(folder: Folder, name: str, table: pa.Table, pictures: str = "") -> Record:
    """Writes one parquet file; returns what it must be when it is read again."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=COMPRESSION)
    return write_recorded_bytes(folder, name, sink.getvalue().to_pybytes(), len(table), pictures)


def write_recorded_bytes(folder: Folder, name: str, data: bytes, rows: int, pictures: str = "") -> Record:
    """Writes one file of rows in any format."""
    folder.write_bytes(name, data)
    return Record(rows, len(data), _digest(data), pictures)


def read_recorded(folder: Folder, name: str, record: Record | None, columns: list[str] | None = None) -> pa.Table:
    """Reads what `write_recorded` wrote.

    Raises:
        DamagedError: the file is not as it was written, is not there, or nobody recorded it.
    """
    data = _bytes(folder, name)
    if record is None or data is None or not record.fits(data):
        wanted = f"{record.rows} rows in {record.size} bytes, as written" if record else "a file with a record"
        got = "none" if data is None else f"{len(data)} bytes{', altered' if record and len(data) == record.size else ''}"
        raise DamagedError(f"{name} in {folder.shown}: wanted {wanted}; got {got}; run again, it is made anew")
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(columns=columns)


def as_recorded(folder: Folder, name: str, record: Record) -> bool:
    """True when the file is there as it was written."""
    data = _bytes(folder, name)
    return data is not None and record.fits(data)


def _bytes(folder: Folder, name: str) -> bytes | None:
    try:
        return folder.read_bytes(name)
    except FolderError:
        if folder.exists(name):
            raise
        return None

"""Records: rows, size and checksum of a file as it was written, held against it when it is read; knows no stage."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from codsa_ray.errors import DamagedError, FolderError
from codsa_ray.folder import COMPRESSION, Folder

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Record:
    """One file.

    Args:
        rows: how many; 0 where it holds something else. size: bytes.
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
        return len(data) == self.size and _digest([data]) == self.blake2b

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _digest(pieces: Iterable[bytes]) -> str:
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def write_recorded(folder: Folder, name: str, table: pa.Table, pictures: str = "") -> Record:
    """Writes one parquet file; returns what it must be when it is read again."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression=COMPRESSION)
    return write_recorded_bytes(folder, name, sink.getvalue().to_pybytes(), len(table), pictures)


def write_recorded_bytes(folder: Folder, name: str, data: bytes, rows: int, pictures: str = "") -> Record:
    """Writes one file of rows in any format."""
    folder.write_bytes(name, data)
    return Record(rows, len(data), _digest([data]), pictures)


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


def records_of(folder: Folder) -> dict[str, Record]:
    """What every file in the folder, and in folders inside it, is now."""
    return {name: Record(0, size, _digest(folder.pieces(name))) for name, size in folder.all_sizes().items()}


def check_recorded(folder: Folder, records: dict[str, Record]) -> None:
    """Reads every file of `records_of`, a piece at a time.

    Raises:
        DamagedError: one is not as it was written, or is not there.
    """
    sizes = folder.all_sizes()
    for name, record in records.items():
        size = sizes.get(name)
        if size != record.size or _digest(folder.pieces(name)) != record.blake2b:
            got = "none" if size is None else f"{size} bytes{', altered' if size == record.size else ''}"
            raise DamagedError(f"{name} in {folder.shown}: wanted {record.size} bytes, as written; got {got}; run again, it is made anew")


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

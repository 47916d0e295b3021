"""DATA as fragments that one worker reads at a time: parquet, csv and jsonl; knows no meaning of a column."""

import codecs
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.json as pajson
import pyarrow.parquet as pq

from codsa_ray.address import explained, files
from codsa_ray.errors import InputError
from codsa_ray.filesystem import filesystem_of, open_file, open_stream
from codsa_ray.folder import Folder
from codsa_ray.probes import Probe as Probe
from codsa_ray.probes import Probed, flat

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
RESERVED = frozenset({"_synthetic", "_region", "_weight", "_draw", "_row", "_fold", "_group", "_unit"})
BLOCK_ROWS = 1 << 17
# A row of text must fit into one block.
BLOCK_BYTES = 1 << 24
FOOTERS_AT_ONCE = 16
# A second or two of hashing; a larger file that was touched is read again.
HASHED = 1 << 31
# What a header of one column has in it when the fields are not separated by commas.
SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True)
class Fragment:
    """A part of DATA that is read whole by one worker.

    Args:
        address: what names the filesystem; may hold credentials, never shown.
        path: of the file inside the filesystem.
        format: parquet, csv or jsonl.
        groups: parquet row groups; empty for the whole file.
        rows: rows of it, where the format says so without reading.
        stamp: hash of a local file up to HASHED bytes, else its size and time of change.
    """

    address: str = field(repr=False)
    path: str
    format: str
    groups: tuple[int, ...] = ()
    rows: int | None = None
    stamp: str = ""

    @property
    def identity(self) -> list[Any]:
        """JSON value that changes when the rows may have changed."""
        return [self.shown, list(self.groups), self.stamp]

    @property
    def shown(self) -> str:
        """The file, without credentials."""
        return self.path if not Folder(self.address).remote else f"{urlsplit(self.address).scheme}://{self.path}"

    def open(self) -> Any:
        """The file, for random access."""
        return open_file(filesystem_of(self.address)[0], self.path)

    def stream(self) -> Any:
        """The file's bytes in order, decompressed by its name."""
        return open_stream(filesystem_of(self.address)[0], self.path)


def fragments(address: str) -> tuple[Fragment, ...]:
    """The parts of DATA in a fixed order: by path, then by place in the file.

    Parquet row groups are taken together up to BLOCK_ROWS rows; a csv or jsonl file is one fragment, read in a stream.
    Names that start with `_` or `.` inside a folder are skipped, as Spark and Hive write them.

    Args:
        address: a file, a folder or a glob (* and ** and [...]; also ? where local); local, or what pyarrow can open.

    Raises:
        InputError: nothing there, out of reach, an empty file, an unknown or a mixed format.
    """
    shown = Folder(address).shown
    with explained(shown, address):
        infos = files(address)
    if not infos:
        raise InputError("a file, a folder or a glob with files", f"nothing at {shown}", "check the path")
    found = [Fragment(address, info.path, _format(info.path), stamp=_stamp(address, info)) for info in infos]
    odd = next((fragment for fragment in found if fragment.format != found[0].format), None)
    if odd:
        raise InputError("files of one format", f"{found[0].shown} and {odd.shown}", f"name a glob, such as {shown}/*.{odd.format}")
    empty = next((fragment for fragment, info in zip(found, infos, strict=True) if info.size == 0), None)
    if empty:
        raise InputError("a file with rows", f"{empty.shown} of 0 bytes", "write it again or take it away")
    if found[0].format != "parquet":
        return tuple(found)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return tuple(part for parts in pool.map(_row_groups, found) for part in parts)


def probe(fragment: Fragment) -> Probe:
    """Rows and column types of a fragment; a csv or jsonl file is read to its end.

    Csv fields are text until every value has been seen: whole numbers, numbers, true/false, ISO dates without or with a
    zone, else text (numbers with leading zeros or beyond 64 bits stay text). Empty fields are null.

    Raises:
        InputError, SchemaError: the file cannot be read, or a column has a reserved or doubled name or a nested type.
    """
    if fragment.format == "parquet":
        with explained(fragment.shown, fragment.address), pq.ParquetFile(fragment.open()) as file:
            schema = file.schema_arrow
        _check_names(schema.names, fragment)
        columns = {name: Probed(flat(name, kind), fragment.shown) for name, kind in zip(schema.names, schema.types, strict=True)}
        return Probe(fragment.rows or 0, fragment.shown, tuple(columns.items()))
    found: Probe | None = None
    read = _csv if fragment.format == "csv" else _json
    for block in read(fragment):
        part = Probe.of(block, fragment.shown, spelled=fragment.format == "csv")
        found = part if found is None else found.merge(part)
    found = found or Probe(0, fragment.shown, (), fragment.format == "jsonl")
    _check_names([name for name, _ in found.columns], fragment)
    return found


def load(fragment: Fragment, types: pa.Schema) -> Iterator[pa.Table]:
    """The fragment's rows in order, in tables of at most BLOCK_ROWS rows and exactly the columns and types of `types`.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a value that the type cannot.
    """
    if fragment.format == "parquet":
        blocks = _parquet(fragment)
    else:
        blocks = _csv(fragment) if fragment.format == "csv" else _json(fragment, types)
    for block in blocks:
        for start in range(0, len(block), BLOCK_ROWS):
            yield _typed(block.slice(start, BLOCK_ROWS), types, fragment)


def _format(path: str) -> str:
    name = path.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    kind = FORMATS.get(os.path.splitext(name)[1])
    if kind is None or (kind == "parquet" and name != path.lower()):
        raise InputError(f"a name that ends in {', '.join(FORMATS)} (text also with .gz)", path, "rename or convert the file")
    return kind


def _stamp(address: str, info: pafs.FileInfo) -> str:
    if Folder(address).remote or info.size > HASHED:
        return f"{info.size}-{info.mtime_ns or 0}"
    with open(info.path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _row_groups(fragment: Fragment) -> list[Fragment]:
    with explained(fragment.shown, fragment.address), pq.ParquetFile(fragment.open()) as file:
        rows = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    parts: list[Fragment] = []
    for index, count in enumerate(rows):
        if parts and (parts[-1].rows or 0) + count <= BLOCK_ROWS:
            parts[-1] = replace(parts[-1], groups=(*parts[-1].groups, index), rows=(parts[-1].rows or 0) + count)
        else:
            parts.append(replace(fragment, groups=(index,), rows=count))
    return parts or [replace(fragment, rows=0)]


def _check_names(names: list[str], fragment: Fragment) -> None:
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError("column names that differ", f"{doubled[0]!r} twice in {fragment.shown}", "rename one")
    reserved = [name for name in names if name in RESERVED]
    if reserved:
        do = "rename it, or name the data without synthetic rows"
        raise InputError("no column with a name of our own", f"{reserved[0]!r} in {fragment.shown}", do)


def _typed(block: pa.Table, types: pa.Schema, fragment: Fragment) -> pa.Table:
    arrays = []
    for name, kind in zip(types.names, types.types, strict=True):
        if name not in block.column_names:
            raise InputError(f"column {name!r} in every file", f"{fragment.shown} without it", "name files of one table")
        column = block[name]
        if fragment.format != "parquet" and pa.types.is_string(column.type) and not pa.types.is_string(kind):
            text = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        try:
            arrays.append(_cast(column, kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            got = f"{fragment.shown}: {str(error).splitlines()[0]}"
            raise InputError(f"column {name!r} as {kind}", got, "cast it to one type in every file") from error
    return pa.table(arrays, schema=types)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    return pa.nulls(len(column), kind) if pa.types.is_null(kind) else column.cast(kind)


def _parquet(fragment: Fragment) -> Iterator[pa.Table]:
    with explained(fragment.shown, fragment.address), pq.ParquetFile(fragment.open()) as file:
        for batch in file.iter_batches(BLOCK_ROWS, row_groups=list(fragment.groups)):
            yield pa.Table.from_batches([batch])


def _csv(fragment: Fragment) -> Iterator[pa.Table]:
    """Blocks with every column as text, empty fields null."""
    bad: list[Any] = []

    def noted(row: Any) -> str:
        bad.append(row)
        return "error"

    parse = pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=noted)
    # Rows are numbered only where one thread reads.
    options = {"read_options": pacsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False), "parse_options": parse}
    with explained(fragment.shown, fragment.address):
        try:
            with fragment.stream() as stream:
                names = pacsv.open_csv(stream, **options).schema.names
            _check_header(names, fragment)
            convert = pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""])
            with fragment.stream() as stream:
                reader = pacsv.open_csv(stream, convert_options=convert, **options)
                yield reader.schema.empty_table()
                yield from (pa.Table.from_batches([batch]) for batch in reader)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            _refuse_encoding(fragment, error)
            raise _csv_error(fragment, bad, str(error)) from error


def _csv_error(fragment: Fragment, bad: list[Any], text: str) -> InputError:
    if "Empty CSV" in text:
        return InputError("a header and rows", f"{fragment.shown} without", "check the file")
    if not bad:
        return InputError("csv that can be read", f"{fragment.shown}: {text.splitlines()[0][:200]}", "correct the file")
    got = f"{bad[0].actual_columns} in row {bad[0].number} of {fragment.shown}: {bad[0].text[:60]!r} (the header is row 1)"
    return InputError(f"{bad[0].expected_columns} fields in every row", got, "correct that row (quote text that holds commas)")


def _check_header(names: list[str], fragment: Fragment) -> None:
    _check_names(names, fragment)
    found = [mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]]
    if found:
        raise InputError("fields separated by commas", f"{names[0]!r} in {fragment.shown}", f"turn {found[0]!r} into commas")


def _refuse_encoding(fragment: Fragment, cause: Exception) -> None:
    """Raises InputError with the first byte that is not UTF-8, if there is one."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    with fragment.stream() as stream:
        while chunk := stream.read(BLOCK_BYTES):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(fragment, read - held + error.start, chunk) from cause
            read += len(chunk)


def _not_utf8(fragment: Fragment, offset: int, chunk: bytes) -> InputError:
    encoding = "UTF-16" if offset == 0 and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "LATIN1"
    name = os.path.basename(fragment.path)
    do = f"convert it, for example iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"
    return InputError("text in UTF-8", f"another byte at offset {offset} of {fragment.shown}", do)


def _json(fragment: Fragment, types: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Blocks of objects, one a line; text that looks like a date is still text."""
    known = [] if types is None else [(f.name, pa.string() if pa.types.is_timestamp(f.type) else f.type) for f in types]
    rows = position = 0
    for chunk in _lines(fragment):
        try:
            chunk.decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(fragment, position + error.start, chunk) from error
        try:
            block = _objects(chunk, known, drop=types is not None)
        except pa.ArrowInvalid as error:
            raise _json_error(fragment, rows, str(error)) from error
        rows, position = rows + len(block), position + len(chunk)
        yield block


def _lines(fragment: Fragment) -> Iterator[bytes]:
    """About BLOCK_BYTES at a time, cut after a line."""
    with explained(fragment.shown, fragment.address), fragment.stream() as stream:
        held = b""
        while chunk := stream.read(BLOCK_BYTES):
            whole, newline, rest = (held + chunk).rpartition(b"\n")
            if whole.strip():
                yield whole + newline
            held = rest
        if held.strip():
            yield held


def _objects(chunk: bytes, known: list[tuple[str, pa.DataType]], drop: bool) -> pa.Table:
    options = pajson.ReadOptions(block_size=len(chunk) + 1, use_threads=False)
    other = "ignore" if drop else "infer"

    def read(columns: list[tuple[str, pa.DataType]]) -> pa.Table:
        parse = pajson.ParseOptions(explicit_schema=pa.schema(columns) if columns else None, unexpected_field_behavior=other)
        return pajson.read_json(pa.BufferReader(chunk), read_options=options, parse_options=parse)

    block = read(known)
    dates = [(f.name, pa.string()) for f in block.schema if pa.types.is_timestamp(f.type)]
    return read(dates).select(block.column_names) if dates and not known else block


def _json_error(fragment: Fragment, rows: int, text: str) -> InputError:
    text = text.removeprefix("JSON parse error: ")
    place = re.search(r" in row (\d+)", text)
    got = f"{fragment.shown}: {text}" if place is None else f"row {rows + int(place[1]) + 1} of {fragment.shown}: {text[: place.start()]}"
    return InputError("one JSON object a line, with one type per key", got, "correct that line")

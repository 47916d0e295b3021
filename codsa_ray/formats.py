"""Rows of DATA's fragments: parquet, csv, jsonl, tar files, pictures in a folder per class; knows no meaning of a column."""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from codsa_ray.address import explained
from codsa_ray.errors import InputError, SchemaError
from codsa_ray.fragment import BLOCK_ROWS as BLOCK_ROWS
from codsa_ray.fragment import CLASSES, IMAGE, LABEL, MARKED, PART_BYTES
from codsa_ray.fragment import Fragment as Fragment
from codsa_ray.fragment import fragments as fragments
from codsa_ray.picture_columns import as_picture, named
from codsa_ray.probes import Probe as Probe
from codsa_ray.probes import Probed, flat
from codsa_ray.values import PICTURE
from codsa_ray.webdataset import Sample, samples

RESERVED = frozenset({"_synthetic", "_region", "_weight", "_draw", "_row", "_fold", "_group", "_unit"})
# A row of text must fit into one block.
BLOCK_BYTES = 1 << 24
# What a header of one column has in it when the fields are not separated by commas.
SEPARATORS = (";", "\t", "|")
# Columns that name the pictures beside a table where nobody says which does; Hugging Face's is the first.
FILE_NAMES = ("file_name", "filename", "file", "path", "image")
SAMPLES = 4096
# Rows whose pictures are weighed.
FIRST = 64


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
    if fragment.format == CLASSES:
        columns = {IMAGE: Probed(PICTURE, fragment.shown), LABEL: Probed(pa.string(), fragment.shown)}
        return Probe(fragment.rows or 0, fragment.shown, tuple(columns.items()))
    if fragment.format == "tar":
        return _probe_tar(fragment)
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
    elif fragment.format == CLASSES:
        blocks = iter([_classes(fragment)])
    elif fragment.format == "tar":
        blocks = _tar(fragment, types)
    else:
        blocks = _csv(fragment) if fragment.format == "csv" else _json(fragment, types)
    # A tar file is cut while it is read: what lies outside is skipped there.
    for block in blocks if fragment.format == "tar" else _cut(blocks, fragment.span):
        for start in range(0, len(block), BLOCK_ROWS):
            yield _typed(block.slice(start, BLOCK_ROWS), types, fragment)


def picture_names(fragment: Fragment, types: pa.Schema, stated: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Columns that name files of pictures: text that --schema states to be images, or the first of FILE_NAMES where pictures lie beside.

    Raises:
        InputError: pictures lie beside a table that has no such column.
    """
    if fragment.format in (CLASSES, "tar"):
        return fragment.images
    texts = [item.name for item in types if pa.types.is_string(item.type)]
    said = tuple(name for name in texts if stated.get(name, {}).get("kind") == "image")
    if said or not fragment.beside:
        return said
    held = [item.name for item in types if item.type == PICTURE or pa.types.is_binary(item.type)]
    found = next((name for name in FILE_NAMES if name in texts and "kind" not in stated.get(name, {})), None)
    if found is None and not held:
        do = 'name the column that does with --schema: {"COLUMN": {"kind": "image"}}'
        raise InputError(f"a column that names the pictures beside {fragment.shown} ({', '.join(FILE_NAMES)})", ", ".join(types.names), do)
    return (found,) if found else ()


def picture_bytes(fragment: Fragment, types: pa.Schema) -> float:
    """Mean bytes of a row's files of pictures, by its first rows; 0 where it names none."""
    block = next(load(fragment, types), None) if fragment.images and fragment.format != CLASSES else None
    if block is None:
        return 0.0
    paths = [path for name in fragment.images for path in block[name].slice(0, FIRST).combine_chunks().flatten()[1].to_pylist()]
    return sum(fragment.shelf.weigh(paths)) / min(len(block), FIRST)


def with_pictures(types: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """The types with PICTURE for columns that name files."""
    held = set(names)
    return pa.schema([(item.name, PICTURE if item.name in held else item.type) for item in types])


def _cut(blocks: Iterable[pa.Table], span: tuple[int, int] | None) -> Iterator[pa.Table]:
    first = 0
    for block in blocks:
        start, stop = span or (0, first + len(block))
        inside = block.slice(max(start - first, 0), max(stop - max(start, first), 0))
        first += len(block)
        if len(inside):
            yield inside
        if span and first >= stop:
            return


def _classes(fragment: Fragment) -> pa.Table:
    paths = pa.array(fragment.members, pa.string())
    labels = pa.array([name.split("/")[0] for name in fragment.members], pa.string())
    return pa.table({IMAGE: paths, LABEL: labels})


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
        if kind == PICTURE:
            arrays.append(_picture(column, name, fragment))
            continue
        if fragment.format != "parquet" and pa.types.is_string(column.type) and not pa.types.is_string(kind):
            text = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        try:
            arrays.append(_cast(column, kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            got = f"{fragment.shown}: {str(error).splitlines()[0]}"
            raise InputError(f"column {name!r} as {kind}", got, "cast it to one type in every file") from error
    return pa.table(arrays, schema=types)


def _picture(column: pa.ChunkedArray, name: str, fragment: Fragment) -> pa.ChunkedArray:
    if pa.types.is_struct(column.type):
        return as_picture(column)
    if not pa.types.is_string(column.type) and not pa.types.is_null(column.type):
        raise SchemaError(f"column {name!r} of pictures, or of their names", str(column.type), "name another kind with --schema")
    # Those of a folder per class are named below DATA's folder, others below the table's own.
    return named(column.cast(pa.string()), "" if fragment.format == CLASSES else fragment.below, fragment.shown)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    return pa.nulls(len(column), kind) if pa.types.is_null(kind) else column.cast(kind)


def _parquet(fragment: Fragment) -> Iterator[pa.Table]:
    with explained(fragment.shown, fragment.address), pq.ParquetFile(fragment.open()) as file:
        for batch in file.iter_batches(BLOCK_ROWS, row_groups=list(fragment.groups)):
            _refuse_bytes_as_text(batch, fragment)
            yield pa.Table.from_batches([batch])


def _refuse_bytes_as_text(batch: pa.RecordBatch, fragment: Fragment) -> None:
    """Raises InputError where a parquet file's text is not UTF-8: arrow itself would tell when the text is first used."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                got = f"{str(error).splitlines()[0][:120]} of column {name!r} in {fragment.shown}"
                raise InputError("text in UTF-8", got, "convert it, or write it as bytes") from error


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
    known = [] if types is None else [(f.name, pa.string() if _as_text(f.type) else f.type) for f in types]
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


def _as_text(kind: pa.DataType) -> bool:
    """It is text in json: a moment, or a picture's name."""
    return bool(pa.types.is_timestamp(kind) or kind == PICTURE)


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


def _probe_tar(fragment: Fragment) -> Probe:
    """Pictures are skipped; texts are spelled, as in a csv file, and json is json."""
    left: Counter[str] = Counter()
    found, starts = Probe(0, fragment.shown, (), optional=True), []
    for batch in _batches(fragment, False, left):
        starts += [sample.offset for row, sample in enumerate(batch, found.rows) if row % MARKED == 0]
        values = _fields(batch, fragment, [], drop=False)
        texts = _texts(batch, sorted({name for sample in batch for name in sample.texts}))
        pictures = sorted({name for sample in batch for name in sample.pictures})
        _check_names([*values.column_names, *texts.column_names, *pictures], fragment)
        for part in (Probe.of(values, fragment.shown, False), Probe.of(texts, fragment.shown, True)):
            found = found.merge(Probe(0, fragment.shown, part.columns, optional=True))
        columns = tuple((name, Probed(PICTURE, fragment.shown)) for name in pictures)
        found = found.merge(Probe(len(batch), fragment.shown, columns, optional=True))
    found = found.merge(Probe(0, fragment.shown, (), optional=True, aside=tuple(left.items())))
    marks = [start for start in starts if start is not None]
    return replace(found, marks=tuple(marks if len(marks) == len(starts) and fragment.seekable else ()))


def _tar(fragment: Fragment, types: pa.Schema) -> Iterator[pa.Table]:
    for batch in _batches(fragment, True, Counter()):
        members = {name for sample in batch for name in (*sample.texts, *sample.pictures)}
        known = [item for item in types if item.name not in members]
        values = _fields(batch, fragment, known, drop=True)
        columns = {name: values[name] for name in values.column_names}
        columns |= dict(zip((kept := [name for name in types.names if name in members]), _texts(batch, kept).columns, strict=True))
        for name in types.names:
            if types.field(name).type == PICTURE:
                given = [sample.pictures.get(name, (None, None)) for sample in batch]
                columns[name] = pa.array([None if file is None else {"bytes": data, "path": file} for file, data in given], PICTURE)
        yield pa.table({name: columns.get(name, pa.nulls(len(batch))) for name in types.names})


def _batches(fragment: Fragment, data: bool, left: Counter[str]) -> Iterator[list[Sample]]:
    with explained(fragment.shown, fragment.address), fragment.open() if fragment.plain else fragment.stream() as file:
        batch: list[Sample] = []
        weight = 0
        for sample in samples(file, fragment.shown, fragment.plain, data, fragment.span, left, fragment.mark):
            batch.append(sample)
            weight += sum(len(bytes_ or b"") for _, bytes_ in sample.pictures.values())
            if len(batch) == SAMPLES or weight > PART_BYTES:
                yield batch
                batch, weight = [], 0
        if batch:
            yield batch


def _fields(batch: list[Sample], fragment: Fragment, known: list[pa.Field], drop: bool) -> pa.Table:
    """The json members as rows, (n, 0) where there is none."""
    wanted = [(item.name, pa.string() if _as_text(item.type) else item.type) for item in known if item.type != PICTURE]
    chunk = "".join(json.dumps({"": 0, **sample.values}) + "\n" for sample in batch).encode()
    try:
        return _objects(chunk, [("", pa.int64()), *wanted] if drop else [], drop).drop_columns([""])
    except pa.ArrowInvalid as error:
        raise _json_error(fragment, 0, str(error)) from error


def _texts(batch: list[Sample], names: list[str]) -> pa.Table:
    return pa.table({name: pa.array([sample.texts.get(name) for sample in batch], pa.string()) for name in names})

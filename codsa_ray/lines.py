"""Lines: csv and jsonl, in blocks from a place where a row starts; knows no column's meaning."""

import codecs
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from codsa_ray.address import explained
from codsa_ray.errors import InputError
from codsa_ray.fragment import Fragment
from codsa_ray.probes import check_names
from codsa_ray.values import PICTURE

# A row of text must fit into one block.
BLOCK_BYTES = 1 << 24
# What a header of one column has in it when the fields are not separated by commas.
SEPARATORS = (";", "\t", "|")


class UncutError(Exception):
    """No place was found where a row surely ends."""


def csv_blocks(fragment: Fragment) -> Iterator[pa.Table]:
    """Every column as text, empty fields null; from the fragment's mark on in the same blocks as `csv_chunks` where that found any.

    Raises:
        InputError: it is no csv file in UTF-8 whose rows have as many fields as its header.
    """
    if not fragment.names:
        yield from _streamed(fragment)
        return
    try:
        yield from (block for _, block in csv_chunks(fragment))
    except UncutError as error:
        raise InputError("a file that nobody writes", f"{fragment.shown}, changed since the run began", "give the command again") from error


def _streamed(fragment: Fragment) -> Iterator[pa.Table]:
    """The first block has no rows. Arrow loses the line feed where one and its carriage return lie in two blocks inside a value."""
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
            with fragment.stream() as stream:
                reader = pacsv.open_csv(stream, convert_options=_spelled(names), **options)
                yield reader.schema.empty_table()
                yield from (pa.Table.from_batches([batch]) for batch in reader)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            _refuse_encoding(fragment, error)
            raise _csv_error(fragment, bad, str(error)) from error


def csv_chunks(fragment: Fragment) -> Iterator[tuple[int, pa.Table]]:
    """The rows from the fragment's mark on, each block with the byte where it starts; the same blocks from each such byte.

    Raises:
        UncutError: there are no places that are surely between two rows, or it is no csv file.
    """
    names, first = list(fragment.names), fragment.mark[1]
    with explained(fragment.shown, fragment.address), fragment.stream() as stream:
        for start, chunk in _chunks(stream, first, _row_end):
            try:
                if not names:
                    names = pacsv.open_csv(pa.BufferReader(chunk), parse_options=QUOTED).schema.names
                    _check_header(names, fragment)
                yield start, _whole(chunk, names, headed=start == 0)
            except (pa.ArrowInvalid, UnicodeDecodeError) as error:
                raise UncutError from error


QUOTED = pacsv.ParseOptions(newlines_in_values=True)


def _whole(chunk: bytes, names: list[str], headed: bool) -> pa.Table:
    """The rows of a chunk that ends where a row ends: else a row of ours behind it would be part of its last value."""
    ours = b"" if chunk.endswith(b"\n") else b"\n"
    ours += b",".join([b"0"] * len(names)) + b"\n"
    read = pacsv.ReadOptions(use_threads=False, block_size=len(chunk) + len(ours) + 1, column_names=None if headed else names)
    block = pacsv.read_csv(pa.BufferReader(chunk + ours), read, QUOTED, _spelled(names))
    if not len(block) or any(column[-1].as_py() != "0" for column in block.columns):
        raise UncutError
    return block.slice(0, len(block) - 1)


def _spelled(names: Sequence[str]) -> pacsv.ConvertOptions:
    return pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""])


def _chunks(stream: Any, start: int, end: Callable[[bytes], int]) -> Iterator[tuple[int, bytes]]:
    """(byte, at most BLOCK_BYTES from there unless a row is longer), cut where `end` says that a row ends; what is left comes last."""
    held = b""
    while chunk := stream.read(BLOCK_BYTES - len(held) % BLOCK_BYTES):
        held += chunk
        if place := end(held):
            yield start, held[:place]
            held, start = held[place:], start + place
    if held:
        yield start, held


def _line_end(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _row_end(data: bytes) -> int:
    """Behind the last line feed before which quotes are even, 0 where there is none; a quote inside a quoted value is two."""
    place = data.rfind(b"\n")
    odd = data.count(b'"', 0, max(place, 0)) % 2
    while odd and place >= 0:
        before = data.rfind(b"\n", 0, place)
        odd, place = (odd + data.count(b'"', max(before, 0), place)) % 2, before
    if place < 0 and len(data) > 2 * BLOCK_BYTES:
        raise UncutError
    return place + 1


def _csv_error(fragment: Fragment, bad: list[Any], text: str) -> InputError:
    if "Empty CSV" in text:
        return InputError("a header and rows", f"{fragment.shown} without", "check the file")
    if not bad:
        return InputError("csv that can be read", f"{fragment.shown}: {text.splitlines()[0][:200]}", "correct the file")
    got = f"{bad[0].actual_columns} in row {bad[0].number} of {fragment.shown}: {bad[0].text[:60]!r} (the header is row 1)"
    return InputError(f"{bad[0].expected_columns} fields in every row", got, "correct that row (quote text that holds commas)")


def _check_header(names: list[str], fragment: Fragment) -> None:
    check_names(names, fragment.shown)
    found = [mark for mark in SEPARATORS if len(names) == 1 and mark in names[0]]
    if found:
        raise InputError("fields separated by commas", f"{names[0]!r} in {fragment.shown}", f"turn {found[0]!r} into commas")


def _refuse_encoding(fragment: Fragment, cause: Exception) -> None:
    """Raises InputError with the first byte that is not UTF-8, if there is one."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    with replace(fragment, mark=(0, 0)).stream() as stream:
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


def json_blocks(fragment: Fragment, types: pa.Schema) -> Iterator[pa.Table]:
    """Blocks of objects, one a line, from the fragment's mark on, in the columns of `types`; moments and names of pictures are text.

    Raises:
        InputError: a line is no json object in UTF-8, or its values are of other types.
    """
    known = [(item.name, pa.string() if as_text(item.type) else item.type) for item in types]
    return (block for _, block in _json(fragment, known, drop=True))


def json_chunks(fragment: Fragment) -> Iterator[tuple[int, pa.Table]]:
    """As `json_blocks`, of types as they are found, each block with the byte where it starts; text that looks like a date is still text."""
    return _json(fragment, [], drop=False)


def _json(fragment: Fragment, known: list[tuple[str, pa.DataType]], drop: bool) -> Iterator[tuple[int, pa.Table]]:
    rows, first = fragment.mark
    with explained(fragment.shown, fragment.address), fragment.stream() as stream:
        for start, chunk in _chunks(stream, first, _line_end):
            if not chunk.strip():
                continue
            try:
                chunk.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(fragment, start + error.start, chunk) from error
            try:
                block = objects(chunk, known, drop)
            except pa.ArrowInvalid as error:
                raise json_error(fragment, rows, str(error)) from error
            rows += len(block)
            yield start, block


def as_text(kind: pa.DataType) -> bool:
    """Whether it is text in json: a moment, or a picture's name."""
    return bool(pa.types.is_timestamp(kind) or kind == PICTURE)


def objects(chunk: bytes, known: list[tuple[str, pa.DataType]], drop: bool) -> pa.Table:
    """Rows of one json object a line; columns that are not known are inferred, or dropped."""
    options = pajson.ReadOptions(block_size=len(chunk) + 1, use_threads=False)
    other = "ignore" if drop else "infer"

    def read(columns: list[tuple[str, pa.DataType]]) -> pa.Table:
        parse = pajson.ParseOptions(explicit_schema=pa.schema(columns) if columns else None, unexpected_field_behavior=other)
        return pajson.read_json(pa.BufferReader(chunk), read_options=options, parse_options=parse)

    block = read(known)
    dates = [(f.name, pa.string()) for f in block.schema if pa.types.is_timestamp(f.type)]
    return read(dates).select(block.column_names) if dates and not known else block


def json_error(fragment: Fragment, rows: int, text: str) -> InputError:
    """What arrow said of the rows behind the first `rows`."""
    text = text.removeprefix("JSON parse error: ")
    place = re.search(r" in row (\d+)", text)
    got = f"{fragment.shown}: {text}" if place is None else f"row {rows + int(place[1]) + 1} of {fragment.shown}: {text[: place.start()]}"
    return InputError("one JSON object a line, with one type per key", got, "correct that line")

"""Rows of DATA's fragments: parquet, csv, jsonl, tar files, pictures in a folder per class; knows no meaning of a column."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codsa_ray.address import explained
from codsa_ray.errors import InputError, SchemaError
from codsa_ray.fragment import BLOCK_ROWS as BLOCK_ROWS
from codsa_ray.fragment import CLASSES, IMAGE, LABEL, MARKED, PART_BYTES
from codsa_ray.fragment import Fragment as Fragment
from codsa_ray.fragment import fragments as fragments
from codsa_ray.lines import UncutError, as_text, csv_blocks, csv_chunks, json_blocks, json_chunks, json_error, objects
from codsa_ray.picture_columns import as_picture, named
from codsa_ray.probes import Probe as Probe
from codsa_ray.probes import Probed, check_names, flat
from codsa_ray.values import PICTURE
from codsa_ray.webdataset import Sample, samples

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
        check_names(schema.names, fragment.shown)
        columns = {name: Probed(flat(name, kind), fragment.shown) for name, kind in zip(schema.names, schema.types, strict=True)}
        return Probe(fragment.rows or 0, fragment.shown, tuple(columns.items()))
    if fragment.format == CLASSES:
        columns = {IMAGE: Probed(PICTURE, fragment.shown), LABEL: Probed(pa.string(), fragment.shown)}
        return Probe(fragment.rows or 0, fragment.shown, tuple(columns.items()))
    if fragment.format == "tar":
        return _probe_tar(fragment)
    if fragment.format == "jsonl":
        return _probe_lines(fragment, json_chunks(fragment))
    try:
        return _probe_lines(fragment, csv_chunks(fragment))
    except UncutError:
        return replace(_probe_lines(fragment, ((0, block) for block in csv_blocks(fragment))), marks=())


def _probe_lines(fragment: Fragment, chunks: Iterable[tuple[int, pa.Table]]) -> Probe:
    found, marks, spelled = None, [], fragment.format == "csv"
    for start, block in chunks:
        part = Probe.of(block, fragment.shown, spelled)
        marks.append((found.rows if found else 0, start))
        found = found.merge(part) if found else part
    found = found or Probe(0, fragment.shown, (), not spelled)
    check_names([name for name, _ in found.columns], fragment.shown)
    return replace(found, marks=tuple(marks))


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
        blocks = csv_blocks(fragment) if fragment.format == "csv" else json_blocks(fragment, types)
    # A tar file is cut while it is read: what lies outside is skipped there.
    for block in blocks if fragment.format == "tar" else _cut(blocks, fragment.span, fragment.mark[0]):
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


def _cut(blocks: Iterable[pa.Table], span: tuple[int, int] | None, first: int) -> Iterator[pa.Table]:
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
            _refuse_bytesas_text(batch, fragment)
            yield pa.Table.from_batches([batch])


def _refuse_bytesas_text(batch: pa.RecordBatch, fragment: Fragment) -> None:
    """Raises InputError where a parquet file's text is not UTF-8: arrow itself would tell when the text is first used."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
            try:
                column.validate(full=True)
            except pa.ArrowInvalid as error:
                got = f"{str(error).splitlines()[0][:120]} of column {name!r} in {fragment.shown}"
                raise InputError("text in UTF-8", got, "convert it, or write it as bytes") from error


def _probe_tar(fragment: Fragment) -> Probe:
    """Pictures are skipped; texts are spelled, as in a csv file, and json is json."""
    left: Counter[str] = Counter()
    found, marks = Probe(0, fragment.shown, (), optional=True), []
    for batch in _batches(fragment, False, left):
        marks += [(row, sample.offset) for row, sample in enumerate(batch, found.rows) if row % MARKED == 0]
        values = _fields(batch, fragment, [], drop=False)
        texts = _texts(batch, sorted({name for sample in batch for name in sample.texts}))
        pictures = sorted({name for sample in batch for name in sample.pictures})
        check_names([*values.column_names, *texts.column_names, *pictures], fragment.shown)
        for part in (Probe.of(values, fragment.shown, False), Probe.of(texts, fragment.shown, True)):
            found = found.merge(Probe(0, fragment.shown, part.columns, optional=True))
        columns = tuple((name, Probed(PICTURE, fragment.shown)) for name in pictures)
        found = found.merge(Probe(len(batch), fragment.shown, columns, optional=True))
    found = found.merge(Probe(0, fragment.shown, (), optional=True, aside=tuple(left.items())))
    return replace(found, marks=tuple((row, start) for row, start in marks if start is not None))


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
        for sample in samples(file, fragment.shown, fragment.plain, data, fragment.span, left, fragment.mark[0]):
            batch.append(sample)
            weight += sum(len(bytes_ or b"") for _, bytes_ in sample.pictures.values())
            if len(batch) == SAMPLES or weight > PART_BYTES:
                yield batch
                batch, weight = [], 0
        if batch:
            yield batch


def _fields(batch: list[Sample], fragment: Fragment, known: list[pa.Field], drop: bool) -> pa.Table:
    """The json members as rows, (n, 0) where there is none."""
    wanted = [(item.name, pa.string() if as_text(item.type) else item.type) for item in known if item.type != PICTURE]
    chunk = "".join(json.dumps({"": 0, **sample.values}) + "\n" for sample in batch).encode()
    try:
        return objects(chunk, [("", pa.int64()), *wanted] if drop else [], drop).drop_columns([""])
    except pa.ArrowInvalid as error:
        raise json_error(fragment, 0, str(error)) from error


def _texts(batch: list[Sample], names: list[str]) -> pa.Table:
    return pa.table({name: pa.array([sample.texts.get(name) for sample in batch], pa.string()) for name in names})

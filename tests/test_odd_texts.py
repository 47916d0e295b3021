"""Texts that are odd in every way go in and out of a table unchanged, or are one line that names them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from codsa_ray.audit.nearest import Space
from codsa_ray.audit.texts import beside
from codsa_ray.audit.two_sample import two_sample
from codsa_ray.contracts import silent
from codsa_ray.errors import InputError, SchemaError
from codsa_ray.fitdata import REGION
from codsa_ray.folder import Folder
from codsa_ray.formats import fragments, load, probe
from codsa_ray.job import Job
from codsa_ray.learners.tfidf import Tfidf
from codsa_ray.report.page import render
from codsa_ray.rows import FINAL
from codsa_ray.stages.read import read

LONG = "ship shape " * 95_000
ODD = [
    "",
    LONG,
    "החדר היה מלוכלך מאוד",
    "a \u202eright-to-left override\u202c and back",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag",
    "null\0byte and\ttab",
    "two\nlines, \"quoted\", and 'more'",
    "e\u0301 is not é",
    "</td><script>alert(1)</script>",
    "=cmd|'/c calc'!A1",
]


def table(rows: int = 80) -> pa.Table:
    """Texts of a sentence, the odd ones, and nulls; and a label."""
    plain = [f"the patient number {n} feels well today" for n in range(rows - len(ODD) - 1)]
    return pa.table({"said": [*ODD, None, *plain], "y": ["a", "b"] * (rows // 2)})


def write(kind: str, folder: Path, rows: pa.Table) -> str:
    if kind == "parquet":
        pq.write_table(rows, folder / "t.parquet")
    elif kind == "jsonl":
        (folder / "t.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows.to_pylist()))
    elif kind == "csv":
        pacsv.write_csv(rows, folder / "t.csv")
    else:
        with tarfile.open(folder / "t.tar", "w") as tar:
            for i, row in enumerate(rows.to_pylist()):
                for ending, text in (("txt", row["said"]), ("cls", row["y"])):
                    if text is not None:
                        info = tarfile.TarInfo(f"{i:04d}.{ending}")
                        info.size = len(text.encode())
                        tar.addfile(info, io.BytesIO(text.encode()))
    return str(next(folder.glob("t.*")))


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tar"])
def test_odd_texts_are_read_as_they_are(kind: str, tmp_path: Path) -> None:
    """But for csv, in which an empty field is null and the null character has no place."""
    rows = table()
    if kind == "csv":
        rows = rows.set_column(0, "said", pa.array([text and text.replace("\0", "") for text in rows["said"].to_pylist()]))
    (part,) = fragments(write(kind, tmp_path, rows))
    found = pa.concat_tables(load(part, probe(part).types)).rename_columns({"txt": "said", "cls": "y"}) if kind == "tar" else None
    found = found or pa.concat_tables(load(part, probe(part).types))
    wanted = [text or None if kind == "csv" else text for text in rows["said"].to_pylist()]
    assert found["said"].to_pylist() == wanted


def test_odd_texts_pass_through_schema_learner_and_audits(tmp_path: Path) -> None:
    job = Job(write("parquet", tmp_path, table()), "y", generator=("bootstrap",), learner="tfidf", folds=2).made()
    rows, facts = read(job, Folder(str(tmp_path / "run")), silent)
    schema = rows.schema(FINAL)
    assert schema["said"].kind == "text"
    assert facts["notices"] == []
    held = pa.concat_tables([*rows.blocks(FINAL, held_out=False), *rows.blocks(FINAL, held_out=True)])
    assert sorted(held["said"].drop_null().to_pylist()) == sorted(table()["said"].drop_null().to_pylist())
    assert schema.original(schema.canonical(table())[0]).equals(table())
    assert np.isfinite(Tfidf().encoder(held, schema).encode(held)).all()
    held = held.append_column(REGION, held["_group"].cast(pa.int32()))
    assert two_sample(held, held, schema, 0) is not None
    assert np.isfinite(Space.of(held, schema).nearest(held, held)[1]).all()
    regions = rows.groups.regions(rows.group_counts(FINAL)[:, None], 1, {"said": "text", "y": "categorical"})
    page = render({"texts": beside(held, held, schema, regions, 0)})
    assert "<script>alert" not in page


def test_bytes_that_are_no_text_are_one_line_that_names_them(tmp_path: Path) -> None:
    good = table().set_column(0, "said", pa.array([text or "" for text in table()["said"].to_pylist()]))
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")])
    said = pa.concat_arrays([good["said"].combine_chunks().slice(0, 79), bad])
    pq.write_table(pa.table({"said": said, "y": good["y"]}), tmp_path / "t.parquet")
    (part,) = fragments(str(tmp_path / "t.parquet"))
    with pytest.raises(InputError, match=r"text in UTF-8; got Invalid UTF8 sequence .* of column 'said' in .*t.parquet"):
        list(load(part, probe(part).types))
    (tmp_path / "t.csv").write_bytes(b"said,y\ngood,a\n\xff\xfe bad,b\n")
    with pytest.raises(InputError, match="another byte at offset 14"):
        probe(fragments(str(tmp_path / "t.csv"))[0])


def test_a_column_of_texts_is_refused_by_what_cannot_read_it_and_named(tmp_path: Path) -> None:
    job = Job(write("parquet", tmp_path, table()), "y", generator=("bootstrap",), learner="logistic", folds=2).made()
    with pytest.raises(SchemaError, match="column 'said' of kind text"):
        read(job, Folder(str(tmp_path / "run")), silent)

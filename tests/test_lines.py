"""Lines: a csv or jsonl file read in parts, each from the byte where it starts, is the file read in one go, whatever its quotes."""

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray.formats import fragments, load, probe
from codsa_ray.fragment import Fragment
from codsa_ray.lines import UncutError, csv_chunks

from store import Store, endpoint, store

__all__ = ["endpoint", "store"]  # fixtures

PIECES = ["", "x", "0", ",", '"', '""', "\n", "\r\n", "größe 😀", '5" screen', "a\nb", "'", " "]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codsa_ray.lines.BLOCK_BYTES", 200)
    monkeypatch.setattr("codsa_ray.fragment.PART_BYTES", 300)


def whole_and_parts(path: Path | str) -> tuple[pa.Table, list[Fragment], pa.Table]:
    (part,) = fragments(str(path))
    found = probe(part)
    pieces = part.cut(found, 0.0)
    read = [pa.concat_tables(load(piece, found.types)) for piece in pieces]
    assert [len(table) for table in read] == [piece.rows for piece in pieces]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.lines.BLOCK_BYTES", 1 << 20)
        return pa.concat_tables(load(part, found.types)), pieces, pa.concat_tables(read)


@pytest.mark.parametrize("seed", range(20))
def test_a_csv_in_parts_is_the_csv_in_one_go(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    columns = int(random.integers(1, 4))
    text = io.StringIO()
    writer = csv.writer(
        text, lineterminator=str(random.choice(["\n", "\r\n"])), quoting=int(random.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    )
    rows = [["".join(random.choice(PIECES, 3)) for _ in range(columns)] for _ in range(100)]
    writer.writerows([[f"c{i}" for i in range(columns)], *rows])
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf"[: 3 * (seed % 2)] + text.getvalue().encode())
    whole, pieces, parts = whole_and_parts(path)
    assert len(pieces) > 2
    assert parts.equals(whole)


@pytest.mark.parametrize(
    "body",
    [
        '5" screen,1\n' * 60,
        '5" screen,"two\nlines"\n' * 60,
        'x,y\n' * 60 + 'an open,"quote\nthat never ends\n',
        'x,"y"z\n' * 60,
        "x,y\n\n" * 60,
        "x,y\r" * 60,
        "x,y\n" * 60 + "0,0\n" * 60,
    ],
)  # fmt: skip
def test_quotes_that_break_the_rule_cost_parts_and_no_row(body: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f"a,b\n{body}".encode())
    whole, _, parts = whole_and_parts(path)
    assert parts.equals(whole)


def test_a_place_inside_a_value_is_never_taken_for_the_end_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unquoted quote makes the count of quotes odd where rows end, and even inside the next value of two lines."""
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\n5",1\n' + b'x,"one' + b"\ntwo" * 100 + b'"\n')
    (part,) = fragments(str(path))
    with pytest.raises(UncutError):
        list(csv_chunks(part))
    monkeypatch.setattr("codsa_ray.lines.BLOCK_BYTES", 1000)
    assert probe(part).rows == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_stands_before_a_part_is_not_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{ending}"
    lines = [f"{i},é{i}" if ending == "csv" else json.dumps({"n": i, "text": f"é{i}"}) for i in range(200)]
    path.write_text("\n".join([*["n,text"] * (ending == "csv"), *lines]))
    (part,) = fragments(str(path))
    found = probe(part)
    pieces, data = part.cut(found, 0.0), path.read_bytes()
    assert len(pieces) > 2
    for piece in pieces:
        path.write_bytes(b"\xff" * piece.mark[1] + data[piece.mark[1] :])
        table = pa.concat_tables(load(piece, found.types))
        first, last = piece.span or (0, 0)
        assert table["n"].to_pylist() == list(range(first, last))


def test_a_compressed_file_is_one_part(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"n\n" + b"1\n" * 1000))
    whole, pieces, _ = whole_and_parts(path)
    assert len(whole) == 1000
    assert len(pieces) == 1


def test_a_csv_on_a_store_is_read_in_parts(store: Store) -> None:
    store.put("table/t.csv", b"n,text\n" + b"".join(b'%d,"two\nlines"\n' % i for i in range(300)))
    whole, pieces, parts = whole_and_parts(f"{store.address}/table/t.csv")
    assert len(pieces) > 2
    assert parts.equals(whole)
    assert parts["n"].to_pylist() == list(range(300))

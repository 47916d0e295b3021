"""Claims about DATA: every way to name it gives the same rows, types follow from all rows, and each fault is one line."""

import gzip
from datetime import UTC, datetime
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codsa_ray.address import explained
from codsa_ray.errors import InputError, UserError
from codsa_ray.formats import BLOCK_ROWS, Fragment, fragments, load, probe
from codsa_ray.probes import Probe

TABLE = pa.table({"a": [1, None, 3], "b c": [0.5, 2.0, None], 'é"x': ["x,1", None, "two\nlines"], "d": [True, False, None]})
JSON_LINES = '{"a": 1, "b c": 0.5, "é\\"x": "x,1", "d": true}\n{"b c": 2, "d": false}\n{"a": 3, "b c": null, "é\\"x": "two\\nlines"}\n'


def read(address):
    parts = fragments(str(address))
    found = reduce(Probe.merge, map(probe, parts))
    blocks = [block for part in parts for block in load(part, found.types)]
    return pa.concat_tables(blocks), found.notices


def written(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.jsonl", "t.ndjson"])
def test_a_table_is_the_same_from_every_format(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(TABLE, path)
    elif ".csv" in name:
        sink = pa.BufferOutputStream()
        pacsv.write_csv(TABLE, sink)
        data = sink.getvalue().to_pybytes()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    else:
        path.write_text(JSON_LINES)
    table, notices = read(path)
    assert table.equals(TABLE)
    assert notices == ()


def test_a_file_a_folder_a_glob_and_a_uri_name_the_same_rows_in_the_order_of_paths(tmp_path):
    for name, first in (("b/2.parquet", 2), ("a/1.parquet", 0), ("a/x/3.parquet", 1)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"v": [first]}), tmp_path / name)
    written(tmp_path, "_SUCCESS", "")
    written(tmp_path, "a/.hidden.csv", "x\n1\n")
    for address in (tmp_path, f"{tmp_path}/**", f"{tmp_path}/[ab]", f"{tmp_path}/**/*.parquet", f"file://{tmp_path}"):
        assert read(address)[0]["v"].to_pylist() == [0, 1, 2]
    assert read(f"{tmp_path}/*/?.parquet")[0]["v"].to_pylist() == [0, 2]
    assert read(f"{tmp_path}/a/1.parquet")[0]["v"].to_pylist() == [0]


def test_row_groups_are_taken_together_up_to_a_block_and_blocks_are_bounded(tmp_path):
    values = np.arange(3 * BLOCK_ROWS)
    pq.write_table(pa.table({"v": values}), tmp_path / "small.parquet", row_group_size=50_000)
    pq.write_table(pa.table({"v": values}), tmp_path / "large.parquet", row_group_size=len(values))
    small = fragments(str(tmp_path / "small.parquet"))
    assert [part.groups for part in small] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert sum(part.rows for part in small) == len(values)
    assert len(fragments(str(tmp_path / "large.parquet"))) == 1
    for name in ("small", "large"):
        blocks = [b for part in fragments(str(tmp_path / f"{name}.parquet")) for b in load(part, pa.schema([("v", pa.int64())]))]
        assert max(map(len, blocks)) <= BLOCK_ROWS
        assert np.array_equal(pa.concat_tables(blocks)["v"].to_numpy(), values)


@pytest.mark.parametrize(
    ("values", "kind", "first"),
    [
        (["1", "", "-3"], pa.int64(), 1),
        (["9007199254740993", "1"], pa.int64(), 2**53 + 1),
        (["1", "2.5", "nan"], pa.float64(), 1.0),
        ([" 7", " "], pa.int64(), 7),
        (["18.8", " "], pa.float64(), 18.8),
        (["+5", "1e3"], pa.float64(), 5.0),
        (["true", "False"], pa.bool_(), True),
        (["2024-01-01", "2024-01-02 10:00:00"], pa.timestamp("us"), datetime(2024, 1, 1)),
        (["2024-01-01T02:00:00+02:00"], pa.timestamp("us", "UTC"), datetime(2024, 1, 1, tzinfo=UTC)),
        (["2024-01-01T00:00:00Z", "2024-01-01"], pa.string(), "2024-01-01T00:00:00Z"),
        (["007", "12"], pa.string(), "007"),
        (["123456789012345678901", "1"], pa.string(), "123456789012345678901"),
        (["0x1f"], pa.string(), "0x1f"),
        (["1", "NA"], pa.string(), "1"),
        (["", " "], pa.null(), None),
        (["yes", "no"], pa.string(), "yes"),
    ],
)
def test_the_type_of_a_csv_column_is_what_all_its_values_can_be(tmp_path, values, kind, first):
    table, _ = read(written(tmp_path, "t.csv", "v,other\n" + "".join(f"{value},1\n" for value in values)))
    assert table["v"].type == kind
    assert table["v"][0].as_py() == first


@given(st.lists(st.sampled_from(["1", "-2", "2.5", "x", "", "007", "true", "2024-01-01", "nan", "9" * 20, None]), min_size=1), st.data())
@settings(max_examples=60, deadline=None)
def test_no_cut_of_the_rows_changes_the_types(values, data):
    table = pa.table({"v": pa.array(values, pa.string())})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=3)))
    parts = [Probe.of(table.slice(a, b - a), "f", spelled=True) for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    whole = Probe.of(table, "f", spelled=True)
    assert reduce(Probe.merge, data.draw(st.permutations(parts))) == whole


def test_mixed_columns_are_text_with_a_notice(tmp_path):
    table, notices = read(written(tmp_path, "t.csv", "v,w\n1,x\nmissing,y\nNA,z\n"))
    assert table["v"].to_pylist() == ["1", "missing", "NA"]
    assert notices == ("column 'v' mixes numbers and words such as 'NA': read as text; if that means missing, leave the field empty",)


def test_columns_are_matched_by_name_and_typed_over_all_files(tmp_path):
    written(tmp_path, "csv/1.csv", "a,b\n1,\n")
    written(tmp_path, "csv/2.csv", "b,a\nx,2.5\n")
    assert read(tmp_path / "csv")[0].to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]
    for name, a, b in (
        ("1", pa.int8(), pa.string()),
        ("2", pa.float32(), pa.dictionary(pa.int8(), pa.string())),
        ("3", pa.null(), pa.string()),
    ):
        text = pa.array(["x"])
        table = pa.table({"a": pa.array([None if a == pa.null() else 2], a), "b": text.cast(b)})
        (tmp_path / "pq").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "pq" / f"{name}.parquet")
    table, _ = read(tmp_path / "pq")
    assert table.schema.types == [pa.float32(), pa.string()]
    assert table.to_pylist() == [{"a": 2, "b": "x"}, {"a": 2, "b": "x"}, {"a": None, "b": "x"}]
    written(tmp_path, "json/1.jsonl", '{"a": 1}\n')
    written(tmp_path, "json/2.jsonl", '{"a": 2.5, "b": "2024-01-01"}\n')
    table, _ = read(tmp_path / "json")
    assert table.to_pylist() == [{"a": 1.0, "b": None}, {"a": 2.5, "b": datetime(2024, 1, 1)}]


def test_long_text_files_are_read_in_blocks_that_agree(tmp_path, monkeypatch):
    """The type of a column may show in the last block only, and rows cross the borders of blocks."""
    monkeypatch.setattr("codsa_ray.lines.BLOCK_BYTES", 512)
    rows = 300
    body = "".join(f'{i},"line {i}\nwent on"\n' for i in range(rows))
    table, _ = read(written(tmp_path, "t.csv", "n,text\n" + body + "0.5,end\n"))
    assert table["n"].to_pylist() == [*map(float, range(rows)), 0.5]
    assert table["text"][rows - 1].as_py() == f"line {rows - 1}\nwent on"
    lines = "".join(f'{{"n": {i}, "when": "2024-01-01"}}\n' for i in range(rows))
    table, _ = read(written(tmp_path, "t.jsonl", lines + '{"n": 0.5, "when": "soon"}'))
    assert table["n"].to_pylist() == [*map(float, range(rows)), 0.5]
    assert table["when"].to_pylist() == ["2024-01-01"] * rows + ["soon"]


PARQUET = pa.BufferOutputStream()
pq.write_table(TABLE, PARQUET)
WHOLE = PARQUET.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.parquet", WHOLE[: len(WHOLE) // 2], "whole, readable file; got .*t.parquet: Parquet magic bytes not found"),
        ("t.parquet", b"", "t.parquet of 0 bytes"),
        ("t.csv", b"", "t.csv of 0 bytes"),
        ("t.csv", "a,b\n", "wanted rows; got none in .*t.csv"),
        ("t.csv", "a,b", "header and rows"),
        ("t.csv", "a,b\n1,2\n3\n", "2 fields in every row; got 1 in row 3 of .*t.csv: '3'"),
        ("t.csv", "a,b\n1,2\n3,4,5\n", "got 3 in row 3"),
        ("t.csv", "a,b\né,1\n".encode("latin-1"), "UTF-8; got another byte at offset 4 of .*iconv -f LATIN1"),
        ("t.csv", ("a,b\n" + "x,1\n" * 50 + "é,1\n").encode("latin-1"), "offset 204 "),
        ("t.csv", "é,b\nx,1\n".encode("latin-1"), "offset 0 "),
        ("t.csv", "a,b\nx,1\n".encode("utf-16"), "iconv -f UTF-16"),
        ("t.csv", "a,a\n1,2\n", "'a' twice in .*t.csv"),
        ("t.csv", "a,_synthetic\n1,2\n", "'_synthetic' in .*t.csv"),
        ("t.csv", "a;b\n1;2\n", "separated by commas; got 'a;b'"),
        ("t.csv.gz", gzip.compress(b"a,b\n" + bytes(range(48, 58)) * 99, mtime=0)[:-9], "Truncated"),
        ("t.jsonl", "\n", "wanted rows"),
        ("t.jsonl", '{"a": 1}\n\n{"a": "x"}\n', "row 2 of .*changed from number to string"),
        ("t.jsonl", '{"a": 1}\n{"a":\n', "row 2 of"),
        ("t.jsonl", "[1]\n", "one JSON object a line"),
        ("t.jsonl", '{"a": [1]}\n', "'a' of type list<"),
        ("t.jsonl", '{"_row": 1}\n', "'_row'"),
        ("t.jsonl", '{"a": "é"}\n'.encode("latin-1"), "offset 7 of"),
        ("t.txt", "a\n1\n", "a name that ends in .parquet"),
        ("d=1/t.csv", "a\n1\n", "a folder's name: d=1/t.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, name, data, said):
    path = written(tmp_path, name, data)
    with pytest.raises(UserError, match=said) as raised:
        read(tmp_path if "=" in name else path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([pa.table({"a": [1]}), pa.table({"a": ["x"]})], "'a' of one type .*; got int64 in .*0.parquet and string in .*1.parquet"),
        ([pa.table({"a": [1], "b": [1]}), pa.table({"a": [1]})], "'b' in .*0.parquet, not in .*1.parquet"),
        ([pa.table({"a": [b"x"]}), pa.table({"a": ["x"]})], "binary in .*0.parquet and string in .*1.parquet"),
        ([pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])], "'a' twice"),
        ([pa.table({"a": [{"x": 1}]})], "'a' of type struct<"),
        ([pa.table({"a": pa.array([], pa.int64())})], "wanted rows; got none"),
        ([pa.table({"_weight": [1.0]})], "'_weight'"),
    ],
)
def test_parquet_files_that_are_no_flat_table_are_refused(tmp_path, tables, said):
    for index, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{index}.parquet")
    with pytest.raises(UserError, match=said):
        read(tmp_path)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/no/such/file.csv", "nothing at /no/such/file.csv"),
        ("/no/such/*.csv", "nothing at /no/such/"),
        ("nowhere://key:secret@x/y.csv", r"an address pyarrow can open; got nowhere://\*\*\*@x/y.csv"),
    ],
)
def test_an_address_with_nothing_behind_it_is_named_without_credentials(address, said):
    with pytest.raises(InputError, match=said) as raised:
        fragments(address)
    assert "secret" not in str(raised.value)


def test_what_a_filesystem_says_is_repeated_without_credentials():
    address = "s3://KEY:very%2Fsecret@bucket/x.csv?endpoint_override=localhost:1"
    with pytest.raises(InputError, match="within reach; got shown: AWS Error") as raised, explained("shown", address):
        raise OSError("AWS Error for KEY with very/secret or very%2Fsecret\nmore")
    assert "secret" not in str(raised.value)
    assert "KEY" not in str(raised.value)


def test_a_fragment_never_shows_credentials_and_changes_identity_with_its_file(tmp_path):
    remote = Fragment("s3://KEY:secret@bucket/data/*.csv", "bucket/data/x.csv", "csv")
    assert remote.shown == "s3://bucket/data/x.csv"
    assert "secret" not in repr(remote) + repr(remote.identity)
    path = written(tmp_path, "t.csv", "a\n1\n")
    before = fragments(str(path))[0].identity
    assert fragments(str(path))[0].identity == before
    path.write_text("a\n11\n")
    assert fragments(str(path))[0].identity != before


def test_a_folder_of_two_formats_is_refused(tmp_path):
    written(tmp_path, "a.csv", "a\n1\n")
    written(tmp_path, "b.jsonl", '{"a": 1}\n')
    with pytest.raises(InputError, match=r"one format; got .*a.csv and .*b.jsonl; .*\*.jsonl"):
        fragments(str(tmp_path))


def test_the_offset_of_a_bad_byte_counts_from_the_start_of_the_file(tmp_path, monkeypatch):
    """Also where good characters lie across the borders of what is read at a time."""
    data = b"a,b\n" + "é€,1\n".encode() * 9 + b"\xff,1\n"
    path = written(tmp_path, "t.csv", data)
    for size in (64, 5, 7):
        monkeypatch.setattr("codsa_ray.lines.BLOCK_BYTES", size)
        with pytest.raises(InputError, match=f"offset {data.index(0xFF)} "):
            read(path)

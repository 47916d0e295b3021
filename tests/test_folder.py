import os
import pickle
import stat
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from codsa_ray import folder as module
from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder

ODD = "größe & 'quotes' %20 #1?"


@pytest.fixture(params=["plain", ODD, "file://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(f"file://{tmp_path}/run") if request.param == "file://" else Folder(str(tmp_path / request.param))


def test_what_is_written_is_read(folder: Folder) -> None:
    """Bytes, JSON, tables and arrays; parents are made; names may hold folders."""
    folder.write_bytes("a/b.bin", b"\0x")
    assert folder.read_bytes("a/b.bin") == b"\0x"
    value = {"b": [1, None, "ü"], "a": {"x": 0.1}}
    folder.write_json("v.json", value)
    assert folder.read_json("v.json") == value
    table = pa.table({ODD: [1, None], "t": pa.array([0, 1], pa.timestamp("us", "UTC"))})
    size = folder.write_table("t.parquet", table)
    assert folder.read_table("t.parquet").equals(table)
    assert folder.read_table("t.parquet", ["t"]).column_names == ["t"]
    assert pa.concat_tables(folder.row_groups("t.parquet")).equals(table)
    assert len(folder.read_bytes("t.parquet")) == size
    arrays = {"z": np.arange(6).reshape(2, 3).T, "a": np.array([1.5], np.float32), "flag": np.array([True])}
    folder.write_arrays("w.safetensors", arrays)
    again = folder.read_arrays("w.safetensors")
    assert set(again) == set(arrays)
    for key, wanted in arrays.items():
        assert again[key].dtype == wanted.dtype
        assert np.array_equal(again[key], wanted)
    assert folder.names() == ["a", "t.parquet", "v.json", "w.safetensors"]
    assert folder.sizes() == {name: len(folder.read_bytes(name)) for name in ("t.parquet", "v.json", "w.safetensors")}
    (folder / ODD).write_bytes(ODD, b"odd")
    assert ((folder / ODD).names(), (folder / ODD).read_bytes(ODD)) == ([ODD], b"odd")


def test_equal_values_are_equal_bytes(folder: Folder) -> None:
    folder.write_json("1.json", {"a": 1, "b": {"d": 2, "c": 3}})
    folder.write_json("2.json", {"b": {"c": 3, "d": 2}, "a": 1})
    folder.write_arrays("1.safetensors", {"a": np.ones(3), "b": np.zeros(2)})
    folder.write_arrays("2.safetensors", {"b": np.zeros(2), "a": np.ones(3)})
    for name in ("{}.json", "{}.safetensors"):
        assert folder.read_bytes(name.format(1)) == folder.read_bytes(name.format(2))
    table = pa.table({"a": range(10_000)})
    folder.write_table("1.parquet", table)
    folder.write_table("2.parquet", table)
    assert folder.read_bytes("1.parquet") == folder.read_bytes("2.parquet")


def test_presence_names_and_deletion(folder: Folder) -> None:
    """Nothing of a folder that is not there is no error; deleting what is not there is none either."""
    assert not folder.exists()
    assert folder.names() == []
    folder.delete()
    assert folder.make() == folder
    assert folder.exists() is not folder.remote, "a store has no empty folders"
    (folder / "sub").write_bytes("x", b"1")
    folder.write_bytes("y", b"2")
    assert (folder / "sub").exists("x")
    folder.delete("y")
    folder.delete("y")
    assert folder.names() == ["sub"]
    folder.delete("sub")
    assert folder.names() == []
    folder.delete()
    assert not folder.exists()


def test_a_missing_file_says_what_to_do(folder: Folder) -> None:
    for read in (folder.read_bytes, folder.read_json, folder.read_table, folder.read_arrays, lambda name: list(folder.row_groups(name))):
        with pytest.raises(FolderError, match="run the stage that writes it first"):
            read("gone")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the disk is full."""
    folder = Folder(str(tmp_path))
    folder.write_bytes("a", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write_bytes("a", b"new")
    assert folder.read_bytes("a") == b"old"
    assert folder.names() == ["a"]


def test_readers_see_all_of_a_file_or_none(tmp_path: Path) -> None:
    """While one thread rewrites a file over and over, no read is torn."""
    folder, stop = Folder(str(tmp_path)), threading.Event()
    folder.write_bytes("a", b"0" * 100_000)

    def write() -> None:
        digit = 0
        while not stop.is_set():
            digit = (digit + 1) % 10
            folder.write_bytes("a", str(digit).encode() * 100_000)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            data = folder.read_bytes("a")
            assert len(data) == 100_000
            assert len(set(data)) == 1
    finally:
        stop.set()
        writer.join()


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    Folder(str(tmp_path)).write_bytes("a", b"")
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o644


def test_addresses_join_and_are_local_or_not(tmp_path: Path) -> None:
    assert (Folder("s3://bucket/run/") / "a" / "b").address == "s3://bucket/run/a/b"
    assert Folder("s3://bucket/run").remote
    assert not Folder(f"file://{tmp_path}").remote
    assert Folder(f"file://{tmp_path}/x").local() == Folder(str(tmp_path / "x")).local() == str(tmp_path / "x")
    assert Path(Folder("relative").local()).is_absolute()
    with pytest.raises(FolderError, match="local"):
        Folder("gs://bucket/run").local()


@pytest.mark.parametrize("address", ["s3://key:secret@bucket/run", "s3://key:secret@bucket/run?session_token=secret&region=eu"])
def test_logs_show_no_credentials(address: str) -> None:
    assert "secret" not in Folder(address).shown
    assert "bucket/run" in Folder(address).shown
    assert Folder("/plain/path").shown == "/plain/path"


@pytest.mark.parametrize("address", ["nowhere://x/y", "nowhere://key:secret@bucket/run?token=secret"])
def test_an_address_that_cannot_be_opened_is_a_folder_error_without_credentials(address: str) -> None:
    with pytest.raises(FolderError) as caught:
        Folder(address).exists()
    assert "secret" not in str(caught.value)


def test_folders_travel_between_processes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_json("a.json", 1)
    assert pickle.loads(pickle.dumps(folder)).read_json("a.json") == 1

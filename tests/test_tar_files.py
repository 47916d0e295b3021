"""Tar files as DATA: read member by member, refused where they try something, read from the place where a part starts."""

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from codsa_ray.errors import InputError, SchemaError
from codsa_ray.formats import fragments, load, probe
from codsa_ray.webdataset import packed

import gallery


def test_members_that_are_not_read_are_counted_and_never_opened(tmp_path: Path) -> None:
    png = gallery.digits(1, 0)["picture"][0].as_py()
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for i in range(3):
        members += [(f"{i}.png", png), (f"{i}.txt", b"a digit"), (f"{i}.pyd", b"cos\nsystem\n(S'false'\ntR."), (f"{i}.npz", b"PK")]
    (part,) = fragments(str(gallery.tarred(tmp_path / "0.tar", members)))
    found = probe(part)
    assert found.rows == 3
    assert found.types.names == ["txt", "image"]
    assert sorted(found.notices) == ["3 members .npz of tar files were not read", "3 members .pyd of tar files were not read"]
    (table,) = load(part, found.types)
    assert table["image"].to_pylist() == [{"bytes": png, "path": f"{i}.png"} for i in range(3)]


def odd_member(**fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo("x.png")
    for name, value in fields.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("member", "data", "wanted"),
    [
        ("../x.png", b"x", "below the folder"),
        ("/x.png", b"x", "below the folder"),
        (odd_member(type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"", "of another kind"),
        (odd_member(type=tarfile.LNKTYPE, linkname="0.png"), b"", "of another kind"),
        (odd_member(type=tarfile.CHRTYPE), b"", "of another kind"),
        ("0.txt", b"\xff\xfe", "another byte at offset 0"),
        ("0.json", b"[1]", "a json object"),
        ("0.json", b"{", "wanted json"),
        ("0.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "wanted json"),
        ("caf\udce9.png", b"x", r"wanted names in UTF-8; got 'caf\\udce9.png'"),
        ("0.PNG", b"x", "one 'image' in a sample"),
    ],
)
def test_tar_files_that_try_something_are_refused(member: Any, data: bytes, wanted: str, tmp_path: Path) -> None:
    path = gallery.tarred(tmp_path / "0.tar", [("0.png", b"x"), (member, data)])
    with pytest.raises(InputError, match=wanted):
        probe(fragments(str(path))[0])


def test_tar_files_that_are_cut_short_or_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gallery.webdataset(tmp_path / "0.tar", gallery.digits(60, 20))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 100])
    part = fragments(str(path))[0]
    with pytest.raises(InputError, match="a whole"):
        list(load(part, probe(part).types))
    path.write_bytes(data)
    monkeypatch.setattr("codsa_ray.webdataset.MOST_BYTES", 50)
    with pytest.raises(InputError, match="members of at most 50 bytes"):
        probe(fragments(str(path))[0])


def test_a_mark_of_utf_8_before_a_member_s_text_is_no_part_of_it(tmp_path: Path) -> None:
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [("0.json", b'\xef\xbb\xbf{"n": 1}'), ("0.cls", b"\xef\xbb\xbfcat")]
    (part,) = fragments(str(gallery.tarred(tmp_path / "0.tar", members)))
    (table,) = load(part, probe(part).types)
    assert table.to_pylist() == [{"n": 1, "cls": "cat"}]


@pytest.mark.parametrize("depth", [50, 300, 900, 990])
def test_deep_json_is_one_line_however_deep_it_is(depth: int, tmp_path: Path) -> None:
    path = gallery.tarred(tmp_path / "0.tar", [("0.json", b'{"a":' * depth + b"1" + b"}" * depth)])
    with pytest.raises((InputError, SchemaError), match=r"wanted .*; got .*; "):
        probe(fragments(str(path))[0])


@pytest.mark.parametrize("asked", ["", "*", "**", "*/*"])
def test_a_folder_whose_names_are_not_utf_8_is_one_line(asked: str, tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/0.png", "wb") as file:
        file.write(gallery.digits(1, 0)["picture"][0].as_py())
    with pytest.raises(InputError, match=r"wanted names of files in UTF-8; got .*caf\\xe9"):
        fragments(str(tmp_path / asked))


def test_a_compressed_tar_file_is_the_same_rows(tmp_path: Path) -> None:
    table = gallery.digits(60, 20)
    plain = gallery.webdataset(tmp_path / "0.tar", table)
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    both = [fragments(str(tmp_path / name))[0] for name in ("0.tar", "1.tar.gz")]
    found = [pa.concat_tables(load(part, probe(part).types)) for part in both]
    assert found[0].equals(found[1])
    assert found[0].num_rows == 80


def test_what_is_packed_is_read_again(tmp_path: Path) -> None:
    png = gallery.digits(1, 0)["picture"][0].as_py()
    rows = [("a/0", {"image": png, "txt": "größe 😀", "n": 1.5, "_region": "x"}), ("a/1", {"image": None, "txt": None, "n": None})]
    data = packed(rows, {"image": lambda _: "png"})
    assert data == packed(rows, {"image": lambda _: "png"})
    (tmp_path / "0.tar").write_bytes(data)
    (part,) = fragments(str(tmp_path))
    with pytest.raises(InputError, match="'_region'"):
        probe(part)
    unmarked = [(key, {name: value for name, value in row.items() if name != "_region"}) for key, row in rows]
    (tmp_path / "0.tar").write_bytes(packed(unmarked, {"image": lambda _: "png"}))
    (part,) = fragments(str(tmp_path))
    (table,) = load(part, probe(part).types)
    assert table.to_pylist() == [
        {"n": 1.5, "txt": "größe 😀", "image": {"bytes": png, "path": "a/0.png"}},
        {"n": None, "txt": None, "image": None},
    ]


LONG = "a-folder-with-a-long-name/" * 8


@pytest.mark.parametrize("prefix", ["", LONG])
def test_a_part_of_a_tar_file_is_read_from_its_own_place(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before it may be anything: names beyond 100 characters, which have a header of their own, too."""
    monkeypatch.setattr("codsa_ray.fragment.MARKED", 8)
    monkeypatch.setattr("codsa_ray.formats.MARKED", 8)
    monkeypatch.setattr("codsa_ray.fragment.PART_BYTES", 20_000)
    pictures = gallery.digits(60, 20)["picture"].to_pylist()
    path = gallery.tarred(tmp_path / "0.tar", [(f"{prefix}{i}.png", data) for i, data in enumerate(pictures)])
    whole, (part,) = path.read_bytes(), fragments(str(path))
    found = probe(part)
    pieces = part.cut(found, 0.0)
    assert len(pieces) > 3
    assert any(piece.mark[0] < piece.span[0] for piece in pieces if piece.span)
    for piece in pieces:
        first, last = piece.span or (0, 0)
        path.write_bytes(b"\xff" * piece.mark[1] + whole[piece.mark[1] :])
        (table,) = load(piece, found.types)
        assert [row["bytes"] for row in table["image"].to_pylist()] == pictures[first:last]


def test_a_tar_file_whose_start_is_needed_is_read_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed one, and one with headers that hold for all that follows."""
    monkeypatch.setattr("codsa_ray.fragment.PART_BYTES", 2_000)
    table = gallery.digits(60, 20)
    plain = gallery.webdataset(tmp_path / "plain.tar", table)
    (tmp_path / "0.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with tarfile.open(tmp_path / "1.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a commit"}) as tar:
        for i, data in enumerate(table["picture"].to_pylist()):
            info = tarfile.TarInfo(f"{i}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name in ("0.tar.gz", "1.tar"):
        (part,) = fragments(str(tmp_path / name))
        found = probe(part)
        pieces = part.cut(found, 0.0)
        assert {piece.mark for piece in pieces} == {(0, 0)}
        read = pa.concat_tables(block for piece in pieces for block in load(piece, found.types))
        assert len(pieces) > 3
        assert [row["bytes"] for row in read["image"].to_pylist()] == table["picture"].to_pylist()

"""Pictures as DATA: every way they may lie gives the same rows, what is wrong is told and counted, nothing leaves its folder."""

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codsa_ray import fragment
from codsa_ray.contracts import silent
from codsa_ray.errors import InputError, SchemaError
from codsa_ray.folder import Folder
from codsa_ray.formats import fragments, load, probe
from codsa_ray.job import Job
from codsa_ray.learners.logistic import Logistic
from codsa_ray.plugins import taking
from codsa_ray.rows import FINAL, Rows
from codsa_ray.stages.read import read
from codsa_ray.values import PICTURE, is_picture

import gallery
from doubles import NoisyCopies, RawPixels
from store import Store, endpoint, store

__all__ = ["endpoint", "store"]  # fixtures


def rows_of(data: Path | str, out: Path, target: str = "label", **settings: Any) -> tuple[Rows, dict[str, Any]]:
    job = Job(str(data), target, generator=("bootstrap",), learner=RawPixels(), folds=2, out=str(out), **settings).made()
    return read(job, Folder(str(out)), silent)


def canonical(rows: Rows) -> pa.Table:
    """All training rows, in DATA's order."""
    names = rows.schema(FINAL).arrow.names
    return pa.concat_tables(block.select(names) for block in rows.blocks(FINAL, held_out=False))


# --- the ways they lie


def laid(kind: str, folder: Path, table: pa.Table) -> tuple[str, str, dict[str, Any]]:
    """(DATA, target, further settings)."""
    folder.mkdir()
    if kind == "classes":
        return str(gallery.class_folder(folder, table)), "label", {}
    if kind == "classes by glob":
        return f"{gallery.class_folder(folder, table)}/*/*.png", "label", {}
    if kind == "beside":
        return str(gallery.beside(folder, table)), "digit", {}
    if kind == "declared":
        return str(gallery.beside(folder, table, "photo") / "metadata.csv"), "digit", {"schema": {"photo": {"kind": "image"}}}
    if kind == "tar":
        return str(gallery.webdataset(folder / "0.tar", table)), "cls", {}
    names = {"bytes": "picture", "struct": "picture"}
    plain = table.select(["picture", "ink", "digit"])
    if kind == "struct":
        both = pa.StructArray.from_arrays([table["picture"].combine_chunks(), table["name"].combine_chunks()], ["bytes", "path"])
        plain = plain.set_column(0, "picture", both)
    if kind in names:
        pq.write_table(plain, folder / "t.parquet", row_group_size=50)
        return str(folder), "digit", {}
    table = gallery.class_folder(folder, table) and table.select(["name", "ink", "digit"]).rename_columns(["file_name", "ink", "digit"])
    if kind == "beside parquet":
        pq.write_table(table, folder / "metadata.parquet")
    else:
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    return str(folder), "digit", {}


WAYS = ["classes", "classes by glob", "beside", "beside parquet", "beside jsonl", "declared", "tar", "bytes", "struct"]


@pytest.mark.parametrize("kind", WAYS)
def test_the_same_pictures_are_read_however_they_lie(kind: str, tmp_path: Path) -> None:
    table = gallery.digits(60, 20)
    data, target, more = laid(kind, tmp_path / "data", table)
    rows, facts = rows_of(data, tmp_path / "run", target, **more)
    wanted = dict(zip(table["picture"].to_pylist(), table["digit"].to_pylist(), strict=True))
    split = [block for fold in range(rows.folds) for block in rows.blocks(fold, held_out=True)] + list(rows.blocks(FINAL, held_out=True))
    found = pa.concat_tables(split)
    pictures = next(item.name for item in found.schema if item.type == pa.binary())
    assert dict(zip(found[pictures].to_pylist(), found[target].to_pylist(), strict=True)) == wanted
    assert rows.schema(FINAL)[pictures].kind == "image"
    assert facts["rows_in"] == 80
    assert facts["notices"] == []
    assert kind.startswith("classes") or rows.schema(FINAL)["ink"].kind == "numeric"


@pytest.mark.parametrize("kind", ["classes", "beside", "beside jsonl", "declared", "tar"])
def test_many_pictures_are_cut_into_parts_that_hold_the_same_rows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = gallery.digits(60, 20)
    data, target, more = laid(kind, tmp_path / "data", table)
    whole, _ = rows_of(data, tmp_path / "one", target, **more)
    monkeypatch.setattr(fragment, "PART_BYTES", 3_000)
    monkeypatch.setattr("codsa_ray.stages.read.FEW_PARTS", 1000)
    cut, _ = rows_of(data, tmp_path / "many", target, **more)
    assert len(whole.parts) == 1
    assert len(cut.parts) > 3
    tables = [pa.concat_tables((rows.folder / "rows").read_table(part) for part in rows.parts) for rows in (whole, cut)]
    assert tables[0].equals(tables[1])


def test_a_picture_that_changed_makes_the_rows_anew(tmp_path: Path) -> None:
    folder = gallery.beside(tmp_path / "data", gallery.digits(60, 20))
    before = [part.identity for part in fragments(str(folder))]
    assert before == [part.identity for part in fragments(str(folder))]
    path = next(folder.glob("one/*.png"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert before != [part.identity for part in fragments(str(folder))]


def test_types_that_hold_pictures_are_known_in_every_spelling() -> None:
    def struct(**fields: pa.DataType) -> pa.DataType:
        return pa.struct(list(fields.items()))

    for kind in (PICTURE, struct(bytes=pa.large_binary(), path=pa.null()), struct(path=pa.large_string(), bytes=pa.binary()), pa.binary()):
        assert is_picture(kind)
    for kind in (struct(bytes=pa.string(), path=pa.string()), struct(path=pa.string()), struct(bytes=PICTURE), pa.string(), pa.int8()):
        assert not is_picture(kind)


# --- what is wrong


def test_what_cannot_be_read_is_null_counted_and_named(tmp_path: Path) -> None:
    """Broken, empty, missing and monstrous pictures; those that want a word get one each."""
    folder = gallery.beside(tmp_path / "data", gallery.digits(60, 20))
    for name, data in gallery.odd().items():
        (folder / f"{name}.png").write_bytes(data)
    with open(folder / "metadata.csv", "a") as file:
        file.writelines(f"{name}.png,9,one\n" for name in (*gallery.odd(), "gone"))
        file.write(",9,one\n")
    rows, facts = rows_of(folder, tmp_path / "run", "digit")
    told = " | ".join(facts["notices"])
    bad = len(gallery.UNREADABLE) + 1
    assert f"{bad} of 90 cannot be read and count as missing, the first of them 'empty.png': 0 bytes" in told
    for what in ("1 of 90 are animated", "1 of 90 have more than 8 bits", "1 of 90 are in CMYK", "sizes from 8 x 8 to 700 x 900 pixels"):
        assert what in told
    stored = pa.concat_tables((rows.folder / "rows").read_table(part) for part in rows.parts)
    nulls = [row["file_name"] for row in stored.to_pylist() if row["file_name"]["bytes"] is None]
    assert len(nulls) == bad + 1
    assert {"path": "bomb.png", "bytes": None} in nulls, "its name is kept"
    assert 0 < rows.schema(FINAL)["file_name"].nulls < 0.1
    assert canonical(rows)["file_name"].null_count <= bad + 1
    assert rows.schema(FINAL).canonical(stored)[1] == {}, "they are counted once, where they are read"


def test_a_column_of_bytes_that_are_no_pictures_is_refused_and_can_be_left_out(tmp_path: Path) -> None:
    table = gallery.digits(60, 20).append_column("hash", pa.array([os.urandom(8) for _ in range(80)], pa.binary())).drop_columns(["name"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(SchemaError, match="none of 80 can be read, the first of them in row 1"):
        rows_of(tmp_path / "t.parquet", tmp_path / "run", "digit")
    rows, _ = rows_of(tmp_path / "t.parquet", tmp_path / "run", "digit", schema={"hash": {"leave_out": True}})
    stored = pa.concat_tables((rows.folder / "rows").read_table(part) for part in rows.parts)
    assert stored["hash"].to_pylist() == table["hash"].to_pylist(), "what is left out is not looked at and comes back"


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "a/../../outside.png", "..", "C:/x.png", "a\\b.png"])
def test_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    folder = gallery.beside(tmp_path / "data", gallery.digits(60, 20))
    (tmp_path / "outside.png").write_bytes(gallery.odd()["large"])
    with open(folder / "metadata.csv", "a") as file:
        file.write(f"{name},9,one\n")
    with pytest.raises(InputError, match="below the folder of the data"):
        rows_of(folder, tmp_path / "run", "digit")


@pytest.mark.parametrize("lay", [gallery.class_folder, gallery.beside])
def test_links_that_lead_out_of_the_folder_are_refused(lay: Any, tmp_path: Path) -> None:
    folder = lay(tmp_path / "data", gallery.digits(60, 20))
    (tmp_path / "outside.png").write_bytes(gallery.odd()["large"])
    first = sorted(folder.glob("one/*.png"))[0]
    first.unlink()
    first.symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match="a link to"):
        rows_of(folder, tmp_path / "run", "label" if lay is gallery.class_folder else "digit")
    first.unlink()
    first.symlink_to(sorted(folder.glob("one/*.png"))[0])
    rows_of(folder, tmp_path / "run", "label" if lay is gallery.class_folder else "digit")


def test_a_picture_named_by_a_struct_without_bytes_is_fetched_inside_the_folder_only(tmp_path: Path) -> None:
    table = gallery.digits(60, 20)
    gallery.class_folder(tmp_path / "data", table)
    for names, wrong in ((table["name"].to_pylist(), None), (["/etc/passwd"] * 80, "below the folder")):
        both = pa.StructArray.from_arrays([pa.nulls(80, pa.binary()), pa.array(names)], ["bytes", "path"])
        pq.write_table(table.select(["digit"]).append_column("picture", both), tmp_path / "data" / "t.parquet")
        if wrong:
            with pytest.raises(InputError, match=wrong):
                rows_of(tmp_path / "data", tmp_path / "run", "digit")
        else:
            rows, _ = rows_of(tmp_path / "data", tmp_path / "run", "digit")
            assert canonical(rows)["picture"].null_count == 0


def test_folders_that_are_no_classes_are_refused_with_a_way_out(tmp_path: Path) -> None:
    table = gallery.digits(60, 20)
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "x.png").write_bytes(table["picture"][0].as_py())
    with pytest.raises(InputError, match=r"a table, or a folder per class.*a picture alone: 'x.png'"):
        fragments(str(flat))
    gallery.class_folder(tmp_path / "parts" / "train", table)
    gallery.class_folder(tmp_path / "parts" / "test", table)
    with pytest.raises(InputError, match="itself as DATA"):
        fragments(str(tmp_path / "parts"))
    (flat / "t.csv").write_text("photo,y\nx.png,1\n")
    with pytest.raises(InputError, match="a column that names the pictures beside"):
        rows_of(flat, tmp_path / "run", "y")
    with pytest.raises(SchemaError, match=r"a column of values for --target.*pictures in 'image'"):
        rows_of(tmp_path / "parts" / "train", tmp_path / "run", "image")
    with pytest.raises(SchemaError, match="a column of values for --group"):
        rows_of(tmp_path / "parts" / "train", tmp_path / "run", "label", group=("image",))


def test_a_plug_in_that_cannot_take_pictures_says_so(tmp_path: Path) -> None:
    folder = gallery.class_folder(tmp_path / "data", gallery.digits(60, 20))
    job = Job(str(folder), "label", generator=(NoisyCopies(),), learner=Logistic(), folds=2).made()
    with pytest.raises(SchemaError, match=r"columns of kind .* for Logistic; got column 'image' of kind image; choose .*, or declare"):
        read(job, Folder(str(tmp_path / "run")), silent)
    assert "bootstrap" in taking("generators", frozenset({"image", "text", "numeric"}))
    assert "logistic" not in taking("learners", frozenset({"image"}))


# --- on a store


def test_pictures_are_read_from_an_object_store_and_written_to_one(store: Store, tmp_path: Path) -> None:
    table = gallery.digits(60, 20)
    gallery.beside(tmp_path / "beside", table)
    gallery.webdataset(tmp_path / "0.tar", table)
    for path in sorted((tmp_path / "beside").rglob("*.*")):
        store.put(f"beside/{path.relative_to(tmp_path / 'beside').as_posix()}", path.read_bytes())
        if path.suffix == ".png":
            store.put(f"classes/{path.relative_to(tmp_path / 'beside').as_posix()}", path.read_bytes())
    store.put("tar/0.tar", (tmp_path / "0.tar").read_bytes())
    wanted = sorted(table["picture"].to_pylist())
    for name, target, column in (("beside", "digit", "file_name"), ("classes", "label", "image"), ("tar", "cls", "image")):
        rows, _ = rows_of(f"{store.address}/{name}", tmp_path / f"run-{name}", target)
        stored = pa.concat_tables((rows.folder / "rows").read_table(part) for part in rows.parts)
        assert sorted(row["bytes"] for row in stored[column].to_pylist()) == wanted
        folder = Folder(f"{store.address}/out-{name}")
        record = rows.layout.write(folder, "draw-0", stored.drop_columns(["_row"]))
        assert rows.layout.whole(folder, f"draw-0{rows.layout.ending}", record)


def test_test_pictures_may_be_a_folder_of_their_own(tmp_path: Path) -> None:
    train = gallery.class_folder(tmp_path / "train", gallery.digits(60, 20))
    test = gallery.class_folder(tmp_path / "test", gallery.digits(30, 10))
    rows, facts = rows_of(train, tmp_path / "run", test=str(test))
    assert rows.group_counts(FINAL).sum() == 80
    held = rows.held_out(FINAL)
    assert sorted(held["image"].to_pylist()) == sorted(gallery.digits(30, 10)["picture"].to_pylist())
    assert facts["notices"] == []


def test_a_folder_whose_name_reads_like_a_glob_has_its_own_classes(tmp_path: Path) -> None:
    place = gallery.class_folder(tmp_path / "data[1]" / "set", gallery.digits(4, 3))
    parts = fragments(str(place))
    labels = {label for part in parts for table in load(part, probe(part).types) for label in table["label"].to_pylist()}
    assert labels == {"one", "seven"}

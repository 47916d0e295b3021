"""Layouts: pictures are written where they are found again, the same rows as the same bytes."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from codsa_ray import picture
from codsa_ray.folder import Folder
from codsa_ray.layout import Layout
from codsa_ray.values import PICTURE

import gallery


def parts() -> pa.Table:
    data = [*gallery.digits(2, 1)["picture"].to_pylist(), None]
    jpg = gallery.odd()["cmyk"]
    held = [{"bytes": d, "path": p} for d, p in zip(data, ["one/a.png", None, "seven/deep/b.png", "one/gone.png"], strict=True)]
    held.append({"bytes": jpg, "path": None})
    return pa.table({"image": pa.array(held, PICTURE), "label": ["one", "one", "one", "one", "seven"]})


def test_files_are_written_where_their_label_is_and_found_whole(tmp_path: Path) -> None:
    layout, folder = Layout("classes", ("image",)), Folder(str(tmp_path))
    record = layout.write(folder, "draw-0", parts())
    named = pq.read_table(tmp_path / "draw-0.parquet")["image"].to_pylist()
    assert named == ["one/a.png", "one/draw-0-000001.png", "one/seven-deep/b.png", None, "seven/draw-0-000004.jpg"]
    for name, row in zip(named, parts().to_pylist(), strict=True):
        assert name is None or (tmp_path / name).read_bytes() == row["image"]["bytes"]
    assert layout.whole(folder, "draw-0.parquet", record)
    (tmp_path / "one" / "a.png").write_bytes(b"altered")
    assert not layout.whole(folder, "draw-0.parquet", record)
    (tmp_path / "one" / "a.png").unlink()
    assert not layout.whole(folder, "draw-0.parquet", record)


def test_files_beside_a_table_keep_their_names_and_drawn_ones_have_a_folder(tmp_path: Path) -> None:
    layout = Layout("files", ("image",))
    layout.write(Folder(str(tmp_path)), "draw-0", parts().drop_columns(["label"]))
    named = pq.read_table(tmp_path / "draw-0.parquet")["image"].to_pylist()
    assert named == ["one/a.png", "drawn/draw-0-000001.png", "seven/deep/b.png", None, "drawn/draw-0-000004.jpg"]


def test_the_same_rows_are_the_same_tar_file(tmp_path: Path) -> None:
    layout = Layout("tar")
    first, second = (layout.write(Folder(str(tmp_path / name)), "draw-0", parts()) for name in "ab")
    assert first == second
    with tarfile.open(tmp_path / "a" / "draw-0.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["one/a.png", "one/a.label", "one/a.json"]
    assert "draw-0-000004.jpg" in names


def test_the_most_that_is_read_is_stated() -> None:
    assert picture.MOST_PIXELS == 8192 * 8192
    assert picture.MOST_BYTES == 2**28
    text = Path(__file__).parent.parent.joinpath("docs", "pictures-and-texts.md").read_text()
    assert "67 million pixels" in text
    assert "256 MiB" in text

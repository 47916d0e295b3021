"""Pictures through the whole pass: digits as PNG files in folders of classes, beside a table and in tar files, and out as they came."""

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codsa_ray import Job, run
from codsa_ray.more import synthesize_more
from codsa_ray.pipeline import Report

import gallery
import runs
from doubles import NoisyCopies, RawPixels

QUICK: dict[str, Any] = {"trials": 2, "draws": 1, "folds": 2, "repeats": 1, "force": True, "workers": 2}


def passed(data: Path, target: str, out: Path, **more: Any) -> Report:
    asked: dict[str, Any] = {"generator": ("bootstrap", NoisyCopies()), "learner": RawPixels(), **QUICK, **more}
    return run(Job(str(data), target, out=str(out), **asked))


def test_a_class_folder_comes_out_as_one(here: None, tmp_path: Path) -> None:
    table = gallery.digits(90, 24)
    given = dict(zip(table["name"].to_pylist(), table["picture"].to_pylist(), strict=True))
    report = passed(gallery.class_folder(tmp_path / "data", table), "label", tmp_path / "run", strata="clusters:many=2,least=5")
    real, drawn = runs.augmented(report)
    out = Path(report.augmented)
    assert {name: (out / name).read_bytes() for name in real["image"].to_pylist()} == {
        name: given[name] for name in real["image"].to_pylist()
    }
    assert len(real) == report.facts["data"]["train"]
    assert len(drawn) > 0
    for name, label in zip(drawn["image"].to_pylist(), drawn["label"].to_pylist(), strict=True):
        assert name.startswith(f"{label}/draw-000-")
        assert (out / name).exists()
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == {*real["image"].to_pylist(), *drawn["image"].to_pylist()}
    assert "stratum" in " ".join(real["_region"].to_pylist())
    (shown,) = report.facts["images"]
    assert shown["column"] == "image"
    assert "Drawn pictures" in Path(report.path).read_text()
    before = runs.contents(out)
    first = next(name for name in drawn["image"].to_pylist())
    (out / first).write_bytes(b"altered")
    again = passed(tmp_path / "data", "label", tmp_path / "run", strata="clusters:many=2,least=5")
    assert runs.contents(out) == before, "what was altered is written anew"
    assert [stage["name"] for stage in again.facts["stages"] if not stage["reused"]] == ["decide", "apply"]


def test_bootstrap_gives_pictures_back_byte_for_byte_and_more_of_them_when_asked(here: None, tmp_path: Path) -> None:
    table = gallery.digits(90, 24)
    report = passed(gallery.beside(tmp_path / "data", table), "digit", tmp_path / "run", generator=("bootstrap",))
    real, drawn = runs.augmented(report)
    out = Path(report.augmented)
    held = {(out / name).read_bytes() for name in real["file_name"].to_pylist()}
    assert all(name.startswith("drawn/") and (out / name).read_bytes() in held for name in drawn["file_name"].to_pylist())
    assert real.schema.field("ink").type == drawn.schema.field("ink").type == pa.float64()
    line = synthesize_more(report.folder, "digit=seven", 30, str(tmp_path / "more"))
    assert line.startswith("30 rows")
    more = pq.read_table(tmp_path / "more" / "part-000000.parquet")
    assert more["digit"].unique().to_pylist() == ["seven"]
    assert all((tmp_path / "more" / name).read_bytes() in held for name in more["file_name"].to_pylist())


@pytest.mark.slow
def test_tar_files_come_out_as_tar_files(here: None, tmp_path: Path) -> None:
    table = gallery.digits(90, 24)
    report = passed(gallery.webdataset(tmp_path / "0.tar", table), "cls", tmp_path / "run")
    names = sorted(path.name for path in Path(report.augmented).iterdir())
    assert names == ["draw-000-000000.tar", "real-000000.tar"]
    with tarfile.open(Path(report.augmented) / names[1]) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    pictures = [data for name, data in members.items() if name.endswith(".png")]
    assert len(pictures) == report.facts["data"]["train"]
    assert set(pictures) <= set(table["picture"].to_pylist())
    assert b'"_synthetic": false' in next(data for name, data in members.items() if name.endswith(".json"))

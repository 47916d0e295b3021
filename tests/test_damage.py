"""A file of the run folder that is cut short, altered or lost is made anew or named: nothing is read that was not written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from codsa_ray.errors import DamagedError, InternalError
from codsa_ray.folder import TEMPORARY, Folder
from codsa_ray.manifest import MANIFEST
from codsa_ray.pipeline import Report, run
from codsa_ray.record import Record
from codsa_ray.stages import synthesize

import runs


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def altered(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])


def lost(file: Path) -> None:
    file.unlink()


HARMS = [cut_short, altered, lost]


def copied(finished: Report, place: Path) -> Path:
    """The finished run's folder again, its search still to come."""
    report = runs.again(finished, runs.job(finished.facts["job"]["data"], ""), place / "run")
    for name in ("search", "verdict.json"):
        Folder(report.folder).delete(name)
    return Path(report.folder)


def same(out: Path, finished: Report) -> bool:
    return runs.contents(out / "augmented") == runs.contents(finished.augmented)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_shard_is_drawn_again(finished: Report, here: None, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """What its size shows is found before it is used; what only its bytes show ends the run, and the next one draws it."""
    out = copied(finished, tmp_path)
    shard = sorted((out / "pools").glob("*/*.parquet"))[1]
    whole = shard.read_bytes()
    harm(shard)
    job = runs.job(finished.facts["job"]["data"], out)
    if harm is altered:
        with pytest.raises(DamagedError, match=shard.name):
            run(job)
    run(job)
    assert shard.read_bytes() == whole
    assert same(out, finished)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["trees.json", "trees.safetensors"])
def test_a_damaged_fit_is_fitted_again_and_is_no_generators_failure(
    finished: Report, here: None, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    """What its size shows is found before it is used; what only its bytes show ends the run, and the next one fits it."""
    out = copied(finished, tmp_path)
    Folder(str(out)).delete("pools")
    file = sorted((out / "fit").glob(f"*/0-*/{name}"))[0]
    whole = file.read_bytes()
    harm(file)
    job = runs.job(finished.facts["job"]["data"], out)
    if harm is altered:
        with pytest.raises(DamagedError, match=name):
            run(job)
    report = run(job)
    assert file.read_bytes() == whole
    assert same(out, finished)
    assert report.verdict == finished.verdict


def test_a_fit_whose_mark_is_cut_short_is_fitted_again(finished: Report, here: None, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    mark = sorted((out / "fit").glob(f"*/0-*/{MANIFEST}"))[0]
    cut_short(mark)
    run(runs.job(finished.facts["job"]["data"], out))
    assert "files" in Folder(str(mark.parent)).read_json(MANIFEST)
    assert same(out, finished)


def test_a_fit_of_a_version_that_kept_no_sums_is_taken_as_it_is(finished: Report, here: None, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    Folder(str(out)).delete("pools")
    for mark in (out / "fit").glob(f"*/*/{MANIFEST}"):
        place = Folder(str(mark.parent))
        place.write_json(MANIFEST, {key: value for key, value in place.read_json(MANIFEST).items() if key != "files"})
    report = run(runs.job(finished.facts["job"]["data"], out))
    assert {stage["name"]: stage["reused"] for stage in report.facts["stages"]}["fit"]
    assert same(out, finished)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_of_the_data_set_is_written_again(
    finished: Report, here: None, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    report = runs.again(finished, runs.job(finished.facts["job"]["data"], ""), tmp_path / "run")
    harm(sorted(Path(report.augmented).glob("*.parquet"))[-1])
    stages = {stage["name"]: stage["reused"] for stage in run(runs.job(finished.facts["job"]["data"], report.folder)).facts["stages"]}
    assert not stages["apply"]
    assert stages["synthesize"]
    assert same(Path(report.folder), finished)


def test_a_drawn_file_that_is_damaged_while_it_is_applied_is_named(finished: Report, here: None, tmp_path: Path) -> None:
    report = runs.again(finished, runs.job(finished.facts["job"]["data"], ""), tmp_path / "run")
    Folder(report.folder).delete("apply")
    final = min(Path(report.folder, "pools").glob("*-final-*/*.parquet"))
    altered(final)
    job = runs.job(finished.facts["job"]["data"], report.folder)
    with pytest.raises(DamagedError, match=final.name):
        run(job)
    run(job)
    assert same(Path(report.folder), finished)


@pytest.mark.parametrize("place", ["read/rows", "read/split", "search/*"])
@pytest.mark.parametrize("harm", [cut_short, altered])
def test_rows_and_scores_that_are_damaged_end_the_run_and_are_no_candidates_failure(
    finished: Report, here: None, tmp_path: Path, place: str, harm: Callable[[Path], None]
) -> None:
    out = copied(finished, tmp_path) if place.startswith("read") else tmp_path / "run"
    if place == "search/*":
        runs.again(finished, runs.job(finished.facts["job"]["data"], ""), out)
    file = max(out.glob(f"{place}/*.parquet"), key=lambda path: path.stat().st_size)
    whole = file.read_bytes()
    harm(file)
    job = runs.job(finished.facts["job"]["data"], out)
    with pytest.raises((DamagedError, OSError), match=file.name if harm is cut_short else None):
        run(job)
    file.write_bytes(whole)
    run(job)
    assert same(out, finished)
    assert (out / "verdict.json").read_bytes() == Path(finished.folder, "verdict.json").read_bytes()


def test_every_file_of_the_data_set_has_a_record(finished: Report) -> None:
    stored = Folder(finished.folder).read_json(f"apply/{MANIFEST}")
    files = runs.contents(finished.augmented)
    assert set(stored["files"]) == set(files)
    assert all(Record(**stored["files"][name]).fits(data) for name, data in files.items())
    assert sum(value["rows"] for value in stored["files"].values()) == stored["rows_out"]


def test_only_half_written_files_are_swept(finished: Report, here: None, tmp_path: Path) -> None:
    report = runs.again(finished, runs.job(finished.facts["job"]["data"], ""), tmp_path / "run")
    pools, beside = next(Path(report.folder, "pools").iterdir()), tmp_path / f"{TEMPORARY}mine"
    (pools / f"{TEMPORARY}12345678").write_bytes(b"half")
    (pools / "mine").write_bytes(b"kept")
    beside.write_bytes(b"kept")
    run(runs.job(finished.facts["job"]["data"], report.folder))
    assert not list(Path(report.folder).rglob(f"{TEMPORARY}*"))
    assert (pools / "mine").exists()
    assert beside.exists()


def test_shards_that_never_came_are_counted(finished: Report, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that loses results without a word ends the stage, with the ones that came kept."""
    whole = synthesize.spread

    def loses(items: list, *rest: object, **resources: object) -> list:
        return list(whole(items, *rest, **resources))[1:]

    monkeypatch.setattr(synthesize, "spread", loses)
    job = runs.job(finished.facts["job"]["data"], tmp_path / "run")
    with pytest.raises(InternalError, match=r"1 shards of .* are missing"):
        run(job)

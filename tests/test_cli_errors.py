"""Bad input is one line on standard error, says wanted, got and what to do, and exits with 2; never a traceback."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from codsa_ray.cli import main

QUICK = ("--trials", "0", "--draws", "1", "--generator", "bootstrap")


def people(rows: int = 60) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({
        "age": rng.integers(18, 80, rows),
        "sex": np.where(rng.random(rows) < 0.5, "F", "M"),
        "income": np.where(rng.random(rows) < 0.3, "high", "low"),
    })  # fmt: skip


def written(folder: Path, table: pa.Table, name: str = "people.parquet") -> str:
    pq.write_table(table, folder / name)
    return str(folder / name)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command, which must be refused; returns its one line."""
    code = main(["augment", *arguments, *QUICK])
    shown = capsys.readouterr().err.strip().splitlines()
    line = shown[-1]
    assert code == 2, shown
    assert line.startswith("codsa: error: wanted ")
    assert "; got " in line
    assert "Traceback" not in "\n".join(shown)
    return line


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def test_missing_file(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    assert "nowhere.parquet" in refused(capsys, str(tmp_path / "nowhere.parquet"), "--target", "income", "--out", out)


def test_empty_file(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    assert "empty.csv" in refused(capsys, str(tmp_path / "empty.csv"), "--target", "income", "--out", out)


def test_one_row(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    refused(capsys, written(tmp_path, people(1)), "--target", "income", "--out", out)


def test_one_class(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    table = people().set_column(2, "income", pa.array(["low"] * 60))
    assert "two or more classes" in refused(capsys, written(tmp_path, table), "--target", "income", "--out", out)


def test_target_absent_offers_the_nearest_name(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    assert "income" in refused(capsys, written(tmp_path, people()), "--target", "incme", "--out", out).partition("; got")[2]


def test_target_all_null(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    table = people().set_column(2, "income", pa.nulls(60, pa.string()))
    assert "60 rows, all null" in refused(capsys, written(tmp_path, table), "--target", "income", "--out", out)


def test_numeric_target_of_many_values_is_no_class(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    table = people(10_000).set_column(2, "income", pa.array(np.random.default_rng(0).random(10_000)))
    assert "10000 distinct values" in refused(capsys, written(tmp_path, table), "--target", "income", "--out", out)


def test_group_column_absent(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    assert "did you mean sex" in refused(capsys, written(tmp_path, people()), "--target", "income", "--group", "sexx", "--out", out)


def test_predicate_with_a_syntax_error(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    refused(capsys, written(tmp_path, people()), "--target", "income", "--region", "age >=", "--out", out)


def test_predicate_that_matches_nothing(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    assert "age > 200" in refused(capsys, written(tmp_path, people()), "--target", "income", "--region", "age > 200", "--out", out)


def test_small_group_names_the_ready_merge_option(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    table = people().set_column(1, "sex", pa.array(["F", "X"] + ["M", "F"] * 29))
    line = refused(capsys, written(tmp_path, table), "--target", "income", "--group", "sex", "--out", out)
    assert "--merge 'sex:X=" in line


def test_truncated_parquet(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    path = Path(written(tmp_path, people()))
    path.write_bytes(path.read_bytes()[:-40])
    assert "people.parquet" in refused(capsys, str(path), "--target", "income", "--out", out)


def test_ragged_csv(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    (tmp_path / "ragged.csv").write_text("a,income\n1,low\n2,high,3\n")
    assert "ragged.csv" in refused(capsys, str(tmp_path / "ragged.csv"), "--target", "income", "--out", out)


def test_wrong_encoding(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    (tmp_path / "latin.csv").write_bytes("a,income\ncafé,low\nthé,high\n".encode("latin-1"))
    assert "UTF-8" in refused(capsys, str(tmp_path / "latin.csv"), "--target", "income", "--out", out)


def test_input_that_was_augmented_already(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    table = people().append_column("_synthetic", pa.array([False] * 60))
    assert "_synthetic" in refused(capsys, written(tmp_path, table), "--target", "income", "--out", out)


def test_out_inside_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, people())
    assert "inside" in refused(capsys, str(tmp_path), "--target", "income", "--out", str(tmp_path / "run"))


def test_out_below_a_glob_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, people())
    for glob in (f"{tmp_path}/**", f"{tmp_path}/**/*.parquet", f"{tmp_path.parent}/{tmp_path.name}*/**"):
        assert "inside" in refused(capsys, glob, "--target", "income", "--out", str(tmp_path / "run"))


def test_out_folder_of_somebody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert "thesis.txt" in refused(capsys, written(tmp_path, people()), "--target", "income", "--out", str(other))
    assert (other / "thesis.txt").read_text() == "mine"


def test_no_write_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # A file where a folder should be fails for root too.
    (tmp_path / "file").write_text("")
    refused(capsys, written(tmp_path, people()), "--target", "income", "--out", str(tmp_path / "file" / "run"))


def test_two_runs_on_one_folder(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(out).mkdir()
    (Path(out) / "codsa.json").write_text("{}")
    with FileLock(Path(out) / ".lock"):
        assert "locked by another run" in refused(capsys, written(tmp_path, people()), "--target", "income", "--out", out)


def test_unreachable_address(tmp_path: Path, out: str) -> None:
    # A process of its own: this one is connected already.
    command = [sys.executable, "-m", "codsa_ray.cli", "augment", written(tmp_path, people()), "--target", "income", "--out", out]
    done = subprocess.run([*command, "--address", "127.0.0.1:1"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "nothing answering at 127.0.0.1:1" in done.stderr


@pytest.mark.parametrize(("option", "value", "offered"), [
    ("--generator", "sequential_tree", "sequential_trees"), ("--learner", "bosted", "boosted"), ("--allocator", "balance", "balanced"),
    ("--generator", "bootstrap:jiter=1", "jitter"),
])  # fmt: skip
def test_unknown_names_offer_the_nearest(
    tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], option: str, value: str, offered: str
) -> None:
    data = written(tmp_path, people())
    code = main(["augment", data, "--target", "income", "--out", out, option, value])
    assert code == 2
    assert offered in capsys.readouterr().err


def test_unknown_option_and_bad_number(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = written(tmp_path, people())
    assert main(["augment", data, "--target", "income", "--out", out, "--colour", "red"]) == 2
    assert main(["augment", data, "--target", "income", "--out", out, "--draws", "0"]) == 2
    assert "--draws of at least 1" in capsys.readouterr().err


def test_text_column_is_refused_by_name(tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str], ray: None) -> None:
    notes = [f"patient {i} said that the {i}th morning was worse than the one before it" for i in range(60)]
    table = people().append_column("notes", pa.array(notes))
    assert "'notes'" in refused(capsys, written(tmp_path, table), "--target", "income", "--learner", "boosted", "--out", out)


def test_disk_full_leaves_one_line(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the write fails in the middle, and the exit code is ours."""
    code = (
        "import resource, sys\n"
        "from codsa_ray.folder import Folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import codsa_ray.cli as cli\n"
        "cli._command = lambda options: Folder(sys.argv[1]).write_bytes('x', b'0' * 5000)\n"
        "sys.exit(cli.main(['doctor']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("codsa: internal error: File too large")
    assert list(tmp_path.iterdir()) == []

"""What README and docs say is so: their python runs, their commands parse, their files, tests, targets and links are there."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import codsa_ray
from codsa_ray.cli import job_of, main, parser
from codsa_ray.correct import Correction
from codsa_ray.decide import LEVELS
from codsa_ray.grouping import Grouping
from codsa_ray.groups import Groups
from codsa_ray.infer import infer
from codsa_ray.plugins import FOLDERS, make, names
from codsa_ray.predicate import Predicate
from codsa_ray.stages import fit, search
from codsa_ray.summary import Summary

import runs

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in FILES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Plug-ins that a page adds itself, in the block above its commands.
EXAMPLES = {"docs/add-a-generator.md": ("generators", "independent_marginals"), "docs/add-a-learner.md": ("learners", "extra_trees")}
# Words in code marks that end like files but lie in a run folder or are only named as examples.
ELSEWHERE = re.compile(r"^(report|correction|verdict|job|inspect|progress|shards)\.(json|html)$|parquet|manifest\.json$")
# The documents' job on a few rows: the settings that make it small change nothing of what the blocks show.
LEARNER = "boosted:depth=2,rounds=20"
QUICK: dict[str, Any] = {"generator": ("bootstrap",), "learner": LEARNER, "trials": 1, "draws": 2, "folds": 2, "workers": 2}


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(PAGES[page]) if kind == language]


def prose(page: str) -> str:
    return BLOCK.sub("", PAGES[page])


def people(rows: int = 160) -> pa.Table:
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, rows)
    rich = rng.random(rows) < 1 / (1 + np.exp(-(age - 70) / 8))
    sex = np.where(rng.random(rows) < 0.5, "F", "M")
    return pa.table({"age": age, "sex": sex, "hours": rng.normal(40, 8, rows).round(1), "income": np.where(rich, ">50K", "<=50K")})


# --- python


@dataclass
class Place:
    """A folder in which the README's python ran, and what it left behind."""

    folder: Path
    names: dict[str, Any]

    def run(self, page: str, text: str) -> None:
        with contextlib.chdir(self.folder):
            exec(compile(text, page, "exec"), self.names)


@pytest.fixture(scope="module")
def place(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("docs")
    pq.write_table(people(), folder / "adult.parquet")
    here, job = Place(folder, {}), codsa_ray.Job
    with pytest.MonkeyPatch.context() as patch:
        # Where fits and trials run is not what these pages are about; tests/test_pipeline.py has them on Ray.
        patch.setattr(fit, "_run", runs.fits_here)
        patch.setattr(search, "_tune", runs.tries_here)
        # `force` writes synthetic rows whatever so few rows say, so that there are draws to train on.
        patch.setattr(codsa_ray, "Job", lambda **asked: job(**QUICK, force=True, **asked), raising=False)
        for text in blocks("README.md", "python"):
            here.run("README.md", text)
    return here


def test_the_python_of_the_readme_runs_the_whole_pass(place: Place) -> None:
    report = place.names["report"]
    assert report.verdict.kind in LEVELS
    assert Path(report.path).read_text().startswith("<!doctype html>")
    assert Path(report.augmented).resolve() == (place.folder / "codsa-run/augmented").resolve()


def test_the_python_of_the_options_page_trains_and_corrects(place: Place) -> None:
    """Each block runs on what the README's left, and the numpy recipes give what the one call gives, by label and by cell."""
    augmented = place.folder / "codsa-run" / "augmented"
    first = pq.read_table(augmented / "draw-000-000000.parquet")
    # Whether one draw or two did better is chance with so few rows; the page is about several.
    second = first.drop_columns(["_draw"]).append_column("_draw", pa.array(np.ones(len(first), dtype=np.int32)))
    pq.write_table(second, augmented / "draw-001-000000.parquet")
    assert main(["train", str(place.folder / "codsa-run")]) == 0
    for text in blocks("docs/options.md", "python"):
        place.run("docs/options.md", text)
    found = place.names
    assert found["draws"] == [0, 1]
    assert len(found["models"]) == 2
    assert found["correction"].by_cell
    assert [group.name for group in found["groups"].items] == found["c"]["cells"]
    by_label = Correction.from_json({**found["c"], "by_cell": False}).apply(found["log_p"])
    assert np.allclose(found["p"], np.exp(by_label))
    three_lines = next(text for text in blocks("docs/options.md", "python") if text.startswith("z = log_p"))
    place.run("docs/options.md", three_lines.replace('c["class_terms"]', "terms"))
    assert np.allclose(found["p"], found["p_by_cell"])
    assert not np.allclose(found["p_by_cell"], np.exp(found["log_p"]))


def test_all_python_is_run_by_a_test() -> None:
    """A page with python that no test above or below runs would be a page that may be wrong."""
    assert {page for page in PAGES if blocks(page, "python")} == {"README.md", "docs/options.md", "docs/sampler.md", *EXAMPLES}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_worked_plug_in_keeps_every_law(page: str, tmp_path: Path) -> None:
    """Put into a copy of the package, the page's file is found by its name and passes the commands that the page gives."""
    folder, name = EXAMPLES[page]
    (text,) = blocks(page, "python")
    for part in ("codsa_ray", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / "codsa_ray" / folder / f"{name}.py").write_text(text)
    assert f"codsa_ray/{folder}/{name}.py" in prose(page)
    subprocess.run([sys.executable, "-m", "ruff", "check", f"codsa_ray/{folder}/{name}.py"], cwd=tmp_path, check=True, capture_output=True)
    (command,) = [line for text in blocks(page, "bash") for line in text.splitlines() if "pytest" in line]
    world = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, *shlex.split(command)[1:], "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=tmp_path, env=world, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout) or re.search(r"(\.{10,})", done.stdout)
    assert passed, "the command has to find the new file's tests"
    assert str(tmp_path) in subprocess.run(
        [sys.executable, "-c", f"import codsa_ray.{folder}.{name} as found; print(found.__file__)"],
        cwd=tmp_path,
        env=world,
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip


# --- commands


def commands() -> Iterator[tuple[str, list[str]]]:
    """(page, words) of every line of every bash block, lines that end in a backslash joined."""
    for page in PAGES:
        for text in blocks(page, "bash"):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield page, words


def codsa_arguments(words: list[str]) -> list[str] | None:
    """What the `codsa` parser gets of a command, or None where it gets nothing."""
    if words[0] == "codsa":
        return words[1:]
    script = next((index for index, word in enumerate(words) if re.fullmatch(r"jobs/\w+\.py", word)), None)
    return None if script is None else ["augment", *words[script + 1 :], "--address", "auto"]


@pytest.mark.parametrize(("page", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60])
def test_commands_are_ones_that_exist(page: str, words: list[str]) -> None:
    """codsa's options parse down to conditions, merges and plug-ins; make's targets are in the Makefile; others are known tools."""
    arguments = codsa_arguments(words)
    if words[0] == "make":
        assert f"\n{words[1]}:" in "\n" + (ROOT / "Makefile").read_text()
    elif arguments is None:
        assert words[0] in ("python", "ray", "export", "docker", "kubectl"), words
    else:
        options = parser().parse_args(arguments)
        if options.command == "augment":
            job = job_of(options)
            _check_job(job, added=EXAMPLES.get(page, ("", ""))[1])


def _check_job(job: Any, added: str) -> None:
    for text in job.region:
        Predicate.parse(text)
    for text in job.merge:
        Grouping.parse_merge(text)
    named = [("learners", job.learner), ("allocators", job.allocator), ("strata", job.strata)]
    for folder, text in [*(("generators", text) for text in job.generator), *named]:
        if text not in (added, "auto", "default"):
            make(folder, text)


def test_a_wrong_command_would_be_found() -> None:
    with pytest.raises(codsa_ray.UserError):
        parser().parse_args(["augment", "x.csv", "--target", "y", "--no-such-option"])
    with pytest.raises(codsa_ray.UserError):
        _check_job(codsa_ray.Job("x.csv", "y", generator=("smote",)), added="")


def test_the_options_page_has_every_option_and_no_other() -> None:
    table = PAGES["docs/options.md"].partition("## codsa augment")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE))
    augment = next(iter(parser()._subparsers._group_actions)).choices["augment"]  # type: ignore[union-attr, index]
    assert told == {action.option_strings[-1] for action in augment._actions if action.option_strings} - {"--help"}


def test_the_options_page_has_every_plug_in_with_its_settings() -> None:
    found = re.findall(r"^\| (\w+) `(\w+)` \|([^|]*)\|", PAGES["docs/options.md"], re.MULTILINE)
    told = {(kind, name): settings for kind, name, settings in found}
    kinds = {folder: folder if folder == "strata" else folder.removesuffix("s") for folder in FOLDERS}
    assert set(told) == {(kinds[folder], name) for folder in FOLDERS for name in names(folder)}
    for folder in FOLDERS:
        for name in set(names(folder)) - {"sklearn"}:
            assert re.findall(r"`(\w+)`", told[kinds[folder], name]) == list(make(folder, name).__dataclass_fields__), name


def test_the_readme_has_every_verdict_and_generator() -> None:
    table = PAGES["README.md"].partition("## The verdict")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(reversed(LEVELS))
    assert all(f"**{name}**" in PAGES["README.md"] for name in names("generators"))


# --- files


def test_the_schema_file_of_the_options_page_is_one() -> None:
    stated = json.loads(blocks("docs/options.md", "json")[0])
    rng = np.random.default_rng(0)
    days = pa.array(rng.integers(12_000, 18_000, 160)).cast(pa.int64())
    table = people()
    for name, values in {
        "zip": pa.array(rng.integers(0, 90, 160)), "wage": pa.array(rng.gamma(3, 9, 160)),
        "hired": days.cast(pa.int32()).cast(pa.date32()), "left": pa.array(days.to_numpy() + 99).cast(pa.int32()).cast(pa.date32()),
        "remark": pa.array([f"the {i}th of many words" for i in range(160)]),
    }.items():  # fmt: skip
        table = table.append_column(name, values)
    schema = infer(Summary.of(table, np.arange(160)), "income", overrides=stated)
    assert (schema["age"].low, schema["age"].high) == (17, 100)
    assert schema["zip"].kind == "categorical"
    assert schema["wage"].places == 2
    assert schema.constraints == tuple(stated["constraints"])
    assert ("remark", "left out by --schema") in schema.left_out


def test_the_target_mix_of_the_options_page_is_one() -> None:
    mix = json.loads(blocks("docs/options.md", "json")[1])
    grouping = Grouping("income", ("sex",))
    found = Groups.of(grouping, grouping.cells(people()), mix)
    assert [group.name for group in found.items] == list(mix)
    assert found.mix == pytest.approx([1 / 6, 1 / 6, 3 / 6, 1 / 6])


@pytest.mark.parametrize("page", PAGES)
def test_files_tests_and_targets_that_are_named_are_there(page: str) -> None:
    missing = []
    for word in re.findall(r"`([^`\n]+)`", prose(page)):
        added = EXAMPLES.get(page, ("", "-"))[1]
        if re.fullmatch(r"make [\w-]+", word):
            missing += [] if f"\n{word[5:]}:" in (ROOT / "Makefile").read_text() else [word]
        elif test := re.fullmatch(r"(tests/\w+\.py)::(\w+)", word):
            text = (ROOT / test[1]).read_text() if (ROOT / test[1]).exists() else ""
            missing += [] if f"def {test[2]}(" in text else [word]
        elif re.fullmatch(r"[\w./-]+\.(py|md|ya?ml|toml|txt|json|html)|(codsa_ray|docs|tests|jobs|benchmarks)/[\w./-]*", word):
            known = ELSEWHERE.search(word) or added in word or (ROOT / word).exists()
            missing += [] if known else [word]
    assert missing == []


def anchors(text: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            lost.append(target)
    assert lost == []


def test_papers_are_linked_by_their_number() -> None:
    pairs = re.findall(r"\[(\d{4}\.\d{5})\]\(https://arxiv\.org/abs/(\S+?)\)", PAGES["README.md"])
    assert len(pairs) == 10
    assert all(shown == linked for shown, linked in pairs)


def test_the_readme_begins_with_what_a_newcomer_does() -> None:
    """First the demo, then the tests: the two commands that set everything up themselves."""
    first = [words for page, words in commands() if page == "README.md"]
    assert first[:2] == [["make", "demo"], ["make", "test"]]

"""`codsa inspect`: copies are found and fresh rows cleared, measures are what their definitions say, and a run's page shows them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist

from codsa_ray.audit.coverage import NEIGHBOURS, coverage
from codsa_ray.audit.membership import deviation, membership
from codsa_ray.audit.nearest import Space
from codsa_ray.audit.two_sample import auc_error
from codsa_ray.cli import main
from codsa_ray.errors import FolderError, SettingError
from codsa_ray.inspection import inspect_run, measures
from codsa_ray.pipeline import Report, run
from codsa_ray.report.inspection import lines, render, sentences

import runs
from report_sample import HOSTILE
from tables import mixed_table, schema_of

KEYS = ("c2st", "distance", "precision", "recall", "distinct", "entropy", "copies", "dcr", "membership")


def plane(rows: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> pa.Table:
    """Gaussian rows of two numbers; the label is always the same."""
    points = np.random.default_rng(seed).normal(shift, scale, size=(rows, 2))
    return pa.table({"x": points[:, 0], "y": points[:, 1], "label": pa.array(["a"] * rows)})


REAL, HELD, FRESH = plane(400, 0), plane(400, 1), plane(400, 2)
SCHEMA = schema_of(REAL, "label")


# --- coverage


def test_copies_have_precision_and_recall_1() -> None:
    table, schema, _ = mixed_table(300)
    found = coverage(table, table, table, schema, 0)
    assert (found["precision"], found["recall"], found["fresh"]) == (1, 1, 1)


def test_fresh_rows_have_the_precision_and_recall_of_held_out_rows() -> None:
    found = coverage(REAL, HELD, FRESH, SCHEMA, 0)
    assert found["precision"] == pytest.approx(found["fresh"], abs=0.04)
    assert found["recall"] == pytest.approx(found["fresh"], abs=0.04)
    assert found["fresh"] > 0.9


def test_rows_elsewhere_lack_precision_and_rows_of_one_place_lack_recall() -> None:
    two, between = pa.concat_tables([plane(200, 3, -4.0), plane(200, 4, 4.0)]), plane(400, 5, scale=0.5)
    assert coverage(two, HELD, between, SCHEMA, 0)["precision"] < 0.05
    assert coverage(two, HELD, plane(400, 6, 4.0), SCHEMA, 0)["precision"] > 0.9
    assert coverage(two, HELD, plane(400, 6, 4.0), SCHEMA, 0)["recall"] == pytest.approx(0.5, abs=0.05)
    assert coverage(REAL, HELD, plane(400, 3, scale=0.2), SCHEMA, 0)["recall"] < 0.4


def test_balls_reach_to_the_fifth_nearest_other_row() -> None:
    """By the definition, row by row (Kynkäänniemi et al. 2019, equation 1)."""
    real, drawn = REAL.slice(0, 60), plane(60, 5, shift=1.0)
    space = Space.of(real, SCHEMA)
    a, b = (np.column_stack(space.place(table).values.T) for table in (real, drawn))
    own, other = np.sort(cdist(a, a, "cityblock"))[:, NEIGHBOURS], cdist(a, b, "cityblock")
    wanted = np.mean([any(other[i, j] <= own[i] for i in range(60)) for j in range(60)])
    assert coverage(real, HELD, drawn, SCHEMA, 0)["precision"] == pytest.approx(wanted)


def test_too_few_rows_have_no_coverage() -> None:
    assert coverage(REAL, HELD, FRESH.slice(0, 2), SCHEMA, 0) == {"precision": None, "recall": None, "fresh": None}
    assert coverage(REAL, HELD.slice(0, 0), FRESH, SCHEMA, 0)["fresh"] is None


# --- membership


def test_members_are_known_by_copies_and_not_by_fresh_rows() -> None:
    copied, fresh = membership(REAL, HELD, REAL, SCHEMA, 0), membership(REAL, HELD, FRESH, SCHEMA, 0)
    assert copied is not None
    assert fresh is not None
    assert copied["auc"] > 0.98
    assert abs(fresh["auc"] - 0.5) < 3 * fresh["se"]
    assert (fresh["members"], fresh["others"]) == (400, 400)


def test_membership_of_fresh_rows_is_half_on_average_and_its_error_is_right() -> None:
    found = [membership(plane(60, 3 * s), plane(30, 3 * s + 1), plane(80, 3 * s + 2), SCHEMA, 0) for s in range(100, 160)]
    scores = [(one["auc"] - 0.5) / one["se"] for one in found if one]
    assert abs(np.mean(scores)) < 3 / np.sqrt(len(scores))
    assert np.std(scores) == pytest.approx(1, abs=0.25)


def test_the_error_is_that_of_the_two_sample_test_where_sides_are_alike() -> None:
    assert deviation(0.7, 200, 200) == pytest.approx(auc_error(0.7, 200))
    assert deviation(1.0, 10, 10) == pytest.approx(0.05)
    assert membership(REAL, HELD.slice(0, 1), FRESH, SCHEMA, 0) is None


# --- a region's line, the sentences, the table and the page


def region(name: str, drawn: pa.Table) -> dict[str, Any]:
    return {"name": name, "rows": 400, "held_out": 400, **measures(REAL, HELD, drawn, SCHEMA, 0)}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    one = FRESH.take([0] * len(FRESH))
    parts = {"copies": REAL, "fresh": FRESH, "elsewhere": plane(400, 3, scale=3.0), "one": one}
    generators = [{"name": name, "regions": [region(HOSTILE, drawn)]} for name, drawn in parts.items()]
    return {"target": HOSTILE, "folds": 2, "generators": generators, "sentences": sentences(generators), "notices": []}


def test_each_generator_is_told_by_its_signs(found: dict[str, Any]) -> None:
    said = found["sentences"]
    assert [s for s in said if s.startswith("fresh")] == ["fresh: nothing stands out."]
    assert any(s.startswith("copies: drawn rows give away") for s in said)
    assert any(s.startswith("copies: training rows are repeated") for s in said)
    assert any(s.startswith("elsewhere: rows are drawn where there are no real ones") for s in said)
    assert "one: values are less diverse than real ones in " + HOSTILE + "." in said
    copied, fresh, _, one = (generator["regions"][0] for generator in found["generators"])
    assert (copied["copies"], copied["dcr"]) == (1, 0)
    assert (one["distinct"], one["entropy"]) == (pytest.approx(1 / 400), 0)
    assert fresh["entropy"] == pytest.approx(fresh["entropy_real"], abs=0.1)
    assert fresh["dcr"] == pytest.approx(1, abs=0.25)
    assert fresh["c2st"] == pytest.approx(0.5, abs=0.08)


def test_the_table_has_a_line_per_region_and_a_number_per_measure(found: dict[str, Any]) -> None:
    printed = lines(found)
    assert printed[0] == "copies"
    assert printed[1].split()[:2] == ["region", "rows"]
    assert all(len(line) == len(printed[1]) for line in printed[1:3])


def test_the_page_escapes_names_runs_no_script_and_fetches_nothing(found: dict[str, Any]) -> None:
    page = render(found)
    assert HOSTILE not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    assert page.count("<figure>") == len(KEYS) * 4


# --- on a run


@pytest.fixture(scope="module")
def inspected(finished: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run after `codsa inspect`."""
    place = tmp_path_factory.mktemp("inspected") / "run"
    shutil.copytree(finished.folder, place)
    assert main(["inspect", str(place), "--workers", "2"]) == 0
    return place


def test_a_run_s_generators_are_measured_in_every_region(inspected: Path, finished: Report) -> None:
    value = json.loads((inspected / "inspect.json").read_text())
    assert [generator["name"] for generator in value["generators"]] == ["bootstrap", "sequential_trees"]
    for generator in value["generators"]:
        assert [line["name"] for line in generator["regions"]] == ["state=sick", "state=well"]
        for line in generator["regions"]:
            assert all(line[key] is not None for key in set(KEYS) - {"c2st"})
    trees = value["generators"][1]["regions"][1]
    assert trees["held_out"] == trees["rows"]
    assert "What the generators learned" in (inspected / "inspect.html").read_text()
    before, after = runs.contents(finished.folder), runs.contents(inspected)
    changed = {name for name in after if before.get(name) != after[name] and not name.startswith("pools")}
    assert changed <= {"inspect.json", "inspect.html", ".lock"}


def test_a_second_look_draws_nothing_and_finds_the_same(inspected: Path) -> None:
    before = runs.contents(inspected / "pools")
    found = inspect_run(str(inspected))
    assert json.loads(json.dumps(found)) == json.loads((inspected / "inspect.json").read_text())
    assert runs.contents(inspected / "pools") == before


def test_copies_in_a_region_of_thousands_are_all_found(here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The region has more rows than are compared: a copy of any of them is one, and distances say what they are to."""
    monkeypatch.setattr("codsa_ray.report.facts.AUDIT_ROWS", 100)
    monkeypatch.setattr("codsa_ray.inspection.MOST_REAL", 300)
    data = runs.written(tmp_path, runs.patients(4_000))
    report = run(runs.job(data, tmp_path / "run", generator=("bootstrap",), trials=1, draws=1))
    (told,) = inspect_run(report.folder)["generators"]
    common = told["regions"][-1]
    assert common["rows"] > 2_000
    assert common["drawn"] == 1_000
    assert common["looked_at"] <= 300
    assert [(line["copies"], line["copies_fresh"]) for line in told["regions"]] == [(1, 0), (1, 0)]
    privacy = json.loads((Path(report.folder) / "report.json").read_text())["privacy"]
    assert privacy["points"] < 500
    assert (privacy["copies"], privacy["copies_held_out"]) == (1, 0)


def test_one_generator_can_be_asked_for_and_an_unknown_one_is_refused(inspected: Path, tmp_path: Path) -> None:
    assert [generator["name"] for generator in inspect_run(str(inspected), "bootstrap")["generators"]] == ["bootstrap"]
    with pytest.raises(SettingError, match="bootstrap, sequential_trees"):
        inspect_run(str(inspected), "smogn")
    with pytest.raises(FolderError):
        inspect_run(str(tmp_path))


def test_learned_strata_and_measured_allocators_make_a_whole_pass(here: None, tmp_path: Path) -> None:
    """From the command line: regions are strata, plans lean to them, and inspection tells them apart."""
    data = runs.written(tmp_path, runs.patients(400))
    asked = [
        "--generator",
        "bootstrap:jitter=0.2",
        "--learner",
        "logistic",
        "--trials",
        "3",
        "--draws",
        "1",
        "--folds",
        "2",
        "--repeats",
        "1",
    ]
    cut = ["--strata", "sparse:share=0.3,least=15", "--allocator", "density:power=2", "--force", "--workers", "2"]
    assert main(["augment", data, "--target", "state", "--out", str(tmp_path / "run"), *asked, *cut]) == 0
    facts = json.loads((tmp_path / "run" / "report.json").read_text())
    assert facts["job"]["strata"].startswith("sparse(share=0.3")
    drawn = facts["verdict"]["plan"]["regions"]
    assert {"state=sick / stratum 0", "state=sick / stratum 1"} <= set(drawn)
    found = inspect_run(str(tmp_path / "run"))
    assert len(found["generators"][0]["regions"]) == 4

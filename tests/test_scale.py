"""`codsa scaling` on a finished run: scored once, drawn in the report, kept, and refused where there is nothing to study."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from codsa_ray import scale
from codsa_ray.cli import main
from codsa_ray.errors import FolderError, SettingError, ShortOfRows
from codsa_ray.pipeline import Report, rewrite_report, run
from codsa_ray.scale import STEPS, scaling
from codsa_ray.stages import synthesize

import runs


@pytest.fixture(scope="module")
def studied(finished: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run after `codsa scaling`."""
    place = tmp_path_factory.mktemp("studied") / "run"
    shutil.copytree(finished.folder, place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codsa_ray.stages.search._tune", runs.tries_here)
        assert main(["scaling", str(place), "--workers", "2"]) == 0
    return place


def test_the_series_doubles_from_none_to_twice_the_rows(studied: Path) -> None:
    found = json.loads((studied / "scaling.json").read_text())
    added = [point["added"] for point in found["points"]]
    assert len(added) == len(STEPS)
    assert added[0] == 0
    assert added[-1] == 2 * found["rows"]
    assert all(abs(b - 2 * a) <= 1 for a, b in pairwise(added[1:]))
    assert found["points"][0]["change"] == 0
    assert found["line"][-1][0] == 2 * added[-1]


def test_the_report_shows_it_and_nothing_else_of_the_run_changes(studied: Path, finished: Report) -> None:
    page, facts = (studied / "report.html").read_text(), json.loads((studied / "report.json").read_text())
    assert 'id="scaling"' in page
    assert facts["scaling"] == json.loads((studied / "scaling.json").read_text())
    assert all(sentence in page for sentence in facts["scaling"]["sentences"][1:2])
    before, after = runs.contents(finished.folder), runs.contents(studied)
    changed = {name for name in after if before.get(name) != after[name] and not name.startswith(("scaling", "pools"))}
    assert changed <= {"report.json", "report.html", ".lock"}
    assert 'id="scaling"' not in Path(finished.path).read_text()


def test_what_was_scored_is_kept(studied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codsa_ray.stages.search.run_candidate", lambda *_: pytest.fail("tried again"))
    before = runs.contents(studied / "scaling")
    assert json.loads(json.dumps(scaling(str(studied)))) == json.loads((studied / "scaling.json").read_text())
    assert runs.contents(studied / "scaling") == before


def test_a_study_of_other_scores_is_not_shown(studied: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    shutil.copytree(studied, place)
    value = json.loads((place / "scaling.json").read_text())
    (place / "scaling.json").write_text(json.dumps({**value, "judged_by": "another"}))
    assert "scaling" not in rewrite_report(str(place)).facts


def test_an_unknown_generator_and_an_unfinished_run_are_refused(studied: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="a generator that the run fitted: bootstrap, sequential_trees"):
        scaling(str(studied), "interpolation")
    with pytest.raises(FolderError):
        scaling(str(tmp_path))


def test_a_run_without_trials_is_studied_with_its_first_generator(here: None, tmp_path: Path) -> None:
    job = runs.job(runs.written(tmp_path, runs.patients()), tmp_path / "run", trials=0, generator=("bootstrap:jitter=0.1",), force=False)
    run(job)
    found = scaling(str(tmp_path / "run"))
    assert (found["generator"], found["draws"]) == ("bootstrap", 1)
    assert len(found["sentences"]) == 4


def test_a_generator_that_falls_short_is_studied_as_far_as_its_pools_go(
    studied: Path, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    shutil.copytree(studied, place)
    shutil.rmtree(place / "scaling")
    shutil.rmtree(place / "pools")
    monkeypatch.setattr(synthesize, "FEW_ROWS", 1_000_000)
    monkeypatch.setattr(scale, "MOST", 20.0)
    monkeypatch.setattr(scale, "STEPS", (0.0, 0.02, 0.04, 0.06, 0.5, 1.0))
    drawn = synthesize.Drawer.__call__

    def short(self: synthesize.Drawer, task: synthesize.ShardTask) -> dict[str, object]:
        late = any(segment.start > 0 for segment in task.shard.segments)
        return {"short": "ShortOfRows: made up"} if late else drawn(self, task)

    monkeypatch.setattr(synthesize.Drawer, "__call__", short)
    found = scaling(str(place))
    assert found["sentences"][-1] == "larger plans were left out: ShortOfRows: made up"
    assert scale.LEAST_POINTS <= len(found["points"]) < len(STEPS)
    monkeypatch.setattr(scale, "LEAST_POINTS", 6)
    with pytest.raises(ShortOfRows, match="made up"):
        scaling(str(place))

"""A base that a run folder names is read from this machine alone; what the command line names may be fetched."""

import shutil
from pathlib import Path

import pytest

from codsa_ray.errors import SettingError
from codsa_ray.fitdata import FitData
from codsa_ray.folder import Folder
from codsa_ray.generators.language_model import LanguageModel
from codsa_ray.hub import held, unfetched
from codsa_ray.pipeline import Report, rewrite_report
from codsa_ray.plugins import make, restore, settings_of

import bases
from tables import LocalWorker, mixed_table

NAMED = "someone/any-model"


@pytest.fixture(autouse=True)
def nothing_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("folder", "name"), [("generators", "text_lm"), ("generators", "image_diffusion"), ("learners", "sentence"), ("learners", "convnet")]
)
def test_a_stored_job_fetches_no_base(folder: str, name: str, nothing_held: Path) -> None:
    asked = make(folder, f"{name}:base={NAMED}")
    with pytest.raises(SettingError, match=r"any-model.*codsa augment"):
        restore(folder, name, settings_of(asked))
    snapshot = nothing_held / "models--someone--any-model" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    assert not held(NAMED), "a fetch that broke off"
    (snapshot / "config.json").touch()
    assert restore(folder, name, settings_of(asked)) == asked


def test_a_folder_is_a_base_and_one_that_is_gone_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report can be written again where the base is not: nothing is fetched by a path."""
    (tmp_path / "models" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert unfetched("models/small") == "models/small"
    assert unfetched("/models/nowhere/small") == "/models/nowhere/small"
    shutil.rmtree(tmp_path / "models")
    with pytest.raises(SettingError, match="on this machine"):
        unfetched("models/small")


def test_a_fitted_folder_that_names_another_base_fetches_none(tmp_path: Path) -> None:
    settings, place = LanguageModel(base=bases.base(), steps=1, batch=4, block=16, held_out=0.0, lora=4), Folder(str(tmp_path / "fit"))
    settings.fit(FitData.of(*mixed_table(40), 1), LocalWorker(place))
    assert LanguageModel(block=4).load(place), "its own base, a folder"
    meta = place.read_json("rows.json")
    place.write_json("rows.json", meta | {"settings": meta["settings"] | {"base": NAMED}})
    with pytest.raises(SettingError, match="on this machine"):
        LanguageModel().load(place)
    assert settings.load(place), "the base that is given"


def test_a_report_of_a_folder_that_names_a_base_of_the_hub_ends_before_anything_is_read(finished: Report, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    out = Folder(str(tmp_path / "run"))
    out.write_json("job.json", out.read_json("job.json") | {"learner": {"name": "sentence", "settings": {"base": NAMED}}})
    with pytest.raises(SettingError, match="on this machine"):
        rewrite_report(out.address)

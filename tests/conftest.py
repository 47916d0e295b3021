"""One embedded Ray, one finished run, and a folder for another Ray's logs, for all tests that need them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from codsa_ray.pipeline import Report, run
from codsa_ray.stages import fit, search
from codsa_ray.stages.cluster import connect

import runs

# A shared machine's hiccup is no failure, and a failure must come again.
settings.register_profile("codsa", deadline=None, derandomize=True)
settings.load_profile("codsa")


@pytest.fixture(scope="session")
def ray() -> Iterator[None]:
    """Started once; every run in the session attaches to it."""
    import ray as library

    # Workers import the doubles by name: only the working folder and the script's own travel to them.
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    connect(None, 2)
    yield
    library.shutdown()


@pytest.fixture(scope="session")
def finished(ray: None, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A whole pass over `runs.patients` with Ray; tests look at its folder and leave it as it is."""
    place = tmp_path_factory.mktemp("finished")
    return run(runs.job(runs.written(place, runs.patients()), place / "run"))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, ray: None) -> None:
    """Fits and trials run in this process: for claims that do not depend on where they run."""
    monkeypatch.setattr(fit, "_run", runs.fits_here)
    monkeypatch.setattr(search, "_tune", runs.tries_here)


@pytest.fixture
def logs() -> Iterator[Path]:
    """A folder for Ray's own logs; its sockets need a short path."""
    place = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield place
    shutil.rmtree(place, ignore_errors=True)

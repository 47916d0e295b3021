"""Manifests: the file a stage writes last, with the fingerprint of all it depended on; knows no stage."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from codsa_ray.errors import FolderError
from codsa_ray.folder import TEMPORARY, Folder
from codsa_ray.lease import leased
from codsa_ray.seeds import fingerprint

MANIFEST = "manifest.json"
MARK = "codsa.json"
FORMAT = 1
SCRATCH = "codsa-"
REHEARSAL = ".dry-run-"


@dataclass(frozen=True)
class Manifest:
    """One stage's (or one part of a stage's) completion mark.

    Args:
        folder: what the stage writes.
        fingerprint: of everything the result depends on: inputs by hash, settings, the stage's own version.
    """

    folder: Folder
    fingerprint: str
    started: float = field(default_factory=time.perf_counter, compare=False)

    @staticmethod
    def of(folder: Folder, depends: Any) -> "Manifest":
        """By the JSON value of everything the result depends on."""
        return Manifest(folder, fingerprint(depends))

    def read(self) -> dict[str, Any] | None:
        """What the finished stage stored, or None when it has to run (again)."""
        stored = stored_in(self.folder)
        return stored if stored.get("fingerprint") == self.fingerprint else None

    def clear(self) -> None:
        """Takes the mark away: call it before anything the stage wrote is deleted, so that no kill leaves a mark on half of it."""
        self.folder.delete(MANIFEST)

    def write(self, **facts: Any) -> dict[str, Any]:
        """Marks the stage as finished; call it last."""
        stored = {"fingerprint": self.fingerprint, "seconds": round(time.perf_counter() - self.started, 3), **facts}
        self.folder.write_json(MANIFEST, stored)
        return stored


def stored_in(folder: Folder) -> dict[str, Any]:
    """What a finished stage stored, whatever that depended on. A mark that is not there or cannot be read vouches for nothing."""
    if not folder.exists(MANIFEST):
        return {}
    try:
        stored = folder.read_json(MANIFEST)
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


@contextmanager
def claimed(out: Folder) -> Iterator[None]:
    """`out` made a run folder of ours and this process's alone for the block; what held it goes with the process, however that ends.

    Raises:
        FolderError: the folder holds something else, cannot be written, or another run is using it.
    """
    # What a dry run left that was killed stands in nobody's way.
    names = [name for name in out.names() if not name.startswith(REHEARSAL)]
    if names and MARK not in names:
        raise FolderError("an empty folder or one of this program's runs", f"{out.shown} with {names[0]}", "choose another --out")
    if out.remote:
        _mark(out, names)
        with leased(out):
            yield
        return
    lock = _locked(out)
    try:
        # The lock is ours: half-written files were left by a run that was killed.
        for left in Path(out.local()).rglob(f"{TEMPORARY}*"):
            left.unlink(missing_ok=True)
        _mark(out, names)
        yield
    finally:
        lock.release()


def _mark(out: Folder, names: list[str]) -> None:
    if MARK not in names:
        out.write_json(MARK, {"format": FORMAT})


def _locked(out: Folder) -> FileLock:
    try:
        os.makedirs(out.local(), exist_ok=True)
        lock = FileLock(os.path.join(out.local(), ".lock"))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(
            "a run folder nobody is using", f"{out.shown}, locked by another run", "wait for it or choose another --out"
        ) from error
    except OSError as error:
        raise FolderError("a folder that can be written", f"{out.shown}: {error.strerror}", "choose another --out") from error
    return lock


@contextmanager
def scratch(out: Folder) -> Iterator[str]:
    """A folder on this machine that goes with the block; `out` is claimed."""
    mine = f"{SCRATCH}{fingerprint(out.address)}-"
    _sweep(Path(tempfile.gettempdir()), mine)
    place = tempfile.mkdtemp(prefix=mine)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def scratch_here(place: Path) -> None:
    """Makes the driver's `scratch` on another machine, where nobody takes it away but the next run of the same folder."""
    mine, mark, _ = place.name.rpartition("-")
    fresh = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    if fresh and mine.startswith(SCRATCH):
        _sweep(place.parent, mine + mark, place)


def _sweep(place: Path, mine: str, kept: Path | None = None) -> None:
    # The run's folder is ours: what lies here was left by one that is over.
    for left in set(place.glob(f"{mine}*")) - {kept}:
        shutil.rmtree(left, ignore_errors=True)


def rehearsal(out: Folder) -> Folder:
    """A folder below `out` for one dry run; it claims nothing."""
    return out / f"{REHEARSAL}{secrets.token_hex(4)}"


def check_run(run: Folder) -> Folder:
    """The folder, if it is one of this program's runs.

    Raises:
        FolderError: it is not.
    """
    if not run.exists(MARK):
        raise FolderError("a run folder", f"{run.shown} without {MARK}", "name the --out of a `codsa augment`")
    return run

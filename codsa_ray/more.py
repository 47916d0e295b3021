"""More rows of a region from a finished run, by name; knows how a run names its plug-ins, not how rows are drawn."""

import os
from typing import Any

from codsa_ray.contracts import Progress, silent
from codsa_ray.errors import FolderError, SettingError
from codsa_ray.folder import Folder
from codsa_ray.manifest import MANIFEST, check_run
from codsa_ray.plugins import identity, restore
from codsa_ray.stages.cluster import connect
from codsa_ray.stages.more import draw_more


def synthesize_more(
    run_folder: str,
    region: str,
    count: int,
    to: str,
    generator: str | None = None,
    seed: int | None = None,
    address: str | None = None,
    workers: int | None = None,
    gpus: float = 0.0,
    progress: Progress = silent,
) -> str:
    """Draws `count` more rows of a region from a finished run's final generator, in DATA's own columns.

    Args:
        run_folder: of a finished run.
        region: as the report names it.
        count: rows, exactly.
        to: new folder for part-*.parquet.
        generator: one of the run's; that of the rows it wrote, or its first, when left out.
        seed: of the draw; left out, rows that the run itself did not draw.

    Returns:
        One line: rows and where they lie.

    Raises:
        SettingError: no such region or generator. FolderError: not a finished run, or `to` holds something.
    """
    out = check_run(Folder(run_folder).absolute)
    job = out.read_json("job.json")
    if count < 1:
        raise SettingError("--rows of at least 1", str(count), "give a larger number")
    plugin = _generator(job, generator, (out / "apply").read_json(MANIFEST)["generator"])
    strata = restore("strata", job["strata"]["name"], job["strata"]["settings"])
    target = Folder(to).absolute
    if target.names():
        raise FolderError("an empty folder", f"{target.shown} with {target.names()[0]}", "choose another --out")
    connect(address, workers)
    written = draw_more(out, plugin, strata, region, count, target, seed, workers or os.cpu_count() or 1, gpus, progress)
    return f"{written:,} rows of {region} in {target.shown}"


def _generator(job: dict[str, Any], name: str | None, shipped: str) -> Any:
    """The run's generator of that name; without one, that of the shipped rows (an identity, or ""), or the first."""
    known = [(entry["name"], entry["settings"]) for entry in job["generator"]]
    names = list(dict.fromkeys(known_name for known_name, _ in known))
    if name is not None and name not in names:
        raise SettingError(f"one of the run's generators: {', '.join(names)}", repr(name), "name one of them")
    wanted = name or shipped.rpartition("-")[0] or names[0]
    found = [restore("generators", wanted, settings) for known_name, settings in known if known_name == wanted]
    return next((plugin for plugin in found if identity(plugin) == shipped), found[0])

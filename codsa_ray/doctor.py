"""Doctor: what this machine has and what is wrong with it; changes nothing."""

import importlib.metadata as metadata
import os
import platform
import shutil
import tempfile

from codsa_ray.errors import CodsaError
from codsa_ray.folder import Folder

PACKAGES = (
    "codsa-ray",
    "ray",
    "torch",
    "pyarrow",
    "pandas",
    "numpy",
    "scikit-learn",
    "imbalanced-learn",
    "xgboost",
    "optuna",
    "diffusers",
    "transformers",
    "peft",
)
LOW_DISK = 2 * 2**30


def examine(address: str | None, paths: list[str]) -> tuple[list[str], bool]:
    """Lines to print, and whether all is well.

    Args:
        address: a Ray address to try; None starts an embedded Ray for a moment.
        paths: folders or object store addresses to try.
    """
    lines = [f"python       {platform.python_version()} on {platform.machine()}"]
    wrong: list[str] = []
    for package in PACKAGES:
        try:
            lines.append(f"{package:<12} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            wrong.append(f"{package} is not installed; python -m pip install -c constraints.txt . (in the folder of pyproject.toml)")
    lines += _machine(wrong)
    lines += _ray(address, wrong)
    for path in paths:
        lines += _path(path, wrong)
    lines += [f"WRONG        {text}" for text in wrong] or ["all well"]
    return lines, not wrong


def _machine(wrong: list[str]) -> list[str]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    if disk < LOW_DISK:
        wrong.append(f"{disk / 2**30:.1f} GiB free in {tempfile.gettempdir()}; Ray and the search's cache want {LOW_DISK / 2**30:.0f}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        f"cores        {os.cpu_count()}",
        f"memory       {memory / 2**30:.1f} GiB",
        f"disk         {disk / 2**30:.1f} GiB free for temporary files",
        f"GPUs         {', '.join(gpus) or 'none'}",
    ]


def _ray(address: str | None, wrong: list[str]) -> list[str]:
    from codsa_ray.stages.cluster import connect, resources

    try:
        connect(address)
    except CodsaError as error:
        wrong.append(str(error))
        return []
    found = resources()
    return [
        f"Ray          {address or 'embedded'}: {found.get('CPU', 0):g} CPUs, {found.get('GPU', 0):g} GPUs, {found.get('nodes', 0):g} nodes"
    ]


def _path(path: str, wrong: list[str]) -> list[str]:
    folder = Folder(path)
    try:
        present = folder.exists()
        found = len(folder.names()) if present else 0
    except (CodsaError, OSError) as error:
        wrong.append(f"{folder.shown} cannot be reached: {' '.join(str(error).split())}")
        return []
    return [f"path         {folder.shown}: {f'{found} entries' if present else 'reachable, nothing there yet'}"]

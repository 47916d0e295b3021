"""Hub: names of models in a hub and whether this machine holds them; knows no model and reads none."""

import os
import re
from pathlib import Path

from codsa_ray.errors import SettingError

NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""Of a model of the hub. A folder may bear such a name too, relative to where the command is given."""


def cache() -> Path:
    """Where the hub's libraries keep what they fetched."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def held(name: str) -> bool:
    """Whether the hub's cache has files of the model."""
    return any((cache() / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/*"))


def unfetched(base: str) -> str:
    """A base as a run folder names it. A folder may come from anyone: only what a command line names is fetched.

    Raises:
        SettingError: it would have to be fetched.
    """
    if NAME.fullmatch(base) and not os.path.isdir(base) and not held(base):
        wanted = "a base that is on this machine: a run folder's own word fetches none"
        raise SettingError(wanted, repr(base), "fetch it first, or give the run's `codsa augment` again, which names it")
    return base

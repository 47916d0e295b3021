"""Plug-ins by name, found by walking the package's own folders; knows none of them by name and imports no path from data."""

import difflib
import importlib
import pkgutil
import re
from ast import literal_eval
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from codsa_ray.errors import SettingError
from codsa_ray.hub import unfetched
from codsa_ray.seeds import fingerprint

FOLDERS = ("generators", "strata", "allocators", "learners")


def names(folder: str) -> list[str]:
    """Names of the plug-ins in `codsa_ray/<folder>`, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent / folder)]))


def make(folder: str, text: str) -> Any:
    """The plug-in that `text` names: `NAME` or `NAME:setting=value,setting=value` (values are Python literals).

    Raises:
        SettingError: no such plug-in, setting, or value; nearest names offered.
    """
    name, _, rest = text.partition(":")
    known = names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4) or known
        raise SettingError(f"one of the {folder}: {', '.join(known)}", repr(name), f"did you mean {' or '.join(near)}?")
    plugin = _class(folder, name)
    parse = getattr(plugin, "parse", None)
    if parse is not None:
        return parse(rest)
    return _settings(plugin, name, rest)


def taking(folder: str, kinds: frozenset[str]) -> list[str]:
    """Names of the plug-ins that handle all these kinds of columns with their default settings."""
    found = []
    for name in names(folder):
        try:
            plugin = make(folder, name)
        except SettingError:  # one that has no defaults
            continue
        if kinds <= plugin.needs.kinds:
            found.append(name)
    return found


def _class(folder: str, name: str) -> Any:
    module = importlib.import_module(f"codsa_ray.{folder}.{name}")
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))


def _settings(plugin: Any, name: str, rest: str) -> Any:
    known = [field.name for field in fields(plugin)]
    settings: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            near = difflib.get_close_matches(key, known, 1) or known
            raise SettingError(f"a setting of {name}: {', '.join(known)}", repr(key), f"did you mean {near[0] if near else 'none'}?")
        try:
            settings[key] = literal_eval(value)
        except (ValueError, SyntaxError):
            settings[key] = value
    try:
        return plugin(**settings)
    except (TypeError, ValueError) as error:
        raise SettingError(f"settings of {name}", rest, str(error)) from error


def name_of(plugin: Any) -> str:
    """The name a plug-in instance goes by: its class's in small letters, which is its module's last word among the package's own."""
    return re.sub("(?<!^)(?=[A-Z])", "_", type(plugin).__name__).lower()


def settings_of(plugin: Any) -> dict[str, Any]:
    """Plain settings of an instance (a frozen dataclass), for manifests and fingerprints."""
    assert is_dataclass(plugin), "a plug-in is a frozen dataclass"
    return {field.name: getattr(plugin, field.name) for field in fields(plugin)}


def identity(plugin: Any) -> str:
    """A short name that changes with any setting: `name-1a2b3c4d`."""
    return f"{name_of(plugin)}-{fingerprint([name_of(plugin), settings_of(plugin)])[:8]}"


def as_fitted(generator: Any) -> Any:
    """The generator with the defaults of what its fit does not depend on (`Needs.drawing`)."""
    drawing = generator.needs.drawing
    return (
        replace(generator, **{field.name: field.default for field in fields(generator) if field.name in drawing}) if drawing else generator
    )


def restore(folder: str, name: str, settings: dict[str, Any]) -> Any:
    """An instance from what a run folder stored: the name is looked up among the package's own files, never imported.

    Raises:
        SettingError: the name is not one of the package's, or the base is a hub's that is not on this machine.
    """
    if name not in names(folder) or hasattr(_class(folder, name), "parse"):
        # A plug-in that parses takes an import path: that may come from the command line only.
        raise SettingError(f"one of the package's {folder}", repr(name), "the run used a plug-in of its own: use the Python API")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    if values.get("base") is not None:
        unfetched(str(values["base"]))
    return _class(folder, name)(**values)

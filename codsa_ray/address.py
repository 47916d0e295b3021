"""An address: the files that a path, a folder or a glob names on any pyarrow filesystem; knows no format."""

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from codsa_ray.errors import InputError
from codsa_ray.filesystem import filesystem_of, is_remote, said, told


def files(address: str) -> list[pafs.FileInfo]:
    """The files, by path; of a folder all inside it but those whose names start with `_` or `.`; empty when nothing is there.

    Raises:
        InputError: files that keep columns in the names of their folders; names that are not UTF-8.
    """
    try:
        filesystem, path = filesystem_of(address)
        info = filesystem.get_file_info(path)
        found = [info] if info.type != pafs.FileType.NotFound else _matching(filesystem, path)
        inside = {file.path: file for info in found for file in _inside(filesystem, info)}
    except UnicodeError as error:
        named: Any = getattr(error, "object", address)
        raise InputError("names of files in UTF-8", ascii(named)[:200], "rename what is named so") from error
    return [inside[path] for path in sorted(inside)]


def _inside(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> list[pafs.FileInfo]:
    if info.type != pafs.FileType.Directory:
        return [info]
    found = []
    for file in filesystem.get_file_info(pafs.FileSelector(info.path, recursive=True)):
        names = file.path.removeprefix(info.path).strip("/").split("/")
        if file.type == pafs.FileType.Directory or any(name[0] in "._" for name in names):
            continue
        if any("=" in name for name in names[:-1]):
            raise InputError("every column inside the files", f"one in a folder's name: {'/'.join(names)}", "write it into the files")
        found.append(file)
    return found


def _matching(filesystem: pafs.FileSystem, pattern: str) -> list[pafs.FileInfo]:
    """What matches the glob, one path segment after another, so that only folders on the way are listed."""
    names = pattern.split("/")
    first = next((index for index, name in enumerate(names) if re.search(r"[*?[]", name)), None)
    if first is None:
        info = filesystem.get_file_info(pattern)
        return [] if info.type == pafs.FileType.NotFound else [info]
    base, name, rest = "/".join(names[:first]), names[first], names[first + 1 :]
    listed = filesystem.get_file_info(pafs.FileSelector(base or "/", allow_not_found=True, recursive=name == "**"))
    if name == "**":
        below = [info.path for info in listed if info.type == pafs.FileType.Directory]
        folders = [base, *(path for path in below if not any(part[0] in "._" for part in path.removeprefix(base).strip("/").split("/")))]
        return [found for folder in folders for found in _matching(filesystem, "/".join([folder, *(rest or ["*"])]))]
    fits = [info for info in listed if fnmatch.fnmatchcase(info.base_name, name) and info.base_name[0] not in "._"]
    if not rest:
        return fits
    folders = [info.path for info in fits if info.type == pafs.FileType.Directory]
    return [found for folder in folders for found in _matching(filesystem, "/".join([folder, *rest]))]


@contextmanager
def explained(shown: str, address: str) -> Iterator[None]:
    """Turns what a filesystem or a parquet reader raises into one line without credentials."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError("a file that is there", shown, "check the path") from error
    except PermissionError as error:
        raise InputError("a file that may be read", shown, "check its permissions") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if "filesystem type" in str(error) or (isinstance(error, OSError) and is_remote(address)):
            raise InputError(*told(error, shown, address)) from error
        raise InputError("a whole, readable file", f"{shown}: {said(error, address)}", "write or copy it again") from error

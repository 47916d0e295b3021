"""An address: the files that a path, a folder or a glob names on any pyarrow filesystem; knows no format."""

import fnmatch
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from codsa_ray.errors import InputError
from codsa_ray.folder import Folder


@lru_cache(maxsize=8)
def filesystem_of(address: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem and the path in it, which may be a glob."""
    if not Folder(address).remote:
        return pafs.LocalFileSystem(), os.path.abspath(address.removeprefix("file://"))
    parts = urlsplit(address, allow_fragments=False)
    # Only the root goes through pyarrow, which would refuse the glob as a URI.
    filesystem, root = pafs.FileSystem.from_uri(parts._replace(path="/").geturl())
    return filesystem, f"{root.rstrip('/')}/{unquote(parts.path).lstrip('/')}".rstrip("/")


def files(address: str) -> list[pafs.FileInfo]:
    """The files, by path; of a folder all inside it but those whose names start with `_` or `.`; empty when nothing is there.

    Raises:
        InputError: files that keep columns in the names of their folders.
    """
    filesystem, path = filesystem_of(address)
    info = filesystem.get_file_info(path)
    found = [info] if info.type != pafs.FileType.NotFound else _matching(filesystem, path)
    inside = {file.path: file for info in found for file in _inside(filesystem, info)}
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
        folders = [base, *(info.path for info in listed if info.type == pafs.FileType.Directory)]
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
        wanted, do = "a whole, readable file", "write or copy it again"
        if "filesystem type" in str(error):
            wanted, do = "an address pyarrow can open", "give a path, or s3://, gs://, hdfs:// ..."
        elif isinstance(error, OSError) and Folder(address).remote:
            wanted, do = "a file within reach", "check the address and the network"
        raise InputError(wanted, f"{shown}: {_reason(error, address)}", do) from error


def _reason(error: BaseException, address: str) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    parts = urlsplit(address) if "://" in address else None
    for secret in (parts.netloc.rpartition("@")[0], parts.password, parts.username) if parts else ():
        for spelled in {secret, unquote(secret or "")} - {"", None}:
            text = text.replace(str(spelled), "***")
    return text

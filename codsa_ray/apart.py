"""Apart: a run folder that does not lie where DATA is read, so that no run reads its own output; reads nothing."""

import re
from pathlib import Path

from codsa_ray.errors import FolderError


def check_apart(out: str, *addresses: str | None) -> None:
    """Raises FolderError where the run folder `out` lies inside an address that is read."""
    for address in filter(None, addresses):
        place = _read_below(address)
        if "://" in place or "://" in out:
            inside = f"{out}/".startswith(f"{place.rstrip('/')}/")
        else:
            data, run = Path(place).resolve(), Path(out).resolve()
            inside = data.is_dir() and (run == data or data in run.parents)
        if inside:
            raise FolderError("an --out outside DATA", f"{out} inside {address}", "choose another --out")


def _read_below(address: str) -> str:
    """The folder below which all may be read: the address, or what stands before the first wildcard of one with `**`."""
    if "**" not in address:
        return address
    head, slash, _ = re.split(r"[*?[]", address, maxsplit=1)[0].rpartition("/")
    return head or slash or "."

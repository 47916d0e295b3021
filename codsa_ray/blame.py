"""Blame: whether what went wrong in a method's own code is the method's fault or the machine's; knows no method and no stage."""

import re
from concurrent.futures import BrokenExecutor

from codsa_ray.errors import MachineError

LACKS = re.compile(
    r"out of memory|bad_alloc|(can't|can not|cannot|unable to) allocate|can't start new thread|no space left on device|too many open files"
    r"|resource temporarily unavailable|cuda error(?!: device-side assert)|no cuda-capable device|cuda driver"
    r"|c(ublas|udnn|usolver|usparse)_status_(alloc_failed|not_initialized|internal_error|execution_failed)",
    re.IGNORECASE,
)
"""What libraries say in a RuntimeError or a ValueError of their own. A device-side assert is an index that the method got wrong."""
LOST = re.compile(r"\bnccl\b|\bgloo\b|connection (closed|reset|refused)|broken pipe|timed out waiting", re.IGNORECASE)
"""What a process says that waited for another one in vain."""
SHORT, ALONE = "torch.OutOfMemoryError", "torch.distributed.DistError"
"""Types by name: here nothing is known of torch."""


def why(error: Exception) -> str:
    """The method's failure in one line.

    Raises:
        MachineError: the machine failed, and not the method.
    """
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if lacking(error) or waiting(error):
        raise MachineError(f"the machine failed, and not the method: {said}; run again when mended, finished parts are kept") from error
    return said


def lacking(error: BaseException) -> bool:
    """True where the machine lacked memory, threads, room or a working device."""
    return any(isinstance(one, MemoryError | BrokenExecutor) or _is(one, SHORT) or LACKS.search(str(one)) for one in _chain(error))


def waiting(error: BaseException) -> bool:
    """True where another process of the same fit was lost: what that one says comes first."""
    return any(_is(one, ALONE) or (isinstance(one, RuntimeError) and LOST.search(str(one))) for one in _chain(error))


def _is(error: BaseException, name: str) -> bool:
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(error).__mro__)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from: a learner tells of its library's in its own words."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__
    return found

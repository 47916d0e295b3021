"""A cell's own process, ended with all that it started when its time is up; knows no benchmark."""

import os
import signal
import subprocess
from collections.abc import Sequence


def ended(command: Sequence[str], limit: float) -> str:
    """Runs a command.

    Returns:
        "" where it ended well, else the last line that it said of what is wrong.

    Raises:
        TimeoutError: it was not done after `limit` seconds; it and its children are killed.
    """
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            said = child.communicate(timeout=limit)[1]
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise TimeoutError(f"not done after {limit:.0f} s") from error
            raise
    return (said.strip().splitlines() or [f"exit code {child.returncode}"])[-1] if child.returncode else ""

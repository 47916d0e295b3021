"""A cell's process leaves nothing behind when its time is up."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.child import ended

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(300)
"""


def test_what_a_cell_started_is_ended_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    with pytest.raises(TimeoutError, match="not done after 5 s"):
        ended([sys.executable, "-c", PARENT, str(told)], 5)
    child, until = int(told.read_text()), time.monotonic() + 60
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.1)
    assert time.monotonic() < until


def test_the_last_line_says_what_is_wrong() -> None:
    assert ended([sys.executable, "-c", "print('fine')"], 60) == ""
    assert ended([sys.executable, "-c", "raise ValueError('no rows')"], 60) == "ValueError: no rows"
    assert ended([sys.executable, "-c", "import os; os._exit(3)"], 60) == "exit code 3"

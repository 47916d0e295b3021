"""Heartbeat: how far a run is, told in a file of its folder and in log lines; knows no stage's inside."""

import json
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from codsa_ray.clock import Pace
from codsa_ray.contracts import Progress
from codsa_ray.errors import CodsaError, OutOfTime
from codsa_ray.folder import Folder

PROGRESS = "progress.json"
EVERY, REMOTE_EVERY = 1.0, 20.0  # seconds between two writes: a put on an object store costs money
ALIVE = 20.0  # seconds after which it says that it is there, whether or not a stage had a word to say: a fit may take an hour
LOG = logging.getLogger("codsa_ray")


@dataclass
class Heartbeat:
    """A progress that passes on what it is told, writes it down, logs it, and ends a run whose time is up.

    Args:
        out: the run folder.
        told: who else wants to know.
        hours: after so many the next call raises OutOfTime; 0 never does.
    """

    out: Folder
    told: Progress
    hours: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    at: dict[str, Any] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    lock: threading.Lock = field(default_factory=threading.Lock)
    written: float = -REMOTE_EVERY

    @property
    def until(self) -> float:
        """When, by time.perf_counter, the hours are over."""
        return self.started + 3600 * self.hours if self.hours else math.inf

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total`; a total of 0 makes the note a remark: a stage's last word.

        Raises:
            OutOfTime: the hours are over.
        """
        self.told(stage, done, total, note)
        now = time.perf_counter()
        if total:
            rate, left = self.pace.of(stage, done, total)
            self.at = {"stage": stage, "done": done, "total": total, "note": note, "left": left, "rate": rate}
        else:
            self.ended.append(note)
        log("progress" if total else "stage", stage=stage, done=done, total=total, note=" ".join(note.split()))
        if now - self.written > (REMOTE_EVERY if self.out.remote else EVERY):
            self.say("running")
        # A stage's last word comes when its work is done: the last one's would end a run that has nothing left to do.
        if total and now > self.until:
            raise OutOfTime(f"--max-hours {self.hours:g} are over during {stage}; the same command goes on from here")

    def write(self, state: str, reason: str = "") -> None:
        """Stores where the run is: running, ended or stopped."""
        self.written = time.perf_counter()
        value: dict[str, Any] = {
            "state": state,
            "reason": reason,
            "at": self.at,
            "stages": self.ended,
            "seconds": self.written - self.started,
            "time": time.time(),
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        with self.lock:
            self.out.write_json(PROGRESS, value)

    def say(self, state: str, reason: str = "") -> None:
        """Writes it down; what cannot be is logged and ends no run: the next word may be, and where output is written it will show."""
        try:
            self.write(state, reason)
        except (OSError, CodsaError) as error:
            log("unheard", state=state, error=type(error).__name__)

    def watch(self, over: threading.Event) -> None:
        """Says every ALIVE seconds that the run is there, until it is over."""
        while not over.wait(ALIVE):
            self.say("running")


def until(progress: Progress) -> float:
    """When, by time.perf_counter, a stage that waits for others' work has to say so: the next word ends the run; never for most."""
    return progress.until if isinstance(progress, Heartbeat) else math.inf


@contextmanager
def beating(out: Folder, told: Progress, hours: float = 0.0) -> Iterator[Heartbeat]:
    """A heartbeat for the block; how the block ended is written down."""
    beat, over = Heartbeat(out, told, hours), threading.Event()
    beat.say("running")
    watch = threading.Thread(target=beat.watch, args=(over,), daemon=True)
    watch.start()
    try:
        try:
            yield beat
        finally:
            over.set()
            watch.join()
    except BaseException as error:
        beat.say("stopped", str(error) if isinstance(error, CodsaError) else type(error).__name__)
        raise
    beat.say("ended")


def log(event: str, **facts: Any) -> None:
    """One line of JSON on the logger `codsa_ray`: when, what, and its numbers."""
    if LOG.isEnabledFor(logging.INFO):
        LOG.info(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}, ensure_ascii=False))

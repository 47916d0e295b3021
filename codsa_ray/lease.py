"""Lease: a run folder held by one driver at a time where there are no locks: a small object that its holder keeps changing; knows no run.

The holder counts on in the object every RENEWAL seconds. Who comes second watches it: it changes, so somebody is at work there, and the
second one ends; it stands still for PATIENCE seconds by the watcher's own clock, in which the store answered each look at once, so its
holder is gone, however that came, and the second one takes over. Clocks are never compared, so a moved or a wrong one does no harm.

What is left open: pyarrow cannot put an object only where there is none. Of two drivers that look at the same moment both write, wait for
SETTLE seconds and look whose name stands there; the last one's does, the other ends. Only where a put comes more than SETTLE seconds
after its look (after retries), or where a holder was silent for PATIENCE seconds and yet alive (a suspended machine), are there two for a
while: the one whose name is no longer there finds out at its next renewal and ends. If both were given the same command, nothing is lost
even then: blocks are deterministic, so what is put a second time is the same bytes.
"""

import os
import secrets
import signal
import socket
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder

LEASE = ".lease"
RENEWAL = 4.0  # seconds between two counts
# Seconds without a count after which a holder is taken for dead: longer than any pause between two tries of a put (filesystem.py) and a
# renewal. Until then its workers have ended too.
PATIENCE = 30.0
PROMPT = 2.0  # seconds of a look; where one takes longer, the store makes the holder wait as well, and the watch begins again
LONGEST = 300.0  # seconds after which it is taken for dead however slow the looks: longer than all tries of a put
SETTLE = 1.0  # seconds from writing to looking whose name stands there
LOOK = 0.5  # seconds between two looks of one who waits
# Not SIGINT, which a process that was started in the background ignores, and which Ray Tune handles in its own way.
WAKE = signal.SIGUSR1
FREE = ""


@dataclass
class Lease:
    """This process's hold on a folder.

    Args:
        out: the folder.
        name: of this hold; no two are alike.
        count: of renewals.
        over: the block has ended.
        lost: another name was found there.
        wrong: what else ended the counting; the hold is then as good as lost.
    """

    out: Folder
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    count: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    wrong: Exception | None = None

    def take(self) -> None:
        """Waits until it is free or its holder is taken for dead, then writes this name.

        Raises:
            FolderError: another driver is at work there.
        """
        found = read(self.out)
        if found["name"] != FREE:
            self._watch(found)
        self.write(self.name)
        time.sleep(SETTLE)
        found = read(self.out)
        if found["name"] != self.name:
            raise in_use(self.out, found)

    def _watch(self, first: dict[str, Any]) -> None:
        begun = since = time.monotonic()
        while (now := time.monotonic()) - since < PATIENCE and now - begun < LONGEST:
            time.sleep(LOOK)
            asked = time.monotonic()
            found = read(self.out)
            if found["name"] == FREE:
                return
            if found != first:
                raise in_use(self.out, found)
            if time.monotonic() - asked > PROMPT:
                since = time.monotonic()

    def write(self, name: str) -> None:
        """Puts the name and the next count."""
        self.count += 1
        self.out.write_json(LEASE, {"name": name, "count": self.count, "host": socket.gethostname(), "process": os.getpid()})

    def renew(self, interrupts: bool) -> None:
        """Counts on until the block is over; runs in a thread of its own.

        Args:
            interrupts: the main thread is interrupted once the lease is lost, and again until it listens.
        """
        while not self.over.wait(RENEWAL):
            if self.lost.is_set():
                if interrupts:
                    interrupt_main(WAKE)
                continue
            try:
                # A store out of reach: the count stands still. Who takes over meanwhile is found there by the next look.
                with suppress(FolderError):
                    if read(self.out)["name"] == self.name:
                        self.write(self.name)
                    else:
                        self.lost.set()
            except Exception as error:  # raised by the block's end, in the thread that holds
                self.wrong = error
                self.lost.set()

    def release(self) -> None:
        """Lets the next one in at once; what cannot be reached is let go by not counting on."""
        with suppress(FolderError):
            if read(self.out)["name"] == self.name:
                self.write(FREE)


def read(out: Folder) -> dict[str, Any]:
    """What stands in the folder's lease; free where there is none. It is never deleted, only freed."""
    return dict(out.read_json(LEASE)) if out.exists(LEASE) else {"name": FREE}


def in_use(out: Folder, found: dict[str, Any]) -> FolderError:
    """Says who is there."""
    who = f"process {found['process']} on {found['host']}" if found["name"] != FREE else "another run"
    return FolderError("a run folder nobody is using", f"{out.shown}, used by {who}", "wait for it or choose another --out")


def _interrupted(number: int, frame: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def leased(out: Folder) -> Iterator[None]:
    """The folder held for the block; a process that dies lets go of it.

    Raises:
        FolderError: another driver is at work there, or has taken over from this one during the block.
    """
    lease, main = Lease(out), threading.current_thread() is threading.main_thread()
    lease.take()
    before = signal.signal(WAKE, _interrupted) if main else None
    thread = threading.Thread(target=lease.renew, args=(main,), daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if not lease.lost.is_set():
            raise
    finally:
        lease.over.set()
        thread.join()
        if main:
            signal.signal(WAKE, before or signal.SIG_DFL)
        if lease.wrong is None:
            lease.release()
    if lease.wrong is not None:
        raise lease.wrong
    if lease.lost.is_set():
        raise in_use(out, read(out))

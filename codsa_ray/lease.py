"""Lease: a run folder held by one driver at a time where there are no locks: an object per driver, whose size counts; knows no run.

Every driver has an object of its own in the folder, so none overwrites another's. Its name says whose it is, its size what it does: one
byte is a bid, more is the holder, who counts on every RENEWAL seconds. A look is one listing; no object is read, as one that is deleted
meanwhile would be asked for again and again (filesystem.py's retries).

Who comes later watches what is there: it changes, so somebody is at work, and the later one ends; it stands still for PATIENCE seconds by
the watcher's own clock, in which the store answered each look at once, so its holder is gone, however that came, and its object is deleted.
Clocks are never compared, so a moved or a wrong one does no harm.

Where nobody is left the driver puts its bid and looks again. Whoever else is there holds the folder, or bids under a name that sorts
before: the driver ends. Bids that sort after are waited for: they end too, or hold by now. It holds only once it is alone. Of two drivers
the one whose bid came later sees the other's, so however slow puts and looks are, one of them holds. This takes a store whose listings
show what was put before them, as those of Amazon, Google and Azure do (pyarrow cannot put only where nothing is).

What is left open: a driver that was silent for PATIENCE seconds and yet is alive (a suspended machine). Who took over has deleted its
object; it finds that out at its next renewal and ends. Where that renewal was already under way both stand there, and the one that sorts
later ends at its next. Given the same command nothing is lost even then: blocks are deterministic, so what is put a second time is the
same bytes.
"""

import os
import secrets
import signal
import socket
import threading
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder

LEASES = ".leases"
RENEWAL = 4.0  # seconds between two counts
# Seconds without a count after which a holder is taken for dead: longer than any pause between two tries of a put (filesystem.py) and a
# renewal. Until then its workers have ended too.
PATIENCE = 30.0
PROMPT = 2.0  # seconds of a look; where one takes longer, the store makes the holder wait as well, and the watch begins again
LONGEST = 300.0  # seconds after which it is taken for dead however slow the looks: longer than all tries of a put
LOOK = 0.5  # seconds between two looks of one who waits
BID = 1  # bytes
AROUND = 100  # counts after which sizes begin again: more than in any PATIENCE
# Not SIGINT, which a process that was started in the background ignores, and which Ray Tune handles in its own way.
WAKE = signal.SIGUSR1


@dataclass(frozen=True)
class Seen:
    """A driver's object.

    Args:
        name: of the driver; no two are alike.
        process, host: where it runs.
        size: bytes.
    """

    name: str
    process: str
    host: str
    size: int

    @property
    def key(self) -> str:
        """The object's name in its folder."""
        return f"{self.name}.{self.process}.{self.host}"

    @property
    def holds(self) -> bool:
        """Else it bids."""
        return self.size > BID


@dataclass
class Lease:
    """This process's hold on a folder.

    Args:
        out: the folder.
        name: of this hold; no two are alike.
        count: of renewals.
        over: the block has ended.
        lost: another has it.
        wrong: what else ended the counting; the hold is then as good as lost.
    """

    out: Folder
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    count: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    wrong: Exception | None = None

    def take(self) -> None:
        """Waits until it is free or who is there is taken for dead, then bids for it and holds it.

        Raises:
            FolderError: another driver is at work there, or begins to.
        """
        first = read(self.out)
        self._alone(lambda found: found - first)
        try:
            self.bid()
            if not self._alone(lambda found: {one for one in found if one.holds or one.name < self.name}):
                raise in_use(self.out, set())  # whoever took this one for dead
            self.count_on()
        except BaseException:
            self.release()
            raise

    def _alone(self, ahead: Callable[[set[Seen]], set[Seen]]) -> bool:
        """Looks until nobody else is there, and tells if itself is; ends for those ahead, deletes the rest once PATIENCE is over."""
        begun = since = asked = time.monotonic()
        while others := self._others(found := read(self.out)):
            if before := ahead(others):
                raise in_use(self.out, before)
            now = time.monotonic()
            if now - asked > PROMPT:
                since = now
            if now - since >= PATIENCE or now - begun >= LONGEST:
                for one in others:
                    delete(self.out, one)
            else:
                time.sleep(LOOK)
            asked = time.monotonic()
        return bool(found)

    def _others(self, found: set[Seen]) -> set[Seen]:
        return {one for one in found if one.name != self.name}

    def bid(self) -> None:
        """Puts the bid."""
        self._put(BID)

    def count_on(self) -> None:
        """Puts the next count, as who holds it."""
        self.count += 1
        self._put(BID + 1 + self.count % AROUND)

    def _put(self, size: int) -> None:
        self.out.write_bytes(f"{LEASES}/{self._own(size).key}", b"." * size)

    def _own(self, size: int) -> Seen:
        return Seen(self.name, str(os.getpid()), socket.gethostname(), size)

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
                # A store out of reach: the count stands still. That somebody took over meanwhile is found by the next look.
                with suppress(FolderError):
                    if self._stands():
                        self.count_on()
                    else:
                        self.lost.set()
            except Exception as error:  # raised by the block's end, in the thread that holds
                self.wrong = error
                self.lost.set()

    def _stands(self) -> bool:
        """True while this one's object is there and no holder's with a name that sorts before."""
        holders = sorted(one.name for one in read(self.out) if one.holds)
        return bool(holders) and holders[0] == self.name

    def release(self) -> None:
        """Lets the next one in at once; what cannot be reached is let go by not counting on."""
        with suppress(FolderError):
            delete(self.out, self._own(BID))


def read(out: Folder) -> set[Seen]:
    """Every driver that has an object there."""
    sizes = (out / LEASES).sizes()
    named = [(key.split(".", 2), size) for key, size in sizes.items()]
    return {Seen(parts[0], parts[1], parts[2], size) for parts, size in named if len(parts) == 3}


def delete(out: Folder, seen: Seen) -> None:
    """Whatever its size is by now."""
    out.delete(f"{LEASES}/{seen.key}")


def in_use(out: Folder, found: set[Seen]) -> FolderError:
    """Says who is there."""
    first = min(found, key=lambda one: (not one.holds, one.name), default=None)
    who = f"process {first.process} on {first.host}" if first else "another run"
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
        raise in_use(out, {one for one in read(out) if one.name != lease.name})

"""One driver at a time holds a folder on a store; a crash lets go of it, a moved clock does not, and who lost it ends."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from codsa_ray import lease as module
from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder
from codsa_ray.lease import BID, LEASES, PATIENCE, Lease, Seen, delete, leased, read
from codsa_ray.manifest import claimed

from store import Faults, Store, endpoint, proxy, store

__all__ = ["endpoint", "store"]  # fixtures


@pytest.fixture
def folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """On the store, with shorter times."""
    for name, share in (("RENEWAL", 0.1), ("PATIENCE", 0.1), ("LOOK", 0.1)):
        monkeypatch.setattr(module, name, getattr(module, name) * share)
    return Folder(f"{store.address}/run")


@pytest.fixture
def patient(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Nobody is taken for dead there because the machine is busy."""
    monkeypatch.setattr(module, "PATIENCE", PATIENCE)
    return folder


def dead(folder: Folder) -> Lease:
    """A lease whose holder was killed: nobody counts on."""
    found = Lease(folder)
    found.take()
    return found


def test_who_comes_second_is_told_who_is_there_and_the_first_goes_on(patient: Folder) -> None:
    with leased(patient):
        for _ in range(2):
            with pytest.raises(FolderError, match=r"nobody is using; got s3://.*/run, used by process \d+ on .+; wait for it"):
                Lease(patient).take()
        time.sleep(2 * module.RENEWAL)
    assert read(patient) == set()


def test_an_ended_block_lets_the_next_one_in_at_once(patient: Folder) -> None:
    """Also one that ended by an error."""
    with pytest.raises(ZeroDivisionError), leased(patient):
        raise ZeroDivisionError
    started = time.monotonic()
    with leased(patient):
        assert time.monotonic() - started < PATIENCE


def test_a_dead_holder_is_waited_for_and_then_followed(folder: Folder) -> None:
    first = dead(folder)
    started = time.monotonic()
    with leased(folder):
        assert time.monotonic() - started >= module.PATIENCE
        assert first.name not in {one.name for one in read(folder)}
        assert len(read(folder)) == 1


def slow(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """So many looks take longer than a prompt one."""
    left, prompt = iter(range(looks)), module.read
    monkeypatch.setattr(module, "PROMPT", 1.0)

    def look(folder: Folder) -> set[Seen]:
        if next(left, None) is not None:
            time.sleep(1.1)
        return prompt(folder)

    monkeypatch.setattr(module, "read", look)


def test_who_had_to_wait_for_the_store_begins_to_watch_again_as_the_holder_had_to_wait_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead(folder)
    looks = 4
    slow(monkeypatch, looks)
    started = time.monotonic()
    Lease(folder).take()
    assert time.monotonic() - started >= looks * 1.1 + module.PATIENCE


def test_a_store_that_is_slow_for_ever_is_not_waited_for_as_long(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(folder)
    slow(monkeypatch, 10**9)
    monkeypatch.setattr(module, "LONGEST", 4.0)
    Lease(folder).take()


def test_what_ends_the_counting_ends_the_run(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours, say."""
    started = time.monotonic()

    def work() -> None:
        monkeypatch.setattr(Lease, "_stands", lambda _: 1 / 0)
        while time.monotonic() - started < 30:
            time.sleep(0.01)

    with pytest.raises(ZeroDivisionError), leased(folder):
        work()
    assert time.monotonic() - started < 10


def test_an_object_that_is_none_of_its_own_stands_in_nobodys_way(folder: Folder) -> None:
    folder.write_bytes(f"{LEASES}/strange", b"{")
    with leased(folder):
        assert len(read(folder)) == 1


def test_a_moved_clock_does_no_harm(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day ahead and back again, at every look at it."""
    days = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 + 86_400 * (-1) ** next(days))
    with leased(folder), pytest.raises(FolderError):
        Lease(folder).take()


def begun(leases: list[Lease]) -> tuple[list[Lease], list[Lease]]:
    """Those that hold the folder and those that ended, all begun at once."""
    together, held, refused = threading.Barrier(len(leases)), [], []

    def start(mine: Lease) -> None:
        together.wait()
        try:
            mine.take()
            held.append(mine)
        except FolderError:
            refused.append(mine)

    threads = [threading.Thread(target=start, args=(one,)) for one in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return held, refused


def test_of_many_that_start_at_the_same_moment_one_holds_it(patient: Folder) -> None:
    held, refused = begun([Lease(patient) for _ in range(6)])
    assert (len(held), len(refused)) == (1, 5)
    assert [(one.name, one.holds) for one in read(patient)] == [(held[0].name, True)]


@dataclass
class Delayed(Lease):
    """Its bid, or the word that it holds, is under way for a while."""

    bid_late: float = 0.0
    word_late: float = 0.0

    def _put(self, size: int) -> None:
        time.sleep(self.bid_late if size == BID else self.word_late)
        super()._put(size)


@pytest.mark.parametrize("later", ["a", "c"])
@pytest.mark.parametrize(("bid", "word"), [(1.5, 0.0), (0.0, 1.5), (1.0, 1.0)])
def test_however_late_a_put_comes_one_holds_it(patient: Folder, later: str, bid: float, word: float) -> None:
    """Both looked when nobody was there; the names decide who sorts before."""
    held, refused = begun([Lease(patient, "b"), Delayed(patient, later, bid_late=bid, word_late=word)])
    assert (len(held), len(refused)) == (1, 1)
    assert [(one.name, one.holds) for one in read(patient)] == [(held[0].name, True)]


@pytest.mark.parametrize("name", ["a", "z"])
def test_a_driver_killed_while_it_bids_is_waited_for_and_then_followed(folder: Folder, name: str) -> None:
    Lease(folder, name).bid()
    mine = Lease(folder, "b")
    started = time.monotonic()
    mine.take()
    assert time.monotonic() - started >= module.PATIENCE
    assert [one.name for one in read(folder)] == ["b"]


def test_a_bid_that_was_taken_for_dead_does_not_hold(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a machine suspended between its bid and its look."""
    slept, bid = Lease(folder), Lease.bid

    def sleeps(lease: Lease) -> None:
        bid(lease)
        lease.release()

    monkeypatch.setattr(Lease, "bid", sleeps)
    with pytest.raises(FolderError, match="used by another run"):
        slept.take()
    assert read(folder) == set()


def test_who_lost_it_is_interrupted_and_leaves_it_to_the_other(folder: Folder) -> None:
    """As after a suspended machine woke up: who took over had deleted its object."""
    other = Lease(folder)
    started = time.monotonic()

    def work() -> None:
        for one in read(folder):
            delete(folder, one)
        other.count_on()
        while time.monotonic() - started < 30:
            time.sleep(0.01)

    with pytest.raises(FolderError, match="used by process"), leased(folder):
        work()
    assert time.monotonic() - started < 10
    assert {one.name for one in read(folder)} == {other.name}


def test_of_two_that_stand_there_the_one_that_sorts_later_ends(folder: Folder) -> None:
    """As where a renewal was under way when the other took over."""
    first, last, started = Lease(folder, "0"), Lease(folder, "~"), time.monotonic()

    def work() -> None:
        first.count_on()
        while time.monotonic() - started < 30:
            time.sleep(0.01)

    with pytest.raises(FolderError, match="used by process"), leased(folder):
        work()
    assert time.monotonic() - started < 10
    assert {one.name for one in read(folder)} == {"0"}
    first.release()
    with leased(folder):
        last.count_on()
        time.sleep(3 * module.RENEWAL)
    assert {one.name for one in read(folder)} == {"~"}


def test_who_lost_it_outside_the_main_thread_ends_with_the_block(folder: Folder) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with leased(folder):
                Lease(folder, "0").count_on()
                time.sleep(3 * module.RENEWAL)
        except FolderError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_an_interrupt_of_the_user_stays_one(folder: Folder) -> None:
    with pytest.raises(KeyboardInterrupt), leased(folder):
        raise KeyboardInterrupt
    assert read(folder) == set()


def test_a_store_that_is_away_for_a_while_costs_nothing(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals fail and are taken up again."""
    faults = Faults(0.0, ("drop",))
    with proxy(store.endpoint, faults) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        with leased(folder):
            faults.share = 0.9
            time.sleep(2 * module.RENEWAL)
            faults.share = 0.0
            before = read(folder)
            until = time.monotonic() + 60
            while read(folder) == before:
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_run_folder_on_a_store_is_held_by_it_and_a_local_one_is_not(folder: Folder, tmp_path: Path) -> None:
    with claimed(folder):
        assert len(read(folder)) == 1
        with pytest.raises(FolderError), claimed(folder):
            pass
    with claimed(Folder(str(tmp_path / "run"))):
        assert LEASES not in Folder(str(tmp_path / "run")).names()

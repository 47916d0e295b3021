"""One driver at a time holds a folder on a store; a crash lets go of it, a moved clock does not, and who lost it ends."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from codsa_ray import lease as module
from codsa_ray.errors import FolderError
from codsa_ray.folder import Folder
from codsa_ray.lease import LEASE, SETTLE, Lease, leased, read
from codsa_ray.manifest import claimed

from store import Faults, Store, endpoint, proxy, store

__all__ = ["endpoint", "store"]  # fixtures


@pytest.fixture
def folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """On the store, with shorter times."""
    for name, share in (("RENEWAL", 0.1), ("PATIENCE", 0.1), ("SETTLE", 0.1), ("LOOK", 0.1)):
        monkeypatch.setattr(module, name, getattr(module, name) * share)
    return Folder(f"{store.address}/run")


def dead(folder: Folder) -> Lease:
    """A lease whose holder was killed: nobody counts on."""
    found = Lease(folder)
    found.take()
    return found


def test_who_comes_second_is_told_who_is_there_and_the_first_goes_on(folder: Folder) -> None:
    with leased(folder):
        for _ in range(2):
            with pytest.raises(FolderError, match=r"nobody is using; got s3://.*/run, used by process \d+ on .+; wait for it"):
                Lease(folder).take()
        time.sleep(2 * module.RENEWAL)
    assert read(folder)["name"] == module.FREE


def test_an_ended_block_lets_the_next_one_in_at_once(folder: Folder) -> None:
    """Also one that ended by an error."""
    with pytest.raises(ZeroDivisionError), leased(folder):
        raise ZeroDivisionError
    started = time.monotonic()
    with leased(folder):
        assert time.monotonic() - started < module.PATIENCE


def test_a_dead_holder_is_waited_for_and_then_followed(folder: Folder) -> None:
    first = dead(folder)
    started = time.monotonic()
    with leased(folder):
        assert time.monotonic() - started >= module.PATIENCE
        assert read(folder)["name"] not in (first.name, module.FREE)


def slow(monkeypatch: pytest.MonkeyPatch, looks: int) -> None:
    """So many looks take longer than a prompt one."""
    left, prompt = iter(range(looks)), module.read
    monkeypatch.setattr(module, "PROMPT", 1.0)

    def look(folder: Folder) -> dict[str, Any]:
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


def test_what_ends_the_counting_ends_the_run(folder: Folder) -> None:
    """A lease that nobody can read any more, say."""
    started = time.monotonic()

    def work() -> None:
        folder.write_bytes(LEASE, b"{")
        while time.monotonic() - started < 30:
            time.sleep(0.01)

    with pytest.raises(json.JSONDecodeError), leased(folder):
        work()
    assert time.monotonic() - started < 10


def test_a_moved_clock_does_no_harm(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day ahead and back again, at every look at it."""
    days = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 + 86_400 * (-1) ** next(days))
    with leased(folder), pytest.raises(FolderError):
        Lease(folder).take()


def test_of_many_that_start_at_the_same_moment_one_holds_it(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE", SETTLE)
    together, held, refused = threading.Barrier(6), [], []

    def start() -> None:
        mine = Lease(folder)
        together.wait()
        try:
            mine.take()
            held.append(mine)
        except FolderError:
            refused.append(mine)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    assert read(folder)["name"] == held[0].name


def test_who_lost_it_is_interrupted_and_leaves_it_to_the_other(folder: Folder) -> None:
    """As after a suspended machine woke up."""
    other = Lease(folder)
    started = time.monotonic()

    def work() -> None:
        other.write(other.name)
        while time.monotonic() - started < 30:
            time.sleep(0.01)

    with pytest.raises(FolderError, match="used by process"), leased(folder):
        work()
    assert time.monotonic() - started < 10
    assert read(folder)["name"] == other.name


def test_who_lost_it_outside_the_main_thread_ends_with_the_block(folder: Folder) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with leased(folder):
                Lease(folder).write("another")
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
    assert read(folder)["name"] == module.FREE


def test_a_store_that_is_away_for_a_while_costs_nothing(folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewals fail and are taken up again."""
    faults = Faults(0.0, ("drop",))
    with proxy(store.endpoint, faults) as place:
        monkeypatch.setenv("AWS_ENDPOINT_URL", place)
        with leased(folder):
            faults.share = 0.9
            time.sleep(2 * module.RENEWAL)
            faults.share = 0.0
            before = read(folder)["count"]
            until = time.monotonic() + 60
            while read(folder)["count"] == before:
                assert time.monotonic() < until
                time.sleep(0.05)


def test_a_run_folder_on_a_store_is_held_by_it_and_a_local_one_is_not(folder: Folder, tmp_path: Path) -> None:
    with claimed(folder):
        assert read(folder)["name"] != module.FREE
        with pytest.raises(FolderError), claimed(folder):
            pass
    with claimed(Folder(str(tmp_path / "run"))):
        assert LEASE not in Folder(str(tmp_path / "run")).names()

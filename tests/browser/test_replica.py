"""The record in the store: what damage does to it, and what several writers do."""

from __future__ import annotations

import multiprocessing
import typing as t
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from flask_stateful.browser.replica import DAY, MAX_BYTES, Held, Registers, Replica
from flask_stateful.errors import StateConflict
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore

BROWSER = b"b" * 16


def put(replica: Replica, name: str, value: bytes) -> Registers:
    """Write one register."""

    def change(registers: Registers) -> None:
        registers[name] = Held(value, 1, 1)

    return replica.change(replica.key(BROWSER), change, ttl=DAY)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\x00", b"\x01", b"\x02\x80", b"\x01\xff\xff", b"\x01\x81\xa1a\x92\x01\x02", b"\x01" * (MAX_BYTES + 1)],
)
def test_a_damaged_record_is_none(damaged: bytes) -> None:
    """It reads as empty, and the next write replaces it."""
    replica = Replica(MemoryStore(), "shop")
    replica.store.set(replica.key(BROWSER), damaged)
    assert replica.load(replica.key(BROWSER)) == {}
    put(replica, "a", b"1")
    assert replica.load(replica.key(BROWSER)) == {"a": Held(b"1", 1, 1)}


def test_a_record_comes_back_until_its_ttl_is_over(clock: FakeClock) -> None:
    """Values, counters and expiries; what has expired is none, under its revision."""
    replica, expires = Replica(MemoryStore(), "shop"), clock.now() + 60
    held = {"a": Held(b"1", 2, 3), "b": Held(None, 4, 5), "c": Held(b"6", 7, 8, expires)}
    replica.change(replica.key(BROWSER), lambda registers: registers.update(held), ttl=DAY)
    assert replica.load(replica.key(BROWSER)) == held
    assert (held["c"].at(expires - 1).value, held["c"].at(expires)) == (b"6", (None, 7, 8))
    clock.advance(DAY)
    assert replica.load(replica.key(BROWSER)) == {}


def test_what_changes_nothing_writes_nothing() -> None:
    """A push that has arrived before costs one read."""
    store = FaultyStore(MemoryStore())
    replica = Replica(store, "shop")
    put(replica, "a", b"1")
    store.calls.clear()
    put(replica, "a", b"1")
    assert store.calls == {"get": 1}


def test_nobody_can_tell_the_browser_from_a_key() -> None:
    """The store never holds an id that a cookie has; each part has its own key."""
    replica = Replica(MemoryStore(), "shop")
    keys = {replica.key(BROWSER), replica.key(BROWSER, "user", ""), replica.key(BROWSER, "tab", "", "01")}
    assert len(keys) == 3
    assert all(BROWSER.hex() not in key and BROWSER.decode() not in key for key in keys)


def test_a_record_that_others_keep_rewriting_is_a_conflict() -> None:
    """It gives up after a hundred rounds."""
    store = FaultyStore(MemoryStore(), Fault("dropped", {"add", "swap"}))
    with pytest.raises(StateConflict, match="too often"):
        put(Replica(store, "shop"), "a", b"1")


def _write_many(path: str, who: int, barrier: Barrier) -> None:
    replica = Replica(SQLiteStore(Path(path)), "shop")
    barrier.wait(60)
    for turn in range(100):
        put(replica, f"{who}.{turn}", b"1")
    replica.store.close()


def test_two_processes_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """Both write a hundred registers of one record at the same time, and all are there."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    path = tmp_path / "state.sqlite3"
    workers = [context.Process(target=_write_many, args=(str(path), who, barrier)) for who in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    store = SQLiteStore(path)
    registers = t.cast("dict[str, Held]", Replica(store, "shop").load(Replica(store, "shop").key(BROWSER)))
    store.close()
    assert len(registers) == 200

"""The store in memory keeps the contract, and stays as small as what it holds."""

from __future__ import annotations

import threading
import typing as t
from collections import deque
from pathlib import Path

import pytest

from flask_stateful.errors import ValueTooLarge
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, StoreConformance
from flask_stateful.testing.conformance.crowd import in_processes, in_threads

#: Real seconds, enough for anything that does happen.
PLENTY = 30.0


class TestMemoryStore(StoreConformance):
    """The contract."""

    across_processes = False

    def make_store(self, tmp_path: Path) -> MemoryStore:
        """Return a store small enough to try its limit."""
        return MemoryStore(max_value_bytes=2**20)


@pytest.fixture
def store() -> MemoryStore:
    """Return a new store."""
    return MemoryStore()


@pytest.fixture
def time() -> t.Iterator[FakeClock]:
    """Return the clock that the store goes by."""
    with FakeClock() as time:
        yield time


def size(store: MemoryStore) -> int:
    """Return how many keys a store keeps, dead ones included, having checked that its ring has each of them once."""
    assert sorted(store._ring) == sorted(store._entries)
    return len(store._entries)


class TestGrowth:
    """What is dead goes, a little with every write."""

    def test_renewing_takes_no_room(self, store: MemoryStore) -> None:
        """Keys that are written, touched, swapped and counted again and again are kept once."""
        for number in range(1000):
            key = f"key:{number % 10}"
            store.set(key, b"1", 60 + number)
            store.touch(key, 120 + number)
            store.swap(key, b"1", b"2", 180 + number)
            store.incr(key, 1, 240 + number)
        assert size(store) == 10

    def test_deleting_and_adding_again_takes_no_room(self, store: MemoryStore) -> None:
        """Keys that are deleted and added again and again are kept once."""
        for number in range(1000):
            key = f"key:{number % 10}"
            store.add(key, b"x", 60 + number)
            store.delete(key)
            store.add(key, b"x")
            store.delete(key)
        assert size(store) <= 10

    def test_passing_through_takes_little_room(self, store: MemoryStore, time: FakeClock) -> None:
        """With new keys coming and expiring all the time, at most half as many dead ones are kept as live ones."""
        biggest = 0
        for number in range(5000):
            store.set(f"key:{number}", b"x", 100)
            time.advance(1)
            biggest = max(biggest, size(store))
        assert biggest <= 151

    def test_passing_through_beside_what_stays_takes_little_room(self, store: MemoryStore, time: FakeClock) -> None:
        """Many keys that stay for ever make dead ones wait longer, and no more than in proportion."""
        store.set_many({f"stays:{number}": b"x" for number in range(1000)})
        biggest = 0
        for number in range(5000):
            store.set(f"key:{number}", b"x", 100)
            time.advance(1)
            biggest = max(biggest, len(store._entries))
        assert biggest <= 1100 * 2
        assert size(store) <= biggest

    def test_deleted_keys_go(self, store: MemoryStore) -> None:
        """Deleting is writing: when everything was deleted, no more than half of it is left."""
        store.set_many({f"key:{number}": b"x" for number in range(1000)})
        for number in range(1000):
            store.delete(f"key:{number}")
        assert size(store) <= 500

    def test_deleted_values_go_at_once(self, store: MemoryStore) -> None:
        """What a key is kept for a while for is not its value."""
        for number in range(100):
            store.set(f"key:{number}", b"x" * 1000)
        for number in range(100):
            store.delete(f"key:{number}")
        assert sum(len(entry.value) for entry in store._entries.values()) == 0

    def test_a_write_has_little_to_do(self, store: MemoryStore, time: FakeClock) -> None:
        """However much has expired at once, a write removes two of it."""
        store.set_many({f"key:{number}": b"x" for number in range(1000)}, 60)
        time.advance(60)
        for written in range(1, 11):
            store.set("new", b"x")
            assert size(store) == 1001 - 2 * written

    @pytest.mark.parametrize("keys", [1, 10, 10_000])
    def test_a_write_looks_at_two_keys(self, store: MemoryStore, keys: int) -> None:
        """However much is kept, a write looks at no more than two keys."""
        looked: list[str] = []

        class Watched(deque[str]):
            def popleft(self) -> str:
                looked.append(self[0])
                return super().popleft()

        store.set_many({f"key:{number}": b"x" for number in range(keys)}, 60)
        store._ring = Watched(store._ring)
        store.set("key:0", b"x", 60)
        assert len(looked) == min(keys, 2)

    def test_reading_removes_nothing(self, store: MemoryStore, time: FakeClock) -> None:
        """Reading has nothing to do with it."""
        store.set_many({f"key:{number}": b"x" for number in range(10)}, 60)
        time.advance(60)
        assert store.get_many(f"key:{number}" for number in range(10)) == {}
        assert size(store) == 10

    def test_purging_leaves_what_lives(self, store: MemoryStore, time: FakeClock) -> None:
        """After a purge nothing dead is kept, deleted keys included, which do not count as expired."""
        store.set_many({f"expired:{number}": b"x" for number in range(5)}, 60)
        store.set_many({f"lives:{number}": b"x" for number in range(5)}, 100)
        store.delete("lives:0")
        time.advance(60)
        assert store.purge_expired() == 5
        assert size(store) == 4

    def test_purging_lets_writers_in(self, store: MemoryStore) -> None:
        """A purge of many keys holds the lock for a thousand at a time."""
        taken: list[int] = []

        class Counted:
            def __enter__(self) -> None:
                taken.append(len(store._ring))

            def __exit__(self, *exc_info: object) -> None:
                pass

        store.set_many({f"key:{number}": b"x" for number in range(2500)}, 60)
        store._lock = t.cast("threading.Lock", Counted())
        with FakeClock() as time:
            time.advance(60)
            assert store.purge_expired() == 2500
        assert taken == [2500, 1500, 500]
        store._lock = threading.Lock()

    def test_closing_frees_everything(self, store: MemoryStore) -> None:
        """A closed store keeps nothing."""
        store.set("key", b"x")
        store.close()
        assert size(store) == 0


class TestLocking:
    """Who waits for whom."""

    def test_reading_takes_no_lock(self, store: MemoryStore) -> None:
        """A thread that writes keeps nobody from reading."""
        store.set("key", b"x")
        with store._lock:
            found = in_threads(1, lambda number: (store.get("key"), store.get_many(["key"])), patience=PLENTY)
        assert found == [(b"x", {"key": b"x"})]

    def test_fork_waits_for_writers(self, store: MemoryStore) -> None:
        """A child gets a copy that no write is half-way through, and locks that nobody holds; so does the parent."""
        store.set("key", b"x")
        writing, forking = threading.Event(), threading.Event()
        write, wait = store._put, store.before_fork

        def put(key: str, entry: t.Any) -> None:
            store._entries["half"] = entry  # in the entries, and not yet in the ring
            writing.set()
            forking.wait(PLENTY)
            del store._entries["half"]
            write(key, entry)

        def before_fork() -> None:
            forking.set()
            wait()

        store._put = put  # type: ignore[method-assign]
        store.before_fork = before_fork  # type: ignore[method-assign]
        writer = threading.Thread(target=lambda: store.set("other", b"x"), daemon=True)
        writer.start()
        assert writing.wait(PLENTY)
        del store._put

        def work(number: int) -> object:
            found = size(store), store.get("half")
            store.set("child", b"x")
            return found

        assert in_processes(1, work, patience=PLENTY) == [(2, None)]
        writer.join(PLENTY)
        store.set("parent", b"x")
        assert sorted(store.scan("")) == ["key", "other", "parent"]

    def test_two_stores_share_nothing(self, store: MemoryStore) -> None:
        """Each store has its own keys."""
        store.set("key", b"x")
        assert MemoryStore().get("key") is None


def test_counter_keeps_to_the_limit() -> None:
    """A counter that grows too long for the store is refused and stays what it was."""
    store = MemoryStore(max_value_bytes=1)
    store.set("key", b"9")
    with pytest.raises(ValueTooLarge):
        store.incr("key")
    assert store.get("key") == b"9"


def test_takes_any_length_by_default(store: MemoryStore) -> None:
    """The limit is that of every store unless another is given."""
    assert store.max_value_bytes == 512 * 2**20
    assert MemoryStore(max_value_bytes=5).max_value_bytes == 5

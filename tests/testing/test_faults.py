"""The faulty store: transparent without a plan, and failing exactly where the plan says."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_stateful import clock
from flask_stateful.errors import StoreError, StoreUnavailable, UnsupportedOperation
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore, StoreConformance
from flask_stateful.testing.conformance.crowd import in_processes, in_threads
from tests.stores.sound import FileStore

#: One call of each operation on a store that holds ``b"value"`` at ``"key"``.
CALLS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.get("key"),
    "set": lambda store: store.set("key", b"new"),
    "add": lambda store: store.add("other", b"new"),
    "swap": lambda store: store.swap("key", b"value", b"new"),
    "delete": lambda store: store.delete("key"),
    "touch": lambda store: store.touch("key", 60),
    "incr": lambda store: store.incr("count"),
    "get_many": lambda store: store.get_many(["other", "key"]),
    "set_many": lambda store: store.set_many({"other": b"new", "key": b"new"}),
    "delete_many": lambda store: store.delete_many(["other", "key"]),
    "scan": lambda store: list(store.scan("k")),
    "purge_expired": lambda store: store.purge_expired(),
    "check": lambda store: store.check(),
    "watch": lambda store: store.watch("k", lambda key: None),
}

#: What changes the store.
WRITES = ["set", "add", "swap", "delete", "touch", "incr", "set_many", "delete_many"]

each_call = pytest.mark.parametrize("operation", [name for name in CALLS if name != "watch"])
each_write = pytest.mark.parametrize("operation", WRITES)


class TestWithoutPlan(StoreConformance):
    """A store without a plan is as good as the one inside."""

    across_processes = False

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store around one in memory."""
        return FaultyStore(MemoryStore(max_value_bytes=2**20))


class TestAroundFallbacks(StoreConformance):
    """A store around one that has no abilities has none either."""

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store around one in a file."""
        return FaultyStore(FileStore(tmp_path / "store.json"))


@pytest.fixture
def inner() -> MemoryStore:
    """Return the store that does the work."""
    store = MemoryStore(max_value_bytes=1000)
    store.set("key", b"value")
    return store


@pytest.fixture
def store(inner: MemoryStore) -> FaultyStore:
    """Return the store that fails."""
    return FaultyStore(inner)


def content(store: MemoryStore) -> dict[str, t.Any]:
    """Return everything that a store holds, the moments of expiry included."""
    return {key: store._find(key) for key in store.scan("")}


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns, or the type of what it raises."""
    try:
        return call()
    except StoreError as error:
        return type(error)


class TestKinds:
    """What each kind of fault does."""

    @pytest.mark.parametrize("operation", CALLS)
    @pytest.mark.parametrize(("kind", "error"), [("unavailable", StoreUnavailable), ("error", StoreError)])
    def test_failure(
        self, store: FaultyStore, inner: MemoryStore, operation: str, kind: t.Any, error: type[Exception]
    ) -> None:
        """An unavailable or failing store does nothing and raises the error, with a cause."""
        before = content(inner)
        store.fail(kind)
        with pytest.raises(StoreError) as raised:
            CALLS[operation](store)
        assert type(raised.value) is error
        assert isinstance(raised.value.__cause__, OSError)
        assert content(inner) == before

    @each_write
    def test_lost_reply(self, store: FaultyStore, inner: MemoryStore, operation: str) -> None:
        """When the reply is lost, the work was done though the call raises StoreUnavailable."""
        before = content(inner)
        store.fail("lost_reply")
        with pytest.raises(StoreUnavailable):
            CALLS[operation](store)
        assert content(inner) != before

    @each_call
    def test_slow(self, store: FaultyStore, operation: str) -> None:
        """A slow call works as always, so many seconds later on the package's clock."""
        inner = MemoryStore()
        inner.set("key", b"value")
        expected = CALLS[operation](inner)
        store.fail(Fault("slow", seconds=5))
        with FakeClock(0.0):
            assert CALLS[operation](store) == expected
            assert clock.now() == 5

    def test_duplicated(self, store: FaultyStore, inner: MemoryStore) -> None:
        """A duplicated call is done twice; the answer is that of the second."""
        store.fail("duplicated")
        assert store.incr("count") == 2
        assert store.add("other", b"x") is False
        assert inner.get("other") == b"x"
        assert store.swap("key", b"value", b"new") is False
        assert inner.get("key") == b"new"

    def test_truncated(self, store: FaultyStore, inner: MemoryStore) -> None:
        """Only the first half of each value is read, and the store itself is unharmed."""
        store.fail("truncated")
        assert store.get("key") == b"va"
        assert store.get("absent") is None
        assert store.get_many(["key", "absent"]) == {"key": b"va"}
        assert inner.get("key") == b"value"

    @pytest.mark.parametrize(
        ("operation", "nothing"),
        [
            ("get", None),
            ("set", None),
            ("add", False),
            ("swap", False),
            ("delete", None),
            ("touch", False),
            ("get_many", {}),
            ("set_many", None),
            ("delete_many", None),
            ("scan", []),
            ("purge_expired", 0),
        ],
    )
    def test_dropped(self, store: FaultyStore, inner: MemoryStore, operation: str, nothing: object) -> None:
        """A dropped call does nothing, and answers as if there were nothing, without an error."""
        before = content(inner)
        store.fail("dropped")
        assert CALLS[operation](store) == nothing
        assert content(inner) == before


class TestPlan:
    """When a fault happens."""

    @pytest.mark.parametrize("failing", [name for name in CALLS if name != "watch"])
    def test_only_named_operations(self, store: FaultyStore, failing: str) -> None:
        """A fault on one operation leaves all others alone."""
        store.fail(Fault("unavailable", failing))
        failed = [name for name, call in CALLS.items() if outcome(lambda call=call: call(store)) is StoreUnavailable]
        assert failed == [failing]

    def test_several_operations(self, store: FaultyStore) -> None:
        """A fault can be on several operations."""
        store.fail(Fault("unavailable", ("set", "delete")))
        failed = [name for name, call in CALLS.items() if outcome(lambda call=call: call(store)) is StoreUnavailable]
        assert failed == ["set", "delete"]

    @pytest.mark.parametrize("key", ["key", lambda key: key.startswith("k")])
    def test_only_some_keys(self, store: FaultyStore, key: t.Any) -> None:
        """A fault for a key, or for those for which a function is true, leaves other keys alone."""
        store.fail(Fault("unavailable", key=key))
        keyed = {
            "get": lambda key: store.get(key),
            "set": lambda key: store.set(key, b"1"),
            "add": lambda key: store.add(key, b"1"),
            "swap": lambda key: store.swap(key, b"1", b"1"),
            "touch": lambda key: store.touch(key),
            "incr": lambda key: store.incr(key),
            "delete": lambda key: store.delete(key),
            "get_many": lambda key: store.get_many(["a", key]),
            "set_many": lambda key: store.set_many({"a": b"1", key: b"1"}),
            "delete_many": lambda key: store.delete_many(["a", key]),
            "scan": lambda key: store.scan(key),
        }
        assert [
            name for name, call in keyed.items() if outcome(lambda call=call: call("key")) is not StoreUnavailable
        ] == []
        assert [
            name for name, call in keyed.items() if outcome(lambda call=call: call("other")) is StoreUnavailable
        ] == []

    def test_keys_of_a_batch_are_kept(self, store: FaultyStore, inner: MemoryStore) -> None:
        """A fault that looks at the keys of a batch, or does it twice, leaves them for the store inside."""
        store.fail(Fault("duplicated", ("get_many", "delete_many"), key="other"))
        assert store.get_many(iter(["other", "key"])) == {"key": b"value"}
        store.delete_many(iter(["other", "key"]))
        assert inner.get("key") is None

    @pytest.mark.parametrize(("nth", "failing"), [(2, [2]), (range(1, 4), [1, 2, 3]), ({1, 5}, [1, 5])])
    def test_only_some_calls(self, store: FaultyStore, nth: t.Any, failing: list[int]) -> None:
        """A fault at the nth call counts only the calls it is about."""
        store.get("key")
        store.fail(Fault("unavailable", "get", key="key", nth=nth))
        failed = []
        for number in range(1, 7):
            store.get("other")
            store.set("key", b"x")
            if outcome(lambda: store.get("key")) is StoreUnavailable:
                failed.append(number)
        assert failed == failing

    def test_equal_faults_count_by_themselves(self, store: FaultyStore) -> None:
        """The same fault planned twice happens twice."""
        store.fail(Fault("slow", nth=1, seconds=2), Fault("slow", nth=1, seconds=2))
        with FakeClock(0.0):
            store.get("key")
            assert clock.now() == 4

    def test_faults_add_up(self, store: FaultyStore, inner: MemoryStore) -> None:
        """Of several faults that strike a call the one planned first is on the outside."""
        store.fail(Fault("slow", seconds=3), "lost_reply", "duplicated")
        with FakeClock(0.0):
            assert outcome(lambda: store.incr("count")) is StoreUnavailable
            assert (clock.now(), inner.get("count")) == (3, b"2")

    def test_first_failure_keeps_the_next_from_happening(self, store: FaultyStore) -> None:
        """A fault that does nothing, planned first, leaves nothing for the others to do."""
        store.fail("unavailable", Fault("slow", seconds=3))
        with FakeClock(0.0):
            assert outcome(lambda: store.get("key")) is StoreUnavailable
            assert clock.now() == 0

    def test_plan_from_the_beginning(self, inner: MemoryStore) -> None:
        """A plan can be given when the store is made, as kinds and as faults."""
        store = FaultyStore(inner, Fault("dropped", "get"), "duplicated")
        assert store.get("key") is None
        assert store.incr("count") == 2

    def test_mend(self, store: FaultyStore) -> None:
        """A mended store works, and can be made to fail again."""
        store.fail("unavailable", "slow")
        store.mend()
        assert store.get("key") == b"value"
        store.fail("dropped")
        assert store.get("key") is None

    def test_suspended(self, store: FaultyStore) -> None:
        """A plan that is not active does not happen, and its calls are not counted against it."""
        store.fail(Fault("unavailable", nth=1))
        store.active = False
        assert store.get("key") == b"value"
        store.active = True
        assert outcome(lambda: store.get("key")) is StoreUnavailable
        assert store.get("key") == b"value"

    @pytest.mark.parametrize(
        ("kind", "on"),
        [
            ("truncated", "set"),
            ("dropped", "incr"),
            ("lost_reply", "scan"),
            ("duplicated", "watch"),
            ("unavailable", "close"),
            ("slow", ("get", "gett")),
        ],
    )
    def test_impossible_fault(self, kind: t.Any, on: t.Any) -> None:
        """A fault that could never happen is an error that lists where it can."""
        with pytest.raises(ValueError, match=rf"cannot be '{kind}'; these can: .*get"):
            Fault(kind, on)

    def test_unknown_fault(self, store: FaultyStore) -> None:
        """A kind that there is not is an error that lists those there are."""
        unknown: t.Any = "broken"
        with pytest.raises(ValueError, match=r"unavailable, error, slow, .*not 'broken'"):
            store.fail(unknown)


class TestCounting:
    """How calls are counted."""

    @pytest.mark.parametrize("operation", CALLS)
    def test_each_operation_counts_once(self, store: FaultyStore, operation: str) -> None:
        """Each call counts as one of its name, whatever the store inside makes of it; so does one that fails."""
        for _ in range(2):
            outcome(lambda: CALLS[operation](store))
        store.fail("unavailable")
        outcome(lambda: CALLS[operation](store))
        assert store.calls == {operation: 3}
        assert store.calls.total() == 3

    def test_reset(self, store: FaultyStore) -> None:
        """After a reset everything is counted from zero, and the plan stays."""
        store.fail(Fault("unavailable", nth=2))
        store.get("key")
        store.reset()
        assert store.calls == {}
        assert store.get("key") == b"value"
        assert outcome(lambda: store.get("key")) is StoreUnavailable
        assert store.calls == {"get": 2}

    def test_threads_lose_no_count(self, store: FaultyStore) -> None:
        """Threads that call at once are counted one after the other, and a fault at the nth call happens once."""
        both = threading.Barrier(2)

        def is_key(key: str) -> bool:
            # Where two threads get here at once, both have yet to count.
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(0.1)
            return both.broken

        store.fail(Fault("unavailable", key=is_key, nth=2))
        outcomes = in_threads(2, lambda number: outcome(lambda: store.get("key")), patience=30)
        assert sorted(map(str, outcomes)) == sorted(map(str, [b"value", StoreUnavailable]))
        assert store.calls["get"] == 2

    def test_fork_while_another_thread_counts(self, store: FaultyStore) -> None:
        """A child calls and plans as it likes, also when a thread was counting at the moment of the fork."""
        inside, forked = threading.Event(), threading.Event()
        store.fail(Fault("unavailable", "set", key=lambda key: inside.set() or forked.wait(30)))
        thread = threading.Thread(target=lambda: outcome(lambda: store.set("key", b"x")), daemon=True)
        thread.start()
        assert inside.wait(30)

        def work(number: int) -> object:
            store.mend()
            return store.get("key"), store.calls["get"]

        assert in_processes(1, work, patience=30) == [(b"value", 1)]
        forked.set()
        thread.join(30)


class TestStandingIn:
    """What a faulty store takes from the one inside."""

    def test_says_what_the_inner_store_says(self, tmp_path: Path) -> None:
        """Abilities, limits and where it lives are those of the store inside."""

        class Evicting(MemoryStore):
            shared = True
            persistent = True
            remote = True
            durable = False

        for inner in (Evicting(max_value_bytes=7), MemoryStore(), FileStore(tmp_path / "store.json")):
            names = ("abilities", "shared", "persistent", "remote", "durable", "max_value_bytes")
            store = FaultyStore(inner)
            assert [getattr(store, name) for name in names] == [getattr(inner, name) for name in names]
            assert repr(store) == f"<FaultyStore for {inner!r}>"

    def test_lacks_what_the_inner_store_lacks(self, tmp_path: Path) -> None:
        """What the store inside cannot do raises the same error."""
        store = FaultyStore(FileStore(tmp_path / "store.json"))
        with pytest.raises(UnsupportedOperation, match="FileStore"):
            store.purge_expired()

    def test_closes_the_inner_store(self, store: FaultyStore, inner: MemoryStore) -> None:
        """It stands in for the store inside in everything, closing included, and also while it fails."""
        store.fail("unavailable")
        store.close()
        with pytest.raises(StoreError, match="closed"):
            inner.get("key")

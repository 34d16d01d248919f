"""An outage costs one timeout, and then nothing until the store is back."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_stateful.errors import StoreError, StoreUnavailable, UnsupportedOperation
from flask_stateful.stores.base import Store
from flask_stateful.stores.guarded import GuardedStore
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import FakeClock, Fault, FaultyStore, StoreConformance
from flask_stateful.testing.conformance.crowd import in_processes, in_threads
from flask_stateful.testing.conformance.suite import call_all
from tests.services import Launch, Redis, Valkey
from tests.stores.proxy import Proxy

#: Real seconds after which something counts as stuck.
PATIENT = 30


class TestGuardedStore(StoreConformance):
    """A store that is well behaves the same when it is wrapped."""

    across_processes = False

    def make_store(self, tmp_path: Path) -> Store:
        return GuardedStore(MemoryStore())


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """Return the clock that everything goes by."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def inner() -> FaultyStore:
    """Return a store that fails when it is told to."""
    return FaultyStore(MemoryStore())


class Log:
    """What the hooks were called with."""

    def __init__(self) -> None:
        self.said: list[StoreUnavailable | str] = []

    def down(self, error: StoreUnavailable) -> None:
        """Note an outage."""
        self.said.append(error)

    def up(self) -> None:
        """Note the end of one."""
        self.said.append("up")


@pytest.fixture
def log() -> Log:
    """Return what the hooks of the store were called with."""
    return Log()


@pytest.fixture
def store(inner: FaultyStore, log: Log, clock: FakeClock) -> GuardedStore:
    """Return a guarded store, at the time of the fake clock."""
    return GuardedStore(inner, on_down=log.down, on_up=log.up)


def fails(call: Callable[[], object]) -> bool:
    """Tell whether a call finds the store unavailable."""
    try:
        call()
    except StoreUnavailable:
        return True
    return False


def asked(inner: FaultyStore, call: Callable[[], object]) -> int:
    """Return how often the inner store was asked in a call that finds the store unavailable."""
    before = inner.calls.total()
    assert fails(call)
    return inner.calls.total() - before


# Going down


def test_first_failure_is_the_last_to_ask(store: GuardedStore, inner: FaultyStore, log: Log) -> None:
    """The call that finds the store down raises its error; those that follow do not ask."""
    inner.fail("unavailable")
    with pytest.raises(StoreUnavailable) as raised:
        store.get("a")
    assert [asked(inner, lambda: store.get("a")) for _ in range(5)] == [0] * 5
    assert log.said == [raised.value]


@pytest.mark.parametrize("name", [name for name, _ in call_all(MemoryStore(), "a", b"1") if name != "check"])
def test_every_operation_is_guarded(store: GuardedStore, inner: FaultyStore, log: Log, name: str) -> None:
    """Whichever operation fails, the store is down; and while it is, each of them fails without asking."""
    calls = dict(call_all(store, "a", b"1"))
    calls.pop("check")
    inner.fail("unavailable")
    assert asked(inner, calls[name]) == 1
    assert [asked(inner, call) for call in calls.values()] == [0] * len(calls)
    assert len(log.said) == 1


def test_scan_that_breaks_off_is_an_outage(log: Log, clock: FakeClock) -> None:
    """A store that goes down while its keys are listed is down for every other call."""

    class Breaking(MemoryStore):
        def scan(self, prefix: str) -> Iterator[str]:
            yield "a"
            raise StoreUnavailable("down")

    store = GuardedStore(Breaking(), on_down=log.down)
    found = store.scan("")
    assert next(found) == "a"
    assert store.get("a") is None
    assert fails(lambda: next(found))
    assert fails(lambda: store.get("a"))
    assert len(log.said) == 1


def test_many_failures_at_once_are_one_outage(log: Log, clock: FakeClock) -> None:
    """Threads whose calls fail together tell of one outage."""
    together = threading.Barrier(8)

    class Failing(MemoryStore):
        def get(self, key: str) -> bytes | None:
            together.wait(PATIENT)
            raise StoreUnavailable("down")

    store = GuardedStore(Failing(), on_down=log.down, on_up=log.up)
    assert in_threads(8, lambda number: fails(lambda: store.get("a")), patience=PATIENT) == [True] * 8
    assert len(log.said) == 1


@pytest.mark.parametrize("kind", ["error", "slow", "dropped"])
def test_other_faults_are_no_outage(store: GuardedStore, inner: FaultyStore, log: Log, kind: t.Any) -> None:
    """A store that refuses, or is slow, is not down."""
    inner.fail(Fault(kind, "set", nth=1))
    for _ in range(2):
        try:
            store.set("a", b"1")
        except StoreError:
            continue
    assert inner.calls["set"] == 2
    assert store.get("a") == b"1"
    assert log.said == []


def test_wrong_use_is_no_outage(store: GuardedStore, log: Log) -> None:
    """What the caller did wrong says nothing of the store."""
    for call in (lambda: store.set("", b"1"), lambda: store.set("a", b"1", -1)):
        with pytest.raises(ValueError, match=r"key|ttl"):
            call()
    with pytest.raises(UnsupportedOperation):
        store.watch("", lambda key: None)
    assert log.said == []


# Coming back


def test_store_is_asked_again_after_a_second(
    store: GuardedStore, inner: FaultyStore, log: Log, clock: FakeClock
) -> None:
    """When the first second is over a call asks whether the store is back, and if so goes to it."""
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    inner.mend()
    clock.advance(0.999)
    assert asked(inner, lambda: store.set("a", b"1")) == 0
    clock.advance(0.001)
    store.set("a", b"1")
    assert store.get("a") == b"1"
    assert log.said[1:] == ["up"]


def test_wait_doubles_up_to_half_a_minute(store: GuardedStore, inner: FaultyStore, log: Log, clock: FakeClock) -> None:
    """While the store stays down it is asked more and more seldom, with one question each time."""
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    for seconds in (1, 2, 4, 8, 16, 30, 30, 30):
        clock.advance(seconds - 0.001)
        assert asked(inner, lambda: store.get("a")) == 0
        clock.advance(0.002)
        assert asked(inner, lambda: store.set("a", b"1")) == 1
    assert inner.calls["set"] == 0
    assert len(log.said) == 1


def test_next_outage_begins_with_a_second(store: GuardedStore, inner: FaultyStore, log: Log, clock: FakeClock) -> None:
    """After the store was up, the wait is short again, and the hooks are called again."""
    for _ in range(2):
        inner.fail("unavailable")
        assert asked(inner, lambda: store.get("a")) == 1
        clock.advance(1)
        assert asked(inner, lambda: store.get("a")) == 1
        inner.mend()
        clock.advance(2)
        assert store.get("a") is None
    assert [said == "up" for said in log.said] == [False, True] * 2


def test_wait_is_a_setting(inner: FaultyStore, clock: FakeClock) -> None:
    """The first and the longest wait can be chosen."""
    store = GuardedStore(inner, probe_after=10, max_probe_after=15)
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    for seconds in (10, 15, 15):
        clock.advance(seconds - 1)
        assert asked(inner, lambda: store.get("a")) == 0
        clock.advance(1)
        assert asked(inner, lambda: store.get("a")) == 1


def test_refusal_is_an_answer(store: GuardedStore, inner: FaultyStore, log: Log, clock: FakeClock) -> None:
    """A store that refuses the question is up."""
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    inner.mend()
    inner.fail(Fault("error", "get"))
    clock.advance(1)
    store.set("a", b"1")
    assert log.said[1:] == ["up"]


def test_malformed_key_does_not_end_an_outage(
    store: GuardedStore, inner: FaultyStore, log: Log, clock: FakeClock
) -> None:
    """What would need no answer from the store is no sign that it is back."""
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    clock.advance(1)
    assert fails(lambda: store.get(""))
    assert len(log.said) == 1


# One at a time


class Slow(MemoryStore):
    """Fails at first; later reads wait until they are told how to end."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.outcomes: dict[str, Exception | None] = {}
        self.told = threading.Condition()
        self.waits = False

    def get(self, key: str) -> bytes | None:
        if self.waits:
            self.entered.release()
            with self.told:
                assert self.told.wait_for(lambda: key in self.outcomes, PATIENT)
                if (outcome := self.outcomes[key]) is not None:
                    raise outcome
        return super().get(key)

    def end(self, key: str, outcome: Exception | None) -> None:
        """Let the reads of a key end, with a value or an error."""
        with self.told:
            self.outcomes[key] = outcome
            self.told.notify_all()


class Caller(threading.Thread):
    """Reads a key in a thread of its own, and keeps what came of it."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self.read = lambda: store.get(key)
        self.outcome: object = "none yet"

    def run(self) -> None:
        try:
            self.outcome = self.read()
        except BaseException as error:
            self.outcome = error

    def result(self) -> object:
        """Wait for what came of it."""
        self.join(PATIENT)
        assert not self.is_alive()
        return self.outcome


PROBED = "flask-stateful:check"


@pytest.fixture
def slow() -> Slow:
    """Return a store whose reads wait."""
    return Slow()


@pytest.fixture
def guarded(slow: Slow, log: Log, clock: FakeClock) -> GuardedStore:
    """Return that store, guarded."""
    return GuardedStore(slow, on_down=log.down, on_up=log.up)


def start(store: Store, slow: Slow, key: str) -> Caller:
    """Let a thread read a key, and wait until it is inside the store."""
    caller = Caller(store, key)
    caller.start()
    assert slow.entered.acquire(timeout=PATIENT)
    return caller


def take_down(store: Store, slow: Slow) -> None:
    """Let a call fail."""
    slow.waits = True
    down = start(store, slow, "down")
    slow.end("down", StoreUnavailable("down"))
    assert isinstance(down.result(), StoreUnavailable)


def test_one_caller_asks_and_the_others_fail_at_once(
    guarded: GuardedStore, slow: Slow, log: Log, clock: FakeClock
) -> None:
    """While one caller waits for the answer all others fail without asking, however long it takes."""
    take_down(guarded, slow)
    clock.advance(1)
    asking = start(guarded, slow, "a")
    for _ in range(3):
        assert in_threads(4, lambda number: fails(lambda: guarded.get("b")), patience=PATIENT) == [True] * 4
        clock.advance(60)
    assert not slow.entered.acquire(blocking=False)
    slow.end("a", None)
    slow.end(PROBED, None)
    assert asking.result() is None
    slow.waits = False
    assert guarded.get("b") is None
    assert log.said[1:] == ["up"]


def test_of_many_callers_one_asks(guarded: GuardedStore, slow: Slow, clock: FakeClock) -> None:
    """Of callers that arrive together when it is time, exactly one asks."""
    take_down(guarded, slow)
    slow.end(PROBED, StoreUnavailable("still down"))
    for seconds in (1, 2, 4, 8):
        clock.advance(seconds)
        in_threads(8, lambda number: fails(lambda: guarded.get("b")), patience=PATIENT)
        assert slow.entered.acquire(blocking=False)
        assert not slow.entered.acquire(blocking=False)


def test_interrupted_question_is_asked_by_the_next(guarded: GuardedStore, slow: Slow, clock: FakeClock) -> None:
    """Where the caller that asks is ended from outside, the next one asks."""
    take_down(guarded, slow)
    clock.advance(1)
    slow.end(PROBED, t.cast("Exception", KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        guarded.get("a")
    slow.waits = False
    assert guarded.get("a") is None


def test_late_failure_does_not_bring_back_the_outage(
    guarded: GuardedStore, slow: Slow, log: Log, clock: FakeClock
) -> None:
    """A call from before the outage that fails after it tells nothing new: the store stays up."""
    slow.waits = True
    early = start(guarded, slow, "early")
    take_down(guarded, slow)
    clock.advance(1)
    slow.waits = False
    assert guarded.get("a") is None
    slow.end("early", StoreUnavailable("timed out"))
    assert isinstance(early.result(), StoreUnavailable)
    assert guarded.get("a") is None
    assert log.said[1:] == ["up"]


def test_late_failure_does_not_prolong_the_outage(
    guarded: GuardedStore, slow: Slow, log: Log, clock: FakeClock
) -> None:
    """A call from before the outage that fails during it neither tells of another nor postpones the question."""
    slow.waits = True
    early = start(guarded, slow, "early")
    take_down(guarded, slow)
    clock.advance(1)
    slow.end("early", StoreUnavailable("timed out"))
    assert isinstance(early.result(), StoreUnavailable)
    slow.waits = False
    assert guarded.get("a") is None
    assert [said == "up" for said in log.said] == [False, True]


def test_late_success_does_not_end_the_outage(guarded: GuardedStore, slow: Slow, log: Log) -> None:
    """A call from before the outage that succeeds during it gets its value, and the store still counts as down."""
    slow.waits = True
    early = start(guarded, slow, "early")
    take_down(guarded, slow)
    slow.end("early", None)
    assert early.result() is None
    assert fails(lambda: guarded.get("a"))
    assert len(log.said) == 1


def test_child_asks_by_itself(guarded: GuardedStore, slow: Slow, clock: FakeClock) -> None:
    """A process that is forked while a thread of its parent asks does so itself."""
    take_down(guarded, slow)
    clock.advance(1)
    asking = start(guarded, slow, "a")

    def work(number: int) -> bytes | None:
        slow.waits = False
        return guarded.get("a")

    assert in_processes(1, work, patience=PATIENT) == [None]
    slow.end(PROBED, None)
    slow.end("a", None)
    assert asking.result() is None


# The rest is the inner store's


def test_declarations_are_the_inner_stores() -> None:
    """What a store declares about itself holds for the wrapped one."""

    class Evicting(RedisStore):
        durable = False  # type: ignore[assignment]

    for inner in (MemoryStore(max_value_bytes=7), RedisStore.from_url("redis://127.0.0.1:1")):
        store = GuardedStore(inner)
        for name in ("abilities", "shared", "persistent", "remote", "max_value_bytes"):
            assert getattr(store, name) == getattr(inner, name), name
    assert GuardedStore(MemoryStore()).durable is True
    assert GuardedStore(Evicting.from_url("redis://127.0.0.1:1")).durable is False


def test_durable_of_a_store_that_is_down_is_unavailable(clock: FakeClock, log: Log) -> None:
    """A store that has to be asked whether it evicts is not asked while it is down."""
    store = GuardedStore(RedisStore.from_url("redis://127.0.0.1:1"), on_down=log.down)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.durable  # noqa: B018
    assert len(log.said) == 1


def test_check_always_asks(store: GuardedStore, inner: FaultyStore, log: Log) -> None:
    """An operator's check reaches the store also while it counts as down, and changes nothing."""
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    assert asked(inner, store.check) == 1
    inner.mend()
    assert store.check() == []
    assert fails(lambda: store.get("a"))
    assert len(log.said) == 1


def test_text_says_whether_it_is_down(store: GuardedStore, inner: FaultyStore) -> None:
    """The text of the store names what is wrapped and whether it is down."""
    assert "MemoryStore" in repr(store)
    assert "down" not in repr(store)
    inner.fail("unavailable")
    assert fails(lambda: store.get("a"))
    assert "(down)" in repr(store)


# Real servers


@pytest.mark.parametrize("kind", [Redis, Valkey])
@pytest.mark.parametrize("taken", ["stop", "kill", "freeze"])
def test_server_that_is_down_is_asked_once(
    launch: Launch, kind: type[Redis], taken: str, log: Log, clock: FakeClock
) -> None:
    """A server that is stopped, killed or hung is contacted by one call for each question, and used when it is back."""
    server = launch(kind)
    with Proxy(server.port) as proxy:
        store = GuardedStore(
            RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=0.25), on_down=log.down, on_up=log.up
        )
        store.set("a", b"1")
        getattr(server, taken)()
        assert fails(lambda: store.get("a"))
        for seconds in (1, 2):
            proxy.reset()
            failed = in_threads(4, lambda number: [fails(lambda: store.get("a")) for _ in range(50)], patience=PATIENT)
            assert failed == [[True] * 50] * 4
            assert (proxy.connections, proxy.said) == (0, b"")
            clock.advance(seconds)
            assert fails(lambda: store.get("a"))
            assert proxy.connections == 1
        clock.advance(4)
        server.thaw() if taken == "freeze" else server.start()
        store.set("a", b"2")
        assert store.get("a") == b"2"
        assert [said == "up" for said in log.said] == [False, True]
        store.close()


def test_server_that_restarts_unseen_is_no_outage(launch: Launch, log: Log) -> None:
    """A server that restarts while nobody asks does not count as having been down."""
    server = launch(Redis)
    store = GuardedStore(RedisStore.from_url(server.url, timeout=PATIENT), on_down=log.down, on_up=log.up)
    store.set("a", b"1")
    server.restart()
    assert store.get("a") == b"1"
    assert log.said == []
    store.close()

"""Who computes when many ask at once: one, among threads and processes."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.stores.base import Store
from flask_stateful.testing import FakeClock
from flask_stateful.testing.conformance.crowd import eventually

from .conftest import PATIENCE, MakeApp


class Gate:
    """A computation that stops in the middle until the test lets it go on."""

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self) -> int:
        self.calls += 1
        call = self.calls
        self.entered.release()
        assert self.open.wait(PATIENCE)
        return call

    def wait(self) -> None:
        """Wait until a computation is in the middle."""
        assert self.entered.acquire(timeout=PATIENCE)


@pytest.fixture
def pool() -> t.Iterator[ThreadPoolExecutor]:
    """Threads that act as visitors."""
    with ThreadPoolExecutor(40) as pool:
        yield pool


def ask(app: Flask, state: Stateful, compute: Callable[[], t.Any], **options: t.Any) -> t.Any:
    with app.app_context():
        return state.cache.get_or_set("key", compute, **options)


def waiting(count: int, state: Stateful, app: Flask) -> None:
    """Wait until so many callers stand in line for the one who computes."""
    with app.app_context():
        flights = state.cache.runtime.engine._flights
    done = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if len(flights._waits) >= count:
            return
        done.wait(0.005)
    pytest.fail("nobody waits")


@pytest.mark.usefixtures("clock")
def test_threads_that_miss_together_compute_once(app: Flask, state: Stateful, pool: ThreadPoolExecutor) -> None:
    """M1: sixteen threads miss one key and one computes; the others get its value."""
    gate = Gate()
    futures = [pool.submit(ask, app, state, gate) for _ in range(16)]
    gate.wait()
    waiting(15, state, app)
    gate.open.set()
    assert {future.result(PATIENCE) for future in futures} == {1}
    assert gate.calls == 1


def two_apps(make_app: MakeApp, open_again: Callable[[], Store]) -> list[tuple[Flask, Stateful]]:
    states = [Stateful(), Stateful()]
    return [(make_app(state, open_again()), state) for state in states]


def test_processes_that_miss_together_compute_once(
    make_app: MakeApp, open_again: Callable[[], Store], pool: ThreadPoolExecutor
) -> None:
    """M2, S3: while one process computes, another with the same store waits for its value."""
    gate = Gate()
    (one, one_state), (other, other_state) = two_apps(make_app, open_again)
    first = pool.submit(ask, one, one_state, gate)
    gate.wait()
    second = pool.submit(ask, other, other_state, gate)
    gate.open.set()
    assert (first.result(PATIENCE), second.result(PATIENCE), gate.calls) == (1, 1, 1)


def test_error_reaches_everybody_once(app: Flask, state: Stateful, pool: ThreadPoolExecutor) -> None:
    """Those who wait for a computation that fails get its error; the next call tries again."""
    gate = Gate()

    def fail() -> None:
        gate()
        raise ValueError("broken")

    futures = [pool.submit(ask, app, state, fail) for _ in range(4)]
    gate.wait()
    waiting(3, state, app)
    gate.open.set()
    for future in futures:
        with pytest.raises(ValueError, match="broken"):
            future.result(PATIENCE)
    assert gate.calls == 1
    assert ask(app, state, lambda: "mended") == "mended"


def forget(cache: t.Any) -> None:
    cache.delete("key")


@pytest.mark.parametrize(
    "invalidate", [forget, lambda cache: cache.invalidate_tags("tag"), lambda cache: cache.clear()]
)
def test_value_computed_before_an_invalidation_is_not_kept(
    make_app: MakeApp,
    open_again: Callable[[], Store],
    pool: ThreadPoolExecutor,
    invalidate: Callable[[t.Any], None],
) -> None:
    """S2, M7: what was being computed when it was invalidated is served to nobody who asks after that."""
    gate = Gate()
    (one, one_state), (other, other_state) = two_apps(make_app, open_again)
    computing = pool.submit(ask, one, one_state, gate, tags=["tag"])
    gate.wait()
    with other.app_context():
        invalidate(other_state.cache)
    gate.open.set()
    assert computing.result(PATIENCE) == 1
    for app, state in ((one, one_state), (other, other_state)):
        assert ask(app, state, lambda: "new", tags=["tag"]) == "new"


def test_value_set_during_a_computation_stays(app: Flask, state: Stateful, pool: ThreadPoolExecutor) -> None:
    """A value that was set while another was computed is not replaced by that."""
    gate = Gate()
    computing = pool.submit(ask, app, state, gate)
    gate.wait()
    state.cache.set("key", "set")
    gate.open.set()
    assert computing.result(PATIENCE) == 1
    assert state.cache.get("key") == "set"
    assert state.cache.stats["overtaken"] == 1


def test_late_holder_is_refused(make_app: MakeApp, open_again: Callable[[], Store], pool: ThreadPoolExecutor) -> None:
    """A holder that takes longer than its lease does not overwrite the value of whoever took over."""
    with FakeClock() as clock:
        gate = Gate()
        (one, one_state), (other, other_state) = two_apps(make_app, open_again)
        late = pool.submit(ask, one, one_state, gate)
        gate.wait()
        expire_lease(other, other_state, clock)
        assert ask(other, other_state, lambda: "taken over") == "taken over"
        gate.open.set()
        assert late.result(PATIENCE) == 1
        assert ask(one, one_state, lambda: pytest.fail("computed again")) == "taken over"


def expire_lease(app: Flask, state: Stateful, clock: FakeClock) -> None:
    """Let the lease of whoever computes run out, on the server's clock as well."""
    clock.advance(11)
    with app.app_context():
        storage = state.cache.runtime.storage
        key = state.cache._call(state.cache.runtime, "key").key
        data = storage.store.get(key)
        if data is not None:
            storage.store.delete(key)


def test_recursion_computes_without_waiting_for_itself(app: Flask, state: Stateful) -> None:
    """A computation that asks for its own key does not wait for itself."""
    depth = 0

    def compute() -> t.Any:
        nonlocal depth
        depth += 1
        return "end" if depth == 3 else ask(app, state, compute)

    assert ask(app, state, compute) == "end"
    assert depth == 3


def test_opposite_orders_do_not_deadlock(app: Flask, state: Stateful, pool: ThreadPoolExecutor) -> None:
    """Two computations that need each other both end."""
    barrier = threading.Barrier(2)

    def compute(mine: str, other: str) -> str:
        def inner() -> str:
            barrier.wait(PATIENCE)
            with app.app_context():
                return f"{mine}{state.cache.get_or_set(other, lambda: 'x')}"

        with app.app_context():
            return str(state.cache.get_or_set(mine, inner))

    futures: list[Future[str]] = [pool.submit(compute, *pair) for pair in (("a", "b"), ("b", "a"))]
    results = [future.result(PATIENCE) for future in futures]
    assert all(result[0] in "ab" for result in results)


def test_nobody_waits_while_there_is_a_stale_value(
    make_app: MakeApp, open_again: Callable[[], Store], pool: ThreadPoolExecutor
) -> None:
    """At expiry, of many callers in two processes one refreshes and all get the old value at once."""
    with FakeClock() as clock:
        apps = two_apps(make_app, open_again)
        assert ask(*apps[0], lambda: "old", ttl=60, stale=600) == "old"
        clock.advance(61)
        gate = Gate()
        futures = [pool.submit(ask, app, state, gate, ttl=60, stale=600) for app, state in apps * 8]
        assert {future.result(PATIENCE) for future in futures} == {"old"}
        gate.wait()
        gate.open.set()
        assert gate.calls == 1


@pytest.mark.parametrize(
    "read", [lambda cache: cache.get("key"), lambda cache: cache.get_or_set("key", lambda: "computed")]
)
def test_change_right_after_a_read_is_seen(
    make_app: MakeApp,
    open_again: Callable[[], Store],
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[t.Any], t.Any],
) -> None:
    """A value that another process replaces once it was read, before the reader holds it, is not held."""
    mine, (one, other) = open_again(), (Stateful(), Stateful())
    reader, writer = make_app(one, mine), make_app(other, open_again())
    with writer.app_context():
        other.cache.set("key", "old")
    read_many, wrote = mine.get_many, threading.Event()

    def change_after_reading(keys: t.Iterable[str]) -> dict[str, bytes]:
        found = read_many(keys)
        if not wrote.is_set():
            wrote.set()
            with writer.app_context():
                other.cache.set("key", "new")
        return found

    with reader.app_context():
        heard = one.cache.runtime.storage.layer.epochs
        heard.marks(["key"])
        assert "epochs" not in mine.abilities or eventually(lambda: heard.live, PATIENCE)
        monkeypatch.setattr(mine, "get_many", change_after_reading)
        assert read(one.cache) == "old"
        assert eventually(lambda: read(one.cache) == "new", PATIENCE if mine.remote else 0)


def test_lock_lets_one_in_at_a_time(
    make_app: MakeApp, open_again: Callable[[], Store], pool: ThreadPoolExecutor
) -> None:
    """Read, add and write back under a lock lose nothing, in two processes."""
    apps = two_apps(make_app, open_again)

    def add(app: Flask, state: Stateful) -> None:
        with app.app_context(), state.cache.lock("counter", timeout=PATIENCE):
            state.cache.set("counter", state.cache.get("counter", 0) + 1)

    for future in [pool.submit(add, *apps[number % 2]) for number in range(20)]:
        future.result(PATIENCE)
    with apps[0][0].app_context():
        assert apps[0][1].cache.get("counter") == 20

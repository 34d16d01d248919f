"""How often the store is asked, who refreshes early, and what is counted and told."""

from __future__ import annotations

import contextlib
import functools
import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_stateful import Stateful, signals
from flask_stateful.cache import layer
from flask_stateful.cache.events import EVENTS
from flask_stateful.epochs import Epochs, NoEpochs
from flask_stateful.errors import StoreUnavailable
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import PATIENCE, MakeApp


class Unwatched(MemoryStore):
    """A store that cannot tell what changes, as Memcached is."""

    def epochs(self, prefix: str) -> Epochs:
        """Return epochs that know nothing."""
        return NoEpochs()


class Counting:
    """An application over a store that counts its calls."""

    def __init__(self, state: Stateful, make_app: MakeApp, store: Store) -> None:
        self.store = FaultyStore(store)
        self.state = state
        self.app = make_app(state, self.store)

    def calls(self, work: Callable[[], object]) -> dict[str, int]:
        """Return what something asks of the store."""
        self.store.reset()
        work()
        return dict(self.store.calls)


@pytest.fixture
def unwatched(state: Stateful, make_app: MakeApp) -> Iterator[Counting]:
    """An application over a store that cannot tell what changes."""
    counting = Counting(state, make_app, Unwatched())
    with counting.app.app_context():
        yield counting


@pytest.fixture
def watched(state: Stateful, make_app: MakeApp) -> Iterator[Counting]:
    """An application over a store that tells what changes."""
    counting = Counting(state, make_app, MemoryStore())
    with counting.app.app_context():
        yield counting


# Several at once


def test_get_many_is_one_exchange(unwatched: Counting) -> None:
    """Values without tags are read together."""
    cache = unwatched.state.cache
    cache.set_many({"a": 1, "b": 2, ("c", 3): [3]})
    found: list[dict[t.Any, t.Any]] = []
    assert unwatched.calls(lambda: found.append(cache.get_many(["a", ("c", 3), "none"]))) == {"get_many": 1}
    assert found == [{"a": 1, ("c", 3): [3]}]


def test_get_many_of_tagged_values_is_two(unwatched: Counting) -> None:
    """Tags that nobody has named are known only once the values were read; each is checked."""
    cache = unwatched.state.cache
    cache.set("a", 1, tags=["x"])
    cache.set("b", 2, tags=["x", "y"])
    assert unwatched.calls(lambda: cache.get_many(["a", "b"])) == {"get_many": 2}
    cache.invalidate_tags("y")
    assert cache.get_many(["a", "b"]) == {"a": 1}


def test_set_many_is_two_exchanges(unwatched: Counting) -> None:
    """One for the versions of the tags, one for all values; each has the tags and the ttl."""
    cache = unwatched.state.cache
    cache.set("warm", 1, tags=["x"])
    assert unwatched.calls(lambda: cache.set_many({"a": 1, "b": 2}, 60, tags=["x"])) == {"get_many": 1, "set_many": 1}
    assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
    cache.invalidate_tags("x")
    assert cache.get_many(["a", "b"]) == {}


def test_set_many_of_nothing(unwatched: Counting) -> None:
    """Nothing to write asks nothing of the store."""
    assert unwatched.calls(lambda: unwatched.state.cache.set_many({})) == {}


def test_get_many_while_the_store_is_down(watched: Counting) -> None:
    """What memory holds may not be true any more, and the store cannot be asked: there is nothing."""
    cache = watched.state.cache
    cache.set_many({"a": 1, "b": 2})
    watched.store.fail("unavailable")
    assert cache.get_many(["a", "b"]) == {}
    assert cache.stats["store_errors"] == 1


# Once for each request


def test_request_asks_once(unwatched: Counting) -> None:
    """A request asks for a value once, whatever calls for it; the next request asks again."""
    cache = unwatched.state.cache
    function = cache.memoize(60)(lambda a: [a])
    function(1)
    cache.set("key", "value")

    def work() -> None:
        for _ in range(3):
            assert (function(1), cache.get("key")) == ([1], "value")

    for _ in range(2):
        with unwatched.app.test_request_context():
            assert unwatched.calls(work) == {"get_many": 2}


def test_request_sees_its_own_changes(unwatched: Counting) -> None:
    """What a request changes itself it sees at once."""
    cache = unwatched.state.cache
    with unwatched.app.test_request_context():
        for change, expected in (
            (lambda: cache.set("key", 1, tags=["x"]), 1),
            (lambda: cache.set("key", 2, tags=["x"]), 2),
            (lambda: cache.invalidate_tags("x"), None),
            (lambda: cache.set("key", 3), 3),
            (lambda: cache.delete("key"), None),
        ):
            change()
            assert cache.get("key") == expected
            assert cache.get("key") == expected


def test_request_sees_its_own_changes_also_while_trust_comes_and_goes(state: Stateful, make_app: MakeApp) -> None:
    """What a request noted while its store was not heard, and changed while it was, it never gets back."""
    store = MemoryStore()
    epochs, app = store.epochs(""), make_app(state, store)
    with app.test_request_context():
        state.cache.set("key", "old")
        epochs.live = False
        assert state.cache.get("key") == "old"
        epochs.live = True
        state.cache.set("key", "new")
        epochs.live = False
        assert state.cache.get("key") == "new"


def test_outside_of_requests_the_store_is_asked_each_time(unwatched: Counting) -> None:
    """A worker that runs for days has no request that would end."""
    cache = unwatched.state.cache
    cache.set("key", 1)
    assert unwatched.calls(lambda: (cache.get("key"), cache.get("key"))) == {"get_many": 2}


def test_watched_store_needs_no_memory_of_the_request(watched: Counting, state: Stateful) -> None:
    """Where changes are seen at once, a request sees them too."""
    cache = watched.state.cache
    cache.set("key", 1)
    with watched.app.test_request_context():
        assert cache.get("key") == 1
        with watched.app.app_context():
            cache.set("key", 2)
        assert cache.get("key") == 2


# Values that are written between two exchanges


def test_value_replaced_while_its_tags_are_asked_for_is_not_trusted(watched: Counting) -> None:
    """A value that is replaced between the two exchanges of a read is not held as if it were the new one."""
    cache, store = watched.state.cache, watched.store
    cache.set("key", "old", tags=["x"])
    get_many = store.get_many
    exchanges: list[t.Any] = []

    def replace_in_between(keys: t.Any) -> dict[str, bytes]:
        exchanges.append(keys)
        found = get_many(keys)
        if len(exchanges) == 1:
            cache.set("key", "new", tags=["x"])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get_many", replace_in_between)
        cache.get("key")
    assert len(exchanges) == 2
    assert cache.get("key") == "new"


def soon(condition: Callable[[], bool]) -> bool:
    """Tell whether something comes true: where a server announces changes, that takes a moment."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(int(PATIENCE * 100)))


def test_version_that_the_store_has_lost_is_held_by_nobody(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """Where the store loses the versions of tags, a process that held them takes those that another one gives."""
    states, store = [Stateful(), Stateful()], open_again()
    one, other = (make_app(state, open_again()) for state in states)
    with one.app_context():
        states[0].cache.set("key", 1, tags=["x"])
        assert states[0].cache.get("key") == 1
        tags = states[0].cache.runtime.storage.tags
        store.delete_many([tags.key(""), tags.key("x")])
    with other.app_context():
        states[1].cache.set("key", 2, tags=["x"])
    with one.app_context():
        assert soon(lambda: states[0].cache.get("key") == 2)


# Early refresh


@pytest.fixture
def later(watched: Counting, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What is to be done when nobody waits for it."""
    work: list[Callable[[], object]] = []
    monkeypatch.setattr(watched.state.cache.runtime, "later", work.append)
    return work


def slow(state: Stateful, clock: FakeClock, calls: list[int], **options: t.Any) -> Callable[[], int]:
    """Return a cached function that takes two seconds."""

    @state.cache.memoize(60, **options)
    def function() -> int:
        clock.advance(2)
        calls.append(1)
        return len(calls)

    return function


@pytest.mark.parametrize("chance", [0.0, 1.5])
def test_early_refresh_begins_in_time(
    watched: Counting,
    clock: FakeClock,
    later: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
    chance: float,
) -> None:
    """A value that may be stale is refreshed before it expires, by as long as it took and some more by chance."""
    monkeypatch.setattr(layer.random, "expovariate", lambda _: chance)
    calls: list[int] = []
    function = slow(watched.state, clock, calls, stale=60)
    function()
    clock.advance(60 - 2 * (1 + chance) - 0.01)
    assert (function(), later) == (1, [])
    clock.advance(0.02)
    assert [function(), function(), len(later)] == [1, 1, 1]
    later.pop()()
    clock.advance(2 * (1 + chance))
    assert (function(), later) == (2, [])


def test_early_refresh_is_one_among_processes(
    watched: Counting, clock: FakeClock, later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one refreshes early, the others serve the value from memory until it expires."""
    monkeypatch.setattr(layer.random, "expovariate", lambda _: 1.0)
    calls: list[int] = []
    function = slow(watched.state, clock, calls, stale=60)
    function()
    clock.advance(57)
    function()
    function()
    assert watched.calls(lambda: [function() for _ in range(5)]) == {}
    assert (len(later), calls) == (1, [1])


def test_value_that_is_never_stale_is_not_refreshed_early(
    watched: Counting, clock: FakeClock, later: list[Callable[[], object]]
) -> None:
    """Without ``stale`` nothing is computed but in a caller's own time."""
    calls: list[int] = []
    function = slow(watched.state, clock, calls)
    function()
    clock.advance(59.9)
    assert (function(), later) == (1, [])


def test_early_refresh_begins_in_the_second_half_at_the_earliest(
    watched: Counting, clock: FakeClock, later: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a value takes, half of its life is left in peace."""
    monkeypatch.setattr(layer.random, "expovariate", lambda _: 1000.0)
    function = slow(watched.state, clock, [], stale=60)
    function()
    clock.advance(29.9)
    assert (function(), later) == (1, [])
    clock.advance(0.2)
    assert (function(), len(later)) == (1, 1)


# What is counted and told


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_counted_from_the_start(event: str, watched: Counting) -> None:
    """Every counter is there before it has counted anything."""
    assert watched.state.cache.stats[event] == 0


def test_signals_tell_what_happens(watched: Counting, clock: FakeClock, later: list[Callable[[], object]]) -> None:
    """Hits, misses, refreshes and errors are told with the application, a name and the counter's name; never a key."""
    told: list[tuple[str, str]] = []
    broken = [False]

    def listen(app: Flask, name: str, event: str) -> None:
        assert app is watched.app
        told.append((event, name))

    @watched.state.cache.memoize(60, stale=60)
    def function() -> int:
        if broken[0]:
            raise ZeroDivisionError
        return 1

    with contextlib.ExitStack() as stack:
        for signal in (signals.cache_hit, signals.cache_miss, signals.cache_refreshed, signals.cache_error):
            stack.enter_context(signal.connected_to(listen))
        for _ in range(3):
            function()
        clock.advance(61)
        function()
        later.pop()()
        clock.advance(61)
        broken[0] = True
        function()
        later.pop()()
        watched.state.cache.get("secret key")
        watched.store.fail("unavailable")
        watched.state.cache.get("secret key")
    name = f"{__name__}:test_signals_tell_what_happens.<locals>.function()"
    events = ["misses", "hits_store", "hits_memory", "hits_stale", "refreshes", "hits_stale", "refresh_errors"]
    assert told == [*((event, name) for event in events), ("misses", "a value"), ("store_errors", "a value")]
    stats = watched.state.cache.stats
    assert {event: stats[event] for event, _ in told} == {**dict.fromkeys(dict(told), 1), "misses": 2, "hits_stale": 2}


def test_invalidation_that_fails_is_an_error(watched: Counting) -> None:
    """W2: whoever invalidates is told when that could not be done."""
    watched.store.fail("unavailable")
    for work in (
        functools.partial(watched.state.cache.delete, "key"),
        functools.partial(watched.state.cache.invalidate_tags, "x"),
        watched.state.cache.clear,
    ):
        with pytest.raises(StoreUnavailable):
            work()

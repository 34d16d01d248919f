"""Defects that were measured in caches in use, M1 to M25: each has a test here, or one elsewhere that names it."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, Response

from flask_stateful import Stateful
from flask_stateful.cache.memory import MemoryLayer
from flask_stateful.errors import EncodeError
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock, FaultyStore
from tests.services import Launch, Redis, Valkey

from .conftest import PATIENCE, MakeApp
from .test_functions import Counted, memoized
from .test_views import Pages, is_hit


@pytest.fixture(params=[Redis, Valkey])
def server(request: pytest.FixtureRequest, launch: Launch) -> Redis:
    """A server of this test's own."""
    return launch(t.cast("type[Redis]", request.param))


@pytest.fixture
def pages() -> Pages:
    """An application with one cached page."""
    return Pages()


class Knocks(FaultyStore):
    """Counts the calls that go to a remote store."""

    @property
    def total(self) -> int:
        return sum(self.calls.values())


def test_m3_server_that_refuses_is_asked_once(
    make_app: MakeApp, state: Stateful, server: Redis, clock: FakeClock
) -> None:
    """M3, W2: while a server refuses connections, one call finds out; the others compute and ask nothing."""
    knocks = Knocks(open_store(server.url, timeout=PATIENCE))
    app = make_app(state, knocks)
    counted = Counted()
    with app.app_context():
        function = memoized(state, counted)
        function(1)
        server.kill()
        knocks.reset()
        assert [function(1)["call"] for _ in range(20)] == list(range(2, 22))
        assert knocks.total == 1
        server.start()
        clock.advance(60)
        made = function(1)
        assert function(1) == made
    knocks.close()


def test_m4_server_that_never_answers_costs_one_timeout(make_app: MakeApp, state: Stateful, server: Redis) -> None:
    """M4, W2: while a server accepts and does not answer, one call waits out the timeout; the others ask nothing."""
    knocks = Knocks(open_store(server.url, timeout=0.05))
    app = make_app(state, knocks)
    with FakeClock(), app.app_context():
        server.freeze()
        assert [state.cache.get_or_set("key", lambda n=n: n) for n in range(20)] == list(range(20))
        assert knocks.total == 1
        server.thaw()
    knocks.close()


class Bomb:
    """Goes off when it is unpickled."""

    armed = True

    def __reduce__(self) -> t.Any:
        return Bomb.go_off, ()

    @staticmethod
    def go_off() -> None:
        pytest.fail("it ran code")


@pytest.mark.usefixtures("app")
def test_m6_hostile_entry_runs_nothing(state: Stateful, store: Store) -> None:
    """M6, L2: what somebody else puts into the store is never run, neither bare nor inside an entry of ours."""
    import pickle

    storage = state.cache.runtime.storage
    key = state.cache._call(state.cache.runtime, "key").key
    state.cache.set("key", b"PLACE" * 20)
    ours = store.get(key)
    assert ours is not None
    hostile = pickle.dumps(Bomb())
    for data in (hostile, b"!" + hostile, b"\x01e" + hostile, ours.replace(b"PLACE" * 20, hostile.ljust(100, b"."))):
        store.set(key, data)
        storage.layer.changed([key])
        assert state.cache.get("key", "nothing") == "nothing"
    assert state.cache.stats["undecodable"] == 4


def test_m11_conditional_request_comes_first(pages: Pages) -> None:
    """M11: when the first request of all is conditional, and the view answers 304, others still get the page."""
    from flask import make_response, request

    def view() -> Response:
        response = make_response("body")
        response.set_etag("tag")
        return t.cast("Response", response.make_conditional(request))

    client = pages.page(view)
    assert client.get("/page", headers={"If-None-Match": '"tag"'}).status_code == 304
    assert [client.get("/page").text for _ in range(2)] == ["body", "body"]


def test_m13_stream_is_not_held_back(pages: Pages) -> None:
    """M13: the first part of a stream is sent before the last one is made."""
    made: list[int] = []

    def stream() -> t.Iterator[str]:
        for number in range(3):
            made.append(number)
            yield str(number)

    response = pages.page(lambda: Response(stream())).get("/page", buffered=False)
    parts = iter(response.response)
    assert (next(parts), made) == (b"0", [0])
    assert list(parts) == [b"1", b"2"]
    response.close()


def test_m15_coroutines_are_cached_inside_an_async_view(pages: Pages) -> None:
    """M15: an async view is cached, and awaits a cached coroutine function."""
    counted = Counted("tea")

    @pages.state.cache.memoize()
    async def name() -> str:
        return str(counted())

    @pages.app.get("/async")
    @pages.state.cache.view()
    async def view() -> str:
        return f"{await name()} {await name()}"

    # As Flask's own does, but for it the package asgiref has to be installed.
    pages.app.async_to_sync = lambda view: lambda *args: asyncio.run(view(*args))  # type: ignore[method-assign]
    client = pages.app.test_client()
    assert client.get("/async").text == "tea tea"
    assert is_hit(client.get("/async"))
    assert counted.calls == 1


@pytest.mark.parametrize("visited", [False, True])
def test_m17_setting_costs_the_same_however_much_is_held(visited: bool) -> None:
    """M16, M17: at capacity, a thousand new values take as many steps in 50,000 as in 500."""

    def steps(capacity: int) -> int:
        layer = MemoryLayer[int](max_bytes=1 << 40, max_entries=capacity)
        for number in range(capacity):
            layer.set(str(number), number, 1)
            if visited and number % 2:
                layer.get(str(number))
        lines = 0

        def count(frame: t.Any, event: str, argument: t.Any) -> t.Any:
            nonlocal lines
            # Whatever the collector of garbage runs meanwhile does not count.
            lines += frame.f_code.co_filename == inspect.getfile(MemoryLayer)
            return count

        sys.settrace(count)
        try:
            for number in range(1000):
                layer.set(f"new{number}", number, 1)
        finally:
            sys.settrace(None)
        return lines

    assert steps(50_000) <= 2 * steps(500)


def test_m18_expired_value_can_be_added(state: Stateful, app: Flask, clock: FakeClock) -> None:
    """M18: where a value has expired, add() writes."""
    assert state.cache.add("key", "old", ttl=10)
    assert not state.cache.add("key", "new", ttl=10)
    clock.advance(10)
    assert state.cache.add("key", "new", ttl=10)
    assert state.cache.get("key") == "new"


@pytest.mark.parametrize("ruin", [lambda path: path.write_bytes(b"no database" * 1000), lambda path: path.mkdir()])
def test_m18_file_that_cannot_be_read_costs_nothing(
    make_app: MakeApp, state: Stateful, tmp_path: Path, clock: FakeClock, ruin: Callable[[Path], object]
) -> None:
    """M18, W2: a file that cannot be read makes nobody wait: values are computed."""
    ruin(tmp_path / "cache.sqlite3")
    store = SQLiteStore(tmp_path / "cache.sqlite3")
    with make_app(state, store).app_context():
        began = clock.monotonic()
        function = memoized(state, Counted())
        assert [function(1), function(1)] == [{"call": 1}, {"call": 2}]
        assert clock.monotonic() == began
    store.close()


def test_m19_counters_lose_nothing_and_keep_their_ttl(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """M19: what threads of two applications count up adds up; counting does not prolong a counter's life."""
    with FakeClock() as clock:
        states = [Stateful(), Stateful()]
        apps = [make_app(state, open_again()) for state in states]

        def count(app: Flask, state: Stateful) -> None:
            with app.app_context():
                for _ in range(100):
                    state.cache.incr("visits", ttl=60)

        threads = [threading.Thread(target=count, args=pair) for pair in zip(apps * 2, states * 2, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with apps[0].app_context():
            assert states[0].cache.get("visits") == 400
            if states[0].cache.runtime.storage.store.remote:
                return  # the server's own clock decides, and the stores' tests wait for it
            clock.advance(59)
            assert states[0].cache.incr("visits", ttl=60) == 401
            clock.advance(1)
            assert states[0].cache.get("visits") is None


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("ttl", [0, -1, -5, float("nan")])
def test_m20_ttl_that_is_none_is_an_error(state: Stateful, ttl: float) -> None:
    """M20: a ttl of nothing or less is an error everywhere, on every store, and stores nothing."""
    cache = state.cache
    for call in (
        lambda: cache.set("key", 1, ttl=ttl),
        lambda: cache.add("key", 1, ttl=ttl),
        lambda: cache.get_or_set("key", lambda: 1, ttl=ttl),
        lambda: cache.incr("key", ttl=ttl),
    ):
        with pytest.raises(ValueError, match="ttl must be more than 0"):
            call()
    assert cache.get("key") is None


def test_m20_clear_takes_its_own_values_and_no_others(make_app: MakeApp, open_again: Callable[[], Store]) -> None:
    """M20: clear() in a namespace that looks like a pattern leaves those alone that would match it; it is one write."""
    states = {name: Stateful() for name in ("app[ab]", "appa", "app*")}
    counting = FaultyStore(open_again())
    apps = {
        name: make_app(state, counting if name == "app[ab]" else open_again(), STATEFUL_NAMESPACE=name)
        for name, state in states.items()
    }
    for name, app in apps.items():
        with app.app_context():
            states[name].cache.set_many(dict.fromkeys(range(100), name))
    with apps["app[ab]"].app_context():
        counting.reset()
        states["app[ab]"].cache.clear()
        assert counting.calls["set_many"] == 1
        assert not {"scan", "set", "delete", "get_many"} & counting.calls.keys()
        assert states["app[ab]"].cache.get(1) is None
    for name in ("appa", "app*"):
        with apps[name].app_context():
            assert states[name].cache.get(1) == name


def test_m20_added_value_is_never_without_its_ttl(make_app: MakeApp, state: Stateful, server: Redis) -> None:
    """M20: value and ttl are written with one command, so that no crash in between leaves a value for ever."""
    store = open_store(server.url, timeout=PATIENCE)
    with make_app(state, store).app_context():
        server.ask("CONFIG RESETSTAT")
        state.cache.add("key", 1, ttl=60)
        state.cache.get_or_set("other", lambda: 1, ttl=60)
        used = server.ask("INFO commandstats").decode()
    assert "cmdstat_expire" not in used
    assert "cmdstat_pexpire" not in used
    store.close()


def test_m21_calls_of_the_store(make_app: MakeApp, state: Stateful, store: Store) -> None:
    """M21: a hit is one exchange, or none; a miss three, or as many more as it has new tags; forgetting is one."""
    counting = FaultyStore(store)
    with make_app(state, counting, STATEFUL_CACHE_MEMORY=0).app_context():
        function = memoized(state, Counted(), tags=["tag"])
        function(1)
        counting.reset()
        function(1)
        assert counting.calls.total() == 1
        counting.reset()
        function(2)
        assert counting.calls.total() == 3
        assert {"add", "swap"} < counting.calls.keys()
        counting.reset()
        state.cache.invalidate_tags("tag")
        assert counting.calls["set_many"] == 1


STRANGE = [
    *("a b", "a!b", "a\nb", "a\r\nset x 0 0 1\r\n", "end\n", "\x00", "\x7f", "*?[ab]", "", " "),
    *("x" * 251, "x" * 5000, "\u00e9" * 250, "\U0001f600", "\u202e", "__proto__", "{tag}"),
]


@pytest.mark.usefixtures("app")
def test_m22_any_key_works(state: Stateful) -> None:
    """M22, M23: whatever text is a key, what is written under it is read, and under no other."""
    for number, key in enumerate(STRANGE):
        state.cache.set(key, number)
    assert [state.cache.get(key) for key in STRANGE] == list(range(len(STRANGE)))
    state.cache.invalidate_tags(*filter(None, STRANGE))
    state.cache.delete_many(STRANGE)
    assert state.cache.get_many(STRANGE) == {}


@pytest.mark.usefixtures("app")
def test_m23_keys_are_encoded(state: Stateful) -> None:
    """M23: what the store is given is plain and short, whatever the key is."""
    for key in STRANGE:
        assert re.fullmatch(r"shop:[A-Za-z0-9_.:-]{1,190}", state.cache._call(state.cache.runtime, key).key)


@pytest.mark.parametrize("testing", [True, False])
def test_m24_what_cannot_be_stored_is_an_error_at_once(
    make_app: MakeApp, state: Stateful, store: Store, testing: bool
) -> None:
    """M24: set() of a function raises; it does not claim to have worked, and get() finds nothing."""
    app = make_app(state, store)
    app.testing = testing
    with app.app_context():
        with pytest.raises(EncodeError, match="function"):
            state.cache.set("key", lambda: None)
        assert state.cache.get("key") is None


def test_m25_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """M25: calling a cached function does not look at its signature again."""
    state, app = Stateful(), Flask("shop")
    app.config.update(SECRET_KEY="a key for tests, long enough", STATEFUL_STORE={"default": MemoryStore()})
    state.init_app(app)
    function = memoized(state, Counted())
    monkeypatch.setattr(inspect, "signature", lambda *_: pytest.fail("looked again"))
    with app.app_context():
        assert function(1) == function(1, b=2)


def test_every_row_has_a_test() -> None:
    """Each of the measured defects M1 to M25 is named by a test, in its name or in what it says."""
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    named = {
        int(row)
        for text in texts
        for row in re.findall(r"(?:\"\"\"|, )M(\d+)(?=[:,])|def test_m(\d+)_", text)
        for row in row
        if row
    }
    assert named >= set(range(1, 26))

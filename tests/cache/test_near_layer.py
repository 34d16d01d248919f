"""What memory holds of a Redis or Valkey server: served without asking, and only as long as it is true."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.cache.cache import Cache
from flask_stateful.errors import StoreUnavailable
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import FakeClock
from tests.services import Launch, Redis, Valkey
from tests.stores.proxy import Proxy
from tests.stores.redis_topologies import eventually

from .conftest import PATIENCE, MakeApp


@pytest.fixture(params=[Redis, Valkey])
def server(request: pytest.FixtureRequest, launch: Launch) -> Redis:
    """Return a server of this test's own."""
    return launch(t.cast("type[Redis]", request.param))


@pytest.fixture
def proxy(server: Redis) -> Iterator[Proxy]:
    """Return a relay to the server."""
    with Proxy(server.port) as proxy:
        yield proxy


OpenCache: t.TypeAlias = Callable[..., Cache]


@pytest.fixture
def open_cache(make_app: MakeApp) -> Iterator[OpenCache]:
    """Open the cache of an application, as another process would; ask it in the application's context."""
    opened: list[tuple[RedisStore, t.Any]] = []

    def open_on(port: int, **config: t.Any) -> Cache:
        state, store = Stateful(), RedisStore.from_url(f"redis://127.0.0.1:{port}", timeout=PATIENCE)
        context = make_app(state, store, **config).app_context()
        opened.append((store, context))
        return _InContext(state.cache, context.app)  # type: ignore[return-value]

    yield open_on
    for store, _ in opened:
        store.close()


class _InContext:
    """A cache each of whose calls is made in its application's context."""

    def __init__(self, cache: Cache, app: Flask) -> None:
        self.cache, self.app = cache, app

    def __getattr__(self, name: str) -> t.Any:
        with self.app.app_context():
            found = getattr(self.cache, name)
        return self._call(found) if callable(found) else found

    def _call(self, method: Callable[..., t.Any]) -> Callable[..., t.Any]:
        def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
            with self.app.app_context():
                return method(*args, **kwargs)

        return call


def hold(cache: Cache, key: str = "key") -> t.Any:
    """Read a value until it comes from memory, and return it."""

    def from_memory() -> bool:
        before = cache.stats.get("hits_memory", 0)
        cache.get(key)
        return cache.stats.get("hits_memory", 0) > before

    assert eventually(from_memory)
    return cache.get(key)


def test_hit_asks_nobody(server: Redis, open_cache: OpenCache) -> None:
    """A value that is held costs no round trip, however often, whatever its tags."""
    cache = open_cache(server.port)
    cache.set("key", "value", tags=["one", "two"])
    hold(cache)
    before = commands(server)
    assert [cache.get("key") for _ in range(1000)] == ["value"] * 1000
    assert commands(server) == before


def commands(server: Redis) -> list[bytes]:
    """Return how often the server was asked for values."""
    stats = server.ask("INFO commandstats").splitlines()
    return [line.partition(b",")[0] for line in stats if line.startswith((b"cmdstat_mget:", b"cmdstat_get:"))]


CHANGES: dict[str, Callable[[Cache], object]] = {
    "set": lambda cache: cache.set("key", "new", tags=["tag"]),
    "delete": lambda cache: cache.delete("key"),
    "invalidate": lambda cache: cache.invalidate_tags("tag"),
    "clear": lambda cache: cache.clear(),
    "touch": lambda cache: cache.touch("key", ttl=0.001),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_elsewhere_ends_what_is_held(server: Redis, open_cache: OpenCache, change: str) -> None:
    """S2: what another process changes, forgets or invalidates is served from memory no more."""
    mine, other = open_cache(server.port), open_cache(server.port)
    for _ in range(3):
        other.set("key", "old", tags=["tag"])
        eventually(lambda: mine.get("key") == "old")
        assert hold(mine) == "old"
        CHANGES[change](other)
        assert eventually(lambda: mine.get("key") != "old")


def test_flush_ends_what_is_held(server: Redis, open_cache: OpenCache) -> None:
    """A server that an operator empties empties every memory."""
    cache = open_cache(server.port)
    cache.set("key", "old")
    hold(cache)
    server.ask("FLUSHALL")
    assert eventually(lambda: cache.get("key", "gone") == "gone")


def test_own_change_is_seen_at_once(server: Redis, open_cache: OpenCache) -> None:
    """A process never reads from memory what it has itself replaced, forgotten or invalidated."""
    cache = open_cache(server.port)
    for number in range(200):
        cache.set("key", number, tags=["tag"])
        assert cache.get("key") == number
        if number % 2:
            cache.invalidate_tags("tag")
        else:
            cache.delete("key")
        assert cache.get("key", "gone") == "gone"


def test_lost_link_leaves_memory_to_calls_that_take_stale_values(
    server: Redis, proxy: Proxy, open_cache: OpenCache
) -> None:
    """While the link is down memory serves nothing, except to calls with stale=."""
    cache = open_cache(proxy.port)
    cache.set("key", "old")
    cache.set("stale", "old", ttl=3600, stale=3600)
    assert (hold(cache), hold(cache, "stale")) == ("old", "old")
    proxy.cut()
    assert eventually(lambda: cache.get("key", "gone") == "gone")
    assert cache.get_or_set("key", lambda: "computed") == "computed"
    assert cache.get_or_set("stale", lambda: "computed", stale=3600) == "old"


def test_hung_link_leaves_memory(proxy: Proxy, open_cache: OpenCache, make_app: MakeApp) -> None:
    """A link on which everything is lost in silence ends what memory serves."""
    state, store = Stateful(), RedisStore.from_url(f"redis://127.0.0.1:{proxy.port}", timeout=0.25)
    cache: t.Any = _InContext(state.cache, make_app(state, store))
    cache.set("key", "old")
    eventually(lambda: cache.get("key") == "old")
    hold(cache)
    proxy.silent = True
    assert eventually(lambda: cache.get("key", "gone") == "gone")
    store.close()


def test_link_that_is_back_is_not_trusted_with_what_was_held(
    server: Redis, proxy: Proxy, open_cache: OpenCache
) -> None:
    """After an outage nothing from before it is served: what was changed meanwhile was not heard of."""
    mine, other = open_cache(proxy.port), open_cache(server.port)
    other.set("key", "old")
    eventually(lambda: hold(mine) == "old")
    port = proxy.target
    proxy.cut()
    eventually(lambda: mine.get("key", "gone") == "gone")
    other.set("key", "new")
    proxy.target = port
    seen = set()
    eventually(lambda: seen.add(mine.get("key", "gone")) or "new" in seen)
    assert seen <= {"gone", "new"}
    assert hold(mine) == "new"


def test_failed_forget_ends_what_is_held(proxy: Proxy, open_cache: OpenCache) -> None:
    """What could not be forgotten is not served by this process, and is forgotten before it reads again."""
    cache = open_cache(proxy.port)
    cache.set("key", "old")
    hold(cache)
    port = proxy.target
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        cache.delete("key")
    assert cache.get("key", "gone") == "gone"
    proxy.target = port
    misses = cache.stats.get("misses", 0)
    eventually(lambda: cache.get_or_set("fence", lambda: 1) and cache.stats.get("misses", 0) > misses)
    assert cache.get("key", "gone") == "gone"


def test_memory_is_trusted_for_half_a_minute(server: Redis, open_cache: OpenCache) -> None:
    """Though nothing is heard of a change, the server is asked again after 30 seconds."""
    with FakeClock() as clock:
        cache = open_cache(server.port)
        cache.set("key", "value", ttl=3600)
        hold(cache)
        clock.advance(29)
        before = commands(server)
        cache.get("key")
        assert commands(server) == before
        clock.advance(2)
        cache.get("key")
        assert commands(server) != before


def test_applications_do_not_disturb_each_other(server: Redis, open_cache: OpenCache) -> None:
    """Two applications with namespaces of their own on one server keep what they hold, whatever the other does."""
    one, twin, other = (open_cache(server.port, STATEFUL_NAMESPACE=name) for name in ("one", "one", "other"))
    one.set_many({"key": 1, "fence": 1})
    other.set("key", 2)
    assert (hold(one), hold(one, "fence"), hold(other)) == (1, 1, 2)
    other.set("key", 3)
    other.invalidate_tags("tag")
    other.clear()
    # Of what one application hears, this comes last.
    twin.set("fence", 2)
    eventually(lambda: one.get("fence") == 2)
    before = commands(server)
    assert one.get("key") == 1
    assert commands(server) == before
    assert other.get("key", "gone") == "gone"


def test_without_memory_nobody_listens(server: Redis, open_cache: OpenCache) -> None:
    """An application that holds nothing in memory has no listener, and its changes are heard by those who do."""
    mine, other = open_cache(server.port), open_cache(server.port, STATEFUL_CACHE_MEMORY=0)
    other.set("key", "old")
    assert other.get("key") == "old"
    assert [thread for thread in threading.enumerate() if thread.name == "flask-stateful-redis"] == []
    assert hold(mine) == "old"
    other.set("key", "new")
    assert eventually(lambda: mine.get("key") == "new")

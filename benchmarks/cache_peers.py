"""The caches that are compared, each with its defaults, except where its title says otherwise.

Every one of them is given the same names to be called by: ``get(key)``, ``set(key, value)``, and the cached functions
``text(number, limit=10)``, whose value nobody can change, and ``record(number, limit=10)``, whose value somebody could.
What can keep nothing but text has ``get_text`` and ``set_text`` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import typing as t
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from unittest import mock
from urllib.parse import urlsplit

from flask import Flask

from flask_stateful import Stateful
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore

from .apps import SECRET_KEY, Place

#: A value of 1 KB that is copied for each reader: 713 bytes as MessagePack.
RECORD: t.Final[dict[str, t.Any]] = {
    "id": 4711,
    "title": "A product with a title that says what it is",
    "price": 129.9,
    "tags": ["garden", "wood", "outdoor", "new"],
    "stock": {"berlin": 4, "hamburg": 0, "wien": 17},
    "text": "It has a description of some length. " * 13,
    "images": [f"/static/products/4711-{number}.webp" for number in range(3)],
}

#: A value of 1 KB that everybody may have as it is.
TEXT: t.Final = "<li>one product among many</li>\n" * 32

#: How often each function was computed.
computed: t.Final = Counter[str]()


def text(number: int, limit: int = 10) -> str:
    computed["text"] += 1
    return TEXT


def record(number: int, limit: int = 10) -> dict[str, t.Any]:
    computed["record"] += 1
    return dict(RECORD)


async def text_async(number: int, limit: int = 10) -> str:
    return text(number, limit)


async def record_async(number: int, limit: int = 10) -> dict[str, t.Any]:
    return record(number, limit)


@dataclasses.dataclass(frozen=True)
class Calls:
    """What a cache is asked to do, by the names above; what it cannot do is missing."""

    names: dict[str, Callable[..., t.Any]]
    #: What its calls need around them.
    context: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    #: Where its calls are awaited, if they are.
    loop: asyncio.AbstractEventLoop | None = None
    #: Ours.
    state: Stateful | None = None

    @property
    def is_near(self) -> bool:
        """Whether it is ours and holds values in memory, because it learns what others change."""
        if self.state is None:
            return False
        with self.context():
            layer = self.state.cache.runtime.storage.layer
            return layer.memory is not None and layer.epochs.live


#: Makes a cache ready.
Build: t.TypeAlias = Callable[[Place], Calls]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One cache."""

    name: str
    title: str
    build: Build
    #: The library it needs, which ``requirements/bench.txt`` brings.
    library: str = "flask"

    @property
    def installed(self) -> bool:
        """Whether the library it needs is there."""
        return find_spec(self.library) is not None


def stateful_app(store: Store, *, memory: bool, **config: t.Any) -> tuple[Flask, Stateful]:
    """Return an application whose cache is in a store, and what it calls ``state``.

    :param memory: whether its process holds values in memory as well.
    """
    # Two that share a server each have a namespace of their own.
    app = Flask("near" if memory else "far", instance_path="/nonexistent")
    app.config.update(SECRET_KEY=SECRET_KEY, STATEFUL_STORE={"default": MemoryStore(), "cache": store}, **config)
    if not memory:
        app.config["STATEFUL_CACHE_MEMORY"] = 0
    return app, Stateful(app)


def store_at(where: str, place: Place) -> Store:
    """Open one of our stores: ``"memory"``, ``"redis"``, ``"valkey"``, or a file of that name."""
    urls = {"memory": "memory://", "redis": place.redis_url, "valkey": place.valkey_url}
    return place.keep(open_store(urls.get(where) or f"sqlite:///{place.folder / where}"))


def _stateful(where: str, *, memory: bool) -> Build:
    def build(place: Place) -> Calls:
        app, state = stateful_app(store_at(where, place), memory=memory)
        return Calls(_names(state.cache.get, state.cache.set, state.cache.memoize()), app.app_context, state=state)

    return build


def _names(get: t.Any, set: t.Any, cached: t.Any, text: t.Any = text, record: t.Any = record) -> dict[str, t.Any]:
    return {**_values(get, set), "text": cached(text), "record": cached(record)}


def _values(get: t.Any, set: t.Any) -> dict[str, t.Any]:
    return {"get": get, "set": set, "get_text": get, "set_text": set}


def database(url: str, number: int) -> str:
    """Return the URL of another database on the same server: most caches write keys as they are given."""
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def _lru_cache(place: Place) -> Calls:
    return Calls({"text": functools.lru_cache(text), "record": functools.lru_cache(record)})


def _cachebox(place: Place) -> Calls:
    import cachebox

    def cached(function: t.Any) -> t.Any:
        return cachebox.cached(cachebox.TTLCache(1000, 300))(function)

    values = cachebox.TTLCache(1000, 300)
    return Calls(_names(values.get, values.insert, cached))


def _cachelib(place: Place) -> Calls:
    from cachelib.simple import SimpleCache

    cache = SimpleCache()
    return Calls(_values(cache.get, cache.set))


def _flask_caching(kind: str) -> Build:
    def build(place: Place) -> Calls:
        app, cache = flask_caching_app(kind, place)
        return Calls(_names(cache.get, cache.set, cache.memoize()), app.app_context)

    return build


def flask_caching_app(kind: str, place: Place) -> tuple[Flask, t.Any]:
    """Return an application with Flask-Caching, and its cache."""
    import flask_caching

    app = Flask("benchmarks", instance_path="/nonexistent")
    config = {"CACHE_TYPE": kind, "CACHE_DIR": str(place.folder / "flask-caching"), "CACHE_REDIS_URL": place.redis_url}
    return app, flask_caching.Cache(app, config=config)


def _django_memory(place: Place) -> Calls:
    from django.core.cache.backends.locmem import LocMemCache

    cache = LocMemCache("benchmarks", {})
    return Calls(_values(cache.get, cache.set))


def _django_redis(place: Place) -> Calls:
    from django.core.cache.backends.redis import RedisCache

    cache = RedisCache(place.redis_url, {})
    return Calls(_values(cache.get, cache.set))


def _dogpile(kind: str, **arguments: t.Any) -> Calls:
    from dogpile.cache import make_region
    from dogpile.cache.util import kwarg_function_key_generator

    # Its other generator of keys refuses calls by keyword.
    region = make_region(function_key_generator=kwarg_function_key_generator)
    region.configure(f"dogpile.cache.{kind}", expiration_time=300, arguments=arguments)
    return Calls(_names(region.get, region.set, region.cache_on_arguments()))


def _dogpile_memory(place: Place) -> Calls:
    return _dogpile("memory")


def _dogpile_redis(place: Place) -> Calls:
    return _dogpile("redis", url=database(place.redis_url, 2), redis_expiration_time=600)


def _diskcache(place: Place) -> Calls:
    import diskcache

    cache = place.keep(diskcache.Cache(str(place.folder / "diskcache")))
    return Calls(_names(cache.get, cache.set, cache.memoize(expire=300)))


def _cashews(url: str, place: Place) -> Calls:
    import cashews

    loop, cache = place.keep(asyncio.new_event_loop()), cashews.Cache()
    place.opened.callback(lambda: loop.run_until_complete(cache.close()))
    cache.setup(url)
    return Calls(_names(cache.get, cache.set, cache(ttl=300), text_async, record_async), loop=loop)


def _cashews_memory(place: Place) -> Calls:
    return _cashews("mem://", place)


def _cashews_redis(place: Place) -> Calls:
    return _cashews(database(place.redis_url, 3), place)


def _redis_near(place: Place) -> Calls:
    """Build redis-py's own cache in the process, which asks for Redis 7.4 though what it needs is in Redis 6."""
    import redis
    from redis.cache import CacheConfig
    from redis.connection import CacheProxyConnection

    place.opened.enter_context(mock.patch.object(CacheProxyConnection, "MIN_ALLOWED_VERSION", "6.0.0"))
    client = place.keep(redis.Redis.from_url(database(place.redis_url, 1), protocol=3, cache_config=CacheConfig()))
    return Calls({"get_text": client.get, "set_text": client.set})


PEERS: t.Final = {
    peer.name: peer
    for peer in (
        Peer("lru_cache", "functools.lru_cache (one object for all)", _lru_cache),
        Peer("cachebox", "cachebox TTLCache (outermost dict copied)", _cachebox, "cachebox"),
        Peer("cachelib", "cachelib SimpleCache", _cachelib, "cachelib"),
        Peer("fc-memory", "Flask-Caching, SimpleCache", _flask_caching("SimpleCache"), "flask_caching"),
        Peer("django-memory", "Django locmem", _django_memory, "django"),
        Peer("dogpile-memory", "dogpile.cache, memory (one object for all)", _dogpile_memory, "dogpile"),
        Peer("cashews-memory", "cashews, memory (async)", _cashews_memory, "cashews"),
        Peer("memory", "Flask-Stateful, memory", _stateful("memory", memory=True)),
        Peer("sqlite", "Flask-Stateful, memory over SQLite", _stateful("near.sqlite3", memory=True)),
        Peer("fc-files", "Flask-Caching, FileSystemCache", _flask_caching("FileSystemCache"), "flask_caching"),
        Peer("diskcache", "diskcache", _diskcache, "diskcache"),
        Peer("sqlite-file", "Flask-Stateful, SQLite alone", _stateful("far.sqlite3", memory=False)),
        Peer("redis-near", "redis-py, client-side cache, told that Redis 6 will do", _redis_near, "redis"),
        Peer("near", "Flask-Stateful, memory over Redis", _stateful("redis", memory=True)),
        Peer("fc-redis", "Flask-Caching, RedisCache", _flask_caching("RedisCache"), "flask_caching"),
        Peer("django-redis", "Django, Redis", _django_redis, "django"),
        Peer("dogpile-redis", "dogpile.cache, Redis", _dogpile_redis, "dogpile"),
        Peer("cashews-redis", "cashews, Redis (async)", _cashews_redis, "cashews"),
        Peer("redis", "Flask-Stateful, Redis alone", _stateful("redis", memory=False)),
        Peer("valkey", "Flask-Stateful, Valkey alone", _stateful("valkey", memory=False)),
    )
}

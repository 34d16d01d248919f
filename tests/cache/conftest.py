"""What the tests of the cache ask for: an application whose cache is kept in one store after the other."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock
from tests.services import Memcached, Redis

#: Keeps what other tests may find in the shared Redis apart from ours.
_REDIS_DATABASE = 6

#: Seconds that a call may take on a busy machine; no test's verdict depends on it.
PATIENCE = 30.0

MakeApp: t.TypeAlias = Callable[..., Flask]


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The time of the whole package, which stands still until the test moves it."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture(params=["memory", "sqlite", "redis", "memcached"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Open the same store again, as another process would; the one in memory is the same object."""
    if request.param == "memory":
        store = MemoryStore()
        yield lambda: store
        return
    if request.param == "redis":
        server: Redis = request.getfixturevalue("redis_server")
        server.ask(f"SELECT {_REDIS_DATABASE}\r\nFLUSHDB")
        url = f"{server.url.removesuffix('0')}{_REDIS_DATABASE}"
    elif request.param == "memcached":
        memcached: Memcached = request.getfixturevalue("memcached")
        memcached.flush()
        url = memcached.url
    else:
        url = f"sqlite:///{tmp_path / 'cache.sqlite3'}"
    opened: list[Store] = []

    def open_one() -> Store:
        opened.append(open_store(url, timeout=PATIENCE))
        return opened[-1]

    yield open_one
    for opened_store in opened:
        opened_store.close()


@pytest.fixture
def store(open_again: Callable[[], Store]) -> Store:
    """One store after the other."""
    return open_again()


@pytest.fixture
def make_app() -> MakeApp:
    """Make an application whose cache is in a store."""

    def make(state: Stateful, store: Store, **config: t.Any) -> Flask:
        app = Flask("shop")
        app.config.update(SECRET_KEY="a key for tests, long enough", TESTING=True, **config)
        app.config["STATEFUL_STORE"] = {"default": MemoryStore(), "cache": store}
        state.init_app(app)
        return app

    return make


@pytest.fixture
def state() -> Stateful:
    """The extension of the test's applications."""
    return Stateful()


@pytest.fixture
def app(make_app: MakeApp, state: Stateful, store: Store) -> Iterator[Flask]:
    """An application, in its context."""
    app = make_app(state, store)
    with app.app_context():
        yield app

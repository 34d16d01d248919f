"""What the tests of sessions ask for.

A test makes an application with :func:`make_app`, or takes ``app``, and visits it with :class:`~.support.Visitor`,
which says itself what the view does::

    def test_something(visitor: Visitor, state: Stateful) -> None:
        visitor.visit(lambda: session.update(name="Ada"))
        assert visitor.ask(lambda: session["name"]) == "Ada"

These run once for each of memory, SQLite, Redis and Memcached. What says *processes* takes ``serve`` instead, which
serves with PostgreSQL and MariaDB as well, there with the application's own database as the store.
"""

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
from tests.databases import emptied
from tests.services import Launch, MariaDB, Memcached, Postgres, Redis, launched
from tests.stores.memcached_listing import ListedMemcached

from .support import PATIENCE, Gunicorn, InterruptedStore, Visitor, add_view

#: Keeps what other tests may find in the shared Redis apart from ours.
_REDIS_DATABASE = 7

MakeApp: t.TypeAlias = Callable[..., Flask]
MakeVisitor: t.TypeAlias = Callable[..., Visitor]
Serve: t.TypeAlias = Callable[..., Gunicorn]


def _shared_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a store that several processes share."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite3'}"
    if kind == "memcached":
        memcached: Memcached = request.getfixturevalue("large_memcached")
        memcached.flush()
        return memcached.url
    if kind in ("postgres", "mariadb"):
        return emptied(t.cast("Postgres | MariaDB", request.getfixturevalue(kind)).url)
    server: Redis = request.getfixturevalue("redis_server")
    server.ask(f"SELECT {_REDIS_DATABASE}\r\nFLUSHDB")
    return f"{server.url.removesuffix('0')}{_REDIS_DATABASE}"


@pytest.fixture(scope="session")
def large_memcached() -> Iterator[Memcached]:
    """Memcached that takes the longest sessions that a test keeps."""
    with launched(Memcached, "-I", "32m", "-m", "256") as service:
        yield service


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The time of the whole package, which stands still until the test moves it."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture(params=["memory", "sqlite", "redis", "memcached"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One store after the other."""
    if request.param == "memory":
        store: Store = MemoryStore()
    elif request.param == "memcached":
        store = ListedMemcached.from_url(_shared_url("memcached", request, tmp_path), timeout=PATIENCE)
    else:
        store = open_store(_shared_url(request.param, request, tmp_path), timeout=PATIENCE)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "redis", "memcached", "postgres", "mariadb"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of one store after the other that several processes can share."""
    return _shared_url(request.param, request, tmp_path)


@pytest.fixture
def interrupted(store: Store) -> InterruptedStore:
    """The store, with things that happen in the middle of a request."""
    return InterruptedStore(store)


@pytest.fixture
def state() -> Stateful:
    """The extension of the application, or the applications, that the test makes."""
    return Stateful()


@pytest.fixture
def make_app(state: Stateful, tmp_path: Path) -> MakeApp:
    """Make an application with a store, settings, and the view that does what a visitor wants.

    ``prepare`` is called with it before the extension is set up.
    """

    def make_app(
        store: Store | str | None = None, *, prepare: Callable[[Flask], object] | None = None, **config: t.Any
    ) -> Flask:
        app = Flask(__name__, instance_path=str(tmp_path / "instance"))
        app.config.update(SECRET_KEY="a secret of 32 characters at least", STATEFUL_NAMESPACE="tests")
        app.config.update(config)
        if store is not None:
            app.config["STATEFUL_STORE"] = store
        if prepare is not None:
            prepare(app)
        state.init_app(app)
        add_view(app)
        return app

    return make_app


@pytest.fixture
def make_visitor() -> Iterator[MakeVisitor]:
    """Make visitors of an application. At the end, every request of theirs that still waits comes to its end."""
    made: list[Visitor] = []

    def make_visitor(app: Flask, **options: t.Any) -> Visitor:
        made.append(Visitor(app, **options))
        return made[-1]

    yield make_visitor
    for visitor in made:
        visitor.close()


@pytest.fixture
def app(make_app: MakeApp, store: Store) -> Flask:
    """An application with one store after the other."""
    return make_app(store)


@pytest.fixture
def visitor(make_visitor: MakeVisitor, app: Flask) -> Visitor:
    """A visitor of that application."""
    return make_visitor(app)


@pytest.fixture
def serve(launch: Launch, shared_url: str) -> Serve:
    """Serve :mod:`tests.sessions.served` from two processes, with one store after the other that they can share."""

    def serve(**config: t.Any) -> Gunicorn:
        arguments = [repr(shared_url), *(f"{name}={value!r}" for name, value in config.items())]
        return launch(Gunicorn, f"create_app({', '.join(arguments)})")

    return serve

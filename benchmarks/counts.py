"""Exact counts of what one request costs: round trips, statements, commits, store calls, headers.

They are counted where they happen, on the wire or in the library, and not worked out. None depends on the time.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import selectors
import socket
import sqlite3
import sqlite3.dbapi2
import threading
import typing as t
from collections.abc import Callable, Iterator
from unittest import mock
from urllib.parse import urlsplit

from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .apps import Contender, Place, stateful
from .visitor import Visitor

#: What is counted: a visitor's first session, and then requests that have one.
OPERATIONS: t.Final = ("new", "untouched", "read", "write")

_PATHS: t.Final = {"new": "/start", "untouched": "/untouched", "read": "/read", "write": "/write"}


@dataclasses.dataclass(frozen=True)
class Count:
    """What one request cost."""

    #: By kind; empty where there is nothing to count.
    events: collections.Counter[str]
    #: Those of the headers ``Set-Cookie`` and ``Vary`` that the answer had.
    headers: frozenset[str]

    def __str__(self) -> str:
        parts = [f"{number} {kind}" for kind, number in sorted(self.events.items(), reverse=True)]
        return " + ".join(parts) or "0"


#: Events so far; a counter in use adds to it.
Events: t.TypeAlias = collections.Counter[str]


def count(contender: Contender, place: Place) -> dict[str, Count]:
    """Make one request of each kind and count."""
    with _counting(contender, place) as (visitor, events):
        return {operation: _count(visitor, operation, events) for operation in OPERATIONS}


def _count(visitor: Visitor, operation: str, events: Events) -> Count:
    if operation == "new":
        # What a store sets up at its first calls is not this request's.
        first = Visitor(visitor.app)
        first.get(_PATHS["new"])
        first.get(_PATHS["write"])
    events.clear()
    answer = visitor.get(_PATHS[operation])
    return Count(events.copy(), frozenset(name for name in ("Set-Cookie", "Vary") if answer.values(name)))


@contextlib.contextmanager
def _counting(contender: Contender, place: Place) -> Iterator[tuple[Visitor, Events]]:
    if contender.unit == "round trips":
        with RoundTrips(place.redis_url) as redis, RoundTrips(place.valkey_url, redis.events) as valkey:
            through = dataclasses.replace(place, redis_url=redis.url, valkey_url=valkey.url)
            yield Visitor(contender.build(through)), redis.events
    elif contender.unit == "statements":
        with counted_statements() as events:
            yield Visitor(contender.build(place)), events
    elif contender.unit == "store calls":
        store = FaultyStore(MemoryStore())
        yield Visitor(stateful(store)), store.calls
    else:
        yield Visitor(contender.build(place)), Events()


def renewals(requests: int) -> Events:
    """Let an idle timeout pass during so many requests that read a session, and count the store's calls."""
    store = FaultyStore(MemoryStore())
    app = stateful(store)
    app.config["PERMANENT_SESSION_LIFETIME"] = idle_timeout = 1000.0
    with FakeClock() as clock:
        visitor = Visitor(app)
        visitor.get("/start")
        store.reset()
        for _ in range(requests):
            clock.advance(idle_timeout / requests)
            visitor.get("/read")
    return store.calls


class RoundTrips:
    """A proxy in front of a server that counts how often the client waits for it.

    A round trip begins when the client sends something after the server has answered: commands that travel together
    count once.

    :param url: of the server.
    :param events: where to count.
    """

    def __init__(self, url: str, events: Events | None = None) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self.events = Events() if events is None else events
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: What the client has to connect to.
        self.url = parts._replace(netloc=f"127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        self._selector = selectors.DefaultSelector()
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="round trips", daemon=True)

    def __enter__(self) -> t.Self:
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._stopped, selectors.EVENT_READ, None)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            t.cast("socket.socket", key.fileobj).close()
        self._stop.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        link = _Link(client, server, self.events)
        for end, forward in ((client, link.ask), (server, link.answer)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ, self._or_close(link, forward))

    def _or_close(self, link: _Link, forward: Callable[[], bool]) -> Callable[[], None]:
        def step() -> None:
            if not forward():
                for end in (link.client, link.server):
                    self._selector.unregister(end)
                    end.close()

        return step


class _Link:
    """One client's connection, and the one made for it to the server."""

    def __init__(self, client: socket.socket, server: socket.socket, events: Events) -> None:
        self.client, self.server, self._events = client, server, events
        self._answered = True

    def ask(self) -> bool:
        data = _receive(self.client)
        self._events["round trips"] += bool(data and self._answered)
        self._answered = False
        self.server.sendall(data)
        return bool(data)

    def answer(self) -> bool:
        data = _receive(self.server)
        self._answered = True
        self.client.sendall(data)
        return bool(data)


def _receive(end: socket.socket) -> bytes:
    """Return what has arrived; nothing when the connection has ended."""
    try:
        return end.recv(1 << 20)
    except ConnectionError:
        return b""


@contextlib.contextmanager
def counted_statements() -> Iterator[Events]:
    """Count the statements and commits of SQLite that the calling thread makes, on connections opened meanwhile."""
    events, connect, thread = Events(), sqlite3.connect, threading.get_ident()

    def connect_traced(*args: t.Any, **kwargs: t.Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)
        count_statement = _statement_counter(events)
        connection.set_trace_callback(lambda text: count_statement(text) if threading.get_ident() == thread else None)
        return connection

    with (
        mock.patch.object(sqlite3, "connect", connect_traced),
        mock.patch.object(sqlite3.dbapi2, "connect", connect_traced),  # where SQLAlchemy looks it up
    ):
        yield events


def _statement_counter(events: Events) -> Callable[[str], None]:
    """Return what is called with each statement of one connection."""
    open_writes: list[str] | None = None

    def count_statement(text: str) -> None:
        nonlocal open_writes
        verb = text.split(None, 1)[0].upper()
        if verb == "BEGIN":
            open_writes = []
        elif verb in ("COMMIT", "END", "ROLLBACK"):
            events["commits"] += verb != "ROLLBACK" and bool(open_writes)
            open_writes = None
        elif verb in ("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE"):
            events["statements"] += 1
            if verb != "SELECT" and open_writes is None:
                events["commits"] += 1
            elif verb != "SELECT" and open_writes is not None:
                open_writes.append(verb)

    return count_statement

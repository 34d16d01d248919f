"""Where the statements of a store are executed: on connections of its own, or on one that it was joined to."""

from __future__ import annotations

import contextlib
import threading
import typing as t
import weakref
from contextvars import ContextVar

from ... import clock
from ...errors import StoreError
from ..forks import tell_of_forks
from .dialects import Database, database_of
from .tables import VALUES, create_tables

if t.TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

#: Seconds that a fork waits for calls of other threads to end.
_FORK_PATIENCE: t.Final = 5.0
_PAUSE: t.Final = 0.0005

#: What a child inherited all the same. To let it go could end the parent's connections.
_inherited: t.Final[list[Engine]] = []


class Joined:
    """A connection of the application's, in whose transaction a store works for a while."""

    def __init__(self, connection: Connection, lock: str | None = None) -> None:
        self.connection = connection
        #: Keys of rows that were not what was expected. The transaction's snapshot may go on to show what they were,
        #: so they are read as they are now, and locked; as is the one that is asked for.
        self.lost: set[str] = set() if lock is None else {lock}


#: What the stores of a context are joined to.
_joined: ContextVar[dict[Place, Joined] | None] = ContextVar("flask_stateful.stores.sql.joined", default=None)


class Opened(t.NamedTuple):
    """An engine of our own."""

    engine: Engine
    database: Database


class Place:
    """The connections of one store.

    A fork waits for the calls of other threads, and all connections of our own are closed: a child could neither share
    those to a server, nor open any to a file that SQLite still holds locks on in the child's copy of the memory.

    :param make_engine: makes an engine of our own, at first use.
    :param may_create: tells whether a missing table is made.
    :param give_way: called before each call on a connection of our own, with whether it writes, so that none of the
        application's in the same thread keeps it waiting in vain. It returns the one that cannot let others write, and
        which is used instead.
    """

    def __init__(
        self,
        make_engine: t.Callable[[], Engine],
        may_create: t.Callable[[], bool],
        give_way: t.Callable[[bool], Connection | None] = lambda writes: None,
    ) -> None:
        self._make_engine = make_engine
        self._may_create = may_create
        self._give_way = give_way
        self._gate = threading.RLock()  # held to begin a call, and to keep any from beginning
        self._calls: list[object] = []
        self._opened: Opened | None = None
        self._finalizer: t.Callable[[], object] = lambda: None
        self._has_tables = False
        self._refusal = ""
        tell_of_forks(self)

    @property
    def joined(self) -> Joined | None:
        """What this context was joined to, if anything."""
        everything = _joined.get()
        return None if everything is None else everything.get(self)

    @contextlib.contextmanager
    def join(self, connection: Connection, lock: str | None) -> t.Generator[None]:
        """Let this context use a connection of the application's.

        :param lock: a key whose row is to be locked when it is read.
        """
        with self._calling() as (engine, _):
            if not self._has_tables:
                # A transaction of SQLite's that has written keeps every other connection from doing so.
                self._make_tables(connection if engine.dialect.name == "sqlite" else engine)
        token = _joined.set({**(_joined.get() or {}), self: Joined(connection, lock)})
        try:
            yield
        finally:
            _joined.reset(token)

    @contextlib.contextmanager
    def connection(self, *, writes: bool = True) -> t.Generator[tuple[Connection, Database]]:
        """Lend a connection for one statement.

        :param writes: whether it waits for others that write.
        """
        joined = self.joined
        with self._calling() as (engine, database):
            if joined is not None:
                yield joined.connection, database
                return
            given = self._give_way(writes or not self._has_tables)
            if not self._has_tables:
                self._make_tables(given or engine)
            with contextlib.nullcontext(given) if given is not None else engine.connect() as connection:
                yield connection, database

    @contextlib.contextmanager
    def _calling(self) -> t.Generator[Opened]:
        """Lend the engine of our own for one call."""
        with self._gate:
            opened = self._opened or self._open()
            self._calls.append(None)
        try:
            yield opened
        finally:
            self._calls.pop()

    def _open(self) -> Opened:
        if self._refusal:
            raise StoreError(self._refusal)
        engine = self._make_engine()
        # Whoever lets the store go without closing it has no more use for its connections.
        self._finalizer = weakref.finalize(self, engine.dispose)
        self._opened = Opened(engine, database_of(engine.dialect))
        return self._opened

    def close(self) -> None:
        """Close the connections of our own, those that are lent when they are given back, and lend no more."""
        with self._gate:
            self._refusal = self._refusal or "this store was closed: make another one"
            self._opened = None
            self._finalizer()

    def create_tables(self) -> list[str]:
        """Create what is missing; return the names of the tables that were."""
        with self._calling() as (engine, _):
            return create_tables(engine, [VALUES])

    def _make_tables(self, bind: Engine | Connection) -> None:
        """Create what is missing, if we may; in a transaction that may be rolled back, that is not settled by it."""
        if self._may_create():
            create_tables(bind, [VALUES])
        self._has_tables = self._opened is not None and bind is self._opened.engine

    def before_fork(self) -> None:
        """Close the connections, and let no call begin until the fork is over."""
        self._gate.acquire()
        deadline = clock.monotonic() + _FORK_PATIENCE
        while self._calls and clock.monotonic() < deadline:
            clock.wait(_PAUSE)
        if self._opened is not None:
            self._opened.engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Let calls begin again."""
        self._gate.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, or refuse to where a thread was amid a call, which may have left locks behind."""
        self._gate = threading.RLock()
        if self._calls and self._opened is not None:
            _inherited.append(self._opened.engine)
            self._opened = None
            self._refusal = "the process forked amid a long call of another thread: start it anew, or fork earlier"
        self._calls = []

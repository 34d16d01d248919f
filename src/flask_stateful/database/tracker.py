"""What is written through an engine: each transaction appends a version row for every table it has written.

It is seen at the engine, where nothing passes by: neither bulk statements nor Core nor SQL text nor sessions that we
have never heard of. The rows are part of the transaction they belong to, so that data and version become visible at
once, and nothing has to be done after the commit that a crash could prevent.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.pool import StaticPool

from .. import clock
from ..blocks import current_block
from ..stores.sql.tables import VERSIONS
from .levels import autocommits
from .statements import Statement, Statements
from .versions import Versions

if t.TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect, Engine

#: Where a pooled connection carries what its transaction has done.
_KEY: t.Final = "flask_stateful.transaction"

_NOTHING: t.Final = frozenset[str]()


class Transaction:
    """What one transaction has done so far."""

    __slots__ = (
        "autocommits",
        "before_writing",
        "began",
        "forgets",
        "has_written",
        "reads",
        "rows",
        "tracker",
        "written",
    )

    def __init__(self, tracker: Tracker | None = None, *, autocommits: bool = False) -> None:
        #: Whether each statement is a transaction of its own.
        self.autocommits = autocommits
        #: What follows its engine.
        self.tracker = tracker
        #: On the monotonic clock.
        self.began = clock.monotonic()
        #: Whether it has written anything, also what has no tag: our own tables, and new ones.
        self.has_written = False
        #: Called before each statement that writes, if anything has to be.
        self.before_writing: Callable[[Connection, Statement, t.Any], None] | None = None
        #: What its statements have read, in SQLite; ``None`` among it where that cannot be told.
        self.reads: set[frozenset[str] | None] = set()
        #: Tags of what it has written.
        self.written: set[str] = set()
        #: Whether it has taken the table of the versions away.
        self.forgets = False
        #: Version rows with numbers of their own.
        self.rows: dict[str, int] = {}


class Here:
    """What this thread, or this task of an event loop, has to do with databases at the moment."""

    __slots__ = ("_connections", "ended")

    def __init__(self) -> None:
        #: By thread: one that was begun in a copy of another's context has none of the other's connections.
        self._connections: dict[int, list[weakref.ref[Connection]]] = {}
        #: How many transactions have ended here.
        self.ended = 0

    def began(self, connection: Connection) -> None:
        """Note that a transaction has begun."""
        thread = threading.get_ident()
        known = self._connections.get(thread, ())
        others = [ref for ref in known if ref() is not connection and _is_open(ref())]
        self._connections[thread] = [*others, weakref.ref(connection)]

    def connections(self) -> Iterator[Connection]:
        """Yield the connections that are in a transaction, the newest first."""
        for ref in reversed(self._connections.get(threading.get_ident(), ())):
            connection = ref()
            if connection is not None and _is_open(connection):
                yield connection


_here: contextvars.ContextVar[Here | None] = contextvars.ContextVar("flask_stateful_database", default=None)


def here() -> Here:
    """Return what the current thread or task has to do with databases."""
    found = _here.get()
    if found is None:
        found = Here()
        _here.set(found)
    return found


class Reader(t.Protocol):
    """What wants to know what is read: a computation whose result is to be cached."""

    def reads(self, tracker: Tracker, connection: Connection, statement: Statement) -> None:
        """Take note of a statement before it is executed."""

    def finds(self, key: t.Any) -> None:
        """Take note of an object that a session has found by its identity key, without a statement."""


#: What wants to know of the statements of the current thread or task.
reader: t.Final[contextvars.ContextVar[Reader | None]] = contextvars.ContextVar("flask_stateful_reader", default=None)


class Tracker:
    """Follows what is written through one engine.

    :param engine: its events are listened to from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine: t.Final = weakref.ref(engine)
        self.statements: t.Final = Statements(engine.dialect)
        self.versions: t.Final = Versions(engine)
        #: What an atomic block calls the engine, where that is not the one whose transaction it commits.
        self.other_bind = ""
        #: The driver's connection of a pool that has only one, or one for each thread.
        self._only: t.Any = SimpleNamespace() if isinstance(engine.pool, StaticPool) else threading.local()
        self._commits_itself = engine.dialect.name in ("mysql", "mariadb")
        self._notes_reads = engine.dialect.name == "sqlite"
        event.listen(engine, "begin", self._begin)
        # What returns the statement is called as it is, without a function around it.
        event.listen(engine, "before_cursor_execute", self._before, retval=True)
        if self._commits_itself:
            event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "commit", self._commit)
        event.listen(engine, "rollback", self._rollback)
        event.listen(engine, "prepare_twophase", self._prepare)
        event.listen(engine, "commit_twophase", self._commit_prepared)
        event.listen(engine, "rollback_twophase", self._roll_back_prepared)
        event.listen(engine, "reset", _reset)
        if self.versions.is_private:
            event.listen(engine, "checkout", self._checkout)

    def _begin(self, connection: Connection) -> None:
        is_autocommit = autocommits(connection)
        if is_autocommit and not self._commits_itself:
            # On the connection, not the engine: other threads are going through the engine's list at the moment. Before
            # SQLAlchemy 2.0.38, that of an engine with options of its own can have no listener: what it writes is
            # appended once more when it is given back.
            with contextlib.suppress(InvalidRequestError):
                event.listen(connection, "after_cursor_execute", self._after)
        connection.info[_KEY] = Transaction(self, autocommits=is_autocommit)
        here().began(connection)

    def _before(self, connection: Connection, *executed: t.Any) -> tuple[str, t.Any]:
        _cursor, text, given, context, _many = executed
        statement = self.statements.of(text, context)
        if statement.changes:
            self._note(connection, statement, context)
        elif self._notes_reads and statement.reads != _NOTHING:
            transaction_of(connection).reads.add(statement.reads)
        if statement.commits:
            self._append(connection)
        elif statement.defines and self._commits_itself:
            self._append(connection, keep=True)
        found = reader.get()
        if found is not None:
            found.reads(self, connection, statement)
        return text, given

    def _note(self, connection: Connection, statement: Statement, context: t.Any) -> None:
        """Note what a statement is about to change."""
        transaction = transaction_of(connection)
        if transaction.before_writing is not None:
            transaction.before_writing(connection, statement, context)
        transaction.has_written = True
        if self.other_bind:
            block = current_block.get()
            if block is not None:
                block.other_bind = self.other_bind
        if not statement.writes:
            return
        transaction.written.update(statement.writes)
        if statement.rows is not None:
            transaction.written.update(statement.rows.written(context.compiled_parameters))
        if statement.forgets:
            transaction.forgets = True
            self.versions.look_again()
        elif transaction.autocommits:
            # Whoever reads before the statement, and keeps what it read, has a version that is over afterwards.
            self._append(connection, keep=True)

    def _after(self, connection: Connection, *executed: t.Any) -> None:
        transaction: Transaction | None = connection.info.get(_KEY)
        if transaction is None or not transaction.written:
            return
        if transaction.autocommits:
            self._append(connection)
            here().ended += 1
        elif self.statements.of(executed[1], executed[3]).defines:
            self._append(connection, keep=True)

    def _commit(self, connection: Connection) -> None:
        here().ended += 1
        self._append(connection)

    def _append(self, connection: Connection, *, keep: bool = False) -> None:
        """Append what the transaction has written.

        :param keep: whether the same is to be appended again at the end.
        """
        transaction: Transaction | None = connection.info.get(_KEY)
        if transaction is None or transaction.forgets or not (transaction.written or transaction.rows):
            return
        driver = t.cast("t.Any", connection.connection.dbapi_connection)
        try:
            if self.versions.exist(driver, may_create=True):
                self.versions.append(driver, transaction.written, transaction.rows)
        except BaseException as error:
            # Otherwise the pool would hand the next request a connection with an aborted transaction.
            self.versions.look_again()
            with contextlib.suppress(Exception):
                driver.rollback()
            if isinstance(error, t.cast("t.Any", connection.dialect.dbapi).Error):
                raise _as_from_sqlalchemy(error, connection.dialect) from error
            raise
        finally:
            if not keep:
                transaction.written, transaction.rows = set(), {}

    def _rollback(self, connection: Connection) -> None:
        here().ended += 1
        # One that broke has nothing any more, and says so with an error.
        if connection.invalidated:
            return
        transaction: Transaction | None = connection.info.get(_KEY)
        if transaction is not None and transaction.autocommits:
            self._append(connection)
        connection.info.pop(_KEY, None)

    def _prepare(self, connection: Connection, xid: object) -> None:
        self._commit(connection)

    def _commit_prepared(self, connection: Connection, xid: object, is_prepared: bool) -> None:
        self._commit(connection)

    def _roll_back_prepared(self, connection: Connection, xid: object, is_prepared: bool) -> None:
        self._rollback(connection)

    def _checkout(self, driver: object, record: object, proxy: object) -> None:
        self._only.connection = driver

    def only_connection(self) -> t.Any:
        """Return the driver's connection that everybody uses, whatever is going on there; elsewhere ``None``.

        To hand another one back to its pool would roll back what somebody is doing on this one.
        """
        return getattr(self._only, "connection", None)


def _as_from_sqlalchemy(error: BaseException, dialect: Dialect) -> BaseException:
    """Return a driver's error as SQLAlchemy raises it, which is what whoever commits knows how to handle."""
    ended = dialect.is_disconnect(t.cast("t.Any", error), None, None)
    statement, driver_error = f"INSERT INTO {VERSIONS.name}", t.cast("t.Any", dialect.dbapi).Error
    return DBAPIError.instance(statement, None, error, driver_error, connection_invalidated=ended, dialect=dialect)


def _reset(driver: object, record: t.Any, state: object) -> None:
    record.info.pop(_KEY, None)


def transaction_of(connection: Connection) -> Transaction:
    """Return what a connection's transaction has done so far."""
    info = connection.info
    found: Transaction | None = info.get(_KEY)
    if found is None:
        found = info[_KEY] = Transaction()
    return found


def append(connection: Connection, tag: str, n: int) -> None:
    """Append one more version row when the connection's transaction commits, together with those of its tables."""
    transaction_of(connection).rows[tag] = n


def _is_open(connection: Connection | None) -> bool:
    return (
        connection is not None and not connection.closed and not connection.invalidated and connection.in_transaction()
    )


_trackers: weakref.WeakKeyDictionary[Engine, Tracker] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def track(engine: Engine) -> Tracker:
    """Return what follows an engine, which does so from the first call on."""
    with _lock:
        found = _trackers.get(engine)
        if found is None:
            found = _trackers[engine] = Tracker(engine)
        return found

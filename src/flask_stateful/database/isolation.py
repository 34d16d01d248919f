"""Rows of a test that are gone when it ends: each engine gets one connection, in a transaction that is rolled back.

Whoever connects meanwhile gets that connection, and what begins, commits and rolls back there is a savepoint in that
transaction. The pool and a few methods of the dialect are exchanged for that; the engine itself, which sessions and
listeners hold, stays as it is.
"""

from __future__ import annotations

import contextlib
import itertools
import typing as t

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ..errors import ConfigError, StateError
from .levels import autocommits

_PAST_US: t.Final = (
    "something has committed inside test_isolation() past SQLAlchemy, so that rows were kept: a DDL statement on MySQL"
    " or MariaDB, or commit() of the driver's own connection; do that before it"
)

_numbers = itertools.count(1)

#: What changes a connection for longer than a transaction, which inside of one cannot be.
_SETTERS: t.Final = ("set_isolation_level", "set_readonly", "set_deferrable")


class _Point(t.NamedTuple):
    """A transaction of the application's, as a savepoint: who has begun it, and its name."""

    owner: t.Any
    name: str


class IsolatedEngine:
    """An engine whose transactions are savepoints in one that is never committed.

    :raises ConfigError: if the engine commits each statement by itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: list[_Point] = []
        self._lost: list[t.Any] = []
        self._keeping: list[t.Any] = []
        self._connection = engine.connect()
        self._transaction = self._connection.begin()
        pooled = self._connection.connection
        if engine.dialect.name == "sqlite" and not t.cast("t.Any", pooled.driver_connection).in_transaction:
            # Its driver would begin no transaction before a savepoint, which then is one itself.
            self._connection.exec_driver_sql("BEGIN")
        self._origin = f"stateful_{next(_numbers)}"
        self._connection.exec_driver_sql(f"SAVEPOINT {self._origin}")
        self._pool = engine.pool
        self._earlier = dict(vars(engine.dialect))
        self._exchange(pooled.dbapi_connection, dict(self._connection.info))

    def _exchange(self, shared: t.Any, info: dict[t.Any, t.Any]) -> None:
        """Let everybody connect to one connection."""
        dialect = self._engine.dialect
        # Without the listeners of the real pool: the connection has been set up already.
        pool = NullPool(lambda: shared, dialect=dialect)

        @event.listens_for(pool, "connect")
        def set_up(_connection: t.Any, record: t.Any) -> None:
            record.info.update(info)

        self._engine.pool = pool
        vars(dialect).update(do_begin=self._begin, do_commit=self._commit, do_rollback=self._rollback)
        changing = ("do_close", "do_terminate", *_SETTERS)
        vars(dialect).update(
            {name: _sparing(shared, getattr(dialect, name)) for name in changing if hasattr(dialect, name)}
        )
        event.listen(self._engine, "begin", self._note_autocommit)
        if dialect.name == "sqlite":
            event.listen(self._engine, "before_cursor_execute", self._leave_out_begin, retval=True)

    def close(self) -> None:
        """Roll back, and let the engine connect as before.

        :raises StateError: if something has ended the transaction, so that rows were kept.
        """
        event.remove(self._engine, "begin", self._note_autocommit)
        if self._engine.dialect.name == "sqlite":
            event.remove(self._engine, "before_cursor_execute", self._leave_out_begin)
        names = {"do_begin", "do_commit", "do_rollback", "do_close", "do_terminate", *_SETTERS}
        for name in names & vars(self._engine.dialect).keys():
            del vars(self._engine.dialect)[name]
        vars(self._engine.dialect).update({name: self._earlier[name] for name in names & self._earlier.keys()})
        self._engine.pool = self._pool
        try:
            self._connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {self._origin}")
        except DBAPIError as error:
            raise StateError(_PAST_US) from error
        finally:
            self._transaction.rollback()
            self._connection.close()

    # What the dialect does meanwhile; whoever asks is the one that the pool has lent the connection to.

    def _note_autocommit(self, connection: Connection) -> None:
        if autocommits(connection):
            self._keeping.append(connection.connection)

    def _leave_out_begin(
        self, _connection: Connection, _cursor: t.Any, statement: str, parameters: t.Any, *_: t.Any
    ) -> tuple[str, t.Any]:
        """Let an application that follows SQLAlchemy's manual for SQLite begin: there is a savepoint for that."""
        return ("SELECT 1" if statement.lstrip().upper().startswith("BEGIN") else statement), parameters

    def _begin(self, owner: t.Any) -> None:
        point = _Point(owner, f"stateful_{next(_numbers)}")
        _run(owner, f"SAVEPOINT {point.name}")
        self._open.append(point)

    def _commit(self, owner: t.Any) -> None:
        if _is_in(owner, self._lost):
            raise StateError(
                "a transaction that began earlier was rolled back, and this one with it: inside test_isolation() they"
                " share a connection; end the inner one first"
            )
        place = self._place_of(owner)
        if place is not None:
            if place == len(self._open) - 1:
                self._release(self._open[place])
            del self._open[place]

    def _rollback(self, owner: t.Any) -> None:
        self._lost = [lost for lost in self._lost if lost is not owner]
        if _is_in(owner, self._keeping):
            self._keeping = [keeping for keeping in self._keeping if keeping is not owner]
            # Each of its statements counts as committed, unless one has failed.
            with contextlib.suppress(StateError):
                self._commit(owner)
                return
        place = self._place_of(owner)
        if place is not None:
            point, *later = self._open[place:]
            del self._open[place:]
            self._lost += [each.owner for each in later]
            self._release(point, undo=True)

    def _release(self, point: _Point, *, undo: bool = False) -> None:
        try:
            if undo:
                _run(point.owner, f"ROLLBACK TO SAVEPOINT {point.name}")
            _run(point.owner, f"RELEASE SAVEPOINT {point.name}")
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise StateError(_PAST_US) from error

    def _place_of(self, owner: t.Any) -> int | None:
        return next((place for place, point in enumerate(self._open) if point.owner is owner), None)


def isolate(engine: Engine) -> IsolatedEngine:
    """Isolate an engine until it is closed.

    :raises ConfigError: if the engine commits each statement by itself.
    """
    if autocommits(engine):
        raise ConfigError("an engine with isolation_level='AUTOCOMMIT' cannot be rolled back; leave that out for tests")
    return IsolatedEngine(engine)


def _is_in(owner: t.Any, owners: list[t.Any]) -> bool:
    return any(each is owner for each in owners)


def _run(owner: t.Any, statement: str) -> None:
    cursor = owner.cursor()
    cursor.execute(statement)
    cursor.close()


def _sparing(shared: t.Any, function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Return what does the same to every connection but one."""

    def spare(connection: t.Any, *args: t.Any) -> t.Any:
        return None if connection is shared else function(connection, *args)

    return spare

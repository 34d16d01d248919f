"""Which failures of a database say no more than that another transaction came first, so that it can be done again."""

from __future__ import annotations

import sqlite3
import typing as t

from sqlalchemy import Connection, exc, select, text
from sqlalchemy.orm.exc import StaleDataError

from ..errors import StateConflict, StoreError
from ..stores.sql.tables import VALUES

#: By SQLSTATE: a serialization failure and a deadlock, on PostgreSQL and CockroachDB; and a row that is locked.
#: https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
_POSTGRESQL: t.Final = frozenset({"40001", "40P01", "55P03"})

#: By number: a deadlock, a lock that was not granted in time, a row that has changed since it was read, and a row that
#: is locked. https://mariadb.com/kb/en/mariadb-error-code-reference/
_MYSQL: t.Final = frozenset({1213, 1205, 1020, 3572})

#: What psycopg and psycopg2 call a transaction that has failed.
_FAILED: t.Final = 3


def is_conflict(error: BaseException | None) -> bool:
    """Tell whether a failure is worth another try: others came first, and nothing is wrong with the request."""
    while error is not None:
        if isinstance(error, (StateConflict, StaleDataError)):
            return True
        if isinstance(error, exc.DBAPIError):
            return error.connection_invalidated or _is_conflict_code(error.orig)
        # Ours say in general what the database has said exactly.
        error = error.__cause__ if isinstance(error, StoreError) else None
    return False


def dooms(error: BaseException | None) -> bool:
    """Tell whether a transaction cannot be committed after a failure, also where its statement was in a savepoint."""
    if not isinstance(error, exc.DBAPIError):
        return False
    fatal = _state_of(error.orig) in ("40001", "40P01") or _number_of(error.orig) in (1213, 1020)
    return error.connection_invalidated or fatal


def is_cut(error: BaseException | None) -> bool:
    """Tell whether the connection broke."""
    while isinstance(error, StoreError):
        error = error.__cause__
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def _is_conflict_code(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    # Drivers of MariaDB and MySQL may tell a SQLSTATE as well, which says less than the number.
    return _number_of(error) in _MYSQL or _state_of(error) in _POSTGRESQL


def _number_of(error: BaseException | None) -> object:
    return error.args[0] if error is not None and error.args else None


def _state_of(error: BaseException | None) -> object:
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)


def has_failed(connection: Connection) -> bool:
    """Tell whether PostgreSQL would answer COMMIT with a rollback, and no error, because a statement has failed."""
    driver = t.cast("t.Any", connection.connection).driver_connection
    return getattr(getattr(driver, "info", None), "transaction_status", None) == _FAILED


def lock_row(connection: Connection, key: str, *, waits: bool) -> None:
    """Lock the row of a key in our table.

    :param waits: whether to wait for another transaction that has it.
    :raises DBAPIError: a conflict, if another one has it, or has changed it since this transaction began.
    """
    if connection.dialect.name == "sqlite":
        return  # whose writers are alone
    statement = select(text("1")).select_from(VALUES).where(VALUES.c.key == key.encode())
    connection.execute(statement.with_for_update(nowait=not waits), execution_options={"schema_translate_map": None})

"""What goes wrong in a database, in the words of the contract."""

from __future__ import annotations

import sqlite3
import typing as t

from sqlalchemy import exc

from ...errors import StateError, StoreError, StoreUnavailable, ValueTooLarge

_Kind: t.TypeAlias = tuple[type[StoreError], str]

_BUSY: t.Final[_Kind] = (
    StoreUnavailable,
    "the database did not answer in time: end what keeps its rows locked, or give the store more time with"
    " STATEFUL_STORE_TIMEOUT",
)
_LOCKED: t.Final[_Kind] = (
    StoreUnavailable,
    "the SQLite database is locked by an open write transaction, maybe one that this request left open: commit it in"
    " the view, write `with state.atomic()` around it, or give the store more time with STATEFUL_STORE_TIMEOUT",
)
_FULL_UP: t.Final[_Kind] = (StoreUnavailable, "the database takes no more connections: let it take more, or use fewer")
_MISSING: t.Final[_Kind] = (
    StoreError,
    "the database lacks our table state_value: run `flask state db create`, or a migration that makes it",
)
_CONFLICT: t.Final[_Kind] = (StoreError, "the database chose another transaction over this one, see the cause")
_DENIED: t.Final[_Kind] = (StoreError, "the database user may not write state_value: grant the right to")
_LARGE: t.Final[_Kind] = (
    ValueTooLarge,
    "the value is longer than the database takes: on MariaDB and MySQL raise max_allowed_packet",
)
_OTHER: t.Final[_Kind] = (StoreError, "the database failed, see the cause")
_DOWN: t.Final[_Kind] = (StoreUnavailable, "the database cannot be reached, see the cause")

#: By SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: t.Final = {
    "42P01": _MISSING,
    "57014": _BUSY,
    "55P03": _BUSY,
    "53300": _FULL_UP,
    "40001": _CONFLICT,
    "40P01": _CONFLICT,
    "42501": _DENIED,
    "54000": _LARGE,
}

#: By number, https://mariadb.com/kb/en/mariadb-error-code-reference/
_MYSQL: t.Final = {
    1146: _MISSING,
    1205: _BUSY,
    1969: _BUSY,  # MariaDB's max_statement_time
    3024: _BUSY,  # MySQL's max_execution_time
    1040: _FULL_UP,
    1203: _FULL_UP,
    1020: _CONFLICT,
    1213: _CONFLICT,
    1142: _DENIED,
    1153: _LARGE,
    1301: _LARGE,
}

#: By SQLite's primary result code, https://www.sqlite.org/rescode.html
_SQLITE: t.Final = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CANTOPEN: _DOWN,
    sqlite3.SQLITE_IOERR: _DOWN,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_TOOBIG: _LARGE,
}

#: What another writer of the database may have changed since this transaction's snapshot.
_BUSY_SNAPSHOT: t.Final = getattr(sqlite3, "SQLITE_BUSY_SNAPSHOT", 517)


def store_error(error: Exception) -> StoreError:
    """Return what the contract raises for an error of SQLAlchemy or of a driver.

    What SQLAlchemy would print of the statement's parameters, keys and values, is left out from now on.
    """
    if isinstance(error, exc.StatementError):
        error.hide_parameters = True
    raised, text = _kind_of(error)
    return raised(text)


def _kind_of(error: Exception) -> _Kind:
    if isinstance(error, exc.TimeoutError):
        return _BUSY
    if not isinstance(error, exc.DBAPIError):
        return _DOWN if isinstance(error, OSError) else _OTHER
    known = _by_code(error.orig)
    if known is not None:
        return known
    # Refused, cut or not even begun: what drivers raise for these has no code.
    broken = error.connection_invalidated or isinstance(error, (exc.OperationalError, exc.InterfaceError))
    return _DOWN if broken else _OTHER


def _by_code(error: BaseException | None) -> _Kind | None:
    """Return the kind that a driver's error code stands for, if it has one that we know."""
    if isinstance(error, sqlite3.Error):
        return _by_sqlite_code(error)
    number = error.args[0] if error is not None and error.args else None
    if isinstance(number, int):
        return _MYSQL.get(number)
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None:
        return None
    return _POSTGRESQL.get(state, _DOWN if state[:2] in ("08", "57") else _OTHER)


def _by_sqlite_code(error: sqlite3.Error) -> _Kind:
    if "no such table" in str(error):
        return _MISSING
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return _CONFLICT if code == _BUSY_SNAPSHOT else _SQLITE.get(code & 0xFF, _OTHER)


class Failures:
    """Turns every exception of the block into one of ours, with the cause chained."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (StateError, TypeError, ValueError)):
            raise store_error(error) from error


failures: t.Final = Failures()

"""SQLite as a web application needs it: readers beside one writer, who says so when his transaction begins.

As its driver opens it, SQLite begins a transaction with the first write only, and lets two requests read the same row
before either writes it: one of the two changes is then lost. A transaction that begins by reading and then writes is
refused at once where another one has written meanwhile, however long it would wait. So requests that mean to write
begin with ``BEGIN IMMEDIATE``, which waits for its turn; all others begin with a plain ``BEGIN``, and read one state of
the database. See https://www.sqlite.org/lang_transaction.html and
https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#sqlite-transactions.
"""

from __future__ import annotations

import typing as t
import weakref
from contextvars import ContextVar

from flask import has_request_context, request
from sqlalchemy import Connection, Engine, event

from ..blocks import SAFE
from ..errors import ConfigError
from .levels import autocommits

#: Milliseconds that a writer waits for another.
_BUSY_TIMEOUT: t.Final = 5000

_PRAGMAS: t.Final = (
    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
)

#: Where a connection is marked as tuned, in what SQLAlchemy keeps for as long as the driver's connection lives.
_TUNED: t.Final = "flask_stateful.tuned"

#: Where a connection is marked that we have begun a transaction on: whether that lets no other write.
EXCLUDES: t.Final = "flask_stateful.excludes"

#: Engines that are known to be tuned; to ask SQLAlchemy each time takes longer.
_known: t.Final[weakref.WeakSet[Engine]] = weakref.WeakSet()

#: Whether the transactions that begin in this thread or task wait for their turn to write before they read.
means_to_write: t.Final[ContextVar[bool]] = ContextVar("flask_stateful.means_to_write", default=False)


def tune_sqlite(engine: Engine) -> None:
    """Let an engine's connections use WAL, wait for each other, check foreign keys, and begin when we say so.

    The second time, and for another database than SQLite, this does nothing.

    :raises ConfigError: if the engine commits each statement by itself.
    """
    if is_tuned(engine):
        return
    if autocommits(engine):
        raise ConfigError(
            "an engine with isolation_level='AUTOCOMMIT' has no transactions; leave that out of its options"
        )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)


def is_tuned(engine: Engine) -> bool:
    """Tell whether nothing is left to tune."""
    if engine.dialect.name != "sqlite" or engine in _known:
        return True
    if not event.contains(engine, "begin", _on_begin):
        return False
    _known.add(engine)
    return True


def _on_connect(dbapi_connection: t.Any, record: t.Any) -> None:
    # Else the driver begins by itself, when it pleases.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()
    record.info[_TUNED] = True


def _on_begin(connection: Connection) -> None:
    pooled = connection.connection
    if _TUNED not in connection.info:
        # It was opened before its engine was tuned.
        _on_connect(pooled.dbapi_connection, pooled)
    # An application that follows SQLAlchemy's manual has begun already.
    if autocommits(connection) or t.cast("t.Any", pooled.driver_connection).in_transaction:
        connection.info.pop(EXCLUDES, None)
    else:
        connection.info[EXCLUDES] = _will_write()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.info[EXCLUDES] else "BEGIN")


def _will_write() -> bool:
    return means_to_write.get() or (has_request_context() and request.method not in SAFE)

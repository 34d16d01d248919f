"""Engines of our own: one connection for one statement, in no transaction that anybody else has begun.

They have a pool of their own. In the application's, a request that holds one of its connections and waits for another
one would make all requests wait for each other once there are as many as connections.
"""

from __future__ import annotations

import inspect
import typing as t

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError, DisconnectionError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, QueuePool, SingletonThreadPool, StaticPool

from ... import clock
from ...errors import ConfigError
from .dialects import database_of
from .tables import create_tables

if t.TYPE_CHECKING:
    from sqlalchemy import URL, Dialect, Table
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

#: Connections that stay open while nobody needs them. There may be as many more as there are calls at once.
_IDLE_CONNECTIONS: t.Final = 5

#: Seconds after which an idle connection is asked whether the server still knows it.
_ASK_AFTER: t.Final = 5

#: For each driver of asyncio the one that we use, since a store waits.
_SYNCHRONOUS: t.Final = {
    "asyncpg": "psycopg",
    "psycopg_async": "psycopg",
    "aiosqlite": "pysqlite",
    "aiomysql": "pymysql",
    "asyncmy": "pymysql",
}

#: Without this, a rollback that does nothing is one more round trip to MariaDB and MySQL. (SQLAlchemy 2.0.43)
_NO_ROLLBACK: t.Final[dict[str, t.Any]] = (
    {"skip_autocommit_rollback": True}
    if "skip_autocommit_rollback" in inspect.signature(DefaultDialect.__init__).parameters
    else {}
)

_OPTIONS: t.Final[dict[str, t.Any]] = {
    "isolation_level": "AUTOCOMMIT",
    "hide_parameters": True,
    "pool_reset_on_return": None,
    **_NO_ROLLBACK,
}


def is_in_memory(engine: Engine) -> bool:
    """Tell whether an engine's database is the one connection that everybody uses, which must not be disturbed."""
    return engine.dialect.name == "sqlite" and isinstance(engine.pool, (StaticPool, SingletonThreadPool))


def engine_in_memory() -> Engine:
    """Return an engine on a new database in memory, whose one connection is lent to one caller after another."""
    pool: dict[str, t.Any] = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
    return create_engine("sqlite://", connect_args={"check_same_thread": False}, **_OPTIONS, **pool)


def engine_beside(engine: Engine, timeout: float | None) -> Engine:
    """Return an engine of our own on the database of the application's, which opens connections as that one does.

    :param timeout: seconds that a statement may take; ``None`` leaves that to the server.
    """
    if engine.dialect.is_async:
        return _finished(create_engine(_synchronous(engine.url), **_pooled()), timeout)
    source = engine.pool.recreate()
    options = {"module": engine.dialect.dbapi, "creator": lambda: _detached(source), **_pooled()}
    return _finished(create_engine(engine.url, **options), timeout)


def create_beside(engine: Engine, tables: t.Sequence[Table]) -> list[str]:
    """Create what a database lacks of our tables, without any event of the application's engine; return the names.

    A database in memory is left alone, since all its users share one connection.
    """
    if is_in_memory(engine):
        return []
    own = engine_beside(engine, None)
    try:
        return create_tables(own, tables)
    finally:
        own.dispose()


def engine_at(url: str, timeout: float) -> Engine:
    """Return an engine for a URL.

    :raises ConfigError: if the URL is malformed, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        engine = create_engine(parsed, connect_args=_connect_args(parsed, timeout), **_pooled())
    except ModuleNotFoundError as error:
        scheme = url.partition("://")[0]
        raise ConfigError(f"{scheme}:// needs the Python package {error.name}, which is not installed") from error
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The cause is left out: what could not be read may be a part of a password.
        raise ConfigError(
            "a database's address is postgresql+psycopg://user:password@host:5432/name or"
            " mariadb+pymysql://user:password@host:3306/name; in it write %40 for @, %2F for / and %3A for :"
        ) from None
    if engine.driver == "psycopg":
        _bound(engine, timeout)
    return _finished(engine, timeout)


def _bound(engine: Engine, timeout: float) -> None:
    """Let psycopg, which has no bound of its own, wait no longer than the server is to take."""
    from .bounded import connect_bounded

    def connect(_dialect: Dialect, _record: ConnectionPoolEntry, args: t.Any, named: t.Any) -> DBAPIConnection:
        return connect_bounded(timeout, *args, **named)

    event.listen(engine, "do_connect", connect)


def _connect_args(url: URL, timeout: float) -> dict[str, t.Any]:
    """Return what bounds a connection by the driver, where the server itself does not answer."""
    if url.get_backend_name() == "postgresql":
        return {"connect_timeout": max(2, round(timeout)), "tcp_user_timeout": round(timeout * 1000)}
    return {"connect_timeout": timeout, "read_timeout": timeout, "write_timeout": timeout}


def _pooled() -> dict[str, t.Any]:
    pool = {"poolclass": QueuePool, "pool_size": _IDLE_CONNECTIONS, "max_overflow": -1, "pool_use_lifo": True}
    return {**_OPTIONS, **pool}


def _synchronous(url: URL) -> URL:
    backend, _, driver = url.drivername.partition("+")
    return url.set(drivername=f"{backend}+{_SYNCHRONOUS.get(driver, driver)}")


def _detached(source: Pool) -> t.Any:
    """Return a connection that a pool has opened and does not know any more."""
    lent = source.connect()
    connection = lent.dbapi_connection
    lent.detach()
    return connection


def _finished(engine: Engine, timeout: float | None) -> Engine:
    """Let every connection of an engine know the bound, and be asked after a pause whether it still works."""
    dialect = engine.dialect

    def connected(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        if timeout is None:
            return
        cursor = connection.cursor()
        for statement in database_of(dialect).on_connect(timeout):
            cursor.execute(statement)
        cursor.close()

    def lent(connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection) -> None:
        idle_since = record.info.pop("stateful_idle_since", None)
        if idle_since is None or clock.monotonic() - idle_since < _ASK_AFTER:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error

    def returned(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info["stateful_idle_since"] = clock.monotonic()

    event.listen(engine, "connect", connected)
    if dialect.name != "sqlite":
        event.listen(engine, "checkout", lent)
        event.listen(engine, "checkin", returned)
    return engine

"""The version rows of one database: what of it has changed, for every process to see.

A version is the sum of the numbers that were appended for a tag. They are random, so that neither a restored backup nor
two writers at once come to a version that there has been before. All of it goes through the driver's own cursor: a
statement of SQLAlchemy's would begin a transaction, or write what the application's session has not written yet.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import typing as t
from collections.abc import Collection, Generator, Iterable, Mapping

from sqlalchemy import inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

from .. import clock
from ..stores.sql.tables import VERSIONS
from .tags import other_rows

if t.TYPE_CHECKING:
    from sqlalchemy.engine import Engine

logger = logging.getLogger("flask_stateful")

#: The largest number that is appended.
_LARGEST: t.Final = 1 << 24

#: How long a database without the table is left alone, in seconds.
_LOOK_AGAIN: t.Final = 60.0

#: After so many appended rows, those of one tag are added up.
COMPACT_EVERY: t.Final = 1000

#: Fewer rows of one tag than these are left as they are.
_FEW: t.Final = 32

#: Of more tags for single rows than these, all are given up.
_MOST_ROW_TAGS: t.Final = 10_000
_AT_ONCE: t.Final = 1000

#: Of how many tags the last version is remembered.
_MOST_SEEN: t.Final = 4096

#: How long a marker of a transaction is kept, in seconds, and what it begins with.
_MARKERS_LAST: t.Final = 3600
MARKER: t.Final = "unit:"

#: How drivers want parameters written.
_PLACEHOLDERS: t.Final = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric_dollar": "$%d", "numeric": ":%d"}

_EXISTS: t.Final = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'state_version'",
    "postgresql": "SELECT 1 WHERE to_regclass('state_version') IS NOT NULL",
    "mysql": "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'state_version'",
}

_DEFINITIONS: t.Final[list[CreateTable | CreateIndex]] = [
    CreateTable(VERSIONS, if_not_exists=True),
    *(CreateIndex(index, if_not_exists=True) for index in VERSIONS.indexes),
]
_CREATE_ON_SQLITE: t.Final = [str(each.compile(dialect=sqlite.dialect())) for each in _DEFINITIONS]


class Versions:
    """The version rows of one engine's database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: The application's own, also while test_isolation() lets everybody share one connection.
        self._pool = engine.pool
        dialect = engine.dialect
        self._family = "mysql" if dialect.name == "mariadb" else dialect.name
        self._placeholder = _PLACEHOLDERS.get(dialect.paramstyle, ":%d")
        self._found = False
        self._look_at = 0.0
        #: What each tag's version was when it was read last, and since when it has been that, by the monotonic clock.
        self._seen: dict[str, tuple[int, float]] = {}
        self._appended = random.randrange(COMPACT_EVERY)
        self._compacting = threading.Lock()
        #: Whether all there is, is one connection that is not ours.
        self.is_private = isinstance(engine.pool, StaticPool | SingletonThreadPool)

    # Reading and appending

    def exist(self, connection: t.Any, *, may_create: bool = False) -> bool:
        """Tell whether the database has the table; a database without it is asked again after a minute.

        :param connection: the driver's.
        :param may_create: whether a transaction that writes anyway may make the table, in SQLite.
        """
        if self._found:
            return True
        if clock.monotonic() < self._look_at:
            return False
        if self._looked(connection):
            self._found = not _is_in_transaction(connection)
            return True
        if self._family == "sqlite" and (may_create or self.is_private or self._create()):
            if may_create or self.is_private:
                _run(connection, *_CREATE_ON_SQLITE)
            return True
        self._look_at = clock.monotonic() + _LOOK_AGAIN
        logger.error(
            "%s has no table state_version: what is cached from it lasts until its ttl is over, and no commit"
            " invalidates it; run `flask state db create`, or add the table in a migration",
            self._engine.url.render_as_string(hide_password=True),
        )
        return False

    def read(self, connection: t.Any, tags: Iterable[str]) -> dict[str, int]:
        """Return the versions that tags have now, as this connection sees them.

        :param connection: the driver's.
        """
        tags = list(tags)
        if not tags:
            return {}
        sql = f"SELECT tag, SUM(n) FROM state_version WHERE tag IN ({self._marks(len(tags))}) GROUP BY tag"
        found = {tag: int(n) for tag, n in _rows(connection, sql, tags)}
        versions = {tag: found.get(tag, 0) for tag in tags}
        self._note(versions)
        return versions

    def was_so(self, tag: str, version: int, then: float) -> bool:
        """Tell whether this process knows that a tag had this version at a moment of the monotonic clock."""
        seen, since = self._seen.get(tag, (-1, 0.0))
        return seen == version and since <= then

    @property
    def are_missing(self) -> bool:
        """Whether the database was found to have no table for them."""
        return not self._found and clock.monotonic() < self._look_at

    def _note(self, versions: Mapping[str, int]) -> None:
        now = clock.monotonic()
        if len(self._seen) > _MOST_SEEN:
            self._seen.clear()
        for tag, version in versions.items():
            if self._seen.get(tag, (-1, now))[0] != version:
                self._seen[tag] = version, now

    def append(self, connection: t.Any, tags: Iterable[str], rows: Mapping[str, int]) -> None:
        """Give tags other versions once the connection's transaction commits.

        :param connection: the driver's.
        :param rows: further rows, with numbers that are given.
        """
        numbered = {**{tag: random.randint(1, _LARGEST) for tag in sorted(tags)}, **rows}
        self._insert(connection, numbered)
        self._appended += len(numbered)
        if self._appended >= COMPACT_EVERY and not self.is_private:
            self._appended = 0
            threading.Thread(target=self._compact_quietly, name="flask-stateful-compact", daemon=True).start()

    def last(self, connection: t.Any, *, may_create: bool) -> int:
        """Return the number of the row that was appended last, as this connection sees it.

        :param connection: the driver's, in SQLite.
        :param may_create: whether its transaction may make the table.
        """
        if not self.exist(connection, may_create=may_create):
            return 0
        return int(_rows(connection, "SELECT MAX(id) FROM state_version", ())[0][0] or 0)

    def appended_since(self, connection: t.Any, last: int, tags: Collection[str]) -> bool:
        """Tell whether any of these tags has got another version after a row was appended.

        :param connection: the driver's, in SQLite.
        :param last: the number of the row.
        """
        if not tags or not self.exist(connection):
            return False
        sql = f"SELECT 1 FROM state_version WHERE id > {last} AND tag IN ({self._marks(len(tags))}) LIMIT 1"
        return bool(_rows(connection, sql, [*tags]))

    def look_again(self) -> None:
        """Do not take for granted any more that the table is there."""
        self._found = False

    # Compacting

    def compact(self) -> None:
        """Add up the rows of each tag that has many, over a connection that is not the application's."""
        with self._own_connection() as connection:
            sql = f"SELECT tag FROM state_version GROUP BY tag HAVING COUNT(*) > {_FEW}"
            for (tag,) in _rows(connection, sql, ()):
                with self._transaction(connection):
                    self._add_up(connection, tag)
            with self._transaction(connection):
                old = int(clock.now()) - _MARKERS_LAST
                _run(connection, f"DELETE FROM state_version WHERE tag LIKE '{MARKER}%' AND n < {old}")
            self._give_up_rows(connection)

    def _add_up(self, connection: t.Any, tag: str) -> None:
        rows = _rows(connection, f"SELECT id, n FROM state_version WHERE tag = {self._marks(1)}{self._locking}", [tag])
        if len(rows) > 1:
            # In this order: SQLite would give the number of a row that is gone to another one.
            self._insert(connection, {tag: sum(int(row[1]) for row in rows)})
            self._delete(connection, [row[0] for row in rows])

    def _give_up_rows(self, connection: t.Any) -> None:
        """Where very many rows have tags, let what depends on any of them be made anew, and begin afresh."""
        found = _rows(connection, "SELECT COUNT(*) FROM state_version WHERE tag LIKE '%]'", ())
        if found[0][0] <= _MOST_ROW_TAGS:
            return
        select = f"SELECT id, tag FROM state_version WHERE tag LIKE '%]' AND tag NOT LIKE '%[*]' LIMIT {_AT_ONCE}"
        while True:
            with self._transaction(connection):
                rows = _rows(connection, select + self._locking, ())
                if not rows:
                    return
                tables = {row[1].rpartition("[")[0] for row in rows}
                self._insert(connection, {other_rows(table): random.randint(1, _LARGEST) for table in tables})
                self._delete(connection, [row[0] for row in rows])

    def _delete(self, connection: t.Any, ids: list[t.Any]) -> None:
        for at in range(0, len(ids), _AT_ONCE):
            some = ids[at : at + _AT_ONCE]
            _run(connection, f"DELETE FROM state_version WHERE id IN ({self._marks(len(some))})", parameters=some)

    @property
    def _locking(self) -> str:
        return "" if self._family == "sqlite" else " FOR UPDATE SKIP LOCKED"

    @contextlib.contextmanager
    def _own_connection(self) -> Generator[t.Any]:
        """Yield a driver's connection that the application's pool knows nothing of."""
        pool = self._pool.recreate()
        proxy = pool.connect()
        try:
            connection = proxy.dbapi_connection
            if self._family == "sqlite":
                t.cast("t.Any", connection).isolation_level = None
            else:
                # Under stricter levels, locks would also hold up those who append.
                self._engine.dialect.set_isolation_level(t.cast("t.Any", connection), "READ COMMITTED")
            yield connection
        finally:
            proxy.invalidate()
            pool.dispose()

    @contextlib.contextmanager
    def _transaction(self, connection: t.Any) -> Generator[None]:
        if self._family == "sqlite":
            _run(connection, "BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        connection.commit()

    def _compact_quietly(self) -> None:
        if not self._compacting.acquire(blocking=False):
            return
        try:
            if self._engine.dialect.is_async:
                self._compact_in_loop()
            else:
                self.compact()
        except Exception:
            # Another process does it, or the next thousand rows come to it.
            logger.debug("the version rows could not be added up", exc_info=True)
        finally:
            self._compacting.release()

    def _compact_in_loop(self) -> None:
        import asyncio

        from sqlalchemy.util.concurrency import greenlet_spawn

        async def compact() -> None:
            await greenlet_spawn(self.compact)

        asyncio.run(compact())

    # SQL

    def _insert(self, connection: t.Any, rows: Mapping[str, int]) -> None:
        each = iter(range(1, 2 * len(rows) + 1))
        values = ", ".join(f"({self._mark(next(each))}, {self._mark(next(each))})" for _ in rows)
        parameters = [value for row in rows.items() for value in row]
        _run(connection, f"INSERT INTO state_version (tag, n) VALUES {values}", parameters=parameters)

    def _marks(self, count: int) -> str:
        return ", ".join(map(self._mark, range(1, count + 1)))

    def _mark(self, number: int) -> str:
        return self._placeholder % number if "%d" in self._placeholder else self._placeholder

    def _looked(self, connection: t.Any) -> bool:
        sql = _EXISTS.get(self._family)
        return bool(_rows(connection, sql, ())) if sql else inspect(self._engine).has_table(VERSIONS.name)

    def _create(self) -> bool:
        """Make the table over a connection of our own; tell whether that went without waiting for anybody."""
        try:
            with self._own_connection() as connection:
                _run(connection, "PRAGMA busy_timeout = 0", "BEGIN IMMEDIATE", *_CREATE_ON_SQLITE)
                connection.commit()
        except Exception:
            logger.debug("the table state_version could not be made yet", exc_info=True)
            return False
        return True


def _is_in_transaction(connection: t.Any) -> bool:
    """Tell whether what SQLite's connection sees may be rolled back yet."""
    driver = getattr(connection, "driver_connection", connection)
    return bool(getattr(driver, "in_transaction", False))


def _rows(connection: t.Any, sql: str, parameters: t.Sequence[t.Any]) -> list[t.Any]:
    cursor = connection.cursor()
    try:
        if parameters:
            cursor.execute(sql, tuple(parameters))
        else:
            cursor.execute(sql)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def _run(connection: t.Any, *statements: str, parameters: t.Sequence[t.Any] = ()) -> None:
    cursor = connection.cursor()
    try:
        for sql in statements:
            if parameters:
                cursor.execute(sql, tuple(parameters))
            else:
                cursor.execute(sql)
    finally:
        cursor.close()

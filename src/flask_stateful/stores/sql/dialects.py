"""What is not the same on PostgreSQL, MariaDB, MySQL and SQLite."""

from __future__ import annotations

import math
import typing as t

from sqlalchemy import BigInteger, bindparam, case, func, literal_column
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ...errors import ConfigError
from .tables import VALUES

if t.TYPE_CHECKING:
    from sqlalchemy import CursorResult, Dialect, Executable, Table

_NOW: t.Final = bindparam("now", type_=BigInteger)

#: The parameters of a new row. They are not called like the columns, which SQLAlchemy keeps for itself.
_ROW: t.Final[dict[str, t.Any]] = {
    "key": bindparam("new_key"),
    "value": bindparam("new_value"),
    "expires": bindparam("new_expires"),
}

_IS_OVER: t.Final = VALUES.c.expires <= _NOW


class Database(t.Protocol):
    """One kind of database."""

    #: Writes rows, whatever was there.
    set: Executable
    #: Writes a row where there is none, or one that has expired.
    add: Executable
    #: What asks the server for its time, in seconds since 1970; empty where there is no server.
    clock: str

    def added(self, result: CursorResult[t.Any]) -> bool:
        """Tell whether :attr:`add` has written."""
        ...

    def on_connect(self, timeout: float) -> list[str]:
        """Return what a new connection is told, for a statement to take so many seconds at most."""
        ...


class _OnConflict:
    """What PostgreSQL has, and SQLite has from it."""

    def __init__(self, insert: t.Callable[[Table], t.Any]) -> None:
        row = insert(VALUES).values(_ROW)
        changes = {"value": row.excluded.value, "expires": row.excluded.expires}
        self.set: Executable = row.on_conflict_do_update(index_elements=[VALUES.c.key], set_=changes)
        self.add: Executable = row.on_conflict_do_update(index_elements=[VALUES.c.key], set_=changes, where=_IS_OVER)

    def added(self, result: CursorResult[t.Any]) -> bool:
        """Tell by the count of rows."""
        return result.rowcount > 0


class PostgreSQL(_OnConflict):
    """PostgreSQL."""

    clock = "SELECT extract(epoch FROM clock_timestamp())"

    def __init__(self) -> None:
        super().__init__(postgresql.insert)
        # SQLAlchemy before 2.0.28 does not keep the count of rows of an INSERT.
        self.add = t.cast("t.Any", self.add).returning(literal_column("1"))

    def added(self, result: CursorResult[t.Any]) -> bool:
        """Tell by the row that comes back."""
        return result.first() is not None

    def on_connect(self, timeout: float) -> list[str]:
        """Bound each statement; let each see the latest rows, and wait for a writer instead of failing."""
        settings = {"statement_timeout": math.ceil(timeout * 1000), "default_transaction_isolation": "read committed"}
        return ["SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())]


class SQLite(_OnConflict):
    """A file of SQLite's."""

    clock = ""

    def __init__(self) -> None:
        super().__init__(sqlite.insert)

    def on_connect(self, timeout: float) -> list[str]:
        """Bound the wait for a lock."""
        return [f"PRAGMA busy_timeout = {math.ceil(timeout * 1000)}"]


class MySQL:
    """MySQL, and what it has in common with MariaDB."""

    clock = "SELECT unix_timestamp(now(6))"

    def __init__(self) -> None:
        row = mysql.insert(VALUES).values(_ROW)
        both = [("value", row.inserted.value), ("expires", row.inserted.expires)]
        self.set: Executable = row.on_duplicate_key_update(both)
        # The count of rows is 1 both for one that was written and for one that was left. LAST_INSERT_ID(1) leaves a
        # mark that comes back with the answer. The value comes first: then `expires` is still the old one.
        left = (func.last_insert_id(1) == 1, VALUES.c.value)
        self.add: Executable = row.on_duplicate_key_update(
            [
                ("value", case((_IS_OVER, row.inserted.value), left, else_=VALUES.c.value)),
                ("expires", case((_IS_OVER, row.inserted.expires), else_=VALUES.c.expires)),
            ]
        )

    def added(self, result: CursorResult[t.Any]) -> bool:
        """Tell by the mark."""
        return result.lastrowid != 1

    def on_connect(self, timeout: float) -> list[str]:
        """Bound each statement; lock no gaps between rows, and let a writer wait for another instead of failing."""
        return [
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
            f"SET SESSION innodb_lock_wait_timeout = {math.ceil(timeout)}",
            self._bound(timeout),
        ]

    def _bound(self, timeout: float) -> str:
        return f"SET SESSION max_execution_time = {math.ceil(timeout * 1000)}"


class MariaDB(MySQL):
    """MariaDB, which bounds every kind of statement, and not only those that read."""

    def _bound(self, timeout: float) -> str:
        return f"SET SESSION max_statement_time = {timeout:f}"


_kinds: t.Final[dict[str, type[Database]]] = {
    "postgresql": PostgreSQL,
    "sqlite": SQLite,
    "mysql": MySQL,
    "mariadb": MariaDB,
}


def database_of(dialect: Dialect) -> Database:
    """Return the kind of database that a dialect speaks to.

    :raises ConfigError: if it is none that a store can be in.
    """
    # What is opened as mysql:// may be MariaDB, which the dialect knows once it has a connection.
    name = "mariadb" if getattr(dialect, "is_mariadb", False) else dialect.name
    if name not in _kinds:
        raise ConfigError(f"a store can be in PostgreSQL, MariaDB, MySQL and SQLite, but not in {name}")
    return _kinds[name]()

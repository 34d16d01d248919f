"""Our tables in an application's database: SQLAlchemy Core, in a MetaData of our own, apart from the application's.

``state_value`` holds what a store holds: sessions, rows of users, cached values. ``state_version`` tells which of the
application's tables have changed: each commit *appends* a random number for each table it wrote, and a table's
version is the sum. A number that is counted up in place would make all writers of a table wait for, or fail, each
other.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, inspect
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

if t.TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

#: What migrations compare with; see ``docs/stores/sql.md``.
METADATA: t.Final = MetaData()

VALUES: t.Final = Table(
    "state_value",
    METADATA,
    Column("key", LargeBinary(1024).with_variant(mysql.VARBINARY(1024), "mysql", "mariadb"), primary_key=True),
    Column("value", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=False),
    #: Milliseconds since 1970; nothing where a value is kept for ever.
    Column("expires", BigInteger, index=True),
)

VERSIONS: t.Final = Table(
    "state_version",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column(
        "tag", String(255).with_variant(mysql.VARCHAR(255, collation="utf8mb4_bin"), "mysql", "mariadb"), nullable=False
    ),
    Column("n", BigInteger, nullable=False),
    Index("state_version_tag", "tag", "n"),
)


def create_tables(bind: Engine | Connection, tables: t.Sequence[Table]) -> list[str]:
    """Create those of our tables that a database lacks; may be run again at any time, by several at once.

    :return: the names of those that were missing.
    """
    missing = [table for table in tables if not inspect(bind).has_table(table.name)]
    for table in missing:
        try:
            table.create(bind)
        except DBAPIError:
            # Another one who does the same may have made it since we looked.
            if not inspect(bind).has_table(table.name):
                raise
    return [table.name for table in missing]

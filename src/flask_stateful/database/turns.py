"""Whose turn it is to write in tuned SQLite, where our own connection writes to the same file.

A transaction that has not written yet lets it go first. Others can write then as well, so that what has been read may
be older than what is there; before such a transaction overwrites anything, it looks who has been there meanwhile. It
then also begins anew: SQLite refuses to write to whoever reads an earlier state of the file, whether that matters or
not.
"""

from __future__ import annotations

import typing as t

from ..errors import StateConflict
from .tags import other_rows
from .tracker import here, transaction_of
from .tuning import EXCLUDES, means_to_write

if t.TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from .statements import Statement
    from .tracker import Transaction


def give_way(engine: Engine, *, writes: bool) -> Connection | None:
    """Let others write: a transaction of this thread that keeps them from it, and has not written yet, begins anew.

    A view that only reads while it answers a POST would keep our own connection from saving its session. Where
    :data:`~tuning.means_to_write` is set, as in an atomic block, a transaction keeps its place, and what is written
    meanwhile has to be part of it.

    :param engine: that of the database which is about to be asked.
    :param writes: whether it is about to be written; readers need no place.
    :return: the connection of a transaction that keeps its place.
    """
    for connection in here().connections():
        # An asynchronous driver answers in its event loop only.
        if connection.dialect.is_async or connection.dialect.name != "sqlite":
            continue
        transaction = transaction_of(connection)
        if means_to_write.get():
            excludes = connection.info.get(EXCLUDES, False) or transaction.has_written
            if excludes and connection.engine.pool is engine.pool:
                return connection
        elif writes and EXCLUDES in connection.info and not transaction.has_written:
            _let_others_write(connection, transaction)
    return None


def _let_others_write(connection: Connection, transaction: Transaction) -> None:
    if transaction.before_writing is None and transaction.tracker is not None:
        transaction.before_writing = Meanwhile(connection, transaction)
    if connection.info[EXCLUDES]:
        connection.info[EXCLUDES] = False
        _run(connection, "COMMIT", "BEGIN")


class Meanwhile:
    """What others write while a transaction waits with that."""

    def __init__(self, connection: Connection, transaction: Transaction) -> None:
        self._transaction = transaction
        self._versions = t.cast("t.Any", transaction.tracker).versions
        self._last = self._versions.last(_driver(connection), may_create=connection.info[EXCLUDES])

    def __call__(self, connection: Connection, statement: Statement, context: t.Any) -> None:
        """Take the turn to write, and see that nobody else has written what is about to be overwritten.

        :raises StateConflict: if somebody has.
        """
        # A savepoint would not survive that. SQLite itself refuses, if need be.
        if not self._transaction.has_written and not connection.in_nested_transaction():
            try:
                _run(connection, "COMMIT")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except BaseException:
                # Without a transaction, each statement would be committed by itself.
                _run(connection, "BEGIN")
                raise
        if self._versions.appended_since(_driver(connection), self._last, self._overwritten(statement, context)):
            raise StateConflict(
                "another request has changed what this one had read before it saved its state; write"
                " @state.atomic(retry=3) above the view, where nobody comes in between"
            )

    def _overwritten(self, statement: Statement, context: t.Any) -> set[str]:
        """Return the tags of what a statement changes that may be computed from what was read."""
        if statement.rows is not None:
            return {*statement.rows.written(context.compiled_parameters), other_rows(statement.rows.table)}
        reads = self._transaction.reads
        return {tag for tag in statement.overwrites if None in reads or any(tag in each for each in reads if each)}


def _driver(connection: Connection) -> t.Any:
    return connection.connection.dbapi_connection


def _run(connection: Connection, *statements: str) -> None:
    cursor = connection.connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()

"""The application's session, as the outermost atomic block begins, commits and rolls back its transaction."""

from __future__ import annotations

import contextlib
import secrets
import typing as t
from collections.abc import Callable
from contextvars import Token

from sqlalchemy import select
from sqlalchemy.exc import ArgumentError, DBAPIError

from .. import clock
from ..errors import StateConflict, StateError
from ..stores.sql.tables import VERSIONS
from . import callbacks
from .adapter import DEFAULT
from .conflicts import has_failed, is_conflict, is_cut, lock_row
from .tracker import append, transaction_of
from .tuning import is_tuned, means_to_write
from .versions import MARKER

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from ..blocks import Block
    from ..stores.sql import SQLStore
    from .database import Database

#: How often it is looked whether a commit has taken place, and seconds between, each time one more: a server may still
#: be at it when the connection has gone.
_LOOKS: t.Final = 5
_PAUSE: t.Final = 0.1

#: How often a row is waited for that others keep changing before it can be locked.
_ROUNDS: t.Final = 100


class Transaction:
    """The transaction of one block.

    :param store: the store that is part of it, if it is in the same database.
    :param isolation: as SQLAlchemy's ``isolation_level``.
    :param marked: whether the commit leaves a mark that it has taken place.
    """

    def __init__(
        self, database: Database, store: SQLStore | None, block: Block, isolation: str | None, *, marked: bool
    ) -> None:
        self._adapter = database.adapter
        self._session = self._adapter.session()
        self._engine = database.engines()[DEFAULT]
        self._store = store if store is not None and store.can_join else None
        self._block = block
        #: Whether state is written in the transaction itself.
        self.keeps_state: t.Final = self._store is not None
        self._options = {"isolation_level": isolation} if isolation else {}
        self._token: Token[bool] | None = None
        self._marked = marked and self._engine.dialect.name != "sqlite"
        #: The tag of a version row that goes with the commit, to be looked for if nobody hears of its outcome.
        self._marker = ""

    @property
    def locks_rows(self) -> bool:
        """Whether the store can lock a row in the transaction, also where nobody waits for an asynchronous answer."""
        return self._store is not None and not self._engine.dialect.is_async

    def begin(self) -> None:
        """Begin, once there is a statement to execute; with an isolation level, now. Whoever begins calls :meth:`end`.

        :raises StateError: if the database is SQLite and not tuned, or the session has changes that stand in the way.
        :raises ValueError: if the database has no such isolation level.
        """
        if not is_tuned(self._engine):
            raise StateError(
                "SQLite, as its driver opens it, cannot roll back to a savepoint and loses changes; write"
                " state.database.tune_sqlite(engine) where the engine is made"
            )
        if self._session.in_transaction():
            self._end_reading(self._session)
        self._token = means_to_write.set(True)
        if self._options:
            try:
                self._connect()
            except ArgumentError as error:
                self.roll_back()
                raise ValueError(self._refused_level()) from error

    def _refused_level(self) -> str:
        levels = sorted({*self._engine.dialect.get_isolation_level_values(t.cast("t.Any", None))} - {"AUTOCOMMIT"})
        examples = " or ".join(f'atomic(isolation="{level}")' for level in levels)
        return f"isolation={self._options['isolation_level']!r} is no level of this database; write {examples}"

    def end(self) -> None:
        """Let transactions begin as they did before, after the commit or the rollback."""
        if self._token is not None:
            means_to_write.reset(self._token)

    def _end_reading(self, session: Session) -> None:
        """End what has only read until now: its snapshot is old, and it has another isolation level."""
        if not (session.new or session.dirty or session.deleted or transaction_of(session.connection()).has_written):
            session.commit()
            return
        if self._options:
            raise StateError(
                "atomic(isolation=...) begins a transaction of its own, and the session has uncommitted changes; commit"
                " them before"
            )
        self._block.fence = "it began with uncommitted changes"

    def _connect(self) -> t.Any:
        session = self._adapter.session()
        if session.in_transaction():
            return session.connection(bind_arguments={"bind": self._engine})
        return session.connection(bind_arguments={"bind": self._engine}, execution_options=self._options)

    def lock(self, key: str) -> None:
        """Wait for the row that others compete for, before anything else is read or locked."""
        if self._store is None:
            return
        for left in range(_ROUNDS, -1, -1):
            try:
                lock_row(self._connect(), key, waits=True)
            except Exception as error:
                # Where the transaction's snapshot is from before the wait, it is of no use any more.
                if not left or not is_conflict(error):
                    raise
                self.roll_back()
            else:
                return

    @contextlib.contextmanager
    def joined(self, key: str | None = None) -> t.Generator[None]:
        """Let the store work in the transaction.

        :param key: that of a row which is to be locked when it is read.
        """
        if self._store is None:
            yield
        else:
            with self._store.joined(self._connect(), lock=key):
                yield

    def write(self, write: Callable[[], None], key: str | None) -> None:
        """Write state in the transaction.

        :param key: that of a row that is to be written. If another transaction has it, this one gives way at once,
            rather than wait while it holds what that one may need.
        """
        session = self._adapter.session()
        if session.in_transaction():
            session.flush()
        with self.joined():
            if key is not None:
                lock_row(self._connect(), key, waits=False)
            write()

    def commit(self) -> bool:
        """Commit, unless something stands against it; tell whether there was anything to commit."""
        session = self._adapter.session()
        if not session.in_transaction():
            return False
        session.flush()
        self._require_whole()
        if self._marked:
            self._marker = f"{MARKER}{secrets.token_hex(16)}"
            append(self._connect(), self._marker, int(clock.now()))
        session.commit()
        return True

    def _require_whole(self) -> None:
        """Raise where a commit would not keep all that was done."""
        if self._block.other_bind:
            raise StateError(
                f"an atomic block has written to the bind {self._block.other_bind!r}, which is not committed together"
                ' with "default"; write to it outside of the block'
            )
        if self._block.broken is not None:
            raise StateConflict("another transaction came first, and the view went on without") from self._block.broken
        if self._engine.dialect.name == "postgresql" and has_failed(self._connect()):
            raise StateError(
                "a statement has failed, and PostgreSQL rolls back all of the transaction; write"
                " `with db.session.begin_nested():` around what may fail"
            )

    def is_unknown(self, error: BaseException) -> bool:
        """Tell whether an error leaves open whether the commit has taken place."""
        return self._block.commit_sent and is_cut(error)

    def has_landed(self) -> bool:
        """Tell whether a commit has taken place that the database was asked for and did not answer."""
        session = self._adapter.session()
        called = callbacks.take(session)
        session.rollback()
        statement = select(VERSIONS.c.n).where(VERSIONS.c.tag == self._marker)
        self._block.fence = "nobody knows whether it was committed"
        for attempt in range(_LOOKS):
            with contextlib.suppress(DBAPIError), self._engine.connect() as connection:
                if connection.execute(statement).first() is not None:
                    self._block.callbacks += called
                    return True
                self._block.fence = ""
            clock.wait(_PAUSE * attempt)
        return False

    def roll_back(self) -> None:
        """Undo everything."""
        session = self._adapter.scope()
        if session is not None:
            session.rollback()

    def savepoint(self) -> Callable[[bool], None]:
        """Begin a savepoint, and return what ends it; told whether to keep what came after it."""
        session = self._adapter.session()
        nested = session.begin_nested()

        def end(keeps: bool) -> None:
            current = session.get_nested_transaction()
            while current is not None and current is not nested:
                current = current.parent
            # Otherwise the application has ended it itself.
            if current is nested:
                (nested.commit if keeps else nested.rollback)()

        return end

"""The application's session, as the outermost atomic block begins, commits and rolls back its transaction."""

from __future__ import annotations

import contextlib
import secrets
import typing as t
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from .. import clock
from ..errors import ConfigError, StateConflict, StateError
from ..stores.sql.tables import VERSIONS
from . import callbacks
from .adapter import DEFAULT
from .conflicts import has_failed, is_conflict, is_cut, lock_row
from .tracker import append, transaction_of
from .tuning import immediate, is_tuned

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
        self._engine = database.engines()[DEFAULT]
        self._store = store if store is not None and store.can_join else None
        self._block = block
        self._options = {"isolation_level": isolation} if isolation else {}
        #: The tag of a version row that goes with the commit, to be looked for if nobody hears of its outcome.
        self._marker = f"unit:{secrets.token_hex(16)}" if marked and self._engine.dialect.name != "sqlite" else ""

    @property
    def keeps_state(self) -> bool:
        """Whether state is written in the transaction itself."""
        return self._store is not None

    @property
    def locks_rows(self) -> bool:
        """Whether the store can lock a row in the transaction, also where nobody waits for an asynchronous answer."""
        return self._store is not None and not self._engine.dialect.is_async

    @property
    def is_used(self) -> bool:
        """Whether there is anything to commit."""
        session = self._adapter.scope()
        return session is not None and session.in_transaction()

    def begin(self, stack: contextlib.ExitStack) -> None:
        """Begin, once there is a statement to execute; with an isolation level, now.

        :param stack: what is to end with the block.
        """
        if not is_tuned(self._engine):
            raise StateError(
                "SQLite, as its driver opens it, cannot roll back to a savepoint and loses changes; write"
                " state.database.tune_sqlite(engine) where the engine is made"
            )
        session = self._adapter.scope()
        if session is not None and session.in_transaction():
            self._end_reading(session)
        stack.enter_context(immediate())
        if self._options:
            self._connect()

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
        if self.is_used:
            self._adapter.session().flush()
        with self.joined():
            if key is not None:
                lock_row(self._connect(), key, waits=False)
            write()

    def commit(self) -> None:
        """Commit, unless something stands against it."""
        session = self._adapter.scope()
        if session is None or not session.in_transaction():
            return
        session.flush()
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
        if self._marker:
            append(self._connect(), self._marker, int(clock.now()))
        session.commit()

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


def make_session(database: Database) -> None:
    """Make the session of the scope, before anything remembers what ``flask.g`` holds.

    :raises ConfigError: if it must be waited for, and whoever asks cannot.
    """
    adapter = database.adapter
    session = adapter.async_session()
    if session is not None and session.sync_session is adapter.session():
        raise ConfigError(
            "the sessions of db= are asynchronous; write @state.atomic() above an `async def`, or"
            " `async with state.atomic():`"
        )
    adapter.session()


def cut_while_committing(block: Block, error: BaseException) -> bool:
    """Tell whether nobody knows if a block has been committed."""
    return block.commit_sent and is_cut(error)

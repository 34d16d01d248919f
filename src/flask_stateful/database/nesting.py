"""The levels of an atomic block: the outermost one keeps or undoes everything, one inside it is a savepoint."""

from __future__ import annotations

import functools
import typing as t

from ..blocks import Block, current_block
from ..errors import StateError
from ..unit import Unit
from . import callbacks

if t.TYPE_CHECKING:
    from contextvars import Token

    from ..stores.sql import SQLStore
    from .database import Database
    from .transaction import Transaction


class Host(t.NamedTuple):
    """What an application has that a block is about."""

    unit: Unit
    database: Database | None
    #: The store that everything is kept in, if that is the application's database.
    store: SQLStore | None


class Outermost:
    """A block that commits.

    :param attempt: how many there were before.
    :param retries: whether there may be another one.
    """

    def __init__(
        self, host: Host, *, isolation: str | None, keep: bool, attempt: int = 0, retries: bool = False
    ) -> None:
        self.block: t.Final = Block(host.unit)
        self._unit = host.unit
        self._keep = keep
        self._attempt = attempt
        self._retries = retries
        self._token: Token[Block | None] | None = None
        self._transaction = _transaction(host, self.block, isolation, marked=retries)

    def begin(self) -> None:
        """Remember how everything is."""
        self._go_back = self._unit.remember()
        try:
            if self._transaction is not None:
                self._transaction.begin()
                self.block.transaction = self._transaction
            if self._attempt:
                self._read_again()
        except BaseException:
            self._leave()
            raise
        self._token = current_block.set(self.block)

    def _read_again(self) -> None:
        """Read again what another attempt has lost for, so that nobody else changes it before that attempt ends."""
        contended = self._unit.contended
        key = None if contended is None else contended.store_key
        if contended is None or key is None:
            return
        if self._transaction is None:
            contended.refresh()
            return
        self._transaction.lock(key)
        with self._transaction.joined():
            contended.refresh()

    def finish(self) -> None:
        """Keep everything that was done."""
        if not self._keep:
            self.abort()
            return
        self.block.commits = True
        try:
            self._commit()
        except BaseException as error:
            if not self._has_landed(error):
                self.abort()
                raise
        self._unit.settle()
        self._unit.memo.clear()
        self._leave()
        if self.block.staged or self.block.callbacks:
            callbacks.run(self.block.staged)
            callbacks.run(self.block.callbacks)

    def _has_landed(self, error: BaseException) -> bool:
        """Tell whether all was committed, although the connection broke before the database could say so."""
        transaction = self._transaction
        return transaction is not None and self._retries and transaction.is_unknown(error) and transaction.has_landed()

    def _commit(self) -> None:
        transaction, unit = self._transaction, self._unit
        if transaction is None:
            unit.write(merges=not self._retries)
        elif transaction.keeps_state:
            if unit.is_touched:
                transaction.write(lambda: unit.write(merges=not self._retries), self._contended_key())
            transaction.commit()
        else:
            is_used = transaction.commit()
            # What the rows say is so from now on, and is not to be lost for what another request has saved.
            unit.write(merges=is_used or not self._retries)

    def _contended_key(self) -> str | None:
        """Return the key of the row that this attempt gives way for, rather than the other way round."""
        contended = self._unit.contended
        gives_way = self._retries and not self._attempt and contended is not None and contended.modified
        return contended.store_key if gives_way and contended is not None else None

    def abort(self) -> None:
        """Undo everything that was done."""
        try:
            if self._transaction is not None:
                self._transaction.roll_back()
        finally:
            self._leave()
            self._go_back()

    def _leave(self) -> None:
        try:
            if self.block.held is not None:
                self.block.held.close()
        finally:
            if self._token is not None:
                current_block.reset(self._token)
            if self._transaction is not None:
                self._transaction.end()


class Nested:
    """A block inside another: what it has done can be undone, and goes with the outer one otherwise."""

    def __init__(self, block: Block, *, keep: bool) -> None:
        self._block = block
        self._keep = keep

    def begin(self) -> None:
        """Remember how everything is."""
        self._go_back = self._block.unit.remember()
        self._counts = len(self._block.staged), len(self._block.callbacks)
        self._end_savepoint = self._block.savepoint()

    def finish(self) -> None:
        """Leave what was done to the outer block."""
        if self._keep:
            try:
                self._end_savepoint(True)
            except BaseException:
                self._forget()
                raise
        else:
            self.abort()

    def abort(self) -> None:
        """Undo everything that was done."""
        try:
            self._end_savepoint(False)
        except Exception:
            # A server that has rolled back everything knows the savepoint no more.
            if self._block.broken is None:
                raise
        finally:
            self._forget()

    def _forget(self) -> None:
        staged, called = self._counts
        del self._block.staged[staged:], self._block.callbacks[called:]
        self._go_back()


def _transaction(host: Host, block: Block, isolation: str | None, *, marked: bool) -> Transaction | None:
    if host.database is not None:
        return _transaction_class()(host.database, host.store, block, isolation, marked=marked)
    if isolation is not None:
        raise StateError("isolation= is the database's, and there is none; write Stateful(app, db=db)")
    return None


@functools.cache
def _transaction_class() -> type[Transaction]:
    # Who has no database has no SQLAlchemy either, and to look for it again each time would take long.
    from .transaction import Transaction

    return Transaction

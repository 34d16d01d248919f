"""``state.on_commit()``: what is called once the transaction at hand is committed, and not at all if it is not.

SQLAlchemy tells of a commit at every savepoint, and when the session cannot execute anything yet. Callbacks belong to
the innermost transaction that they were registered in; they go up with it when it is released, are dropped with it when
it is rolled back, and are called when the outermost one has *ended* after a commit, where the session works again.
"""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable, Iterable

from ..blocks import current_block

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction

logger = logging.getLogger("flask_stateful")

Callback: t.TypeAlias = Callable[[], object]

#: Where a session carries its callbacks.
_KEY: t.Final = "flask_stateful.callbacks"


def run(callbacks: Iterable[Callback]) -> None:
    """Call one after the other; what one raises is logged."""
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("what was to be done after a commit has failed; what was committed stands")


def register(callback: Callback, session: Session | None) -> None:
    """Call something after the commit of the transaction at hand; where there is none, now.

    :param session: that of the current scope, if there is one.
    """
    block = current_block.get()
    if session is not None and session.in_transaction():
        _callbacks_of(session).add(callback)
    elif block is not None:
        block.callbacks.append(callback)
    else:
        run([callback])


def take(session: Session) -> list[Callback]:
    """Return the callbacks of a transaction that nobody knows the outcome of, and forget them."""
    return _callbacks_of(session).take()


class _Callbacks:
    """The callbacks of one session, each with the transaction that it goes with."""

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        self._session = session
        self._waiting: list[tuple[SessionTransaction | None, Callback]] = []
        self._is_committed = False
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_rollback", self._rolled_back)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, callback: Callback) -> None:
        """Add one to the innermost transaction."""
        self._waiting.append((self._session.get_nested_transaction() or self._session.get_transaction(), callback))

    def take(self) -> list[Callback]:
        """Return all, and forget them."""
        waiting, self._waiting = self._waiting, []
        return [callback for _, callback in waiting]

    def _committed(self, session: Session) -> None:
        # It is told for each savepoint as well.
        if not session.in_nested_transaction():
            self._is_committed = True

    def _rolled_back(self, session: Session) -> None:
        # It is told before the transaction ends, when what it has would go up.
        gone = session.get_nested_transaction() or session.get_transaction()
        self._waiting = [(owner, callback) for owner, callback in self._waiting if owner is not gone]

    def _ended(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None:
            self._waiting = [
                (transaction.parent if owner is transaction else owner, callback) for owner, callback in self._waiting
            ]
            return
        waiting, is_committed = self._waiting, self._is_committed
        self._waiting, self._is_committed = [], False
        if not is_committed:
            return
        block, callbacks = current_block.get(), [callback for _, callback in waiting]
        if block is not None and block.commits:
            # What goes with the block is saved before they are called.
            block.callbacks += callbacks
        else:
            run(callbacks)


def _callbacks_of(session: Session) -> _Callbacks:
    found: _Callbacks | None = session.info.get(_KEY)
    if found is None:
        # Not in what the session shares with its factory.
        found = session.info[_KEY] = _Callbacks(session)
    return found

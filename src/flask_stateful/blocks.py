"""The atomic block that code runs in: what is to be done once it is committed, and why it may not be done again."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable
from contextvars import ContextVar

if t.TYPE_CHECKING:
    from .unit import Unit


#: The methods of requests that only read, :rfc:`9110#section-9.2.1`.
SAFE: t.Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Block:
    """What ``with state.atomic():`` is about, from its outermost beginning to its end.

    :param unit: whose state it keeps or forgets.
    """

    #: Why it may not be run again, if that is so.
    fence = ""
    #: Whether it is being committed, or was.
    commits = False
    #: Whether the database was asked to commit, so that nobody knows whether it has if the connection breaks now.
    commit_sent = False
    #: What went wrong in the transaction, which can no longer be committed, whoever has caught the error.
    broken: BaseException | None = None
    #: The bind, other than the default one, that was written to.
    other_bind = ""
    #: The transaction of the application's database, if it has one.
    transaction: BlockTransaction | None = None

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        #: Explicit writes to the cache, which are done after the commit.
        self.staged: list[Callable[[], object]] = []
        #: What the application wants to be called after that.
        self.callbacks: list[Callable[[], object]] = []
        #: What is let go when the block has ended.
        self.held: contextlib.ExitStack | None = None

    def join(self, key: str | None = None) -> contextlib.AbstractContextManager[None]:
        """Let what is written to our store be part of the block's transaction, where that is in the same database.

        :param key: that of a value: reads of it wait for others who have it, and keep it from them until the end.
        """
        return contextlib.nullcontext() if self.transaction is None else self.transaction.joined(key)

    @property
    def locks_rows(self) -> bool:
        """Whether :meth:`join` keeps a value from others."""
        return self.transaction is not None and self.transaction.locks_rows

    def savepoint(self) -> Callable[[bool], None]:
        """Begin a savepoint, and return what ends it; that is told whether to keep what came after it."""
        return (lambda keeps: None) if self.transaction is None else self.transaction.savepoint()

    def hold(self, manager: contextlib.AbstractContextManager[object]) -> None:
        """Enter something, which is left when the block has ended."""
        if self.held is None:
            self.held = contextlib.ExitStack()
        self.held.enter_context(manager)


class BlockTransaction(t.Protocol):
    """The transaction that a block commits, as what the block keeps has to know it."""

    @property
    def locks_rows(self) -> bool:
        """Whether the store can lock a row in it."""
        ...

    def joined(self, key: str | None = None) -> contextlib.AbstractContextManager[None]:
        """Let the store work in it."""
        ...

    def savepoint(self) -> Callable[[bool], None]:
        """Begin a savepoint, and return what ends it."""
        ...


#: The outermost block that the current thread or task is in.
current_block: t.Final[ContextVar[Block | None]] = ContextVar("flask_stateful.block", default=None)


def when_committed(action: Callable[[], object]) -> None:
    """Do something once the block that this runs in is committed; outside of one, now."""
    block = current_block.get()
    if block is None:
        action()
    else:
        block.staged.append(action)


def joining() -> contextlib.AbstractContextManager[None]:
    """Let what is written to our store at once be part of the transaction of the block that this runs in."""
    block = current_block.get()
    return contextlib.nullcontext() if block is None else block.join()

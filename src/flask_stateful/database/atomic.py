"""``state.atomic()``: the database, the session, durable rows, browser state, cookies and the cache, all or nothing.

The outermost block is the one that commits; inside another, a block is a savepoint. As a decorator it can be run again
where another transaction came first: everything that the first attempt has done is undone, what it may have read is
read again, and the row that others compete for is locked before.
"""

from __future__ import annotations

import functools
import inspect
import typing as t
from collections.abc import Callable

from flask import has_request_context
from werkzeug.exceptions import ServiceUnavailable

from .. import clock
from ..blocks import Block, current_block
from ..errors import StateConflict, StateError
from ..unit import Unit
from . import callbacks
from .replays import pause, remember_context, spent_body

if t.TYPE_CHECKING:
    from ..stores.sql import SQLStore
    from .database import Database
    from .transaction import Transaction

R = t.TypeVar("R")

#: Seconds after which a client may try again whose request was run as often as allowed.
_RETRY_AFTER: t.Final = 1


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
        self._stack = self.block.held
        self._transaction = _transaction(host, self.block, isolation, marked=retries)

    def begin(self) -> None:
        """Remember how everything is."""
        self._go_back = self._unit.remember()
        try:
            if self._transaction is not None:
                self._transaction.begin(self._stack)
                self.block.join = self._transaction.joined
                self.block.locks_rows = self._transaction.locks_rows
                self.block.savepoint = self._transaction.savepoint
            if self._attempt:
                self._read_again()
        except BaseException:
            self._stack.close()
            raise
        token = current_block.set(self.block)
        self._stack.callback(current_block.reset, token)

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
        callbacks.run(self.block.staged)
        callbacks.run(self.block.callbacks)

    def _has_landed(self, error: BaseException) -> bool:
        """Tell whether all was committed, although the connection broke before the database could say so."""
        transaction = self._transaction
        return transaction is not None and self._retries and _is_unknown(self.block, error) and transaction.has_landed()

    def _commit(self) -> None:
        transaction, unit = self._transaction, self._unit
        if transaction is None:
            unit.write(merges=not self._retries)
        elif transaction.keeps_state:
            if unit.is_touched:
                transaction.write(lambda: unit.write(merges=not self._retries), self._contended_key())
            transaction.commit()
        else:
            is_used = transaction.is_used
            transaction.commit()
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
        self._stack.close()


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


class Atomic:
    """What ``state.atomic()`` returns: a decorator, and a context manager.

    :param host: returns what the current application has.
    :param retry: how often a function may be run again.
    :param isolation: as SQLAlchemy's ``isolation_level``.
    :param keep: whether what is done is kept.
    """

    def __init__(
        self, host: Callable[[], Host], *, retry: int = 0, isolation: str | None = None, keep: bool = True
    ) -> None:
        _require(retry, isolation)
        self._host = host
        self._retry = retry
        self._isolation = isolation
        self._keep = keep
        self._levels: list[Outermost | Nested] = []

    # As a context manager

    def __enter__(self) -> None:
        if self._retry:
            raise TypeError("a with block cannot be run again; write @state.atomic(retry=...) above a function")
        host = self._host()
        _make_session(host)
        level = self._level(host)
        level.begin()
        self._levels.append(level)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        level = self._levels.pop()
        (level.finish if error is None else level.abort)()

    async def __aenter__(self) -> None:
        level = self._level(self._host())
        await _spawn(level.begin)
        self._levels.append(level)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        level = self._levels.pop()
        await _spawn(level.finish if error is None else level.abort)

    def _level(self, host: Host, *, attempt: int = 0) -> Outermost | Nested:
        block = current_block.get()
        if block is None:
            return Outermost(
                host, isolation=self._isolation, keep=self._keep, attempt=attempt, retries=bool(self._retry)
            )
        if self._isolation is not None:
            raise StateError("a block inside another has its isolation level; write isolation= at the outermost one")
        return Nested(block, keep=self._keep)

    # As a decorator

    def __call__(self, function: Callable[..., t.Any]) -> t.Any:
        """Let a function be a block of its own each time it is called.

        :raises TypeError: if what it does is done after it has returned.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator runs after it was called; write `with state.atomic():` inside of it")
        if inspect.isclass(function) or not callable(function):
            raise TypeError("atomic() goes above a function; write @state.atomic() above `def view():`")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: t.Any, **kwargs: t.Any) -> t.Any:
                runs = Runs(self._retry)
                while True:
                    level = self._level(self._host(), attempt=runs.attempt)
                    try:
                        return await self._run_async(level, functools.partial(function, *args, **kwargs))
                    except Exception as error:
                        await clock.wait_async(runs.next_pause(level, error))

            run_async.is_atomic = True  # type: ignore[attr-defined]
            return run_async

        @functools.wraps(function)
        def run(*args: t.Any, **kwargs: t.Any) -> t.Any:
            return self.run(functools.partial(function, *args, **kwargs))

        run.is_atomic = True  # type: ignore[attr-defined]
        return run

    def run(self, function: Callable[[], R]) -> R:
        """Call a function as a block of its own."""
        host = self._host()
        _make_session(host)
        runs = Runs(self._retry)
        while True:
            level = self._level(host, attempt=runs.attempt)
            try:
                return self._run(level, function)
            except Exception as error:
                clock.wait(runs.next_pause(level, error))

    @staticmethod
    def _run(level: Outermost | Nested, function: Callable[[], R]) -> R:
        level.begin()
        try:
            result = function()
        except BaseException:
            level.abort()
            raise
        (level.abort if is_failure(result) else level.finish)()
        return result

    @staticmethod
    async def _run_async(level: Outermost | Nested, function: Callable[[], t.Any]) -> t.Any:
        await _spawn(level.begin)
        try:
            result = await function()
        except BaseException:
            await _spawn(level.abort)
            raise
        await _spawn(level.abort if is_failure(result) else level.finish)
        return result


def _require(retry: object, isolation: object) -> None:
    """Raise where a block could not be what it says.

    :raises TypeError: if ``retry`` counts nothing.
    :raises ValueError: if ``isolation`` is no level of a transaction.
    """
    if not isinstance(retry, int) or isinstance(retry, bool) or retry < 0:
        raise TypeError("retry= is how often a function may be run again; write atomic(retry=3)")
    if isolation is not None and (not isinstance(isolation, str) or isolation.upper() in ("", "AUTOCOMMIT")):
        raise ValueError('isolation= is the level of a transaction; write atomic(isolation="SERIALIZABLE")')


class Runs:
    """How often a function was run, and whether it may be run again."""

    def __init__(self, retry: int) -> None:
        self.attempt = 0
        self._retry = retry
        self._restore = remember_context() if retry else None

    def next_pause(self, level: Outermost | Nested, error: Exception) -> float:
        """Return how many seconds to wait before another attempt, or raise what is to be answered instead."""
        if isinstance(level, Nested) or not _is_conflict(error) or level.block.fence or spent_body():
            raise error
        if self.attempt >= self._retry:
            if not self._retry or not has_request_context():
                raise error
            raise ServiceUnavailable(
                "Others were changing the same data. Please try again.", retry_after=_RETRY_AFTER
            ) from error
        self.attempt += 1
        if self._restore is not None:
            self._restore()
        return pause(self.attempt)


def is_failure(result: object) -> bool:
    """Tell whether what a view has returned is an answer that says that the server has failed."""
    status: object = result
    if isinstance(result, tuple):
        parts = t.cast("tuple[object, ...]", result)
        status = next((part for part in parts[1:2] if isinstance(part, (int, str))), parts[0] if parts else None)
        if isinstance(status, str):
            status = int(status[:3]) if status[:3].isdecimal() else None
    if isinstance(status, bool):
        return False
    code = status if isinstance(status, int) and isinstance(result, tuple) else _code_of(status)
    return isinstance(code, int) and code >= 500


def _code_of(answer: object) -> object:
    """Return the status of a response, or of an exception that is one."""
    return getattr(answer, "status_code", getattr(answer, "code", None))


def _is_conflict(error: Exception) -> bool:
    if isinstance(error, StateConflict):
        return True
    import sys

    if "sqlalchemy" not in sys.modules:
        return False
    from .conflicts import is_conflict

    return is_conflict(error)


def _is_unknown(block: Block, error: BaseException) -> bool:
    if not block.commit_sent:
        return False
    from .transaction import cut_while_committing

    return cut_while_committing(block, error)


def _transaction(host: Host, block: Block, isolation: str | None, *, marked: bool) -> Transaction | None:
    if host.database is None:
        if isolation is not None:
            raise StateError("isolation= is the database's, and there is none; write Stateful(app, db=db)")
        return None
    from .transaction import Transaction

    return Transaction(host.database, host.store, block, isolation, marked=marked)


def _make_session(host: Host) -> None:
    if host.database is not None and current_block.get() is None:
        from .transaction import make_session

        make_session(host.database)


async def _spawn(function: Callable[[], None]) -> None:
    """Call a function that may wait for an asynchronous database."""
    import sys

    if "sqlalchemy.ext.asyncio" not in sys.modules:
        function()
        return
    from sqlalchemy.util import greenlet_spawn

    await greenlet_spawn(function)

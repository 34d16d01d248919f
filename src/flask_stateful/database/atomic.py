"""``state.atomic()``: the database, the session, durable rows, browser state, cookies and the cache, all or nothing.

The outermost block is the one that commits; inside another, a block is a savepoint. As a decorator it can be run again
where another transaction came first: everything that the first attempt has done is undone, what it may have read is
read again, and the row that others compete for is locked before.
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing as t
from collections.abc import Callable

from flask import has_request_context
from werkzeug.exceptions import ServiceUnavailable

from .. import clock
from ..blocks import current_block
from ..errors import ConfigError, StateConflict, StateError
from .nesting import Host, Nested, Outermost
from .replays import pause, remember_context, spent_body

R = t.TypeVar("R")

#: Seconds after which a client may try again whose request was run as often as allowed.
_RETRY_AFTER: t.Final = 1


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
        _refuse_async(host)
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
                level = self._level(self._host())
                runs = Runs(self._retry)
                while True:
                    try:
                        return await self._run_async(level, functools.partial(function, *args, **kwargs))
                    except Exception as error:
                        await clock.wait_async(runs.next_pause(level, error))
                    level = self._level(self._host(), attempt=runs.attempt)

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
        _refuse_async(host)
        level = self._level(host)
        runs = Runs(self._retry)
        while True:
            try:
                return self._run(level, function)
            except Exception as error:
                clock.wait(runs.next_pause(level, error))
            level = self._level(host, attempt=runs.attempt)

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
    """How often a function was run, and whether it may be run again.

    It remembers what ``flask.g`` holds, which may be the session: whoever needs one has it by then.
    """

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
    if "sqlalchemy" not in sys.modules:
        return False
    from .conflicts import is_conflict

    return is_conflict(error)


def _refuse_async(host: Host) -> None:
    """Raise where the session must be waited for, and whoever asks cannot.

    :raises ConfigError: in that case.
    """
    if host.database is None or current_block.get() is not None:
        return
    adapter = host.database.adapter
    asynchronous = adapter.async_session()
    if asynchronous is not None and asynchronous.sync_session is adapter.session():
        raise ConfigError(
            "the sessions of db= are asynchronous; write @state.atomic() above an `async def`, or"
            " `async with state.atomic():`"
        )


async def _spawn(function: Callable[[], None]) -> None:
    """Call a function that may wait for an asynchronous database."""
    if "sqlalchemy.ext.asyncio" not in sys.modules:
        function()
        return
    from sqlalchemy.util import greenlet_spawn

    await greenlet_spawn(function)

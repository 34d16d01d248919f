"""Tests whose rows, sessions, cached values and browser state are gone when they end."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t

from flask import has_app_context

from ..blocks import current_block
from ..epochs import NoEpochs
from ..errors import ConfigError, StateError
from .overlay import cover

if t.TYPE_CHECKING:
    from ..database.database import Database
    from .hooks import Wiring

_WRITE: t.Final = "write `with app.app_context(), state.test_isolation():`"


class Isolation:
    """A block after which an application's state is what it was before, whatever was committed in it.

    :param find_wiring: returns what the current application has of us.
    """

    def __init__(self, find_wiring: t.Callable[[], Wiring]) -> None:
        self._find_wiring = find_wiring
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> None:
        _run(self._needs_loop(), self._begin)

    def __exit__(self, *_: object) -> None:
        _run(self._asynchronous, self._stack.close)

    async def __aenter__(self) -> None:
        await _await(self._needs_loop(), self._begin)

    async def __aexit__(self, *_: object) -> None:
        await _await(self._asynchronous, self._stack.close)

    def _needs_loop(self) -> bool:
        """Tell whether one of the engines is asynchronous."""
        if current_block.get() is not None:
            raise StateError(f"test_isolation() stands around atomic blocks, not inside of them; {_WRITE} before them")
        if not has_app_context():
            raise ConfigError(f"test_isolation() needs an application context; {_WRITE}")
        database = self._find_wiring().database
        engines = {} if database is None else database.engines()
        self._asynchronous = any(engine.dialect.is_async for engine in engines.values())
        return self._asynchronous

    def _begin(self) -> None:
        wiring = self._find_wiring()
        with contextlib.ExitStack() as stack:
            layer = wiring.cache_runtime().storage.layer
            stack.callback(layer.use, layer.memory, layer.epochs)
            # What this process holds in its memory is true for as long as the store's, which hears of nothing now.
            layer.use(None, NoEpochs())
            stores = {wiring.default_store, wiring.session_store, wiring.cache_runtime().storage.store}
            for store in stores:
                stack.callback(cover(store))
            if wiring.database is not None:
                _isolate_rows(wiring.database, stack)
            self._stack = stack.pop_all()


def _isolate_rows(database: Database, stack: contextlib.ExitStack) -> None:
    from ..database.isolation import isolate

    adapter = database.adapter
    session = adapter.scope()
    if session is not None and session.in_transaction():
        raise StateError(f"the session is in a transaction already: end that first, or {_WRITE} before it is used")
    for engine in database.engines().values():
        stack.callback(isolate(engine).close)

    def close_session() -> None:
        # It may hold the connection, and knows rows that are gone.
        held = adapter.scope() if has_app_context() else None
        if held is not None:
            held.close()

    stack.callback(close_session)


def _run(asynchronous: bool, function: t.Callable[[], None]) -> None:
    """Call a function that may use asynchronous engines."""
    if not asynchronous:
        function()
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_await(True, function))
        return
    raise ConfigError("the engines of db= are asynchronous; write `async with state.test_isolation():`")


async def _await(asynchronous: bool, function: t.Callable[[], None]) -> None:
    if not asynchronous:
        function()
        return
    from sqlalchemy.util import greenlet_spawn

    await greenlet_spawn(function)

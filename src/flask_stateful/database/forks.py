"""Engines and forks: a process never uses a connection that another one has opened.

A server that loads the application before it forks (``gunicorn --preload``) would otherwise hand the connections that
were opened meanwhile to every worker. Two workers then talk over one socket, and each takes the other's answers for
its own; two that share SQLite's memory trust in locks which only one of them has.
"""

from __future__ import annotations

import typing as t
import weakref

from ..stores.forks import tell_of_forks
from ..stores.sql.engines import is_in_memory

if t.TYPE_CHECKING:
    from sqlalchemy import Engine, Pool

#: What a child inherited. To let it go could end the parent's connections.
_inherited: t.Final[list[Pool]] = []


class _Connections:
    """The connections of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)

    def before_fork(self) -> None:
        """Close those to a file that nobody uses: what SQLite notes of them would be copied. Those to a server stay."""
        engine = self._engine()
        # One of asyncio's can be closed in its event loop only.
        if engine is not None and engine.dialect.name == "sqlite" and not engine.dialect.is_async:
            engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Go on: the pool opens new ones when they are needed."""

    def after_fork_in_child(self) -> None:
        """Begin with none."""
        engine = self._engine()
        if engine is not None:
            _inherited.append(engine.pool)
            engine.dispose(close=False)


_kept_apart: weakref.WeakKeyDictionary[Engine, _Connections] = weakref.WeakKeyDictionary()


def keep_apart(engine: Engine) -> None:
    """Let no process use the engine's connections but the one that opened them; the second time, do nothing.

    A database in memory is copied with the process, connection and all, and is left alone.
    """
    if engine not in _kept_apart and not is_in_memory(engine):
        _kept_apart[engine] = connections = _Connections(engine)
        tell_of_forks(connections)

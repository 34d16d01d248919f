"""What an engine tells of an atomic block: what was written, committed and refused."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection, Engine, event

from ..blocks import current_block
from .conflicts import dooms

#: Where a pooled connection carries that its transaction has written something.
_WROTE: t.Final = "flask_stateful.wrote"

#: What statements that write nothing begin with.
_READS: t.Final = frozenset({"SELECT", "SHOW", "PRAGMA", "EXPLAIN", "SET", "SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN"})


def watch(engine: Engine, *, bind: str) -> None:
    """Listen to an engine, from now on; the second time, do nothing.

    :param bind: what the engine is called, ``"default"`` for the one that blocks commit.
    """
    if event.contains(engine, "commit", _on_commit):
        return
    event.listen(engine, "commit", _on_commit)
    event.listen(engine, "rollback", _on_rollback)
    event.listen(engine, "reset", _on_reset)
    event.listen(engine, "handle_error", _on_error)

    def before(connection: Connection, *executed: t.Any) -> None:
        _cursor, text, _parameters, context, _many = executed
        if not _is_write(text, context):
            return
        connection.info[_WROTE] = True
        block = current_block.get()
        if block is not None and bind != "default":
            block.other_bind = bind

    event.listen(engine, "before_cursor_execute", before)


def has_written(connection: Connection) -> bool:
    """Tell whether the transaction of a connection has written something."""
    return _WROTE in connection.info


def _is_write(text: str, context: t.Any) -> bool:
    if context is not None and (context.isinsert or context.isupdate or context.isdelete):
        return True
    first = text.split(None, 1)[0].upper() if text else ""
    return first.rstrip("(;") not in _READS


def _on_commit(connection: Connection) -> None:
    has_written = connection.info.pop(_WROTE, False)
    block = current_block.get()
    if block is None:
        return
    if block.commits:
        block.commit_sent = True
    elif has_written:
        block.fence = "it has committed something itself"


def _on_rollback(connection: Connection) -> None:
    # One that broke has nothing any more, and says so with an error.
    if not connection.invalidated:
        connection.info.pop(_WROTE, None)


def _on_reset(driver: object, record: t.Any, state: object) -> None:
    record.info.pop(_WROTE, None)


def _on_error(context: t.Any) -> None:
    block = current_block.get()
    if block is not None and dooms(context.sqlalchemy_exception):
        # The server has rolled back, or will not commit, even if the application goes on as if nothing had happened.
        block.broken = context.sqlalchemy_exception

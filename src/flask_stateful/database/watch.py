"""What an engine tells of an atomic block: what was written, committed and refused."""

from __future__ import annotations

import typing as t

from sqlalchemy import Connection, Engine, event

from ..blocks import current_block
from .adapter import DEFAULT
from .conflicts import dooms
from .tracker import track, transaction_of


def watch(engine: Engine, *, bind: str) -> None:
    """Listen to an engine, from now on; the second time, do nothing.

    :param bind: what the engine is called, ``"default"`` for the one that blocks commit.
    """
    if event.contains(engine, "commit", _on_commit):
        return
    if bind != DEFAULT:
        track(engine).other_bind = bind
    event.listen(engine, "commit", _on_commit)
    event.listen(engine, "handle_error", _on_error)


def _on_commit(connection: Connection) -> None:
    block = current_block.get()
    if block is None:
        return
    if block.commits:
        block.commit_sent = True
    elif transaction_of(connection).has_written:
        block.fence = "it has committed something itself"


def _on_error(context: t.Any) -> None:
    block = current_block.get()
    if block is not None and dooms(context.sqlalchemy_exception):
        # The server has rolled back, or will not commit, even if the application goes on as if nothing had happened.
        block.broken = context.sqlalchemy_exception

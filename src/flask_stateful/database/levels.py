"""The isolation level that an engine or a connection was given."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def level_of(bind: Engine | Connection) -> str | None:
    """Return the level that the application has asked for; ``None`` where it is the database's own."""
    level: str | None = bind.get_execution_options().get("isolation_level")
    # That of create_engine(isolation_level=) has no public name, and to ask the connection costs a statement.
    return level or getattr(bind.dialect, "_on_connect_isolation_level", None)


def autocommits(bind: Engine | Connection) -> bool:
    """Tell whether each statement is committed by itself."""
    return level_of(bind) == "AUTOCOMMIT"

"""What type checkers see of the public names. mypy and pyright check this file; it is never run."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

from flask import Flask, session

from flask_stateful import SessionInfo, Stateful
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore

app = Flask(__name__)

# Ways to set up
state = Stateful(app)
Stateful().init_app(app)
Stateful(app, store="redis://localhost:6379/0")
Stateful(app, store={"default": "memory://", "sessions": MemoryStore()})
Stateful(app, user_id=lambda: 7)
Stateful(app, "memory://")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Stateful(app, store=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# Sessions
t.assert_type(state.user_id, str | None)
t.assert_type(state.sessions.current, SessionInfo | None)
state.sessions.login("ada")
state.sessions.login("ada", remember=True)
state.sessions.login(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
state.sessions.rotate()
state.sessions.destroy()
state.sessions.logout()
with state.sessions.lock() as nothing:
    t.assert_type(nothing, None)
session["cart"] = [7]

info = state.sessions.current
if info is not None:
    t.assert_type(info.handle, str)
    t.assert_type(info.user_id, str | None)
    t.assert_type(info.created_at, datetime)
    t.assert_type(info.expires_at, datetime)
    info.handle = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

# Stores
store = open_store("memory://")
t.assert_type(store, Store)
t.assert_type(store.get("key"), bytes | None)
t.assert_type(store.add("key", b"value", ttl=60), bool)
t.assert_type(store.swap("key", b"old", b"new", ttl=timedelta(minutes=1)), bool)
t.assert_type(store.incr("key"), int)
t.assert_type(store.get_many(["key"]), dict[str, bytes])
store.set("key", "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
SQLiteStore("state.sqlite3").close()


class Half(Store):
    """A store that lacks most of its calls."""

    def get(self, key: str) -> bytes | None:
        """Return nothing."""
        return None


Half()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]

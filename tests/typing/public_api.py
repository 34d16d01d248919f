"""What type checkers see of the public names. mypy and pyright check this file; it is never run."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

from flask import Flask, session
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from flask_stateful import (
    CookieState,
    LocalState,
    SessionInfo,
    SessionState,
    Stateful,
    UserState,
    field,
    migrate,
)
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
Stateful(app, db="postgresql+psycopg://localhost/shop")
Stateful(app, user_id=lambda: 7)
Stateful(app, "memory://")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Stateful(app, store=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# The application's database
t.assert_type(state.database.session, Session)
t.assert_type(state.database.engines(), dict[str, Engine])


# All or nothing
@state.atomic
def pay(cents: int) -> str:
    return str(cents)


t.assert_type(pay(7), str)
pay("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
state.atomic(retry="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
with state.atomic(isolation="SERIALIZABLE"):
    pass

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


# Declared state
class Prefs(LocalState, version=2, purpose="preferences", shared=True):
    """State in the browser."""

    theme: t.Literal["auto", "dark"] = "auto"
    draft: str = field("", max_bytes=65_536, ttl=timedelta(days=7), conflict="server")
    coupon: dict[str, int] | None = field(None, sealed=True, fresh=True)
    tags: list[str] = field(default_factory=list[str])
    wrong: int = field("")  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class Cart(SessionState):
    """State in the session."""

    items: list[int] = field(default_factory=list[int])


class Profile(UserState):
    """State of a user."""

    newsletter: bool = False


class Consent(CookieState, max_age=timedelta(days=180), overflow="spill"):
    """State in a cookie."""

    analytics: bool = False


@migrate(Prefs, 1)
def renamed(old: dict[str, t.Any]) -> dict[str, t.Any]:
    """Keep what there is."""
    return old


prefs, cart = Prefs(), Cart()
t.assert_type(prefs.theme, t.Literal["auto", "dark"])
t.assert_type(prefs.draft, str)
t.assert_type(prefs.coupon, dict[str, int] | None)
t.assert_type(prefs.tags, list[str])
t.assert_type(cart.items, list[int])
t.assert_type(Profile.of(7), Profile)
t.assert_type(Profile.of("ada").newsletter, bool)
t.assert_type(state.known(prefs, "draft"), bool)
prefs.theme = "dark"
prefs.theme = "light"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
prefs.draft = 7  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
prefs.them = "dark"  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
cart.items.append("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Prefs(theme="dark")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
field()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
field(0, default_factory=int)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
field(0, sealed="yes")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
Profile.of(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
state.reset(Prefs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Stateful(app, declared=[Prefs, Cart])
Stateful(app, declared=[int])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]

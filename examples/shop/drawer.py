"""The state drawer: what is kept where for this visitor, in one panel for each kind of state.

A panel is a function here, which returns what it shows, and a template in ``panels/``, which says how.
"""

from typing import Any

from flask import current_app, session

from flask_stateful.serialization import dumps

from . import orders
from .extensions import db, state
from .kept import account, banner, notice

Facts = dict[str, Any]


def session_facts() -> Facts:
    """Return what is known about the session, and its keys, but neither its id nor a value."""
    keys = [{"name": key, "type": type(value).__name__, "size": len(dumps(value))} for key, value in session.items()]
    return {"info": state.sessions.current, "keys": keys, "store": _store()}


def _store() -> str:
    """Return what sessions are kept in."""
    stores = current_app.config["STATEFUL_STORE"]
    store = stores.get("sessions", stores["default"]) if isinstance(stores, dict) else stores
    return "the database" if store == "db" else str(store).partition("://")[0]


def cache_facts() -> Facts:
    """Return what this worker has made for everybody, and how often it was served."""
    stats = state.cache.stats
    return {
        "missed": stats["misses"],
        "memory": stats["hits_memory"],
        "store": stats["hits_store"] + stats["hits_stale"],
        "bytes": stats.get("memory_bytes", 0),
        "private": stats["private"],
    }


def browser_facts() -> Facts:
    """Return nothing: what the browser holds, it shows by itself."""
    return {}


def cookie_facts() -> Facts:
    """Return what the visitor has been asked, and has answered."""
    return {"answered": banner.answered, "remember": state.consent.has("preferences")}


def database_facts() -> Facts:
    """Return what is in the database."""
    return {
        "orders": orders.count(),
        "notice": notice.text,
        "account": account.town or "no address yet" if state.user_id else "nobody is signed in",
        "dialect": db.engine.dialect.name,
    }


PANELS = {
    "panels/browser.html": browser_facts,
    "panels/cookies.html": cookie_facts,
    "panels/session.html": session_facts,
    "panels/database.html": database_facts,
    "panels/cache.html": cache_facts,
}


def drawer() -> list[tuple[str, Facts]]:
    """Return each panel's template and what it shows."""
    return [(template, facts()) for template, facts in PANELS.items()]

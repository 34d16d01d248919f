"""The contenders: one small application, built once for each way to keep its sessions.

What the views do is the same everywhere; the application without sessions answers the same bodies without them. Every
contender runs with its defaults, except where its title says otherwise.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import typing as t
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from flask import Flask, session

from flask_stateful import Stateful
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore

#: What every visitor's session holds: 5 keys, 145 bytes as MessagePack, 204 as JSON.
PAYLOAD: t.Final[dict[str, t.Any]] = {
    "user_id": "4711",
    "csrf_token": "d41d8cd98f00b204e9800998ecf8427e8a9b0c1d",
    "locale": "de",
    "cart": [{"sku": "AB-1042", "n": 2}, {"sku": "CD-7731", "n": 1}],
    "last_seen": "2026-05-17T09:30:11",
}

SECRET_KEY: t.Final = "a secret that is only for measuring, 43 letters"

_Closable = t.TypeVar("_Closable", bound="Closable")

_counter = itertools.count()


class Closable(t.Protocol):
    """What can be closed."""

    def close(self) -> object: ...


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the contenders may keep things."""

    folder: Path
    redis_url: str = ""
    valkey_url: str = ""
    #: Closes what the contenders have opened.
    opened: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def keep(self, opened: _Closable) -> _Closable:
        """Have something closed together with the place."""
        return self.opened.enter_context(contextlib.closing(opened))


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to keep sessions."""

    name: str
    title: str
    build: Callable[[Place], Flask]
    #: What is counted of it besides the time.
    unit: t.Literal["", "store calls", "round trips", "statements"] = ""
    ours: bool = False
    #: How many visitors take turns.
    visitors: int = 1
    #: The library it needs, which ``requirements/bench.txt`` brings.
    library: str = "flask"

    @property
    def installed(self) -> bool:
        """Whether the library it needs is there."""
        return find_spec(self.library) is not None


def _app(*, secret_key: str | None = SECRET_KEY, **config: t.Any) -> Flask:
    app = Flask("benchmarks", instance_path="/nonexistent")
    app.config.update(SECRET_KEY=secret_key, **config)
    return app


def _with_session_views(app: Flask) -> Flask:
    @app.get("/start")
    def start() -> str:
        session.update(PAYLOAD)
        return "ok"

    @app.get("/untouched")
    def untouched() -> str:
        return "ok"

    @app.get("/read")
    def read() -> str:
        return t.cast("str", session["user_id"])

    @app.get("/write")
    def write() -> str:
        session["count"] = count = next(_counter)
        return str(count)

    @app.get("/written")
    def written() -> str:
        return str(session["count"])

    return app


def _without_sessions(place: Place) -> Flask:
    """Build the application that has no SECRET_KEY, so that Flask gives it null sessions."""
    app = _app(secret_key=None)
    app.add_url_rule("/untouched", "untouched", lambda: "ok")
    app.add_url_rule("/read", "read", lambda: "4711")
    app.add_url_rule("/write", "write", lambda: str(next(_counter)))
    return app


def _flask_cookie(place: Place) -> Flask:
    return _with_session_views(_app())


def _flask_session(**config: t.Any) -> Flask:
    import flask_session

    app = _app(**config)
    flask_session.Session(app)
    return _with_session_views(app)


def _flask_session_redis(place: Place, **config: t.Any) -> Flask:
    import redis

    client = place.keep(redis.Redis.from_url(place.redis_url))
    return _flask_session(SESSION_TYPE="redis", SESSION_REDIS=client, **config)


def _flask_session_redis_still(place: Place) -> Flask:
    return _flask_session_redis(place, SESSION_REFRESH_EACH_REQUEST=False)


def _flask_session_files(place: Place) -> Flask:
    from cachelib.file import FileSystemCache

    return _flask_session(SESSION_TYPE="cachelib", SESSION_CACHELIB=FileSystemCache(str(place.folder / "files")))


def _flask_session_sqlalchemy(place: Place) -> Flask:
    """Build it with SQLite tuned as everybody tunes it: the default journal is two to four times as slow."""
    import flask_session
    from flask_sqlalchemy import SQLAlchemy
    from sqlalchemy import event

    db, app = SQLAlchemy(), _app(SQLALCHEMY_DATABASE_URI=f"sqlite:///{place.folder / 'sqlalchemy.sqlite3'}")
    db.init_app(app)
    with app.app_context():

        @event.listens_for(db.engine, "connect")
        def tune(connection: t.Any, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

        place.opened.callback(db.engine.dispose)
        app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
        flask_session.Session(app)
    return _with_session_views(app)


def stateful(store: Store) -> Flask:
    """Build the application with Flask-Stateful."""
    app = _app()
    Stateful(app, store=store)
    return _with_session_views(app)


def _stateful_sqlite(place: Place) -> Flask:
    return stateful(place.keep(open_store(f"sqlite:///{place.folder / 'state.sqlite3'}")))


CONTENDERS: t.Final = {
    contender.name: contender
    for contender in (
        Contender("none", "no sessions", _without_sessions),
        Contender("cookie", "Flask, signed cookie", _flask_cookie),
        Contender("fs-redis", "Flask-Session, Redis", _flask_session_redis, "round trips", library="flask_session"),
        Contender(
            "fs-redis-still",
            "Flask-Session, Redis, no refresh",
            _flask_session_redis_still,
            "round trips",
            library="flask_session",
        ),
        Contender("fs-files", "Flask-Session, files (cachelib)", _flask_session_files, library="flask_session"),
        Contender(
            "fs-sql",
            "Flask-Session, SQLAlchemy, SQLite WAL",
            _flask_session_sqlalchemy,
            "statements",
            library="flask_session",
        ),
        Contender("memory", "Flask-Stateful, memory", lambda place: stateful(MemoryStore()), "store calls", ours=True),
        Contender(
            "sqlite",
            "Flask-Stateful, SQLite",
            _stateful_sqlite,
            "statements",
            ours=True,
        ),
        Contender(
            "sqlite-crowd",
            "Flask-Stateful, SQLite, 1,100 visitors",
            _stateful_sqlite,
            "statements",
            ours=True,
            visitors=1100,
        ),
        Contender(
            "redis",
            "Flask-Stateful, Redis",
            lambda place: stateful(place.keep(open_store(place.redis_url))),
            "round trips",
            ours=True,
        ),
        Contender(
            "valkey",
            "Flask-Stateful, Valkey",
            lambda place: stateful(place.keep(open_store(place.valkey_url))),
            "round trips",
            ours=True,
        ),
    )
}

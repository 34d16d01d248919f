"""The database of a URL: an engine for each application, and a session for each application context."""

from __future__ import annotations

import os
import typing as t
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from ..current import get_app
from ..errors import ConfigError
from .adapter import Adapter, async_engine_adapter, engine_adapter
from .tuning import tune_sqlite

if t.TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

#: Seconds after which a connection to MySQL or MariaDB is replaced: the server closes those that idle for 8 hours.
_RECYCLE: t.Final = 7200

_EXAMPLES: t.Final = "write db='postgresql+psycopg://localhost/shop' or db='sqlite:///shop.sqlite3'"


class MadeAdapter:
    """An engine of our own for each application.

    :param url: as SQLAlchemy reads it; a relative SQLite file is under the application's instance folder.
    :raises ConfigError: if it is no URL, or the driver that it names is not installed.
    """

    def __init__(self, url: str | URL) -> None:
        try:
            self._url = make_url(url)
        except ArgumentError:
            # The URL is left out: what cannot be read may be a password.
            raise ConfigError(f"db= is no URL that SQLAlchemy can read; {_EXAMPLES}") from None
        try:
            self._dialect = self._url.get_dialect()
            self._dialect.import_dbapi()
        except (ArgumentError, ImportError) as error:
            raise ConfigError(
                f"db='{self._url.drivername}://...' needs a driver that is not installed ({error}); {_EXAMPLES}"
            ) from None
        self._adapters: WeakKeyDictionary[Flask, Adapter] = WeakKeyDictionary()

    def attach(self, app: Flask) -> None:
        """Make the application's engine; nothing is connected yet."""
        engine = self._make_engine(app.instance_path)
        adapter = engine_adapter(engine) if isinstance(engine, Engine) else async_engine_adapter(engine)
        adapter.attach(app)
        self._adapters[app] = adapter

    def engines(self) -> dict[str, Engine]:
        """Return the current application's engine, by its name."""
        return self._current().engines()

    def scope(self) -> Session | None:
        """Return the session of the application context, if it has one already."""
        return self._current().scope()

    def session(self) -> Session:
        """Return the session of the application context."""
        return self._current().session()

    def async_session(self) -> AsyncSession | None:
        """Return the session of the application context, if the driver is an asynchronous one."""
        return self._current().async_session()

    @property
    def session_target(self) -> t.Any:
        """What events of the current application's sessions are listened to on."""
        return self._current().session_target

    def _current(self) -> Adapter:
        return self._adapters[get_app()]

    def _make_engine(self, folder: str) -> Engine | AsyncEngine:
        url, options = self._url, dict[str, t.Any]()
        if url.get_backend_name() == "sqlite":
            url, options = _sqlite(url, folder)
        elif url.get_backend_name() in {"mysql", "mariadb"}:
            options["pool_recycle"] = _RECYCLE
        if self._dialect.is_async:
            from sqlalchemy.ext.asyncio import create_async_engine

            # Flask runs each asynchronous view in an event loop of its own, and a connection belongs to one loop.
            engine: Engine | AsyncEngine = create_async_engine(url, **{"poolclass": NullPool, **options})
        else:
            engine = create_engine(url, **options)
        sync: Engine = engine if isinstance(engine, Engine) else engine.sync_engine
        if url.get_backend_name() == "sqlite":
            _make_folder_of(url.database or "", sync)
            tune_sqlite(sync)
        return engine


def _sqlite(url: URL, folder: str) -> tuple[URL, dict[str, t.Any]]:
    """Return the URL of an absolute path, and what the engine of a database in memory needs."""
    if not url.database or url.database == ":memory:":
        # One database for all threads, and not one for each.
        return url, {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    if url.database.startswith("file:"):
        return url, {}
    return url.set(database=os.path.join(folder, url.database)), {}


def _make_folder_of(path: str, engine: Engine) -> None:
    """Make the folder of a database when it is first connected to, and no earlier."""
    if not os.path.isabs(path):
        return

    @event.listens_for(engine, "do_connect")
    def make_folder(*_: t.Any) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)

"""``state.database``: the application's own database."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from flask import appcontext_pushed, current_app, has_app_context

from ..current import get_app
from ..errors import ConfigError
from .dependencies import Mapping

if t.TYPE_CHECKING:
    from flask import Flask
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from .adapter import Adapter
    from .tracker import Tracker


class Database:
    """The application's own database, as ``Stateful(app, db=db)`` names it.

    :param db: what was passed as ``db=``: an extension, an engine, a sessionmaker, a scoped session, or a URL.
    :raises ConfigError: if it is nothing of that.
    """

    def __init__(self, db: object = None) -> None:
        self._adapter = None if db is None else _adapt(db)
        self._engines: WeakKeyDictionary[Flask, dict[str, Engine]] = WeakKeyDictionary()
        #: The views and triggers that the application has told us of.
        self._mappings: list[Mapping] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Tell whether the application has named a database."""
        return self._adapter is not None

    @property
    def adapter(self) -> Adapter:
        """What we reach the database through.

        :raises ConfigError: if the application has named none.
        """
        if self._adapter is None:
            raise ConfigError("this application has named no database; write Stateful(app, db=db)")
        return self._adapter

    @property
    def session(self) -> Session:
        """The session of the current scope: the application context's, where we make the sessions.

        :raises ConfigError: if there is no database, or its sessions are asynchronous.
        """
        session, asynchronous = self.adapter.session(), self.adapter.async_session()
        if asynchronous is not None and asynchronous.sync_session is session:
            raise ConfigError("the sessions of db= are asynchronous; write state.database.async_session")
        return session

    @property
    def async_session(self) -> AsyncSession:
        """The asynchronous session of the current scope.

        :raises ConfigError: if there is no database, or its sessions are not asynchronous.
        """
        session = self.adapter.async_session()
        if session is None:
            raise ConfigError("the sessions of db= are not asynchronous; write state.database.session")
        return session

    def engines(self) -> dict[str, Engine]:
        """Return the current application's engines by name; one of them is ``"default"``.

        :raises ConfigError: if there is no database.
        """
        app = get_app()
        return self._engines.get(app) or self._find_engines(app)

    def name_of(self, engine: Engine | AsyncEngine) -> str:
        """Return the name of an engine, or of one that was made from it with other options.

        :raises TypeError: if it is no engine.
        :raises ConfigError: if it is none of those of ``db=``.
        """
        engine = _sync_engine(engine, "name_of")
        known = {name: own for engines in list(self._engines.values()) for name, own in engines.items()}
        for name, own in known.items():
            if own is engine or own.pool is engine.pool:
                return name
        raise ConfigError(f"this engine is none of those of db=, which are {', '.join(known) or 'not known yet'}")

    def tune_sqlite(self, engine: Engine | AsyncEngine) -> None:
        """Tune an engine for SQLite that the application has made; one that we make for a URL is tuned already.

        Its connections then use WAL, wait 5 seconds for another writer, check foreign keys, and begin a transaction
        when it begins: with ``BEGIN IMMEDIATE`` inside ``atomic`` and in requests that are neither ``GET``, ``HEAD``
        nor ``OPTIONS``, so that nothing that was read is overtaken before it is written. For another database this
        does nothing.

        :raises TypeError: if it is no engine.
        :raises ConfigError: if the engine commits each statement by itself.
        """
        from .tuning import tune_sqlite

        tune_sqlite(_sync_engine(engine, "tune_sqlite"))

    def tracker(self, name: str) -> Tracker:
        """Return what follows what is written through one of the current application's engines."""
        return self._track(self.engines()[name])

    def bind_of(self, model: t.Any) -> str:
        """Return the name of the engine that a mapped class or a table is kept in."""
        from sqlalchemy import Table
        from sqlalchemy.exc import UnboundExecutionError

        session = self.adapter.session()
        of: dict[str, t.Any] = {"clause": model} if isinstance(model, Table) else {"mapper": model}
        try:
            bind = session.get_bind(**of)
        except UnboundExecutionError:
            return "default"
        return self.name_of(bind.engine)

    def map_view(self, view: str, reads: Iterable[t.Any]) -> None:
        """Say which tables a view of the database reads: they, and not the view, are what changes.

        :param view: its name, with its schema if that is not the default one.
        :param reads: models, tables, or names of tables.
        :raises TypeError: if it is anything else.
        """
        if not isinstance(view, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError('map_view() takes the name of a view; write map_view("recent_posts", reads=[Post])')
        self._map(Mapping.of("views", view, reads, "reads"))

    def map_trigger(self, table: t.Any, writes: Iterable[t.Any]) -> None:
        """Say what a trigger writes when a table is written.

        :param table: a model, a table, or its name.
        :param writes: models, tables, or names of tables.
        :raises TypeError: if it is anything else.
        """
        self._map(Mapping.of("triggers", table, writes, "writes"))

    def _map(self, mapping: Mapping) -> None:
        """Let the engines know of a view or a trigger, those that are known and those to come."""
        with self._lock:
            self._mappings.append(mapping)
            for engine in {engine for engines in self._engines.values() for engine in engines.values()}:
                mapping.tell(self._track(engine).statements)

    @staticmethod
    def _track(engine: Engine) -> Tracker:
        from .tracker import track

        return track(engine)

    def attach(self, app: Flask) -> None:
        """Set up an application."""
        if self._adapter is not None:
            self._adapter.attach(app)
            # The extension that has the engines may be set up after us, and tells them in an application context only.
            appcontext_pushed.connect(self._look, app)
            if not has_app_context() or current_app == app:
                self._look(app)

    def _look(self, app: Flask, **_: t.Any) -> None:
        """Find an application's engines as soon as they can be found, so that none of their statements is missed."""
        # Nothing may escape into Flask; who needs the engines hears of what is wrong.
        with contextlib.suppress(RuntimeError, ConfigError):
            self._find_engines(app)
            appcontext_pushed.disconnect(self._look, app)

    def _find_engines(self, app: Flask) -> dict[str, Engine]:
        adapter = self.adapter
        with self._lock:
            if app not in self._engines:
                try:
                    self._engines[app] = engines = adapter.engines()
                except RuntimeError as error:
                    raise ConfigError("db= does not know this application; call db.init_app(app)") from error
                for engine in engines.values():
                    statements = self._track(engine).statements
                    for mapping in self._mappings:
                        mapping.tell(statements)
                _watch(engines)
            return self._engines[app]


def _watch(engines: dict[str, Engine]) -> None:
    """Let atomic blocks know what happens in these engines, and no other process use their connections."""
    from .forks import keep_apart
    from .watch import watch

    for name, engine in engines.items():
        watch(engine, bind=name)
        keep_apart(engine)


def _sync_engine(engine: object, asked: str) -> Engine:
    """Return an engine, or the one inside an asynchronous one.

    :param asked: what is to take it.
    """
    from sqlalchemy import Engine

    sync: object = getattr(engine, "sync_engine", engine)
    if not isinstance(sync, Engine):
        raise TypeError(f"{asked}() takes an engine; write state.database.{asked}(db.engine)")
    return sync


def _adapt(db: object) -> Adapter:
    try:
        from .adapter import adapt
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "sqlalchemy":
            raise
        raise ConfigError("db= needs SQLAlchemy: pip install 'flask-stateful[sql]'") from None
    return adapt(db)

"""What ``Stateful(db=)`` takes, each with one small class that tells its engines and the session of the current scope.

All else is heard from the engines themselves, so that it holds for sessions that we have never seen as well.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Callable, Iterator

from flask import g
from flask.globals import app_ctx
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from ..errors import ConfigError

if t.TYPE_CHECKING:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy
    from flask_sqlalchemy_lite import SQLAlchemy as Lite
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker

#: The engine that has no other name.
DEFAULT: t.Final = "default"

#: Returns the current application context itself, which a proxy of it is not.
_current_context: t.Callable[[], object] = t.cast("t.Any", app_ctx)._get_current_object

_EXAMPLES = "write Stateful(app, db=db) or db='postgresql+psycopg://localhost/shop'"


class Adapter(t.Protocol):
    """An application's database, whatever it uses to get at it. Every call needs an application context."""

    def engines(self) -> dict[str, Engine]:
        """Return the current application's engines by name; that of an :class:`AsyncEngine` is the sync one inside."""
        ...

    def scope(self) -> Session | None:
        """Return the session of the current scope, if it has one already."""

    def session(self) -> Session:
        """Return the session of the current scope, made where there is none."""
        ...

    def async_session(self) -> AsyncSession | None:
        """Return the asynchronous session of the current scope, whose inner one is :meth:`session`, if it has such."""

    @property
    def session_target(self) -> t.Any:
        """What events of the sessions are listened to on."""

    def attach(self, app: Flask) -> None:
        """Set up an application: the sessions that we make end with the context they were made in."""


class ScopedAdapter:
    """A registry with one session for each scope.

    :param engines: returns the engines.
    :param ours: whether we have made the registry, and end its sessions.
    """

    def __init__(
        self, registry: scoped_session[t.Any], engines: Callable[[], dict[str, Engine]], *, ours: bool = False
    ) -> None:
        self._registry = registry
        self._ours = ours
        self.engines = engines

    def scope(self) -> Session | None:
        """Return the session of the current scope, if it has one already."""
        return self._registry.registry() if self._registry.registry.has() else None

    def session(self) -> Session:
        """Return the session of the current scope."""
        session: Session = self._registry.registry()
        return session

    def async_session(self) -> None:
        """Return nothing: these sessions are synchronous."""

    @property
    def session_target(self) -> t.Any:
        """What events of the sessions are listened to on."""
        return self._registry

    def attach(self, app: Flask) -> None:
        """End our sessions with their contexts."""
        if self._ours:

            @app.teardown_appcontext
            def remove(_error: BaseException | None) -> None:
                self._registry.remove()


class AsyncScopedAdapter:
    """A registry with one asynchronous session for each scope.

    :param ours: whether we have made the registry, and end its sessions.
    """

    def __init__(self, registry: async_scoped_session[t.Any], *, ours: bool = False) -> None:
        self._registry = registry
        self._ours = ours
        self._factory = _factory_of(registry)
        self.session_target = own_sync_class(self._factory)

    def engines(self) -> dict[str, Engine]:
        """Return the engines inside those that the sessions are bound to."""
        return bound_engines(self._factory.kw)

    def scope(self) -> Session | None:
        """Return the session inside that of the current scope, if it has one already."""
        return self.session() if self._registry.registry.has() else None

    def session(self) -> Session:
        """Return the session inside that of the current scope."""
        return self.async_session().sync_session

    def async_session(self) -> AsyncSession:
        """Return the session of the current scope."""
        session: AsyncSession = self._registry.registry()
        return session

    def attach(self, app: Flask) -> None:
        """End our sessions with their contexts."""
        if self._ours:

            @app.teardown_appcontext
            def remove(_error: BaseException | None) -> None:
                held = self.scope()
                if held is not None and held.in_transaction():
                    app.ensure_sync(self._registry.remove)()
                # One that has nothing to give back needs no event loop to end.
                self._registry.registry.clear()


class FlaskSQLAlchemyAdapter(ScopedAdapter):
    """A ``flask_sqlalchemy.SQLAlchemy``: its engine without a bind key is the default."""

    def __init__(self, db: SQLAlchemy) -> None:
        super().__init__(db.session, lambda: {name or DEFAULT: engine for name, engine in db.engines.items()})


class LiteAdapter:
    """A ``flask_sqlalchemy_lite.SQLAlchemy``, with sync engines, async ones or both."""

    def __init__(self, db: Lite) -> None:
        self._db = db

    def engines(self) -> dict[str, Engine]:
        """Return the engines; an async one that has the name of another goes by ``async_`` and that name."""
        # Before anything makes an asynchronous session: both kinds get one class, so that events need only one target.
        self._db.async_sessionmaker.configure(sync_session_class=self.session_target)
        engines = dict(self._db.engines)
        for name, engine in self._db.async_engines.items():
            engines[f"async_{name}" if name in engines else name] = engine.sync_engine
        return engines

    def scope(self) -> Session | None:
        """Return the default session of the application context, if it has one already; the one in use of two."""
        held: list[Session] = []
        if DEFAULT in g.get("_sqlalchemy_sessions", ()):
            held.append(self._db.session)
        if DEFAULT in g.get("_sqlalchemy_async_sessions", ()):
            held.append(self._db.async_session.sync_session)
        return next((session for session in held if session.in_transaction()), held[0] if held else None)

    def session(self) -> Session:
        """Return the default session of the application context."""
        held = self.scope()
        if held is None:
            held = self._db.session if self._db.engines else self._db.async_session.sync_session
        return held

    def async_session(self) -> AsyncSession | None:
        """Return the default asynchronous session, if the application has asynchronous engines."""
        return self._db.async_session if self._db.async_engines else None

    @property
    def session_target(self) -> t.Any:
        """What events of the sessions are listened to on: the class of both kinds of them."""
        return self._db.sessionmaker.class_

    def attach(self, app: Flask) -> None:
        """Do nothing: Flask-SQLAlchemy-Lite ends its sessions."""


def adapt(db: t.Any) -> Adapter:
    """Return the adapter for what was passed as ``Stateful(db=)``.

    :raises ConfigError: if it is nothing of what ``db=`` takes.
    """
    for kind, make in _adapters():
        if isinstance(db, kind):
            return make(db)
    raise ConfigError(_refusal(db))


def _adapters() -> Iterator[tuple[t.Any, Callable[[t.Any], Adapter]]]:
    """Yield what ``db=`` takes, with what makes an adapter of it.

    Who passes something of an optional library has imported that: SQLAlchemy's asynchronous side needs greenlet.
    """
    from .made import MadeAdapter

    yield str | URL, MadeAdapter
    yield Engine, engine_adapter
    yield sessionmaker, factory_adapter
    yield scoped_session, registry_adapter
    for name, adapter in (("flask_sqlalchemy", FlaskSQLAlchemyAdapter), ("flask_sqlalchemy_lite", LiteAdapter)):
        if name in sys.modules:
            yield sys.modules[name].SQLAlchemy, adapter
    if "sqlalchemy.ext.asyncio" in sys.modules:
        from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker

        yield AsyncEngine, async_engine_adapter
        yield async_sessionmaker, async_factory_adapter
        yield async_scoped_session, AsyncScopedAdapter


def registry_adapter(registry: scoped_session[t.Any]) -> ScopedAdapter:
    """Return an adapter for a scoped session; whoever has made it ends its sessions."""
    factory = _factory_of(registry)
    return ScopedAdapter(registry, lambda: bound_engines(factory.kw))


def factory_adapter(factory: sessionmaker[t.Any]) -> ScopedAdapter:
    """Return an adapter with a session of the factory for each application context."""
    return ScopedAdapter(scoped_session(factory, context_id), lambda: bound_engines(factory.kw), ours=True)


def engine_adapter(engine: Engine) -> ScopedAdapter:
    """Return an adapter with a session of ours for each application context."""
    return factory_adapter(sessionmaker(engine))


def async_factory_adapter(factory: async_sessionmaker[t.Any]) -> AsyncScopedAdapter:
    """Return an adapter with an asynchronous session of the factory for each application context."""
    from sqlalchemy.ext.asyncio import async_scoped_session

    return AsyncScopedAdapter(async_scoped_session(factory, context_id), ours=True)


def async_engine_adapter(engine: AsyncEngine) -> AsyncScopedAdapter:
    """Return an adapter with an asynchronous session of ours for each application context."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    return async_factory_adapter(async_sessionmaker(engine))


def context_id() -> int:
    """Return what tells application contexts apart."""
    return id(_current_context())


def bound_engines(options: t.Any) -> dict[str, Engine]:
    """Return the engines that the options of a sessionmaker name.

    That of ``bind=`` is the default, or else the first of ``binds=``; the others have the name of their class or table.

    :raises ConfigError: if they name none.
    """
    engines: dict[str, Engine] = {}
    if options.get("bind") is not None:
        engines[DEFAULT] = _engine_of(options["bind"])
    binds: dict[t.Any, t.Any] = options.get("binds") or {}
    for owner, bind in binds.items():
        engine = _engine_of(bind)
        if engine not in engines.values():
            engines[getattr(owner, "__name__", None) or str(owner) if engines else DEFAULT] = engine
    if not engines:
        raise ConfigError("the sessionmaker in db= has no engine; write sessionmaker(engine)")
    return engines


def _engine_of(bind: t.Any) -> Engine:
    sync: Engine = getattr(bind, "sync_engine", bind).engine
    return sync


def own_sync_class(factory: t.Any) -> type[Session]:
    """Return the class of the sessions inside those of an ``async_sessionmaker``.

    It is made the factory's own, as a sessionmaker does with its class: else it would be that of all sessions.
    """
    base = factory.kw.get("sync_session_class") or factory.class_.sync_session_class
    own: type[Session] = type(base.__name__, (base,), {})
    factory.configure(sync_session_class=own)
    return own


def _factory_of(registry: t.Any) -> t.Any:
    """Return the sessionmaker of a scoped session.

    :raises ConfigError: if it has another kind of factory, which does not tell its engines.
    """
    factory = registry.session_factory
    if not hasattr(factory, "kw") or not hasattr(factory, "configure"):
        raise ConfigError(
            "the scoped session in db= must be made with a sessionmaker: scoped_session(sessionmaker(engine))"
        )
    return factory


def _refusal(db: t.Any) -> str:
    """Return what is wrong with what was passed, and what to write."""
    name = db.__name__ if isinstance(db, type) else type(db).__name__
    taken = (
        "a Flask-SQLAlchemy or Flask-SQLAlchemy-Lite extension, an Engine, a sessionmaker, a scoped_session, their"
        " async twins, or a URL"
    )
    if isinstance(db, Session | Connection) or name in {"AsyncSession", "AsyncConnection"}:
        return f"db= takes what makes sessions, not the {name} of one moment; pass the sessionmaker or the engine"
    what = f"the class {name}" if isinstance(db, type) else f"a {name}"
    return f"db= takes {taken}, not {what}; {_EXAMPLES}"

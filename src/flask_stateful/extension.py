"""The extension: what ``state.`` offers."""

from __future__ import annotations

import inspect
import typing as t
from collections.abc import Callable, Iterable

from flask import current_app, request

from .blocks import current_block
from .browser.place import visit_of
from .cache.cache import Cache
from .cli import state_group
from .consent import Consent
from .cookies.jar import Cookies
from .database.atomic import Atomic
from .database.callbacks import register as on_commit
from .database.database import Database
from .database.dependencies import Row
from .declared import handles
from .declared.classes import State
from .declared.places import EXTENSION
from .declared.registry import Registry
from .errors import ConfigError
from .inventory import Item, inventory, inventory_command
from .sessions.flask_login import bind_flask_login
from .sessions.manager import SessionManager
from .settings import StoreSetting
from .wiring import Wiring, current_cache, current_cookies, current_wiring, wiring_of
from .wiring.isolation import Isolation

if t.TYPE_CHECKING:
    from flask import Flask


P = t.ParamSpec("P")
R = t.TypeVar("R")

state_group.add_command(inventory_command)


class Stateful:
    """All of an application's state, with one security model, one consistency model and one set of stores.

    :param app: the application; without it, call :meth:`init_app` later.
    :param store: where state is kept: a URL, a :class:`~flask_stateful.stores.base.Store`, ``"db"`` for the default
        bind of ``db``, or a dict of these by part (``"default"``, ``"sessions"``, ``"cache"``). It goes before the
        setting ``STATEFUL_STORE``.
    :param db: the application's own database: a Flask-SQLAlchemy or Flask-SQLAlchemy-Lite extension, an engine, a
        sessionmaker, a scoped session, the asynchronous twins of these, or a URL.
    :param user_id: returns the id of the request's user, or ``None``. By default that is the user bound to the
        session, by ``state.sessions.login()`` or by Flask-Login.
    :param declared: the application's declared classes. By default these are all that modules define, and those inside
        functions once they are used.
    :raises ConfigError: if a setting is wrong, or ``db`` is nothing of that.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        store: StoreSetting | None = None,
        db: object = None,
        user_id: t.Callable[[], object] | None = None,
        declared: Iterable[type[State]] | None = None,
    ) -> None:
        if user_id is not None and not callable(user_id):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("user_id= must be a function; write user_id=lambda: current_user.get_id()")
        if isinstance(declared, type):
            raise TypeError(f"declared= must be a list of classes; write declared=[{declared.__name__}]")
        self._store = store
        self._declared = None if declared is None else list(declared)
        self._user_id = user_id
        #: What an application does with sessions besides reading and writing them.
        self.sessions: t.Final = SessionManager()
        #: Cookies that nobody else can read or forge; ``.signed`` and ``.plain`` beside them.
        self.cookies: t.Final = Cookies(current_cookies)
        #: What the visitor has agreed to.
        self.consent: t.Final = Consent(
            lambda: current_wiring().consent(), lambda purpose: current_wiring().forget_purpose(purpose)
        )
        #: Values that are computed once, and kept until they expire or are invalidated.
        self.cache: t.Final = Cache(current_cache)
        #: The application's own database.
        self.database: t.Final = Database(db)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up an application. One :class:`Stateful` may serve several, each with settings of its own.

        :raises ConfigError: if a setting is wrong; every mistake is listed with what to write instead.
        """
        if EXTENSION in app.extensions:
            raise ConfigError("this application already has a Stateful; call init_app(app) once for each application")
        declared, asks = Registry(self._declared), self._user_id is not None
        database = self.database if self.database else None
        wiring = Wiring(app, self._store, lambda: self.user_id, declared, asks_for_user=asks, database=database)
        app.extensions[EXTENSION] = wiring.attach()
        self.database.attach(app)
        app.cli.add_command(state_group)
        bind_flask_login(app, self.sessions)

    @property
    def user_id(self) -> str | None:
        """The id of the request's user, as text."""
        if self._user_id is None:
            return self.sessions.user_id
        user_id = self._user_id()
        return None if user_id is None else str(user_id)

    def reset(self, handle: State, *names: str) -> None:
        """Let the defaults of a declared class hold again: those of some fields, or of all.

        :param handle: as in ``prefs = Prefs()``.
        :raises AttributeError: if there is no such field.
        """
        handles.reset(handle, *names)

    def known(self, handle: State, name: str) -> bool:
        """Tell whether a field of a declared class has a value, so that what it reads as is not the default.

        :raises AttributeError: if there is no such field.
        """
        return handles.known(handle, name)

    def row(self, model: t.Any, *arguments: str) -> Row:
        """Return one row for ``depends_on=``: a cached function depends on it alone, and not on all of its table.

        :param model: a mapped class or a table.
        :param arguments: names of the function's arguments that are the row's primary key, in the order of its columns.
        """
        return Row(model, *arguments)

    @t.overload
    def atomic(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @t.overload
    def atomic(self, /, *, retry: int = 0, isolation: str | None = None, keep: bool = True) -> Atomic: ...

    def atomic(
        self,
        function: Callable[..., t.Any] | None = None,
        /,
        *,
        retry: int = 0,
        isolation: str | None = None,
        keep: bool = True,
    ) -> t.Any:
        """Keep all that a view or a block does to rows, session, durable and browser state, cookies and cache, or none.

        As a decorator, ``@state.atomic`` or ``@state.atomic(retry=3)``, or a context manager, ``with state.atomic():``.
        An exception that leaves it, also an HTTP one, or a returned 5xx keeps nothing; any other return keeps
        everything, and that is sent whatever happens later. Inside another it is a savepoint.

        :param retry: how often a function may be run again where another transaction came first. It is then answered
            with 503 and ``Retry-After``.
        :param isolation: the transaction's isolation level, such as ``"SERIALIZABLE"``.
        :param keep: ``False`` lets everything run and keeps nothing.
        :raises StateError: if the database is SQLite and not tuned, or another bind was written to.
        :raises ValueError: if the database has no such isolation level.
        """
        atomic = Atomic(lambda: current_wiring().atomic_host(), retry=retry, isolation=isolation, keep=keep)
        return atomic if function is None else atomic(function)

    def on_commit(self, function: Callable[[], object]) -> None:
        """Call a function once the transaction at hand is committed; where there is none, now.

        It is not called if the transaction, or the savepoint that this is in, is rolled back. The session can be used
        in it. What it raises is logged: what was committed stands. A crash in between loses it.

        :param function: called without arguments, after those that were given before.
        :raises TypeError: if it is none, or a coroutine function, which nobody would wait for.
        """
        if inspect.iscoroutinefunction(function) or not callable(function):  # pyright: ignore[reportUnnecessaryComparison]
            raise TypeError("on_commit() takes a function that is called later; write state.on_commit(send_receipt)")
        database = current_wiring().database
        on_commit(function, database.adapter.scope() if database is not None else None)

    def external(self) -> None:
        """Say that something was done that cannot be undone, so that the atomic block around it is not run again."""
        block = current_block.get()
        if block is not None:
            block.fence = "it has done what cannot be undone"

    def inventory(self) -> list[Item]:
        """Return what the current application keeps: its declared classes by name, then what we need ourselves.

        It is what ``flask state inventory`` prints, for a page that tells visitors.

        :raises ConfigError: if two declared classes have one name.
        """
        return inventory(current_wiring())

    def test_isolation(self) -> Isolation:
        """Undo, at the end of a ``with`` block, all that the current application has changed in it.

        Rows, sessions, durable state, cached values and what the server knows of browsers are then what they were
        before, whatever was committed. Also ``async with``. What was there before can be read inside. Of a database,
        all sessions share one connection, and their transactions are savepoints: a DDL statement on MySQL and MariaDB
        ends that, which is an error at the end of the block.

        :raises ConfigError: if there is no application context.
        :raises StateError: if the session of the scope is in a transaction already.
        """
        return Isolation(current_wiring)

    @property
    def browser_status(self) -> t.Literal["ok", "memory"]:
        """What the browser says, in this request, of its storage.

        ``"memory"`` where that is full or denied: what JavaScript writes is then lost with its page, except for what
        the server has of it.
        """
        return visit_of(wiring_of(current_app).browser_service(), request.environ).status

    def __repr__(self) -> str:
        return "<Stateful>"

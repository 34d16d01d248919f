"""What the kinds of state in one application work with, each made when it is first needed."""

from __future__ import annotations

import functools
import logging
import threading
import typing as t

from flask import has_request_context, request

from .. import signals
from ..browser.place import BrowserPlace
from ..browser.replica import Replica
from ..browser.scheme import own_prefix
from ..browser.service import BrowserService
from ..cache.background import Background
from ..cache.engine import Engine
from ..cache.events import Events
from ..cache.front import Front
from ..cache.layer import Memo, open_layer
from ..cache.runtime import EXTENSION as CACHE
from ..cache.runtime import Runtime
from ..cache.storage import CacheStorage
from ..cache.tables import Tables
from ..consent import ConsentCookie
from ..cookies.header import all_spellings
from ..cookies.outgoing import CookieService
from ..cookies.place import CookiePlace
from ..cookies.request import RequestCookies
from ..cookies.spill import Spills
from ..cookies.tokens import SealedCodec, SignedCodec, TextCodec
from ..declared.model import Model
from ..declared.places import Place, Places
from ..declared.registry import Registry
from ..durable import DurablePlace, DurableRows
from ..errors import StoreUnavailable
from ..keys import make_keyring
from ..sessions.cookie import SessionCookie
from ..sessions.interface import SessionService
from ..sessions.manager import SessionManager
from ..sessions.place import SessionPlace
from ..sessions.records import SessionRecords
from ..settings import StoreSetting, cookie_options, read_settings, session_options
from ..stores.base import Store
from ..stores.guarded import GuardedStore
from ..unit import Unit

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask

    from ..database.database import Database
    from ..sealing import Keyring

logger = logging.getLogger("flask_stateful")

T = t.TypeVar("T")


class Once(t.Generic[T]):
    """Makes something when it is first asked for, and returns the same one ever after."""

    def __init__(self, make: t.Callable[[], T], lock: threading.RLock) -> None:
        self._make = make
        self._lock = lock
        self._made: T | None = None

    def __call__(self) -> T:
        """Return it."""
        return self._made or self._make_once()

    def _make_once(self) -> T:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class Services:
    """What the kinds of state in one application work with.

    They are made at first use, because Flask's own settings may be set until then; a mistake in one of those is a
    :exc:`~flask_stateful.errors.ConfigError` from whoever asks first.

    :param store: what was passed as ``Stateful(store=)``.
    :param user_id: returns the id of the request's user.
    :param declared: the declared classes of the application.
    :param asks_for_user: whether the session does not tell who the user is.
    :param database: the application's own, if it has named one.
    """

    def __init__(
        self,
        app: Flask,
        store: StoreSetting | None,
        user_id: t.Callable[[], str | None],
        declared: Registry,
        *,
        asks_for_user: bool = False,
        database: Database | None = None,
    ) -> None:
        self._app = app
        self._user_id = user_id
        self._asks_for_user = asks_for_user
        self._unit_key = f"flask_stateful.unit.{id(app)}"
        self._front = Front(app.wsgi_app, lambda key: self.cache_runtime().storage.recall(key))
        #: The application's own database, if it has named one.
        self.database: t.Final = database
        #: The declared classes of the application.
        self.declared: t.Final = declared
        #: The store in that database, where rows of users and of the application are kept.
        self.database_store: Store | None = None
        opener = None if database is None else functools.partial(self._open_in, database)
        self.settings: t.Final = read_settings(app, store, opener)
        if opener is not None:
            opener(self.settings.store_timeout)
        #: The store that sessions are kept in.
        self.session_store: t.Final = self._guard("sessions", self.settings.session_store)
        shared = self.settings.default_store is self.settings.session_store
        #: The store for all that has none of its own; an outage of one that sessions use as well is noticed once.
        self.default_store: t.Final = (
            self.session_store if shared else self._guard("default", self.settings.default_store)
        )
        lock = threading.RLock()
        #: The application's keys, the same ones for every kind of state.
        self.keyring: t.Final = Once(self._make_keyring, lock)
        #: What cookies need.
        self.cookie_service: t.Final = Once(self._make_cookies, lock)
        #: Where the answers of visitors are kept.
        self.consent: t.Final = Once(self._make_consent, lock)
        #: What sessions need.
        self.session_service: t.Final = Once(self._make_sessions, lock)
        #: What browser state needs.
        self.browser_service: t.Final = Once(self._make_browser, lock)
        #: What the cache needs.
        self.cache_runtime: t.Final = Once(self._make_cache, lock)
        self._places = self._make_places()
        self._placed: dict[Model, Place] = {}

    def place(self, kind: str) -> Place:
        """Return where one kind of declared state is kept.

        :raises ConfigError: if the application has no such place.
        """
        return self._places.place(kind)

    def place_of(self, model: Model) -> Place:
        """Return where a declared class is kept.

        :raises ConfigError: where it is none of the application's.
        """
        return self._placed.get(model) or self._admit(model)

    def _admit(self, model: Model) -> Place:
        self.declared.admit(model)
        place = self._placed[model] = self.place(model.kind)
        return place

    def unit_of(self, environ: WSGIEnvironment) -> Unit:
        """Return the unit of the request with this environ, made at first use."""
        unit: Unit | None = environ.get(self._unit_key)
        if unit is None:
            has_ended = self._unit_key in environ
            unit = environ[self._unit_key] = Unit()
            if has_ended:
                unit.discard()
        return unit

    def cookies_of(self, environ: WSGIEnvironment) -> RequestCookies:
        """Return the cookies of the request with this environ."""
        unit = self.unit_of(environ)
        return unit.part(RequestCookies, lambda: RequestCookies(self.cookie_service(), unit, environ))

    def forget_purpose(self, purpose: str) -> None:
        """Remove what the current request's browser holds in classes of a purpose."""
        for model in self.declared.models().values():
            if model.purpose == purpose and model.kind in ("cookie", "local", "tab"):
                values = self.place(model.kind).values(model)
                for field in model.fields.values():
                    values.reset(field)

    def _current_cookies(self) -> RequestCookies:
        return self.cookies_of(request.environ)

    # Each of them, made

    def _make_keyring(self) -> Keyring:
        return make_keyring(self._app, self.settings.stores.values())

    def _make_places(self) -> Places:
        places = Places()
        places.offer("cookie", lambda: CookiePlace(self._app, self._current_cookies, self.unit_of))
        places.offer("session", lambda: SessionPlace(self._app))
        for kind in ("local", "tab"):
            places.offer(kind, lambda: BrowserPlace(self.browser_service()))
        for kind in ("user", "app"):
            places.offer(kind, self._make_durable_place)
        return places

    def _open_in(self, database: Database, timeout: float) -> Store:
        """Return the store in the application's database, the same one each time."""
        from ..database.store import store_in

        if self.database_store is None:
            self.database_store = store_in(database, self._app, timeout)
        return self.database_store

    def _make_durable_place(self) -> DurablePlace:
        store = self.database_store or self.default_store
        rows = DurableRows(self._app, store, self.keyring(), self.settings.namespace)
        return DurablePlace(rows, self._user_id, self.unit_of)

    def _make_sessions(self) -> SessionService:
        cookie = SessionCookie(cookie_options(self._app))
        options = session_options(self._app, self.settings)
        find_field = self.declared.session_field
        records = SessionRecords(self._app, self.session_store, self.keyring(), options, field_of=find_field)
        return SessionService(records, cookie)

    def _make_consent(self) -> ConsentCookie:
        return ConsentCookie(self._current_cookies, own_prefix(self.settings.namespace))

    def _make_cookies(self) -> CookieService:
        keyring, namespace = self.keyring(), self.settings.namespace
        sealed, signed = SealedCodec(keyring, namespace), SignedCodec(keyring, namespace)
        service = CookieService(
            {"sealed": sealed, "signed": signed, "plain": TextCodec()},
            Spills(self.default_store, keyring, namespace),
            self.settings.cookie_budget,
        )
        service.allowed = self.consent().allows
        return service

    def _make_browser(self) -> BrowserService:
        return BrowserService(
            self._app,
            self.keyring(),
            Replica(self.default_store, self.settings.namespace),
            namespace=self.settings.namespace,
            models=lambda: self.declared.models().values(),
            user_id=self._user_id,
            unit_of=self.unit_of,
            allowed=self.consent().allows,
            asks_for_user=self._asks_for_user,
        )

    def _make_cache(self) -> Runtime:
        settings = self.settings
        store = self._guard("cache", settings.cache_store)
        layer = open_layer(store, settings.namespace, settings.cache_memory, self._memo)
        storage = CacheStorage(
            store, namespace=settings.namespace, layer=layer, events=Events(self._app), tables=self._make_tables()
        )
        runtime = Runtime(
            Engine(storage, strict=self._app.debug or self._app.testing),
            ttl=settings.cache_ttl,
            background=Background(self._app),
            unit_of=self.unit_of,
            vary_value=self._vary_value,
            front=self._front,
        )
        self._app.extensions[CACHE] = runtime
        return runtime

    def _make_tables(self) -> Tables | None:
        """Return the tables of the application's database, if it has named one."""
        if self.database is None:
            return None
        from ..database.reads import TableReads

        return TableReads(self.database)

    def _memo(self) -> Memo | None:
        """Return the cached values that the current request has asked for; outside of one, ``None``."""
        return t.cast("Memo", self.unit_of(request.environ).memo) if has_request_context() else None

    def _vary_value(self, name: str) -> t.Any:
        """Return what a cached view varies by. Visitors without a session share one variant."""
        kind, _, of = name.partition(":")
        if kind == "header":
            return request.headers.get(of)
        if kind == "cookie":
            # A jar and Flask do not take quite the same text for a cookie, and a view may look at it through either.
            return [request.cookies.getlist(of), all_spellings(request.environ, of)]
        if kind == "user":
            return self._user_id()
        current = SessionManager().current
        return None if current is None else current.handle

    def _guard(self, name: str, store: Store) -> Store:
        """Keep an outage of a remote store from costing every request a timeout."""
        if not store.remote:
            return store

        def on_down(error: StoreUnavailable) -> None:
            logger.error("the %s store is down: %s", name, error)
            signals.store_down.send(self._app, store=name, error=type(error).__name__)

        def on_up() -> None:
            logger.warning("the %s store is up again", name)
            signals.store_up.send(self._app, store=name)

        return GuardedStore(store, on_down=on_down, on_up=on_up)

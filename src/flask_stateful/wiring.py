"""What :class:`~flask_stateful.Stateful` sets up in one application."""

from __future__ import annotations

import logging
import threading
import typing as t

from flask import current_app, has_request_context, request
from werkzeug.exceptions import ServiceUnavailable

from . import signals
from .browser.pages import BrowserPages
from .browser.place import BrowserPlace, visit_of
from .browser.replica import Replica
from .browser.scheme import own_prefix
from .browser.service import BrowserService
from .cache.background import Background
from .cache.engine import Engine
from .cache.events import Events
from .cache.fragments import add_fragment_tag
from .cache.front import Front
from .cache.layer import Memo, open_layer
from .cache.personal import watch_cookies
from .cache.runtime import Runtime
from .cache.storage import CacheStorage
from .consent import ConsentCookie
from .cookies.header import all_spellings
from .cookies.outgoing import CookieService
from .cookies.place import CookiePlace
from .cookies.request import RequestCookies
from .cookies.spill import Spills
from .cookies.tokens import SealedCodec, SignedCodec, TextCodec
from .declared.model import Model
from .declared.places import EXTENSION, Place, Places
from .declared.registry import Registry
from .durable import DurablePlace, DurableRows
from .errors import ConfigError, StateError, StoreError, StoreUnavailable
from .keys import make_keyring
from .sealing import Keyring
from .sessions.cookie import SessionCookie
from .sessions.interface import SessionService, StatefulSessionInterface
from .sessions.manager import SessionManager
from .sessions.place import SessionPlace
from .sessions.records import SessionRecords
from .settings import StoreSetting, cookie_options, read_settings, session_options
from .stores.base import Store
from .stores.guarded import GuardedStore
from .unit import Unit

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask, Response
    from flask.typing import ResponseReturnValue

logger = logging.getLogger("flask_stateful")

#: Returns the current application itself: to go through the proxy takes longer than a hit in the cache.
_current_app: t.Callable[[], Flask] = t.cast("t.Any", current_app)._get_current_object


class Wiring:
    """What one application has of us.

    :param store: what was passed as ``Stateful(store=)``.
    :param user_id: returns the id of the request's user.
    :param declared: the declared classes of the application.
    """

    def __init__(
        self, app: Flask, store: StoreSetting | None, user_id: t.Callable[[], str | None], declared: Registry
    ) -> None:
        self._app = app
        #: The declared classes of the application.
        self.declared = declared
        #: Where their values are kept.
        self.places = Places()
        self._user_id = user_id
        self._lock = threading.RLock()
        self._keyring: Keyring | None = None
        self._cookies: CookieService | None = None
        self._service: SessionService | None = None
        self._cache: Runtime | None = None
        self._browser: BrowserService | None = None
        self._consent: ConsentCookie | None = None
        self._unit_key = f"flask_stateful.unit.{id(app)}"
        self._front = Front(app.wsgi_app, lambda key: self.cache_runtime().storage.recall(key))
        self.settings = read_settings(app, store)
        #: The store that sessions are kept in.
        self.session_store = self._guard("sessions", self.settings.session_store)
        shared = self.settings.default_store is self.settings.session_store
        #: The store for all that has none of its own; an outage of one that sessions use as well is noticed once.
        self.default_store = self.session_store if shared else self._guard("default", self.settings.default_store)
        self.places.offer("cookie", lambda: CookiePlace(app, current_cookies, self.unit_of))
        self.places.offer("session", lambda: SessionPlace(app))
        for kind in ("local", "tab"):
            self.places.offer(kind, lambda: BrowserPlace(self.browser_service))
        for kind in ("user", "app"):
            self.places.offer(kind, self._make_durable_place)

    def attach(self) -> Wiring:
        """Put our hooks into the application."""
        app = self._app
        app.session_interface = StatefulSessionInterface(self.session_service, self.unit_of)
        # Flask runs these in reverse, so the first one runs last and sees what every other one has changed.
        app.after_request_funcs.setdefault(None, []).insert(0, self._finisher())
        if StoreUnavailable not in app.error_handler_spec[None][None]:
            app.register_error_handler(StoreUnavailable, self._answer_unavailable)
        app.request_class = watch_cookies(app.request_class, self.unit_of)
        add_fragment_tag(app, self.cache_runtime)
        BrowserPages(self.browser_service, self.settings.url_prefix).attach(app)
        signals.user_changed.connect(self._note_user, app)
        app.wsgi_app = self._front  # type: ignore[method-assign]
        return self

    def place(self, kind: str) -> Place:
        """Return where one kind of declared state is kept.

        :raises ConfigError: if the application has no such place.
        """
        return self.places.place(kind)

    def admit(self, model: Model) -> None:
        """Raise :exc:`ConfigError` where a declared class is none of the application's."""
        self.declared.admit(model)

    def session_service(self) -> SessionService:
        """Return what sessions need, made at first use: Flask's own settings may be set until then.

        :raises ConfigError: if one of those is wrong.
        """
        return self._service or self._make_service()

    def _make_service(self) -> SessionService:
        with self._lock:
            if self._service is None:
                cookie = SessionCookie(cookie_options(self._app))
                options = session_options(self._app, self.settings)
                records = SessionRecords(
                    self._app, self.session_store, self.keyring(), options, field_of=self.declared.session_field
                )
                self._service = SessionService(records, cookie)
            return self._service

    def keyring(self) -> Keyring:
        """Return the application's keys, the same ones for every kind of state."""
        with self._lock:
            if self._keyring is None:
                self._keyring = make_keyring(self._app, self.settings.stores.values())
            return self._keyring

    def cookie_service(self) -> CookieService:
        """Return what cookies need, made at first use."""
        return self._cookies or self._make_cookies()

    def _make_cookies(self) -> CookieService:
        with self._lock:
            if self._cookies is None:
                keyring, namespace = self.keyring(), self.settings.namespace
                self._cookies = CookieService(
                    {
                        "sealed": SealedCodec(keyring, namespace),
                        "signed": SignedCodec(keyring, namespace),
                        "plain": TextCodec(),
                    },
                    Spills(self.default_store, keyring, namespace),
                    self.settings.cookie_budget,
                )
                self._cookies.allowed = self.consent().allows
            return self._cookies

    def consent(self) -> ConsentCookie:
        """Return where the answers of visitors are kept."""
        if self._consent is None:
            self._consent = ConsentCookie(current_cookies, own_prefix(self.settings.namespace))
        return self._consent

    def forget_purpose(self, purpose: str) -> None:
        """Remove what the current request's browser holds in classes of a purpose."""
        for model in self.declared.models().values():
            if model.purpose == purpose and model.kind in ("cookie", "local", "tab"):
                values = self.place(model.kind).values(model)
                for field in model.fields.values():
                    values.reset(field)

    def _make_durable_place(self) -> DurablePlace:
        rows = DurableRows(self._app, self.default_store, self.keyring(), self.settings.namespace)
        return DurablePlace(rows, self._user_id, self.unit_of)

    def browser_service(self) -> BrowserService:
        """Return what browser state needs, made at first use.

        :raises ConfigError: if a declared field cannot be kept where it is to be.
        """
        return self._browser or self._make_browser()

    def _make_browser(self) -> BrowserService:
        with self._lock:
            if self._browser is None:
                namespace = self.settings.namespace
                self._browser = BrowserService(
                    self._app,
                    self.keyring(),
                    Replica(self.default_store, namespace),
                    namespace=namespace,
                    models=lambda: self.declared.models().values(),
                    user_id=self._user_id,
                    unit_of=self.unit_of,
                    allowed=self.consent().allows,
                )
            return self._browser

    def _note_user(self, app: Flask) -> None:
        """Let browser state follow its user, where there is any."""
        if has_request_context() and self.browser_service().whole_scheme().slots:
            visit_of(self.browser_service(), request.environ).has_new_user = True

    def cache_runtime(self) -> Runtime:
        """Return what the cache needs, made at first use."""
        return self._cache or self._make_cache()

    def _make_cache(self) -> Runtime:
        with self._lock:
            if self._cache is None:
                settings = self.settings
                store = self._guard("cache", settings.cache_store)
                layer = open_layer(store, settings.namespace, settings.cache_memory, self._memo)
                storage = CacheStorage(store, namespace=settings.namespace, layer=layer, events=Events(self._app))
                self._cache = Runtime(
                    Engine(storage, strict=self._app.debug or self._app.testing),
                    ttl=settings.cache_ttl,
                    background=Background(self._app),
                    unit_of=self.unit_of,
                    vary_value=self._vary_value,
                    front=self._front,
                )
            return self._cache

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

    def _finisher(self) -> t.Callable[[Response], Response]:
        """Return the function that ends a request. Flask calls a plain function faster than a method."""
        unit_key = self._unit_key

        def finish(response: Response) -> Response:
            unit: Unit | None = request.environ.get(unit_key)
            if unit is None:
                # Whoever writes from now on, in a streamed body, is to hear that it is too late.
                request.environ[unit_key] = None
                return response
            return response if unit.closed and not unit.outgoing else self._finish(unit, response)

        return finish

    def _finish(self, unit: Unit, response: Response) -> Response:
        """Save or discard the request's unit. A failure to save is answered by the application's error handlers."""
        if response.status_code >= 500 and not self.settings.keep_on_error:
            unit.discard()
        try:
            unit.save()
        except Exception as error:
            # Where no handler answers, Flask comes back with its own 500, and that is sent what is outgoing.
            response = self._app.make_response(self._app.handle_user_exception(error))
        unit.send(response)
        return response

    def _answer_unavailable(self, error: StoreUnavailable) -> ResponseReturnValue:
        """Answer 503, unless the application handles our errors in its own way."""
        logger.warning("answered 503: %s", error)
        for kind in (StoreError, StateError):
            handler = self._app.error_handler_spec[None][None].get(kind)
            if handler is not None:
                return t.cast("ResponseReturnValue", self._app.ensure_sync(handler)(error))
        unavailable = ServiceUnavailable("The state store cannot be reached.")
        return self._app.handle_user_exception(unavailable)


def current_wiring() -> Wiring:
    """Return what the current application has of us.

    :raises ConfigError: if it has nothing.
    """
    return wiring_of(current_app)


def current_cookies() -> RequestCookies:
    """Return the cookies of the current request.

    :raises ConfigError: if the application has nothing of us.
    """
    return current_wiring().cookies_of(request.environ)


def current_cache() -> Runtime:
    """Return what the current application's cache works with.

    :raises ConfigError: if the application has nothing of us.
    """
    wiring = _current_app().extensions.get(EXTENSION)
    return wiring.cache_runtime() if isinstance(wiring, Wiring) else current_wiring().cache_runtime()


def wiring_of(app: Flask) -> Wiring:
    """Return what an application has of us.

    :raises ConfigError: if it has nothing.
    """
    wiring = app.extensions.get(EXTENSION)
    if not isinstance(wiring, Wiring):
        raise ConfigError("this application has no Stateful; write `state = Stateful(app)` or `state.init_app(app)`")
    return wiring

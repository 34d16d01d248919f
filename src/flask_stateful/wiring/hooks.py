"""Our hooks in an application, and how the rest of the package finds what it has of us."""

from __future__ import annotations

import contextlib
import logging
import typing as t

from flask import has_request_context, request
from werkzeug.exceptions import ServiceUnavailable

from .. import signals
from ..blocks import SAFE
from ..browser.owner import user_changed
from ..browser.pages import BrowserPages
from ..browser.place import visit_of
from ..cache.fragments import add_fragment_tag
from ..cache.personal import watch_cookies
from ..cache.runtime import Runtime
from ..cookies.request import RequestCookies
from ..current import get_app, get_request
from ..database.atomic import Atomic
from ..database.nesting import Host
from ..declared.places import EXTENSION
from ..errors import ConfigError, StateError, StoreError, StoreUnavailable
from ..sessions.interface import StatefulSessionInterface
from ..unit import Unit
from .services import Services

if t.TYPE_CHECKING:
    from flask import Flask, Response
    from flask.typing import ResponseReturnValue

    from ..stores.sql import SQLStore

logger = logging.getLogger("flask_stateful")


class Wiring(Services):
    """What one application has of us."""

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
        if self.settings.atomic != "off":
            app.dispatch_request = self._dispatch_atomically(app.dispatch_request)  # type: ignore[method-assign]
        return self

    def _dispatch_atomically(self, dispatch: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        """Let each view be a block of its own, unless it is one anyway."""
        atomic, methods = Atomic(self.atomic_host), SAFE if self.settings.atomic == "writes" else ()

        def dispatch_request(*args: t.Any) -> t.Any:
            view = self._app.view_functions.get(request.endpoint or "")
            if view is None or request.method in methods or getattr(view, "is_atomic", False):
                return dispatch(*args)
            return atomic.run(lambda: dispatch(*args))

        return dispatch_request

    def atomic_host(self) -> Host:
        """Return what a block is about that begins now."""
        unit = self.unit_of(request.environ) if has_request_context() else Unit()
        store = self.database_store if self.session_store is self.database_store is self.default_store else None
        return Host(unit, self.database, t.cast("SQLStore | None", store))

    def _note_user(self, app: Flask, *, left: bool) -> None:
        """Let browser state follow its user, where there is any."""
        # Two applications of one process may have classes of one name; nobody who has none of them need hear of that.
        with contextlib.suppress(ConfigError):
            if has_request_context() and self.browser_service().whole_scheme().slots:
                user_changed(visit_of(self.browser_service(), request.environ), left=left)

    def _finisher(self) -> t.Callable[[Response], Response]:
        """Return the function that ends a request. Flask calls a plain function faster than a method."""
        unit_key = self._unit_key

        def finish(response: Response) -> Response:
            environ = get_request().environ
            unit: Unit | None = environ.get(unit_key)
            if unit is None:
                # Whoever writes from now on, in a streamed body, is to hear that it is too late.
                environ[unit_key] = None
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
    return wiring_of(get_app())


def current_cookies() -> RequestCookies:
    """Return the cookies of the current request.

    :raises ConfigError: if the application has nothing of us.
    """
    return current_wiring().cookies_of(request.environ)


def current_cache() -> Runtime:
    """Return what the current application's cache works with.

    :raises ConfigError: if the application has nothing of us.
    """
    return current_wiring().cache_runtime()


def wiring_of(app: Flask) -> Wiring:
    """Return what an application has of us.

    :raises ConfigError: if it has nothing.
    """
    wiring = app.extensions.get(EXTENSION)
    if not isinstance(wiring, Wiring):
        raise ConfigError("this application has no Stateful; write `state = Stateful(app)` or `state.init_app(app)`")
    return wiring

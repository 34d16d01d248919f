"""``{{ stateful() }}``, and the two addresses that the module in the browser uses."""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, has_request_context, request
from jinja2 import Environment
from jinja2.ext import Extension
from markupsafe import Markup

from ..seldom import log_seldom
from .answer import ISLAND
from .carriers import HEADER, WAITING
from .client import MODULE, client_module
from .inbox import accept
from .place import visit_of
from .service import BrowserService
from .wire import BODY_BYTES, parse_push

if t.TYPE_CHECKING:
    from flask import Flask

BLUEPRINT: t.Final = "stateful"

_ANSWERED: t.Final = "flask_stateful.answered"


class BrowserPages:
    """What an application serves to browsers besides its own pages.

    :param service: returns what the application's browser state needs.
    :param prefix: where the addresses are.
    """

    def __init__(self, service: Callable[[], BrowserService], prefix: str) -> None:
        self._service = service
        self._prefix = prefix

    def attach(self, app: Flask) -> None:
        """Add the addresses, and the function for templates."""
        blueprint = Blueprint(BLUEPRINT, __name__, url_prefix=self._prefix)
        blueprint.add_url_rule(f"/{MODULE}", "client", self._send_client)
        blueprint.add_url_rule("", "sync", self._sync, methods=["POST"])
        blueprint.url_value_preprocessor(self._exempt_from_csrf)
        blueprint.after_request(self._mention_refusal)
        app.register_blueprint(blueprint)
        add_global(app, "stateful", self.tags)

    def tags(self) -> Markup:
        """Return what belongs into a page's head: the same for every visitor, and an island where there is news."""
        root = request.script_root if has_request_context() else ""
        tags = Markup('<script type="module" src="{}/{}"></script>').format(root + self._prefix, MODULE)
        return tags + ISLAND if has_request_context() and self._has_news() else tags

    def _has_news(self) -> bool:
        """Tell whether the page has something to say to the browser that cookies do not say."""
        service, environ = self._service(), request.environ
        is_awaited = f"{service.scheme.prefix}{WAITING}" in environ.get("HTTP_COOKIE", "")
        if not is_awaited and service.environ_key not in environ:
            return False
        visit = visit_of(service, environ)
        if visit.carriers.is_awaited:
            visit.note_read(WAITING)
        elif not visit.has_news():
            return False
        visit.answer.is_private = visit.answer.has_island = True
        return True

    def _send_client(self) -> Response:
        """Send the module, the same one to everybody."""
        request.environ[_ANSWERED] = True
        service = self._service()
        url = request.script_root + self._prefix
        module = client_module(service.whole_scheme(), url=url, https=request.environ["wsgi.url_scheme"] == "https")
        response = Response(module.body, content_type="text/javascript; charset=utf-8")
        response.headers["Cache-Control"] = "no-cache"
        response.set_etag(module.etag)
        return t.cast("Response", response.make_conditional(request))

    def _mention_refusal(self, response: Response) -> Response:
        """Say where the application answers in our place: a check of its own, which nobody would look for."""
        if _ANSWERED not in request.environ and request.method != "OPTIONS":
            log_seldom(
                self,
                logging.WARNING,
                "%s %s was answered %d before it reached Flask-Stateful, so nothing arrives that browsers write;"
                ' let your before_request functions pass what has request.blueprint == "stateful"',
                request.method,
                str(request.url_rule),
                response.status_code,
            )
        return response

    def _sync(self) -> Response:
        """Take what a browser has written, and answer what it does not know."""
        request.environ[_ANSWERED] = True
        if not _is_own_script():
            return _refusal(403)
        # A length that is not told is not trusted: no more is read than is allowed.
        body = request.stream.read(BODY_BYTES + 1) if (request.content_length or 0) <= BODY_BYTES else None
        if body is None or len(body) > BODY_BYTES:
            return _refusal(413)
        push = parse_push(body)
        if push is None:
            return _refusal(400)
        service = self._service()
        service.whole_scheme()
        patch = accept(visit_of(service, request.environ), push)
        response = Response(patch.encode(), content_type="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    @staticmethod
    def _exempt_from_csrf(endpoint: str | None, values: dict[str, t.Any] | None) -> None:
        """Tell Flask-WTF that the endpoint has a check of its own: pages that carried a token could not be cached."""
        protect = current_app.extensions.get("csrf")
        if protect is not None and endpoint is not None:
            protect.exempt(current_app.view_functions[endpoint])


def _is_own_script() -> bool:
    """Tell whether a script of our own origin has sent the request; a form or another site cannot say so."""
    if HEADER not in request.headers or request.mimetype != "application/json":
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc == request.host
    except ValueError:
        return False


def _refusal(status: int) -> Response:
    return Response(status=status, headers={"Cache-Control": "no-store"})


def add_global(app: Flask, name: str, function: Callable[[], Markup]) -> None:
    """Let an application's templates use a function, also those that are imported without context."""

    class GlobalExtension(Extension):
        def __init__(self, environment: Environment) -> None:
            super().__init__(environment)
            t.cast("dict[str, t.Any]", environment.globals)[name] = function

    if "jinja_env" in vars(app):
        app.jinja_env.add_extension(GlobalExtension)
    else:
        # The environment is made at first use; until then an application may still change its options.
        extensions = [*app.jinja_options.get("extensions", ()), GlobalExtension]
        app.jinja_options = {**app.jinja_options, "extensions": extensions}

"""Pages that are answered before Flask is entered."""

from __future__ import annotations

import http
import typing as t
from collections.abc import Callable, Iterable

from .pages import CONDITIONS, NAME, NOT_STORED, PLACE, Page

if t.TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .layer import Held

#: What tells one address from another. Where a proxy is believed, what it says stands for the rest.
_PLACE: t.Final = (
    *PLACE,
    *("HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PORT", "HTTP_X_FORWARDED_PREFIX"),
)

#: Requests with any of these are for Flask: they may be personal, or ask for less than the whole page.
_NOT_HERE: t.Final = CONDITIONS | {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "HTTP_RANGE", "HTTP_FORWARDED"}

_METHODS: t.Final = frozenset({"GET", "HEAD"})

#: Where a request carries the page that it is answered with.
_OFFERED: t.Final = "flask_stateful.page"

#: How many addresses are known at most.
_MOST_PLACES: t.Final = 4096

_LINES: t.Final = {status.value: f"{status.value} {status.phrase}" for status in http.HTTPStatus}

Place: t.TypeAlias = tuple[t.Any, ...]
Headers: t.TypeAlias = list[tuple[str, str]]


class _Known(t.NamedTuple):
    """How a page went out when Flask sent it."""

    key: str
    page: Page
    headers: Headers


class Front:
    """A WSGI application (:pep:`3333`) before another one, which answers what the cache holds of some views.

    It sends a page as Flask has sent it before, with the headers that the application's own functions had added, and
    leaves to Flask whatever goes out differently from one visitor to the next.

    :param app: answers everything else.
    :param recall: returns what memory holds under a key, if it is fresh and true.
    """

    def __init__(self, app: WSGIApplication, recall: Callable[[str], Held | None]) -> None:
        self._app = app
        self._recall = recall
        self._known: dict[Place, _Known] = {}
        #: Whether any view is to be answered here; until then requests only pass.
        self._active = False

    def activate(self) -> None:
        """Look out for pages from now on."""
        self._active = True

    def offer(self, environ: WSGIEnvironment, key: str, page: Page) -> None:
        """Let the address of a request be answered here from now on, as this request is answered now."""
        self._active = True
        environ[_OFFERED] = key, page

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, or have it answered."""
        if not self._active or environ["REQUEST_METHOD"] not in _METHODS or not environ.keys().isdisjoint(_NOT_HERE):
            return self._app(environ, start_response)
        place = tuple(map(environ.get, _PLACE))
        known = self._known.get(place)
        held = self._recall(known.key) if known is not None else None
        if known is None or held is None or held.value is not known.page:
            return self._app(environ, self._learning(place, environ, start_response))
        page = known.page
        headers = [*known.headers, ("Age", str(page.age)), ("Cache-Status", f"{NAME}; hit")]
        start_response(_LINES[page.status], headers)
        return [page.body] if environ["REQUEST_METHOD"] == "GET" else []

    def _learning(self, place: Place, environ: WSGIEnvironment, start_response: StartResponse) -> StartResponse:
        """Return what starts a response and learns from it how the page at a place goes out."""

        def start(status: str, headers: Headers, *exc_info: t.Any) -> Callable[[bytes], object]:
            key, page = environ.get(_OFFERED, ("", None))
            if page is not None and environ["REQUEST_METHOD"] == "GET" and _is_same(page, status, headers):
                if len(self._known) >= _MOST_PLACES:
                    self._known.clear()
                kept = [(name, value) for name, value in headers if name.lower() not in NOT_STORED]
                self._known[place] = _Known(key, page, kept)
            return start_response(status, headers, *exc_info)

        return start


def _is_same(page: Page, status: str, headers: Headers) -> bool:
    """Tell whether a page goes out as it is stored, and in the same way to everybody."""
    sent = {name.lower(): value for name, value in headers}
    return (
        status == _LINES[page.status]
        and sent.get("content-length") == str(len(page.body))
        and sent.keys().isdisjoint(("set-cookie", "vary", "content-encoding"))
    )

"""What a response tells the browser: cookies, the island in the page, the header of an answer to ``fetch``."""

from __future__ import annotations

import typing as t

from markupsafe import Markup

from .. import clock
from ..cookies.header import HOST, HOST_HTTP, make_private, vary_by_cookie
from ..errors import StoreError
from ..serialization import url_safe
from .carriers import HEADER, NEW_TAB, OWNER
from .replica import DAY, Held
from .scheme import BROWSER, Part
from .wire import HEADER_BYTES, ISLAND_BYTES, Patch, island_text

if t.TYPE_CHECKING:
    from flask import Response

    from .visit import Visit

#: What stands in a page until it is known what has been saved. Where nobody replaces it, in a streamed page or a
#: compressed one, it tells the browser to ask.
ISLAND: t.Final = Markup('<script type="application/json" id="fs-state">{"x":["*"]}</script>')

_ASK: t.Final = '{"x":["*"]}'

_LONG: t.Final = round(400 * DAY)
_SHORT: t.Final = 60


class Cookies(t.NamedTuple):
    """The cookies that a response sets: those that are discarded with the request, and those that are not."""

    set: t.Mapping[str, str] = {}
    lasting: t.Mapping[str, str] = {}


NO_COOKIES: t.Final = Cookies()


class Answer:
    """What one response tells the browser."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._https = visit.carriers.https
        #: What is set unless the request is discarded.
        self.cookies: dict[str, str] = {}
        self._lasting: dict[str, str] = {}
        #: Whether the response is for this visitor alone.
        self.is_private = False
        #: Whether state was read that a cookie carries.
        self.is_personal = False
        #: Whether the page has an island.
        self.has_island = False

    # Cookies, kept until the response is ready

    @property
    def has_cookies(self) -> bool:
        """Whether the browser is given any."""
        return bool(self.cookies or self._lasting)

    def _cookie(self, name: str, value: str, max_age: int, *, http_only: bool = False) -> str:
        # RFC 6265bis, section 4.1.3. The one that scripts cannot read may not be written by them, either.
        prefix = (HOST_HTTP if http_only else HOST) if self._https else ""
        flags = ("; Secure" if self._https else "") + ("; HttpOnly" if http_only else "") + "; SameSite=Lax"
        return f"{prefix}{self._visit.scheme.prefix}{name}={value}; Path=/; Max-Age={max_age}{flags}"

    def mirror(self, name: str, value: str, *, ttl: float | None) -> None:
        """Set a mirror cookie."""
        self.cookies[name] = self._cookie(name, value, _LONG if ttl is None else min(_LONG, max(1, round(ttl))))

    def identify(self, value: str) -> None:
        """Give the browser its id. It is kept whatever happens: it says nothing of what was discarded."""
        self._lasting[BROWSER] = self._cookie(BROWSER, value, _LONG, http_only=True)
        self.is_private = True

    def name_tab(self, tab: str) -> None:
        """Give the tab an id until its scripts know it."""
        self.cookies["_t"] = self._cookie("_t", tab + NEW_TAB, _SHORT)

    def await_patch(self, part: Part, revision: int) -> None:
        """Say that a patch is waiting."""
        name, days = (f"_p.{self._visit.tab}", 1) if part is Part.TAB else ("_p", 30)
        self.cookies[name] = self._cookie(name, str(revision), round(days * DAY))

    def own(self, tag: str) -> None:
        """Say to whom the browser's entries belong now."""
        self._lasting[OWNER] = self._cookie(OWNER, tag, _LONG if tag else 0)
        self.is_private = True

    def remove(self, name: str) -> None:
        """Remove a cookie, whatever happens."""
        self.cookies.pop(name, None)
        self._lasting[name] = self._cookie(name, "", 0)
        self.is_private = True

    def remember(self) -> Cookies:
        """Return the cookies as they are now."""
        return Cookies(dict(self.cookies), dict(self._lasting))

    def go_back(self, cookies: Cookies) -> None:
        """Let these be the cookies again. A browser that was given an id keeps it."""
        browser = {BROWSER: self._lasting[BROWSER]} if BROWSER in self._lasting else {}
        self.cookies, self._lasting = dict(cookies.set), {**cookies.lasting, **browser}

    # The response

    def send(self, response: Response) -> None:
        """Put into the response what the browser is to be told."""
        if self.has_island:
            self._fill_island(response)
        for cookie in {**self._lasting, **self.cookies}.values():
            response.headers.add("Set-Cookie", cookie)
        if self._visit.carriers.has_header and self._visit.written:
            response.headers[HEADER] = self._news().fitting(HEADER_BYTES, url_safe)
        if self.is_personal or self.is_private:
            vary_by_cookie(response)
        if self.is_private or self.has_cookies:
            make_private(response)
        # The visit knows its answer, which has said all that there was.
        del self._visit

    def _patch(self) -> Patch:
        visit = self._visit
        patch = Patch(visit.tab, visit.ownership.tag)
        patch.new_tab = visit.is_new_tab
        return patch

    def _news(self) -> Patch:
        """Return what this request has written."""
        patch = self._patch()
        for name, held in self._visit.written.items():
            _tell(patch, name, held)
        return patch

    def everything(self) -> Patch:
        """Return all that the server holds for this browser and tab.

        :raises StoreError: if the store fails.
        """
        patch = self._patch()
        patch.held = {}
        for name, held in self._visit.everything_held().items():
            patch.held[name] = held.revision
            _tell(patch, name, held)
        return patch

    def _fill_island(self, response: Response) -> None:
        mark = ISLAND.encode()
        if response.is_sequence and not response.direct_passthrough:
            body = response.get_data()
            if mark in body:
                try:
                    message = self.everything().fitting(ISLAND_BYTES - len(mark), island_text)
                except StoreError:
                    return
                island = str(ISLAND).replace(_ASK, message)
                response.set_data(body.replace(mark, island.encode(), 1))
                if self._visit.is_new_tab:
                    # The page knows its id now; the next new tab must not take it for its own.
                    self.cookies["_t"] = self._cookie("_t", "", 0)


def _tell(patch: Patch, name: str, held: Held) -> None:
    now = clock.now()
    left = None if held.expires is None or held.expires <= now else held.expires - now
    patch.tell(name, held.at(now), left)

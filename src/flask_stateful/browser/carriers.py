"""What a request carries of browser state, read when it is asked for."""

from __future__ import annotations

import logging
import typing as t

from ..cookies.header import HOST, HOST_HTTP
from .registers import Register
from .scheme import BROWSER
from .wire import (
    HEADER_BYTES,
    MIRROR_BYTES,
    OUTBOX_BYTES,
    Push,
    from_base64url,
    is_owner,
    is_tab,
    parse_mirror,
    parse_push,
)

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

logger = logging.getLogger("flask_stateful")

HEADER: t.Final = "X-State"
_HEADER_KEY: t.Final = "HTTP_X_STATE"

#: How many of our cookies are looked at; a browser sends no more than some hundred in all.
_MAX_COOKIES: t.Final = 100

#: What follows a tab's id that a response has made up.
NEW_TAB: t.Final = ".new"

#: The cookie with the owner's tag.
OWNER: t.Final = "_u"

#: The cookie that says that a patch is waiting; for a tab, its id follows after a dot.
WAITING: t.Final = "_p"

_OUTBOX: t.Final = "_q."


class Carriers:
    """The cookies and the header of one request.

    :param prefix: what the names of our cookies begin with, without the prefixes that https gives them.
    """

    __slots__ = ("_reported", "_state_header", "cookies", "https", "prefix")

    def __init__(self, environ: WSGIEnvironment, prefix: str) -> None:
        # The environ will hold what holds this: to hold it as well would leave both to the garbage collector.
        self._state_header: str | None = environ.get(_HEADER_KEY)
        #: Whether the request came by https, so that only cookies with a prefix are read, and written.
        self.https: bool = environ["wsgi.url_scheme"] == "https"
        #: What the names of cookies begin with that scripts write as well.
        self.prefix = f"{HOST}{prefix}" if self.https else prefix
        #: Our cookies, by what follows the prefix in their names.
        self.cookies = self._find(environ.get("HTTP_COOKIE", ""), prefix)
        self._reported = False

    def _find(self, header: str, mark: str) -> dict[str, str]:
        prefix, found = self.prefix, dict[str, str]()
        # Most requests have none, and looking for the prefix costs a fraction of splitting the header.
        if mark not in header:
            return found
        browser = f"{HOST_HTTP}{mark}{BROWSER}=" if self.https else None
        for pair in header.split(";"):
            cookie = pair.strip(" \t")
            if cookie.startswith(prefix) and len(found) < _MAX_COOKIES:
                name, _, value = cookie[len(prefix) :].partition("=")
                # Of two with one name, browsers send the older one first, and ours before one of a parent domain.
                found.setdefault(name, value.lstrip(" \t"))
            elif browser is not None and cookie.startswith(browser):
                found.setdefault(BROWSER, cookie[len(browser) :].lstrip(" \t"))
        return found

    @property
    def is_awaited(self) -> bool:
        """Whether a patch is waiting for this browser, as its cookies say."""
        return any(name == WAITING or name.startswith(f"{WAITING}.") for name in self.cookies)

    def mirror(self, name: str) -> Register | None:
        """Return what a mirror cookie holds."""
        text = self.cookies.get(name)
        if text is None:
            return None
        fits = len(self.prefix) + len(name) + len(text) <= MIRROR_BYTES
        register = parse_mirror(text) if fits else None
        if register is None:
            self.report("mirror cookie")
        return register

    def outboxes(self) -> list[Push]:
        """Return what the tabs of this browser have not been able to send otherwise."""
        pushes: list[Push] = []
        for name, text in self.cookies.items():
            if name.startswith(_OUTBOX):
                push = self._decode(text, OUTBOX_BYTES - len(self.prefix) - len(name))
                if push is None or push.tab != name.removeprefix(_OUTBOX):
                    self.report("outbox cookie")
                else:
                    pushes.append(push)
        return pushes

    @property
    def has_header(self) -> bool:
        """Whether a script of ours has sent the request."""
        return self._state_header is not None

    def header(self) -> Push | None:
        """Return what ``fetch`` has sent along."""
        text = self._state_header
        if text is None:
            return None
        push = self._decode(text, HEADER_BYTES)
        if push is None:
            self.report("X-State header")
        return push

    @property
    def tab(self) -> str:
        """The tab that is navigating; empty where nobody knows."""
        tab = self.cookies.get("_t", "").removesuffix(NEW_TAB)
        return tab if is_tab(tab) else ""

    @property
    def is_new_tab(self) -> bool:
        """Whether that tab's id is one that we have made up, and its scripts do not know yet."""
        return self.cookies.get("_t", "").endswith(NEW_TAB)

    @property
    def owner(self) -> str:
        """The tag of the user that this browser's entries belong to."""
        owner = self.cookies.get(OWNER, "")
        return owner if is_owner(owner) else ""

    @staticmethod
    def _decode(text: str, limit: int) -> Push | None:
        data = from_base64url(text) if len(text) <= limit else None
        return None if data is None else parse_push(data)

    def report(self, what: str) -> None:
        """Log once for a request that something it carries is damaged, without the value."""
        if not self._reported:
            self._reported = True
            logger.warning("ignored a malformed %s from a browser", what)

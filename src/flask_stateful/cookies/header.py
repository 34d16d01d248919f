"""Cookies as they stand in headers (:rfc:`6265`): found, quoted, and what a response says about them."""

from __future__ import annotations

import functools
import re
import typing as t

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from flask import Response

#: How many cookies of one name are looked at. A browser sends several when a parent domain or another path has set
#: one as well.
_MAX_TWINS: t.Final = 4

#: The beginnings of names by which a browser enforces attributes (RFC 6265bis, section 4.1.3, and its successor).
HOST: t.Final = "__Host-"
HOST_HTTP: t.Final = "__Host-Http-"

#: Our own cookie with what the visitor has agreed to, after what the names of an application's own cookies begin with.
CONSENT: t.Final = "_c"
_PREFIXES: t.Final = (HOST_HTTP, HOST, "__Secure-", "__Http-")

_SAFE: t.Final = re.compile(r"[\w!#$%&'()*+\-./:<=>?@\[\]^`{|}~]*+", re.ASCII)
_UNSAFE: t.Final = re.compile(rb'[\x00-\x1f",;\\\x7f-\xff]')
_ESCAPED: t.Final = re.compile(rb'\\(?:([0-3][0-7]{2})|(["\\]))')


class CookieFinder:
    """Finds the cookies of one name in a request.

    It looks at the header's text: parsing every cookie would cost twenty times as much.
    """

    def __init__(self, name: str) -> None:
        # No quantifier gives back what it took: a header made to go wrong is read in linear time, too.
        self._pattern = re.compile(rf";[ \t]*+{re.escape(name)}=([^;]*+)")

    def raw(self, environ: WSGIEnvironment) -> list[str]:
        """Return what the browser sent under the name, as it stands there, the first few of them."""
        header = environ.get("HTTP_COOKIE")
        # A pattern that begins with one character, and not with one of two things, is found three times as fast.
        return self._pattern.findall(f";{header}")[:_MAX_TWINS] if header else []

    def values(self, environ: WSGIEnvironment) -> list[str]:
        """Return the same without quotes and blanks around it, for values that have none inside."""
        return [raw.strip(' \t"') for raw in self.raw(environ)]


#: Returns the finder for a name.
finder: t.Final = functools.lru_cache(maxsize=256)(CookieFinder)


def without_prefix(name: str) -> str:
    """Return a cookie's name without the prefix that it may have on the wire."""
    if name.startswith("__"):
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                return name.removeprefix(prefix)
    return name


def all_spellings(environ: WSGIEnvironment, name: str) -> list[str]:
    """Return everything that the browser sent under a name, with a prefix and without: what an answer may vary by."""
    return [raw for prefix in ("", *_PREFIXES) for raw in finder(prefix + name).raw(environ)]


def quote(text: str) -> str:
    """Return a text as a cookie's value: as it is or, where that cannot be, quoted as Werkzeug quotes it."""
    if _SAFE.fullmatch(text):
        return text
    return '"' + _UNSAFE.sub(_escape, text.encode()).decode() + '"'


def unquote(raw: str) -> str | None:
    """Return the text of a cookie's value; ``None`` if it is none."""
    value = raw.strip(" \t")
    quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    if not quoted and value.isascii():
        return value
    try:
        data = value.encode("latin-1")  # how WSGI hands over bytes
        return (_ESCAPED.sub(_unescape, data[1:-1]) if quoted else data).decode()
    except UnicodeError:
        return None


def _escape(found: re.Match[bytes]) -> bytes:
    char = found[0]
    return b"\\" + char if char in b'"\\' else b"\\%03o" % ord(char)


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)]) if found[1] else found[2]


def vary_by_cookie(response: Response) -> None:
    """Say that the response depends on cookies."""
    # Parsing an absent header into a set, or looking it up by name, costs more than opening a session does.
    for name, _ in response.headers:
        if name.lower() == "vary":
            response.vary.add("Cookie")
            return
    response.headers.add("Vary", "Cookie")


def make_private(response: Response) -> None:
    """Keep a response with a cookie to its visitor, whatever the view says about its page."""
    control = response.cache_control
    if not control.no_store:
        control.private, control.public, control.s_maxage = True, False, None

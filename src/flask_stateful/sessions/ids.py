"""Session ids: how they are made, written into the cookie, and told from forged ones.

The cookie holds ``key id . token . tag``. The token is 256 random bits and nothing else. The tag is a keyed hash of
it, so that an invented cookie is refused before any store is asked. The store key is an *unkeyed* hash of namespace
and token: whoever reads the store learns no usable id, and rotating ``SECRET_KEY`` moves no record.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import typing as t

from ..sealing import KEY_ID_BYTES, Keyring

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_TOKEN_BYTES: t.Final = 32
_HANDLE_BYTES: t.Final = 16
_TAG_BYTES: t.Final = 8
_PURPOSE: t.Final = "session id"

_COOKIE_VALUE: t.Final = re.compile(
    rf"([0-9a-f]{{{KEY_ID_BYTES * 2}}})\.([A-Za-z0-9_-]{{43}})\.([0-9a-f]{{{_TAG_BYTES * 2}}})"
)

#: How many cookies of one name are looked at. A browser sends several when a parent domain or another path has set
#: one as well.
_MAX_TWINS: t.Final = 4


class PresentedId(t.NamedTuple):
    """An id that a browser sent and that we once issued."""

    token: str
    #: Whether its tag was made with a fallback key.
    stale: bool


def new_token() -> str:
    """Return a new token: 256 bits from the system's generator, as 43 URL-safe characters."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def new_handle() -> str:
    """Return a new public name for a session: 128 random bits, as 22 URL-safe characters."""
    return secrets.token_urlsafe(_HANDLE_BYTES)


def store_key(namespace: str, token: str) -> str:
    """Return the key under which the store keeps a token's session."""
    digest = hashlib.sha256(f"{namespace}\0{token}".encode()).digest()
    return f"{namespace}:session:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def to_cookie(keyring: Keyring, token: str) -> str:
    """Return the cookie value for a token, tagged with the current key."""
    tag = keyring.tag(token.encode(), _PURPOSE, length=_TAG_BYTES)
    return f"{keyring.current.id.hex()}.{token}.{tag.hex()}"


def from_cookie(keyring: Keyring, value: str) -> PresentedId | None:
    """Return the id in a cookie value, or ``None`` where we did not issue it."""
    match = _COOKIE_VALUE.fullmatch(value)
    if match is None:
        return None
    key_id, token, tag = match.groups()
    key = keyring.find(bytes.fromhex(key_id))
    if key is None:
        return None
    expected = keyring.tag(token.encode(), _PURPOSE, length=_TAG_BYTES, key=key)
    if not hmac.compare_digest(expected, bytes.fromhex(tag)):
        return None
    return PresentedId(token, key is not keyring.current)


def first_valid(keyring: Keyring, values: t.Iterable[str]) -> PresentedId | None:
    """Return the first id among cookie values that we issued."""
    for value in values:
        presented = from_cookie(keyring, value)
        if presented is not None:
            return presented
    return None


class CookieFinder:
    """Finds the session cookie in a request.

    It looks at the header's text: parsing every cookie would cost twenty times as much.

    :param name: the session cookie's name.
    """

    def __init__(self, name: str) -> None:
        self._pattern = re.compile(rf"(?:^|;)[ \t]*{re.escape(name)}=[ \t]*\"?([^;\"]*)\"?[ \t]*(?=;|$)")

    def values(self, environ: WSGIEnvironment) -> list[str]:
        """Return the values that the browser sent under the name, the first few of them."""
        header = environ.get("HTTP_COOKIE")
        return self._pattern.findall(header)[:_MAX_TWINS] if header else []

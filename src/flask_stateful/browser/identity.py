"""The browser's id: 128 random bits in a cookie that scripts cannot read and nobody can forge."""

from __future__ import annotations

import hmac
import os
import typing as t

from ..sealing import KEY_ID_BYTES, Key, Keyring
from ..serialization import url_safe
from .wire import from_base64url

_ID_BYTES: t.Final = 16
_TAG_BYTES: t.Final = 16
_TAG_AT: t.Final = _ID_BYTES + KEY_ID_BYTES
_OWNER_BYTES: t.Final = 6
_PURPOSE: t.Final = "browser id"


class Browser(t.NamedTuple):
    """A browser that was told apart from others."""

    id: bytes
    #: Whether its cookie is to be sent anew: a fallback key has signed it.
    stale: bool = False


class Identities:
    """Makes and recognises ids."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def new(self) -> Browser:
        """Return a browser that nobody has met."""
        return Browser(os.urandom(_ID_BYTES), stale=True)

    def cookie(self, browser: Browser) -> str:
        """Return the cookie's value: ``id . key id . tag``."""
        key = self._keyring.current
        return url_safe(browser.id + key.id + self._keyring.tag(browser.id, _PURPOSE, length=_TAG_BYTES))

    def recognise(self, cookie: str) -> Browser | None:
        """Return the browser that a cookie names; ``None`` where it is forged. That costs no store call."""
        data = from_base64url(cookie) or b""
        key = self._keyring.find(data[_ID_BYTES:_TAG_AT])
        if key is None:
            return None
        browser = data[:_ID_BYTES]
        tag = self._keyring.tag(browser, _PURPOSE, length=_TAG_BYTES, key=key)
        if not hmac.compare_digest(tag, data[_TAG_AT:]):
            return None
        return Browser(browser, key is not self._keyring.current)

    def owner_tag(self, user_id: str | None, known: str = "") -> str:
        """Return what entries of a user are marked with; empty for nobody. The id cannot be told from it.

        :param known: a tag that is returned where it is this user's by a fallback key: to browsers, another tag is
            another user.
        """
        if user_id is None:
            return ""
        tags = [self._owner_tag(user_id, key) for key in self._keyring.keys]
        return known if known in tags else self._owner_tag(user_id, self._keyring.current)

    def _owner_tag(self, user_id: str, key: Key) -> str:
        data = user_id.encode("utf-8", "surrogatepass")
        return url_safe(self._keyring.tag(data, "browser owner", length=_OWNER_BYTES, key=key))

"""Session ids: how they are made, written into the cookie, and told from forged ones.

The cookie holds ``key id . token . tag``. The token is 256 random bits and nothing else. The tag is a keyed hash of
it, so that an invented cookie is refused before any store is asked. The store key is an *unkeyed* hash of namespace
and token: whoever reads the store learns no usable id, and rotating ``SECRET_KEY`` moves no record.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import secrets
import typing as t

from ..sealing import KEY_ID_BYTES, Key, Keyring
from ..serialization import url_safe
from .record import RecordSeal

_TOKEN_BYTES: t.Final = 32
_HANDLE_BYTES: t.Final = 16
_TAG_BYTES: t.Final = 8

#: How many ids that were recognised lately are kept at hand.
_RECENT: t.Final = 1024
_COOKIE_LENGTH: t.Final = KEY_ID_BYTES * 2 + 43 + _TAG_BYTES * 2 + 2
_COOKIE_VALUE: t.Final = re.compile(
    rf"([0-9a-f]{{{KEY_ID_BYTES * 2}}})\.([A-Za-z0-9_-]{{43}})\.([0-9a-f]{{{_TAG_BYTES * 2}}})"
)


class Identity:
    """One session id, and what follows from it."""

    __slots__ = ("key", "seal", "stale", "token")

    def __init__(self, keyring: Keyring, namespace: str, token: str, *, stale: bool = False) -> None:
        #: 256 random bits, as 43 URL-safe characters. Nothing but the browser's cookie holds them.
        self.token: t.Final = token
        #: Where the store keeps the session.
        self.key: t.Final = store_key(namespace, token)
        #: Seals the session's record.
        self.seal: t.Final = RecordSeal(keyring, token=token, key=self.key)
        #: Whether the cookie carries the tag of a fallback key, and is to be sent anew.
        self.stale: t.Final = stale


class Identities:
    """Issues the session ids of one application, and recognises them.

    :param namespace: prefixes every store key.
    """

    def __init__(self, keyring: Keyring, namespace: str) -> None:
        self._keyring = keyring
        self._namespace = namespace
        # What follows from an id costs as much as reading the store, and a visitor's requests come in bursts.
        self._recent = functools.lru_cache(maxsize=_RECENT)(self._recognise)

    def issue(self) -> Identity:
        """Return a new id."""
        return Identity(self._keyring, self._namespace, secrets.token_urlsafe(_TOKEN_BYTES))

    def recognise(self, cookie_value: str) -> Identity | None:
        """Return the id in a cookie, or ``None`` where we did not issue it."""
        return self._recent(cookie_value) if len(cookie_value) == _COOKIE_LENGTH else None

    def cookie_value(self, identity: Identity) -> str:
        """Return what the cookie holds for an id, tagged with the current key."""
        key = self._keyring.current
        return f"{key.id.hex()}.{identity.token}.{self._tag(identity.token, key).hex()}"

    def _recognise(self, cookie_value: str) -> Identity | None:
        match = _COOKIE_VALUE.fullmatch(cookie_value)
        if match is None:
            return None
        key_id, token, tag = match.groups()
        key = self._keyring.find(bytes.fromhex(key_id))
        if key is None or not hmac.compare_digest(self._tag(token, key), bytes.fromhex(tag)):
            return None
        return Identity(self._keyring, self._namespace, token, stale=key is not self._keyring.current)

    def _tag(self, token: str, key: Key) -> bytes:
        return self._keyring.tag(token.encode(), "session id", length=_TAG_BYTES, key=key)


def store_key(namespace: str, token: str) -> str:
    """Return the key under which the store keeps a token's session."""
    digest = hashlib.sha256(f"{namespace}\0{token}".encode()).digest()
    return f"{namespace}:session:{url_safe(digest)}"


def new_handle() -> bytes:
    """Return a new public name for a session: 128 random bits."""
    return secrets.token_bytes(_HANDLE_BYTES)

"""Values that are too large for a cookie, in a store; the cookie keeps a reference.

The store's key is an unkeyed hash of the reference, and the value is sealed with a key that needs the reference as
well: whoever reads the store finds nothing that works as a cookie, and with the application's key alone opens nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import typing as t

from ..errors import BadSeal, StoreError
from ..sealing import OVERHEAD, Keyring, Seal
from ..serialization import url_safe
from ..stores.base import Store

_REFERENCE_BYTES: t.Final = 16

#: Seconds that a value is kept whose cookie goes with the browser session: nobody tells when that ends.
_SESSION_TTL: t.Final = 31 * 24 * 3600

#: Seconds that a replaced value stays for requests that are under way with the old cookie.
_GRACE: t.Final = 10


class Spills:
    """The values of one application that were moved to its store."""

    def __init__(self, store: Store, keyring: Keyring, namespace: str) -> None:
        self._store = store
        self._keyring = keyring
        self._namespace = namespace

    def new_reference(self, body: bytes) -> bytes:
        """Return a reference for a value: 128 random bits.

        :raises ValueTooLarge: if the store does not take a value of this size.
        """
        self._store.require_size(body + bytes(OVERHEAD))
        return secrets.token_bytes(_REFERENCE_BYTES)

    def put(self, reference: bytes, body: bytes, max_age: int | None) -> None:
        """Write a value.

        :param max_age: seconds that its cookie lives.
        """
        key = self._key(reference)
        self._store.set(key, self._seal(key, reference).seal(body), max_age or _SESSION_TTL)

    def get(self, reference: bytes) -> bytes | None:
        """Return a value, or ``None`` where it has gone."""
        key = self._key(reference)
        sealed = self._store.get(key)
        try:
            return None if sealed is None else self._seal(key, reference).unseal(sealed)[0]
        except BadSeal:
            return None

    def remove(self, reference: bytes) -> None:
        """Remove a value whose cookie is removed. Where that fails, it expires with its cookie."""
        with contextlib.suppress(StoreError):
            self._store.delete(self._key(reference))

    def retire(self, reference: bytes) -> None:
        """Let a value expire whose cookie has another one now, after requests that are under way."""
        with contextlib.suppress(StoreError):
            self._store.touch(self._key(reference), _GRACE)

    def _key(self, reference: bytes) -> str:
        digest = hashlib.sha256(self._namespace.encode() + b"\0" + reference).digest()
        return f"{self._namespace}:cookie:{url_safe(digest)}"

    def _seal(self, key: str, reference: bytes) -> Seal:
        return self._keyring.seal_for("spilled cookie", name=key, secret=reference)

"""Sealing: bytes that only this application can read, and only where they were meant to be read.

A :class:`Keyring` holds the application's secret keys. From each, HKDF (:rfc:`5869`, SHA-256) derives one subkey for
every purpose; bytes are sealed with AES-256-GCM (NIST SP 800-38D) under a random 96-bit nonce. Purpose, name and owner
are authenticated along with them, so that a value sealed as one visitor's cookie opens as nothing else.

A sealed value is ``format byte . key id (4) . nonce (12) . ciphertext . tag (16)``. The key id tells which key of the
keyring opens it; it is derived from the key and reveals nothing of it.

Random nonces allow about 2**32 seals for one key. What is sealed by the million therefore passes its own ``secret``,
which keyed BLAKE2b (:rfc:`7693`) mixes into the subkey: session records do, one secret for each session.
"""

from __future__ import annotations

import os
import typing as t
from hashlib import blake2b

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from .errors import BadSeal

#: The first byte of every sealed value; another layout gets another byte.
FORMAT: t.Final = b"\x01"

KEY_ID_BYTES: t.Final = 4
_KEY_BYTES: t.Final = 32
NONCE_BYTES: t.Final = 12
TAG_BYTES: t.Final = 16
_NONCE_AT: t.Final = len(FORMAT) + KEY_ID_BYTES
_CIPHERTEXT_AT: t.Final = _NONCE_AT + NONCE_BYTES

#: What a seal adds to the length of the bytes, in bytes.
OVERHEAD: t.Final = _CIPHERTEXT_AT + TAG_BYTES

_ROOT: t.Final = b"flask-stateful"


class Key:
    """One secret key, and the subkeys derived from it."""

    def __init__(self, secret: str | bytes) -> None:
        material = secret.encode() if isinstance(secret, str) else secret
        self._root = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_ROOT).derive(material)
        self._subkeys: dict[str, bytes] = {}
        self.id: t.Final = self.subkey("key id")[:KEY_ID_BYTES]

    def subkey(self, purpose: str) -> bytes:
        """Return the 32-byte subkey for a purpose."""
        try:
            return self._subkeys[purpose]
        except KeyError:
            subkey = HKDFExpand(SHA256(), _KEY_BYTES, purpose.encode()).derive(self._root)
            return self._subkeys.setdefault(purpose, subkey)

    def cipher(self, purpose: str, secret: bytes) -> AESGCM:
        """Return the cipher for a purpose and, where there is one, a further secret."""
        subkey = self.subkey(purpose)
        return AESGCM(blake2b(secret, key=subkey, digest_size=_KEY_BYTES).digest() if secret else subkey)

    def __repr__(self) -> str:
        return f"<Key {self.id.hex()}>"


class Keyring:
    """The application's keys: the current one seals, the fallbacks still open.

    :param current: the secret that seals; at best 32 random bytes (``flask state keygen`` prints some).
    :param fallbacks: earlier secrets, in any order. A value sealed with one opens and is marked stale.
    """

    def __init__(self, current: str | bytes, fallbacks: t.Iterable[str | bytes] = ()) -> None:
        self.current: t.Final = Key(current)
        # The current key comes last, so that it wins where a fallback repeats it.
        self._keys = {key.id: key for key in [*map(Key, fallbacks), self.current]}

    def find(self, key_id: bytes) -> Key | None:
        """Return the key with an id, or ``None`` where the keyring has none such."""
        return self._keys.get(key_id)

    @property
    def keys(self) -> t.Collection[Key]:
        """All keys."""
        return self._keys.values()

    def seal_for(self, purpose: str, *, name: str = "", owner: str = "", secret: bytes = b"") -> Seal:
        """Return the seal for one place; what it seals opens in no other.

        :param purpose: what kind of thing is sealed, as in ``"session body"``.
        :param name: which one of that kind, as in a cookie's name.
        :param owner: whose it is, as in a user's id.
        :param secret: further key material that opening needs as well.
        """
        return Seal(self, purpose, msgspec.msgpack.encode((purpose, name, owner)), secret)

    def tag(self, data: bytes, purpose: str, *, length: int, key: Key | None = None) -> bytes:
        """Return a tag that only the holder of a key can make: keyed BLAKE2b (:rfc:`7693`).

        :param length: of the tag, in bytes, 64 at most.
        :param key: a key of this keyring; the current one by default.
        """
        return blake2b(data, key=(key or self.current).subkey(purpose), digest_size=length).digest()

    def __repr__(self) -> str:
        return f"<Keyring {self.current.id.hex()} and {len(self._keys) - 1} fallbacks>"


class Seal:
    """Seals and unseals for one place; made by :meth:`Keyring.seal_for`. It keeps its ciphers, so reuse it."""

    __slots__ = ("_associated_data", "_ciphers", "_keyring", "_purpose", "_secret")

    def __init__(self, keyring: Keyring, purpose: str, associated_data: bytes, secret: bytes) -> None:
        self._keyring = keyring
        self._purpose = purpose
        self._associated_data = associated_data
        self._secret = secret
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, data: bytes) -> bytes:
        """Seal bytes with the current key.

        :return: the sealed value, :data:`OVERHEAD` bytes longer.
        """
        key = self._keyring.current
        nonce = os.urandom(NONCE_BYTES)
        return FORMAT + key.id + nonce + self._cipher(key).encrypt(nonce, data, self._associated_data)

    def unseal(self, sealed: bytes) -> tuple[bytes, bool]:
        """Open what :meth:`seal` returned.

        :return: the bytes, and whether they are stale: a fallback key opened them, so they should be sealed again.
        :raises BadSeal: if it is forged, damaged, cut, from another place, or its key is not in the keyring. The
            message does not tell which.
        """
        key = self._keyring.find(sealed[len(FORMAT) : _NONCE_AT])
        if key is None or sealed[: len(FORMAT)] != FORMAT or len(sealed) < OVERHEAD:
            raise BadSeal("the seal is not valid")
        nonce, ciphertext = sealed[_NONCE_AT:_CIPHERTEXT_AT], sealed[_CIPHERTEXT_AT:]
        try:
            data = self._cipher(key).decrypt(nonce, ciphertext, self._associated_data)
        except InvalidTag:
            raise BadSeal("the seal is not valid") from None
        return data, key is not self._keyring.current

    def _cipher(self, key: Key) -> AESGCM:
        cipher = self._ciphers.get(key.id)
        if cipher is None:
            cipher = self._ciphers[key.id] = key.cipher(self._purpose, self._secret)
        return cipher

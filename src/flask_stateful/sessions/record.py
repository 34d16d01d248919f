"""A session as the store keeps it.

A record is ``format byte . key id (4) . nonce (12) . length of header (2) . header . body``, header and body each
sealed for this one session with AES-256-GCM (NIST SP 800-38D): the header under the application's key, so that an
operator can list sessions without their cookies; the body under a key that needs the visitor's token as well, so that
whoever holds the store and the application's key still reads no session. As their keys differ they share one nonce, and
each is authenticated along with all that stands before it. The body maps session keys to values that stay encoded until
one is looked at.

When a session ends, a *tombstone* takes the record's place for some seconds. It holds nothing. A request still in
flight meets it and knows that the id is dead.
"""

from __future__ import annotations

import os
import typing as t

import msgspec
from cryptography.exceptions import InvalidTag

from ..errors import BadSeal, DecodeError
from ..sealing import KEY_ID_BYTES, NONCE_BYTES, TAG_BYTES, Keyring
from ..serialization import Raw, dumps_items, loads_items

if t.TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: The first byte of a record; another layout gets another byte.
_FORMAT: t.Final = b"\x01"
_NONCE_AT: t.Final = len(_FORMAT) + KEY_ID_BYTES
_LENGTH_AT: t.Final = _NONCE_AT + NONCE_BYTES
_HEADER_AT: t.Final = _LENGTH_AT + 2
_SHORTEST: t.Final = _HEADER_AT + 2 * TAG_BYTES

#: What the store holds for some seconds in place of a record that has ended.
TOMBSTONE: t.Final = b"\x00"


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What is known about a session besides its data. Times are seconds since 1970, whole ones take fewer bytes."""

    #: The session's public name: 128 random bits. It survives rotation, and nobody can open the session with it.
    handle: bytes
    user_id: str | None
    created_at: float
    last_seen_at: float
    #: Seconds from its creation after which it ends, however much it is used.
    lifetime: int | float
    ip: str
    user_agent: str

    @property
    def deadline(self) -> float:
        """When the session ends however much it is used."""
        return self.created_at + self.lifetime


class _Ciphers(t.NamedTuple):
    """What one key of the application makes of a session id."""

    header: AESGCM
    body: AESGCM
    #: Whether it is a fallback key.
    stale: bool


class Record(msgspec.Struct, frozen=True):
    """A session's record, opened."""

    header: Header
    items: t.Mapping[str, Raw]
    #: The bytes in the store.
    data: bytes
    #: Whether a fallback key had sealed it.
    stale: bool = False


_header_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)


class RecordSeal:
    """Seals and opens the record of one session id.

    :param token: the session's token.
    :param key: the store key of that token.
    """

    __slots__ = ("_ciphers", "_key", "_keyring", "_token")

    def __init__(self, keyring: Keyring, *, token: str, key: str) -> None:
        self._keyring = keyring
        self._token = token.encode()
        self._key = key.encode()
        #: By how a record begins.
        self._ciphers: dict[bytes, _Ciphers] = {}

    def seal(self, header: Header, items: t.Mapping[str, Raw]) -> bytes:
        """Return the record's bytes."""
        begin = _FORMAT + self._keyring.current.id
        ciphers = self._ciphers.get(begin) or self._make_ciphers(begin)
        encoded, nonce = _header_encoder.encode(header), os.urandom(NONCE_BYTES)
        prefix = begin + nonce + (len(encoded) + TAG_BYTES).to_bytes(2, "big")
        start = prefix + ciphers.header.encrypt(nonce, encoded, prefix)
        return start + ciphers.body.encrypt(nonce, dumps_items(items), start)

    def open(self, data: bytes) -> Record:
        """Return the record in some bytes.

        :raises PayloadError: if they are no record, or not this session's.
        """
        begin = data[:_NONCE_AT]
        ciphers = self._ciphers.get(begin) or self._make_ciphers(begin)
        if len(data) < _SHORTEST:
            raise BadSeal("the record is too short")
        nonce, body_at = data[_NONCE_AT:_LENGTH_AT], _HEADER_AT + int.from_bytes(data[_LENGTH_AT:_HEADER_AT], "big")
        try:
            header = ciphers.header.decrypt(nonce, data[_HEADER_AT:body_at], data[:_HEADER_AT])
            body = ciphers.body.decrypt(nonce, data[body_at:], data[:body_at])
            return Record(_header_decoder.decode(header), loads_items(body), data, ciphers.stale)
        except InvalidTag:
            raise BadSeal("the record is damaged, forged or another session's") from None
        except msgspec.DecodeError as error:
            raise DecodeError("the record's header is not readable") from error

    def _make_ciphers(self, begin: bytes) -> _Ciphers:
        """Return what seals and opens records that begin so.

        :raises BadSeal: if none of ours do.
        """
        key = self._keyring.find(begin[len(_FORMAT) :])
        if key is None or not begin.startswith(_FORMAT):
            raise BadSeal("the record has an unknown format or key")
        header, body = key.cipher("session header", self._key), key.cipher("session body", self._token)
        ciphers = self._ciphers[begin] = _Ciphers(header, body, key is not self._keyring.current)
        return ciphers

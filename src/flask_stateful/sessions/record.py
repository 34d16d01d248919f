"""A session as the store keeps it.

A record is ``format byte . length of header (2) . header . body``, header and body each sealed for this one session:
the header with the application's key, so that an operator can list sessions without their cookies; the body with a key
that needs the visitor's token as well, so that whoever holds the store and the application's key still reads no
session. The body maps session keys to values that stay encoded until one is looked at.

When a session ends, a *tombstone* takes the record's place for some seconds. It holds nothing. A request still in
flight meets it and knows that the id is dead.
"""

from __future__ import annotations

import typing as t

import msgspec

from ..errors import BadSeal, DecodeError
from ..sealing import Keyring
from ..serialization import Raw, dumps_items, loads_items

#: The first byte of a record; another layout gets another byte.
_FORMAT: t.Final = b"\x01"
_HEADER_AT: t.Final = 3

#: What the store holds for some seconds in place of a record that has ended.
TOMBSTONE: t.Final = b"\x00"


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What is known about a session besides its data. Times are seconds since 1970."""

    #: The session's public name. It survives rotation, and nobody can open the session with it.
    handle: str
    user_id: str | None
    created_at: float
    last_seen_at: float
    #: When the session ends however much it is used.
    deadline: float
    ip: str
    user_agent: str


class Record(t.NamedTuple):
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

    __slots__ = ("_body", "_header")

    def __init__(self, keyring: Keyring, *, token: str, key: str) -> None:
        self._header = keyring.seal_for("session header", owner=key, secret=key.encode())
        self._body = keyring.seal_for("session body", owner=key, secret=token.encode())

    def seal(self, header: Header, items: t.Mapping[str, bytes | Raw]) -> bytes:
        """Return the record's bytes."""
        sealed = self._header.seal(_header_encoder.encode(header))
        return b"".join((_FORMAT, len(sealed).to_bytes(2, "big"), sealed, self._body.seal(dumps_items(items))))

    def open(self, data: bytes) -> Record:
        """Return the record in some bytes.

        :raises PayloadError: if they are no record, or not this session's.
        """
        if data[:1] != _FORMAT:
            raise BadSeal("the record has an unknown format")
        body_at = _HEADER_AT + int.from_bytes(data[1:_HEADER_AT], "big")
        header, header_stale = self._header.unseal(data[_HEADER_AT:body_at])
        body, body_stale = self._body.unseal(data[body_at:])
        return Record(_decode_header(header), loads_items(body), data, header_stale or body_stale)


def _decode_header(data: bytes) -> Header:
    try:
        return _header_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise DecodeError("the record's header is not readable") from error

"""A cached value as the store keeps it.

What lies under a key is one of two things. An *entry* holds a value, when it was made, how long it is fresh, how long
it may still be served stale, what it cost, and the versions its tags had before it was computed. A *lease* holds
nothing but a token: somebody is computing, and may put the value in the token's place.

Because one key holds either, whoever computes writes by ``swap``: it works only while the lease lies there. A holder
that is late, or whose key was forgotten meanwhile, finds something else and its result is refused.

An entry that is being refreshed carries the refresher's token as well.
"""

from __future__ import annotations

import math
import secrets
import typing as t
import zlib

import msgspec

from ..errors import DecodeError
from ..serialization import dumps

#: The first byte of what we store; another layout gets another byte.
_FORMAT: t.Final = b"\x01"

_TOKEN_BYTES: t.Final = 12


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """A value and all that decides whether it may be served. Times are seconds since 1970, spans are seconds."""

    #: The key it was written under: an entry that turns up under another one is not served.
    key: str
    created_at: float
    #: Until then it is fresh.
    fresh_until: float
    #: Until then it may be served stale.
    stale_until: float
    #: How long it took to compute.
    cost: float
    #: The versions that its tags had before it was computed.
    tags: dict[str, bytes]
    payload: bytes
    #: The token of whoever refreshes it.
    lease: bytes = b""
    #: Until then the token counts, and nobody else refreshes.
    lease_until: float = 0.0
    #: The versions of the tables it was made from, by database and table, from before they were read.
    tables: dict[str, dict[str, int]] = {}


class Lease(msgspec.Struct, array_like=True, frozen=True):
    """A promise to compute the value of a key that has none."""

    token: bytes


Slot: t.TypeAlias = Entry | Lease

_encoder = msgspec.msgpack.Encoder()
_ENTRY, _LEASE = b"e", b"l"

#: By what the bytes begin with.
_DECODERS: t.Final[dict[bytes, msgspec.msgpack.Decoder[t.Any]]] = {
    _FORMAT + _ENTRY: msgspec.msgpack.Decoder(Entry),
    _FORMAT + _LEASE: msgspec.msgpack.Decoder(Lease),
}

#: How a counter begins: the store keeps it as decimal text.
_DIGITS: t.Final = frozenset(b"%c" % character for character in b"-0123456789")

_CHECKSUM_BYTES: t.Final = 4
_BODY_AT: t.Final = 2 + _CHECKSUM_BYTES


def new_lease() -> Lease:
    """Return a lease with a token of its own."""
    return Lease(secrets.token_bytes(_TOKEN_BYTES))


def to_bytes(slot: Slot) -> bytes:
    """Return an entry or a lease as the store keeps it."""
    body = _encoder.encode(slot)
    return b"".join((_FORMAT, _ENTRY if isinstance(slot, Entry) else _LEASE, _checksum(body), body))


def from_bytes(data: bytes, key: str) -> Slot:
    """Return what the store keeps under a key.

    :raises DecodeError: if it is nothing of ours, damaged, or was written under another key.
    """
    decoder = _DECODERS.get(data[:2])
    if decoder is None:
        return _counter(data, key)
    body = data[_BODY_AT:]
    if data[2:_BODY_AT] != _checksum(body):
        raise DecodeError("the cached value is damaged")
    try:
        slot: Slot = decoder.decode(body)
    except Exception as error:
        raise DecodeError("the bytes are not a cached value") from error
    if isinstance(slot, Entry) and slot.key != key:
        raise DecodeError("the cached value belongs to another key")
    return slot


def _checksum(body: bytes) -> bytes:
    """Return what tells a damaged value from a whole one (CRC-32): a flipped bit would make another value of it."""
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "big")


def _counter(data: bytes, key: str) -> Entry:
    try:
        if data[:1] not in _DIGITS:
            raise ValueError
        payload = dumps(int(data))
    except ValueError as error:
        raise DecodeError("the bytes are not a cached value") from error
    forever = math.inf
    return Entry(key=key, created_at=0, fresh_until=forever, stale_until=forever, cost=0, tags={}, payload=payload)

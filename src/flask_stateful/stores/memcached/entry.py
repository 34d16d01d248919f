"""How keys, values and their expiry lie in a Memcached server."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import typing as t
from urllib.parse import quote

from ... import clock

#: The longest key that the server takes, in bytes.
_MAX_KEY = 250

#: What the server takes in a key, but for the per cent sign, which begins what it does not take.
_PLAIN = re.compile(rf"[!-$&-~]{{1,{_MAX_KEY}}}")
_PUNCTUATION = "".join(filter(_PLAIN.match, map(chr, range(128))))

#: No percent-encoded key begins like this.
_HASHED = b"%:"

#: The format of what is stored, and when it expires, in seconds since 1970; infinite where it does not.
_HEADER = struct.Struct(">Bd")
_FORMAT = 1

#: What an item of the server takes beside the value, at most: our header, the key, and the server's own (60 bytes).
OVERHEAD = 512

#: More seconds than this are a point in time for the server.
_MAX_RELATIVE = 30 * 24 * 60 * 60

#: The latest point in time that the server takes, in 2038.
_LAST_TIME = 2**31 - 1


def encode_key(key: str) -> bytes:
    """Return a key as one that the server takes: no two have the same.

    What it does not take is percent-encoded; only what is too long then is hashed, with SHA-256.
    """
    if _PLAIN.fullmatch(key):
        return key.encode()
    encoded = quote(key, safe=_PUNCTUATION).encode()
    if len(encoded) <= _MAX_KEY:
        return encoded
    return _HASHED + hashlib.sha256(encoded).hexdigest().encode()


class Entry(t.NamedTuple):
    """A value, and when it expires: in seconds since 1970, infinite where it does not."""

    value: bytes
    expires_at: float

    @classmethod
    def make(cls, value: bytes, seconds: float | None) -> t.Self:
        """Return an entry that expires after so many seconds; ``None`` is for ever."""
        return cls(value, math.inf if seconds is None else clock.now() + seconds)

    @classmethod
    def decode(cls, stored: bytes | None) -> t.Self | None:
        """Return the entry that was stored; ``None`` where there is none, it has expired, or is not ours."""
        if stored is None or len(stored) < _HEADER.size:
            return None
        format_, expires_at = _HEADER.unpack_from(stored)
        if format_ != _FORMAT or not clock.now() < expires_at:
            return None
        return cls(stored[_HEADER.size :], expires_at)

    def encode(self) -> bytes:
        """Return what is to be stored."""
        return _HEADER.pack(_FORMAT, self.expires_at) + self.value

    def server_ttl(self) -> int:
        """Return the expiry as the server takes it: not before ours, which is the exact one, and soon after it.

        The server counts whole seconds, of which the present one is partly over. What it could only take for a point
        in time after 2038 it keeps for ever: there, ours alone counts.
        """
        if self.expires_at == math.inf:
            return 0
        seconds = max(1, math.ceil(self.expires_at - clock.now()) + 1)
        if seconds <= _MAX_RELATIVE:
            return seconds
        time = math.ceil(self.expires_at) + 1
        return time if time <= _LAST_TIME else 0

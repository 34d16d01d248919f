"""The server's copy of what a browser holds: one record for a browser, for its user, and for each of its tabs.

It is a cache of the browser's own copy. Whatever is lost of it, the browser offers again; so a record that cannot be
read is one that is not there.

A record is ``format byte . MessagePack``, a map from a register's name to its value's JSON, its counters, and when the
value expires.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from ..errors import StateConflict
from ..stores.base import Store
from .registers import Register

#: How long a record may be, in bytes.
MAX_BYTES: t.Final = 64 * 1024

DAY: t.Final = 24 * 3600.0

_FORMAT: t.Final = b"\x01"
_ROUNDS: t.Final = 100
_KEY_BYTES: t.Final = 24


class Held(t.NamedTuple):
    """A register as a record holds it."""

    value: bytes | None
    revision: int
    write: int
    #: Seconds since 1970; ``None`` for a value that does not expire.
    expires: float | None = None

    def at(self, now: float) -> Register:
        """Return the register as it is at a time, an expired value being none."""
        alive = self.expires is None or self.expires > now
        return Register(self.value if alive else None, self.revision, self.write)


Registers: t.TypeAlias = dict[str, Held]

_decoder: t.Final = msgspec.msgpack.Decoder(dict[str, Held])
_encode: t.Final = msgspec.msgpack.Encoder().encode


class Replica:
    """The records of an application's browsers.

    :param namespace: begins every key.
    """

    def __init__(self, store: Store, namespace: str) -> None:
        self.store: t.Final = store
        self._namespace = namespace

    def key(self, browser: bytes, *parts: str) -> str:
        """Return where a record lies. Nobody can tell the browser's id from it."""
        digest = blake2b(browser, digest_size=_KEY_BYTES, person=b"fs browser").hexdigest()
        return ":".join((self._namespace, "browser", digest, *parts))

    def load(self, key: str) -> Registers:
        """Return what a record holds."""
        return _read(self.store.get(key))

    def load_many(self, keys: Iterable[str]) -> dict[str, Registers]:
        """Return what several records hold, by key."""
        return {key: _read(record) for key, record in self.store.get_many(keys).items()}

    def change(self, key: str, change: Callable[[Registers], object], *, ttl: float) -> Registers:
        """Change a record, against any number of others who do so at the same time.

        :param change: works on the registers; it is called again where somebody else was faster.
        :return: what the record holds now.
        :raises StateConflict: if others were faster a hundred times.
        """
        for _ in range(_ROUNDS):
            stored = self.store.get(key)
            registers = _read(stored)
            before = dict(registers)
            change(registers)
            if registers == before:
                return registers
            record = _FORMAT + _encode(registers)
            if self.store.add(key, record, ttl) if stored is None else self.store.swap(key, stored, record, ttl):
                return registers
        raise StateConflict("the record of a browser was rewritten too often to change it")

    def move(self, old: str, new: str, *, ttl: float) -> None:
        """Give a record another key, unless there is one already."""
        stored = self.store.get(old)
        if stored is not None:
            self.store.add(new, stored, ttl)
            self.store.delete(old)

    def remove(self, keys: Iterable[str]) -> None:
        """Remove records."""
        self.store.delete_many(list(keys))


def size(registers: Registers) -> int:
    """Return how long a record is, in bytes."""
    return len(_FORMAT) + len(_encode(registers))


def _read(record: bytes | None) -> Registers:
    if record is None or record[:1] != _FORMAT or len(record) > MAX_BYTES:
        return {}
    try:
        return _decoder.decode(memoryview(record)[1:])
    except msgspec.MsgspecError:
        return {}

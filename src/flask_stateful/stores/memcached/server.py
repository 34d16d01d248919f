"""One Memcached server, what it tells of itself, and how several divide the keys."""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from pymemcache.client.rendezvous import RendezvousHash  # type: ignore[import-untyped]

from ... import clock
from ...errors import StateConflict, StoreError, StoreUnavailable, ValueTooLarge
from .entry import OVERHEAD, Entry
from .link import Connection, GivenLink, Link

T = t.TypeVar("T")

#: How much of many goes into one exchange. What is answered waits in buffers while the rest is sent.
_BATCH, _BATCH_BYTES = 1000, 2**20

#: The longest item, in bytes, of a server that was started without -I.
USUAL_ITEM = 2**20

#: How often a value that others rewrite meanwhile is read again before that is given up.
_TRIES = 100

#: From how many seconds on a server's clock is reported as wrong.
_MAX_CLOCK_SKEW = 5


class Server:
    """One server, and what it said of itself.

    :param name: its address, by which it is known to those that divide the keys and to an operator.
    :param link: the way to it.
    """

    def __init__(self, name: str, link: Link) -> None:
        self.name = name
        self.link = link
        #: The longest value, in bytes; until the server was asked, what one usually takes.
        self.limit = USUAL_ITEM - OVERHEAD
        self._asked = False

    @classmethod
    def given(cls, client: t.Any) -> t.Self:
        """Return the server that a ``pymemcache.PooledClient`` leads to."""
        link = GivenLink(client)
        address = client.server
        return cls(address if isinstance(address, str) else f"{address[0]}:{address[1]}", link)

    def call(self, work: Callable[[Connection], T]) -> T:
        """Return what a function returns for a connection."""
        return self.link.call(work)

    def get_many(self, keys: Collection[bytes]) -> dict[bytes, Entry]:
        """Return the entries of those keys that have one."""

        def work(connection: Connection) -> dict[bytes, bytes]:
            stored: dict[bytes, bytes] = {}
            for batch in _batches(dict.fromkeys(keys, b"")):
                stored |= connection.get_many(batch)
            return stored

        return {key: entry for key, stored in self.call(work).items() if (entry := Entry.decode(stored))}

    def set_many(self, entries: Mapping[bytes, Entry]) -> None:
        """Write entries that have one expiry."""
        values = {key: entry.encode() for key, entry in entries.items()}

        def work(connection: Connection) -> None:
            for batch in _batches(values):
                ttl = entries[next(iter(batch))].server_ttl()
                if connection.set_many(batch, ttl, noreply=False):
                    raise StoreError("the Memcached server did not store what it was sent")

        if values:
            self.call(work)

    def delete_many(self, keys: Collection[bytes]) -> None:
        """Remove entries, quietly: the server answers the end, and what goes wrong or, if older, was not there."""

        def work(connection: Connection) -> None:
            for batch in _batches(dict.fromkeys(keys, b"")):
                request = b"".join(b"md %b q\r\n" % key for key in batch) + b"mn"
                if connection.raw_command(request, b"MN\r\n").replace(b"NF\r\n", b""):
                    raise StoreError("the Memcached server did not delete what it was told to")

        self.call(work)

    def require_size(self, value: bytes) -> None:
        """Raise :exc:`ValueTooLarge` if a value is longer than the server takes, which it is asked once."""
        if not self._asked:
            self.limit = self._ask_limit()
            self._asked = True
        if len(value) > self.limit:
            raise ValueTooLarge(
                f"a value of {len(value):,} bytes exceeds the {self.limit:,} that the Memcached server takes: "
                "raise its -I"
            )

    def problems(self) -> Iterator[str]:
        """Ask the server how it is, and yield what an operator should mend."""
        stats = self.call(lambda connection: connection.stats())
        version = stats.get(b"version", b"").decode(errors="replace")
        numbers = version.split(".")[:2]
        if all(number.isdigit() for number in numbers) and [int(number) for number in numbers] < [1, 6]:
            yield f"Memcached {version} at {self.name} is too old: install 1.6 or newer"
        ahead = int(stats.get(b"time", clock.now())) - clock.now()
        if abs(ahead) > _MAX_CLOCK_SKEW:
            yield (
                f"the clock of the Memcached server {self.name} is {ahead:+.0f} s off this machine's: let both follow "
                "the same time (NTP)"
            )

    def _ask_limit(self) -> int:
        try:
            settings = self.call(lambda connection: connection.stats("settings"))
        except StoreUnavailable:
            raise
        except StoreError:
            # Not everything that speaks the protocol tells its settings.
            settings = {}
        return int(settings.get(b"item_size_max", USUAL_ITEM)) - OVERHEAD


def change(connection: Connection, key: bytes, decide: Callable[[Entry | None], Entry | None]) -> bool:
    """Write what a function makes of what is there, on condition that nobody else has written meanwhile.

    All of it takes place on one connection: after a restart the server would count its changes anew, and take a later
    value for the one that was read.

    :param decide: called with the entry that is there, or ``None``, and again where somebody was faster. It returns
        the entry to write, or ``None`` to leave things as they are.
    :return: whether something was written.
    """
    for _ in range(_TRIES):
        stored, token = connection.gets(key)
        entry = decide(Entry.decode(stored))
        if entry is None:
            return False
        new, ttl = entry.encode(), entry.server_ttl()
        if token is None:
            written = connection.add(key, new, ttl, noreply=False)
        else:
            written = bool(connection.cas(key, new, token, ttl, noreply=False))
        if written:
            return True
    raise StateConflict("a key was rewritten too often to change it")


def divide(names: Sequence[str]) -> Callable[[bytes], str]:
    """Return a function that tells which of several servers a key belongs to.

    Its answer does not depend on their order, and with one more or fewer only that one's keys move.
    """
    if len(names) == 1:
        return lambda key: names[0]
    hashing: t.Any = RendezvousHash(list(names), hash_function=_score)
    return lambda key: t.cast("str", hashing.get_node(key.decode()))


def _score(text: str, seed: int) -> int:
    """Return a number that spreads evenly; the library's own function takes ten times as long."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _batches(values: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Yield the keys, with their values, in batches that one exchange can take."""
    batch: dict[bytes, bytes] = {}
    size = 0
    for key, value in values.items():
        size += len(value)
        if batch and (size > _BATCH_BYTES or len(batch) == _BATCH):
            yield batch
            batch, size = {}, len(value)
        batch[key] = value
    if batch:
        yield batch

"""A store in Memcached: one server, or several among which the keys are divided."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping

from ...errors import ConfigError, StoreError
from ..base import Store, Ttl, is_key, parse_counter, require_key, ttl_seconds
from .entry import OVERHEAD, Entry, encode_key

try:
    from .link import Connection, OwnLink
    from .server import USUAL_ITEM, Server, change, divide
except ImportError as missing:
    raise ConfigError('Memcached needs pymemcache: pip install "Flask-Stateful[memcached]"') from missing

_FORM = "memcached://host[:port][,host[:port]...]"
_URL = re.compile(r"memcached://(?P<hosts>[^@/?#]+)/?")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(?P<port>\d{1,5}))?")
_PORT = 11211


class MemcachedStore(Store):
    """Keeps values in Memcached 1.6 or newer. It evicts what it has no room for, and a restart loses everything.

    Reading and writing are one round trip; what depends on what is there (:meth:`swap`, :meth:`touch`, :meth:`incr`,
    and an :meth:`add` that finds something) reads and then writes on condition that nobody else has (``cas``).

    Before each value lies the exact time at which it expires, by the clock of the machine that wrote it: the machines'
    clocks must agree. The server, which counts whole seconds, removes it within two more.

    Several servers divide the keys among them (rendezvous hashing). One that is down is an error for its keys; they do
    not move to another one, which would come to hold what is out of date later.

    :param clients: a ``pymemcache.PooledClient`` for each server, used with its own time limits and not closed. In a
        forked process it is an error: :meth:`from_url` opens what survives that.
    :raises ConfigError: if there is no client, or one that cannot be used.
    """

    abilities = frozenset({"touch", "incr", "many"})
    shared = True
    remote = True

    def __init__(self, *clients: t.Any) -> None:
        if not clients:
            raise ConfigError("MemcachedStore takes a pymemcache.PooledClient, or one for each of several servers")
        servers = [client if isinstance(client, Server) else Server.given(client) for client in clients]
        self._servers = {server.name: server for server in servers}
        if len(self._servers) < len(servers):
            raise ConfigError(f"a Memcached server is named twice: write {_FORM} with each of them once")
        self._name_of = divide(list(self._servers))
        self._closed = False
        #: Of the smallest server; until a first write has asked, what they usually take.
        self.max_value_bytes = USUAL_ITEM - OVERHEAD

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 0.25) -> t.Self:
        """Open a store; nothing is connected before the first call.

        :param url: ``memcached://host:port,host:port``; the port is 11211 where it is left out.
        :param timeout: seconds to connect, and for each reply.
        :raises ConfigError: if the URL is wrong.
        """
        found = _URL.fullmatch(url)
        hosts = [_HOST.fullmatch(host) for host in found["hosts"].split(",")] if found else [None]
        servers: list[Server] = []
        for host in hosts:
            port = int(host["port"] or _PORT) if host else 0
            if host is None or not 0 < port < 2**16:
                raise ConfigError(f"the Memcached URL is wrong: write {_FORM}; there is no login and no path")
            name = host["name"].strip("[]")
            servers.append(Server(f"{host['name']}:{port}", OwnLink((name, port), timeout)))
        return cls(*servers)

    @property
    def durable(self) -> bool:
        """``False``: to make room, Memcached evicts what was not used for long."""
        return False

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        if not is_key(key):
            return None
        server, encoded = self._place(key)
        entry = Entry.decode(server.call(lambda connection: connection.get(encoded)))
        return entry and entry.value

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        server, encoded, entry = self._prepare(key, value, ttl)
        server.set_many({encoded: entry})

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        server, encoded, entry = self._prepare(key, value, ttl)

        def work(connection: Connection) -> bool:
            if connection.add(encoded, entry.encode(), entry.server_ttl(), noreply=False):
                return True
            # What is in the way may have expired, less than two seconds ago.
            return change(connection, encoded, lambda present: None if present else entry)

        return server.call(work)

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        server, encoded, entry = self._prepare(key, new, ttl)
        return server.call(
            lambda connection: change(
                connection, encoded, lambda present: entry if present and present.value == old else None
            )
        )

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        if is_key(key):
            server, encoded = self._place(key)
            server.call(lambda connection: connection.delete(encoded, noreply=False))

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl; the value is read and written, since its expiry lies before it."""
        seconds = ttl_seconds(ttl)
        if not is_key(key):
            return False
        server, encoded = self._place(key)
        return server.call(
            lambda connection: change(
                connection, encoded, lambda present: Entry.make(present.value, seconds) if present else None
            )
        )

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter of any size; an existing one keeps its ttl."""
        seconds = ttl_seconds(ttl)
        server, encoded = self._place(require_key(key))
        count = 0

        def add(present: Entry | None) -> Entry:
            nonlocal count
            count = parse_counter(present and present.value) + by
            new = b"%d" % count
            return present._replace(value=new) if present else Entry.make(new, seconds)

        server.call(lambda connection: change(connection, encoded, add))
        return count

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one, in one exchange with each server for a thousand of them."""
        values: dict[str, bytes] = {}
        for server, names in self._divide(keys):
            values |= {names[encoded]: entry.value for encoded, entry in server.get_many(names).items()}
        return values

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl; each is atomic, together they are not."""
        prepared = [self._prepare(key, value, ttl) for key, value in values.items()]
        for server in self._servers.values():
            server.set_many({encoded: entry for owner, encoded, entry in prepared if owner is server})

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        for server, names in self._divide(keys):
            server.delete_many(names)

    def check(self) -> list[str]:
        """Reach every server once and describe what an operator should mend.

        :return: one sentence for each problem.
        :raises StoreError: if the store does not work at all.
        """
        super().check()
        return [problem for server in self._servers.values() for problem in server.problems()]

    def close(self) -> None:
        """Release what :meth:`from_url` opened; clients that were given stay open."""
        self._closed = True
        for server in self._servers.values():
            server.link.close()

    def _place(self, key: str) -> tuple[Server, bytes]:
        """Return the server that a key belongs to, and the key as that takes it."""
        if self._closed:
            raise StoreError("this MemcachedStore was closed")
        encoded = encode_key(key)
        return self._servers[self._name_of(encoded)], encoded

    def _divide(self, keys: Iterable[str]) -> Iterator[tuple[Server, dict[bytes, str]]]:
        """Yield each server that is concerned, and which keys there stand for which of ours."""
        places = {key: self._place(key) for key in filter(is_key, keys)}
        for server in self._servers.values():
            if names := {encoded: key for key, (owner, encoded) in places.items() if owner is server}:
                yield server, names

    def _prepare(self, key: str, value: bytes, ttl: Ttl) -> tuple[Server, bytes, Entry]:
        """Return where to write what, or raise where it cannot be written."""
        seconds = ttl_seconds(ttl)
        require_key(key)
        if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        server, encoded = self._place(key)
        server.require_size(value)
        self.max_value_bytes = min(server.limit for server in self._servers.values())
        return server, encoded, Entry.make(value, seconds)

"""The way to one Memcached server through pymemcache, and what its failures mean."""

# ruff: noqa: D102 (the methods that lack a text are another library's)

from __future__ import annotations

import os
import socket
import typing as t
from collections import deque
from collections.abc import Callable
from types import TracebackType

from pymemcache.client.base import Client  # type: ignore[import-untyped]
from pymemcache.exceptions import (  # type: ignore[import-untyped]
    MemcacheServerError,
    MemcacheUnexpectedCloseError,
    MemcacheUnknownCommandError,
    MemcacheUnknownError,
)

from ...errors import ConfigError, StateError, StoreError, StoreUnavailable, ValueTooLarge
from ..polling import poller

T = t.TypeVar("T")

#: What pymemcache's own serializers mark values with, and 0 for none.
_FLAGS = (0, 1, 2, 4, 8, 16)


class Connection(t.Protocol):
    """What is used of ``pymemcache.Client``. Without ``noreply=False`` it does not wait for what the server says."""

    def get(self, key: bytes) -> bytes | None: ...
    def gets(self, key: bytes) -> tuple[bytes, bytes] | tuple[None, None]: ...
    def get_many(self, keys: t.Iterable[bytes]) -> dict[bytes, bytes]: ...
    def set(self, key: bytes, value: bytes, expire: int, *, noreply: t.Literal[False]) -> bool: ...
    def add(self, key: bytes, value: bytes, expire: int, *, noreply: t.Literal[False]) -> bool: ...
    def cas(self, key: bytes, value: bytes, cas: bytes, expire: int, *, noreply: t.Literal[False]) -> bool | None: ...
    def set_many(self, values: dict[bytes, bytes], expire: int, *, noreply: t.Literal[False]) -> list[bytes]: ...
    def delete(self, key: bytes, *, noreply: t.Literal[False]) -> bool: ...
    def raw_command(self, command: bytes, end_tokens: bytes) -> bytes: ...
    def stats(self, *arguments: str) -> dict[bytes, t.Any]: ...


class _Failures:
    """Turns every exception of the block into one of ours, with the cause chained."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, StateError):
            reason = explain(error)
            if not isinstance(error, (OSError, MemcacheServerError)):
                # The texts of the others repeat the command, or what was answered, with key and value.
                error.args = ()
            raise reason from error


failures = _Failures()


def explain(error: Exception) -> StoreError:
    """Return the exception of ours that says the same as one of pymemcache, or of the system."""
    name = type(error).__name__
    match error:
        case OSError() | MemcacheUnexpectedCloseError():
            return StoreUnavailable(f"the Memcached server cannot be reached or does not answer ({name})")
        case MemcacheUnknownCommandError():
            return StoreUnavailable("the Memcached server refuses: raise its -c if all connections are taken")
        case MemcacheServerError() if "too large" in str(error):
            return ValueTooLarge("the value exceeds what the Memcached server takes: raise its -I")
        case MemcacheServerError() if "out of memory" in str(error):
            return StoreError("the Memcached server is full and may not evict: raise its -m, or start it without -M")
        case MemcacheUnknownError():
            return StoreError("what answers does not speak Memcached's text protocol: name another host and port")
        case _:
            return StoreError(f"the Memcached server refused ({name})")


class Link(t.Protocol):
    """A way to one server."""

    def call(self, work: Callable[[Connection], T]) -> T:
        """Return what a function returns for a connection that nobody else uses meanwhile.

        :raises StoreError: where it fails; never another exception.
        """
        ...

    def close(self) -> None:
        """Close what was opened for this link."""
        ...


class OwnLink:
    """Opens connections to a server, keeps the idle ones, and gives each call one of its own.

    The connection that was used last is used next: as many stay open as there were ever calls at once, and none
    belongs to a thread that may end.

    :param address: host and port.
    :param timeout: seconds to connect, and for each reply.
    """

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.address = address
        self.timeout = timeout
        self._idle: deque[_Idle] = deque()
        self._pid = os.getpid()
        self._closed = False

    def call(self, work: Callable[[Connection], T]) -> T:
        """Return what a function returns for a connection."""
        with failures:
            connection = self._take()
            try:
                result = work(connection.client)
            except BaseException:
                # What is still to come on this connection would be taken for the answer to the next command.
                connection.close()
                raise
            self._idle.append(connection)
            if self._closed:
                self._close_idle()
            return result

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        self._close_idle()

    def _take(self) -> _Idle:
        """Return an idle connection that still holds, or a new one."""
        if self._pid != os.getpid():
            # Those of the process that this one was forked from stay open there.
            self._close_idle()
            self._pid = os.getpid()
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _Idle(self.address, self.timeout)
            if connection.idle():
                return connection
            connection.close()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()


class _Idle:
    """A client of pymemcache that is connected, used by one thread at a time."""

    __slots__ = ("_poll", "client")

    def __init__(self, address: tuple[str, int], timeout: float) -> None:
        self.client: t.Any = Client(address, timeout=timeout, connect_timeout=timeout, default_noreply=False)
        # By itself it tries only the first of a name's addresses.
        sock = socket.create_connection(address, timeout)
        self.client.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll = poller(sock)

    def idle(self) -> bool:
        """Tell whether nothing waits to be read; else the server has hung up, or said what nobody asked for."""
        return not self._poll(0)

    def close(self) -> None:
        """Close the connection; in a forked process, without the server's noticing."""
        self.client.close()

    # Of a store that was dropped and not closed.
    __del__ = close


class GivenLink:
    """Uses the connections of a client that was given, with its own time limits.

    :param client: a ``pymemcache.PooledClient``.
    :raises ConfigError: if it is something else, or changes keys or values.
    """

    def __init__(self, client: t.Any) -> None:
        if not hasattr(client, "client_pool"):
            raise ConfigError(
                "MemcachedStore takes a pymemcache.PooledClient for each server; open a URL with "
                "MemcachedStore.from_url(url)"
            )
        if client.key_prefix or not _keeps_bytes(client.serde):
            raise ConfigError("MemcachedStore needs a PooledClient without key_prefix=, serde= and deserializer=")
        self._pool = client.client_pool
        self._pid = os.getpid()

    def call(self, work: Callable[[Connection], T]) -> T:
        """Return what a function returns for a connection."""
        if self._pid != os.getpid():
            raise StoreError(
                "this process was forked and must not use its parent's connections: make the client in each process, "
                "or name the server by a URL, memcached://host:port"
            )
        with failures, self._pool.get_and_release(destroy_on_fail=True) as connection:
            return work(connection)

    def close(self) -> None:
        """Leave the client open."""


def _keeps_bytes(serde: t.Any) -> bool:
    """Tell whether a serializer leaves bytes as they are, whatever they are marked with."""
    try:
        given_back = {serde.deserialize(b"key", b"value", flags) for flags in _FLAGS}
        return bool(given_back == {b"value"} and serde.serialize(b"key", b"value") == (b"value", 0))
    except Exception:
        return False

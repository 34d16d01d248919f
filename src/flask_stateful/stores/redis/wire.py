"""The short way to a single Redis server: a socket for each command that is under way, and nothing in between.

redis-py connects, authenticates and finds the primary. Then the bytes go over the socket directly: that takes about a
third of the processor time that a command takes through its pooled client, and no command is ever sent twice.
"""

from __future__ import annotations

import os
import typing as t
from collections import deque
from collections.abc import Callable, Sequence

import hiredis

from ..polling import poller
from .client import Argument, ClientLink, failures, require_replies

_READ_SIZE = 65_536

_NOT_YET = object()

# By its own types it would take commands of a single word.
_pack: Callable[[tuple[Argument, ...]], bytes] = vars(hiredis)["pack_command"]


class Wire:
    """One connection to a server, used by one thread at a time.

    :param connection: a connection of redis-py or valkey-py, connected, that speaks RESP2.
    """

    __slots__ = ("_connection", "_poll", "_reader", "_socket")

    def __init__(self, connection: t.Any) -> None:
        self._connection = connection
        self._socket = connection._sock  # no public name leads to it, in either library
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._poll = poller(self._socket)

    def idle(self) -> bool:
        """Tell whether nothing waits to be read; else the server has hung up, or said what nobody asked for."""
        return not self._poll(0)

    def exchange(self, request: bytes, count: int) -> list[t.Any]:
        """Send a request and return its replies."""
        self._socket.sendall(request)
        replies: list[t.Any] = []
        while len(replies) < count:
            reply = self._reader.gets()
            if reply is not _NOT_YET:
                replies.append(reply)
            elif received := self._socket.recv(_READ_SIZE):
                self._reader.feed(received)
            else:
                raise ConnectionResetError("the server closed the connection")
        return replies

    def close(self) -> None:
        """Close the connection; in a forked process, without the server's noticing."""
        self._connection.disconnect()


class WireLink(ClientLink):
    """Keeps idle connections and gives each command one of its own, so that no thread waits for another's.

    The connection that was used last is used next: as many stay open as there were ever commands at once, and none
    belongs to a thread that may end. Only :meth:`ask` and :meth:`scan` go through the client.

    :param client: a ``redis.Redis`` that was opened for this link, with a pool that speaks RESP2.
    """

    def __init__(self, client: t.Any, close: Callable[[], object]) -> None:
        super().__init__(client, close)
        self._idle: deque[Wire] = deque()
        self._pid = os.getpid()

    def call(self, *command: Argument) -> t.Any:
        """Send one command and return its reply."""
        with failures:
            return require_replies(self._exchange(_pack(command), 1))[0]

    def call_all(self, commands: Sequence[tuple[Argument, ...]]) -> list[t.Any]:
        """Send several commands in one exchange and return their replies."""
        with failures:
            request = b"".join(map(_pack, commands))
            return require_replies(self._exchange(request, len(commands)))

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._close_idle()

    def _exchange(self, request: bytes, count: int) -> list[t.Any]:
        wire = self._take()
        try:
            replies = wire.exchange(request, count)
        except BaseException:
            # What is still to come on this connection would be taken for the answer to the next command.
            wire.close()
            raise
        self._idle.append(wire)
        if self._closed:
            self._close_idle()
        return replies

    def _take(self) -> Wire:
        """Return an idle connection that still holds, or a new one."""
        self.require_open()
        if self._pid != os.getpid():
            self._forget()
        while True:
            try:
                wire = self._idle.pop()
            except IndexError:
                return self._connect()
            if wire.idle():
                return wire
            wire.close()

    def _connect(self) -> Wire:
        pool = self.client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        return Wire(connection)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _forget(self) -> None:
        """Leave the connections of the process that this one was forked from to that one."""
        self._close_idle()
        self._pid = os.getpid()

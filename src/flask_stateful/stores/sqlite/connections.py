"""The connections of one store: lent to one call at a time, and never carried across a fork.

They are lent, not tied to threads, so that a server that starts a thread for each request opens none for each.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import typing as t

from ... import clock
from ...errors import StoreError, StoreUnavailable
from ..forks import tell_of_forks

#: Seconds that a fork waits for calls of other threads to end.
_FORK_PATIENCE = 5.0
_PAUSE = 0.0005

#: Connections that a child inherited all the same. Even closing them there could damage the file
#: (https://www.sqlite.org/howtocorrupt.html, section 2.6), so they are kept from the garbage collector.
_inherited: list[sqlite3.Connection] = []


class Connections:
    """Lends connections, the most recently used first, and opens one when all are lent.

    SQLite notes the locks that a process has on a file in the process's memory. A child inherits the notes while the
    kernel leaves the locks with the parent, so even a connection that the child opens would trust in locks it does not
    have. Hence a fork waits for the calls of other threads, all connections are closed, and both sides open new ones.

    :param connect: opens a connection.
    :param timeout: seconds to wait while another thread opens one.
    """

    def __init__(self, connect: t.Callable[[], sqlite3.Connection], timeout: float) -> None:
        self._connect = connect
        self._timeout = timeout
        self._refusal = ""
        self._begin()
        tell_of_forks(self)

    def _begin(self) -> None:
        self._gate = threading.Lock()  # held to open a connection, and to keep any from being opened
        self._forking: int | None = None
        self._draining = bool(self._refusal)
        self._open: list[sqlite3.Connection] = []
        self._idle: list[sqlite3.Connection] = []

    def take(self) -> sqlite3.Connection:
        """Return a connection that nobody else uses until it is given back."""
        try:
            return self._idle.pop()
        except IndexError:
            return self._open_another()

    def give_back(self, connection: sqlite3.Connection) -> None:
        """Take a connection back."""
        self._idle.append(connection)
        if self._draining:
            self._close_idle()

    @contextlib.contextmanager
    def lent(self) -> t.Generator[sqlite3.Connection]:
        """Take a connection and give it back in the end."""
        connection = self.take()
        try:
            yield connection
        finally:
            self.give_back(connection)

    def reopen(self) -> None:
        """Close the connections, as soon as no call uses them; later calls open new ones."""
        with self._gate:
            self._drain(self._timeout)
            self._draining = bool(self._refusal)

    def close(self) -> None:
        """Close the connections, those that are lent when they are given back, and lend no more."""
        self._refusal = self._refusal or "this store was closed: make another one"
        self._draining = True
        self._close_idle()

    def before_fork(self) -> None:
        """Close the connections, and let none be opened until the fork is over."""
        if clock.acquire(self._gate, _FORK_PATIENCE):
            self._forking = threading.get_ident()
            self._drain(_FORK_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Let connections be opened again."""
        if self._forking == threading.get_ident():
            self._forking = None
            self._draining = bool(self._refusal)
            self._gate.release()

    def after_fork_in_child(self) -> None:
        """Begin anew, or refuse to where a thread was inside SQLite, which may never answer in this process."""
        if self._open:
            _inherited.extend(self._open)
            self._refusal = "the process forked amid a long call of another thread: start it anew, or fork earlier"
        self._begin()

    def _open_another(self) -> sqlite3.Connection:
        if not clock.acquire(self._gate, self._timeout):
            raise StoreUnavailable(f"no connection could be opened within {self._timeout} s: try again later")
        try:
            if self._refusal:
                raise StoreError(self._refusal)
            connection = self._connect()
            self._open.append(connection)
            return connection
        finally:
            self._gate.release()

    def _drain(self, patience: float) -> None:
        """Close every connection, waiting for those that are lent; the caller holds the gate."""
        deadline = clock.monotonic() + patience
        self._draining = True
        self._close_idle()
        while self._open and clock.monotonic() < deadline:
            clock.wait(_PAUSE)

    def _close_idle(self) -> None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                return
            connection.close()
            self._open.remove(connection)

"""Hearing from the server which keys change: the epochs of what is kept in Redis or Valkey.

The server announces each change of a key under a prefix, whoever makes it, expiry, eviction and flush included, on
every connection that asks for it: ``CLIENT TRACKING`` with ``BCAST``, redirected to the very connection, which
subscribes to the channel of these notices. Each process has one such connection, and one thread that listens there
and moves the epochs of what it hears of.

Why a copy in memory is true, although a notice takes its time. Its marks were taken before its value was read; say
that the server read the value out at R, and changes it at C.

- C comes after R: the notice is sent after C, so it arrives after the marks were taken, and moves the epoch away from
  them. The old value is served until then and no longer: for as long as the notice takes.
- C came before R: the value is the new one. If the notice arrives after the marks were taken, it costs a needless read.
- There is no notice, for the connection was lost before C: nothing is trusted from then on. Before anything is trusted
  again, every epoch moves, and only after the server has confirmed the new subscription. Marks from before that move
  are void. Whoever took theirs after it has an R after the confirmation, and a later C is announced.

A connection that is lost without a word is noticed after :data:`SILENCE` and :data:`ANSWER`.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterable

from ... import clock
from ...epochs import ANY, SLOTS, Epochs, Marks, slot_of, slot_of_encoded
from ...errors import StoreError, StoreUnavailable
from ..forks import tell_of_forks
from .client import Argument, ClientLink, failures

P = t.ParamSpec("P")

_log = logging.getLogger("flask_stateful")

_CHANNEL: t.Final = b"__redis__:invalidate"

#: Seconds without a notice after which the server is asked for a sign of life, ...
SILENCE: t.Final = 1.0
#: ... and how many it may take to connect, or to answer.
ANSWER: t.Final = 1.0

#: Seconds between two attempts to connect, at first and at most; and where the server refuses.
_FIRST_PAUSE, _LONGEST_PAUSE, _REFUSED_PAUSE = 0.1, 2.0, 60.0

#: What a connection is not told of the client that it is modelled on: its ways to repeat, to cache and to move house.
_LEFT_OUT = ("cache", "client_cache", "maint_", "retry")


class TrackedEpochs(Epochs):
    """Epochs of one process, moved by what the server announces.

    Nothing is connected before the first marks are taken. A forked child begins anew when it takes its first.

    :param connect: returns a connection of redis-py or valkey-py, connected, that speaks RESP2.
    :param prefix: what the keys begin with that are to be heard of; empty for all.
    """

    #: Memory is trusted for so long even if something in between swallows what the server says, and answers for it.
    trusted_for = 30.0

    at_hand = False

    def __init__(self, connect: Callable[[], t.Any], prefix: str) -> None:
        self.table = self._slots = [0] * (SLOTS + 1)
        self.live = False
        self._connect = connect
        self._prefix = prefix.encode()
        #: No number is ever put into the table twice, so that no order of moves brings an epoch back.
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._listener: _Listener | None = None
        self._closed = False
        tell_of_forks(self)

    def marks(self, keys: Iterable[str]) -> Marks:
        """Return where some keys stand now, and begin to listen."""
        if self._listener is None:
            self._listen()
        return super().marks(keys)

    def changed(self, keys: Iterable[str]) -> None:
        """Move the epochs of some keys on in this process; all others hear of the change from the server."""
        for slot in (*map(slot_of, keys), ANY):
            self._slots[slot] = next(self._numbers)

    def heard(self, keys: Iterable[bytes] | None) -> None:
        """Move on the epochs of keys that the server has named, or all of them."""
        if keys is None:
            self._slots[:] = [next(self._numbers)] * (SLOTS + 1)
            return
        for slot in (*map(slot_of_encoded, keys), ANY):
            self._slots[slot] = next(self._numbers)

    def begin(self) -> None:
        """Trust what is read from now on, and nothing from before: the server has confirmed the subscription."""
        self.heard(None)
        self.live = True

    def end(self) -> None:
        """Trust nothing: the server is not heard any more."""
        self.live = False
        self._slots[ANY] = next(self._numbers)

    def close(self) -> None:
        """End the thread and its connection."""
        with self._lock:
            self._closed = True
        if self._listener is not None:
            self._listener.end()
        self.end()

    def before_fork(self) -> None:
        """Do nothing: the lock is only ever held for moments, and replaced in the child."""

    def after_fork_in_parent(self) -> None:
        """Do nothing: the parent goes on as it was."""

    def after_fork_in_child(self) -> None:
        """Trust nothing, and leave the connection to the parent, whose thread listens there."""
        self.end()
        self._lock = threading.Lock()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.disown()

    def _listen(self) -> None:
        with self._lock:
            if self._listener is not None or self._closed:
                return
            self._listener = _Listener(self, self._connect, self._prefix)
            try:
                self._listener.start()
            except RuntimeError as error:  # no thread can be had: the store is asked each time
                _log.warning("cached values are not held in memory: no thread can be started", exc_info=error)


class _Listener(threading.Thread):
    """Listens on a connection, and on a new one when that is lost.

    It knows the epochs only while it moves them, so that those which are dropped unclosed can be freed. Then, or when
    the interpreter ends, the thread ends.
    """

    def __init__(self, epochs: TrackedEpochs, connect: Callable[[], t.Any], prefix: bytes) -> None:
        super().__init__(name="flask-stateful-redis", daemon=True)
        self._connect = connect
        self._prefix = prefix
        self._pause = _FIRST_PAUSE
        self._refused = False
        self._line: _Line | None = None
        self._ended = threading.Event()
        self._epochs = weakref.ref(epochs)
        self._freed = weakref.finalize(epochs, self._hang_up)

    def end(self) -> None:
        """Let it end, and wait for that, though not for a server that does not answer."""
        self._hang_up()
        if self.ident is not None and self is not threading.current_thread():
            self.join(timeout=2 * ANSWER)

    def disown(self) -> None:
        """Forget it in a child process, where the thread is not, and close the child's copy of its connection."""
        self._freed.detach()
        if self._line is not None:
            self._line.close()

    def run(self) -> None:
        """Follow one connection after the other, with pauses where there is none to be had."""
        while not self._ended.is_set():
            try:
                with failures:
                    self._follow()
            except StoreUnavailable:
                clock.wait_for(self._ended, self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            except StoreError as error:
                self._report(error)
                clock.wait_for(self._ended, _REFUSED_PAUSE)

    def _follow(self) -> None:
        """Move epochs as the server says, until its connection is lost, or not wanted any more."""
        line = self._line = _Line(self._connect())
        try:
            line.subscribe(self._prefix)
            self._tell(TrackedEpochs.begin)
            self._pause = _FIRST_PAUSE
            while not self._ended.is_set():
                self._tell(TrackedEpochs.heard, line.hear())
        finally:
            self._tell(TrackedEpochs.end)
            self._line = None
            line.close()

    def _tell(self, method: Callable[t.Concatenate[TrackedEpochs, P], None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the epochs something, unless nobody needs them any more."""
        epochs = self._epochs()
        if epochs is not None:
            method(epochs, *args, **kwargs)

    def _report(self, error: StoreError) -> None:
        """Say once why the store is asked each time."""
        if not self._refused:
            self._refused = True
            _log.warning(
                "cached values are not held in memory, for %s; it needs Redis 6 or newer, or Valkey, and a user with "
                "+client|id +client|tracking +subscribe +ping &__redis__:invalidate",
                error,
            )

    def _hang_up(self) -> None:
        self._ended.set()
        if (line := self._line) is not None:
            line.hang_up()


class _Line:
    """The connection on which a server announces what changes.

    :param connection: of redis-py or valkey-py, connected.
    """

    def __init__(self, connection: t.Any) -> None:
        self._connection = connection

    def subscribe(self, prefix: bytes) -> None:
        """Ask for notices of every change under a prefix; when this returns, each later one is announced."""
        prefixes: tuple[Argument, ...] = ("PREFIX", prefix) if prefix else ()
        self._ask("CLIENT", "TRACKING", "ON", "REDIRECT", self._ask("CLIENT", "ID"), "BCAST", *prefixes)
        self._ask("SUBSCRIBE", _CHANNEL)

    def hear(self) -> list[bytes] | None:
        """Wait for what the server says next: the keys that have changed, or ``None`` for all.

        None of them is a sign of life, for which a server that is silent is asked.
        """
        self._require_primary()
        if not self._connection.can_read(timeout=SILENCE):
            self._connection.send_command("PING")
            if not self._connection.can_read(timeout=ANSWER):
                raise TimeoutError("the server gives no sign of life")
        said: list[t.Any] = self._connection.read_response()
        return said[2] if said[0] == b"message" else []

    def hang_up(self) -> None:
        """End the connection from another thread, which wakes the one that listens."""
        if (sock := self._connection._sock) is not None:  # no public name leads to it, in either library
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; in a forked process, without the server's noticing."""
        self._connection.disconnect()

    def _ask(self, *command: Argument) -> t.Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _require_primary(self) -> None:
        """Raise where the sentinels have named another primary to a connection that was made since."""
        pool = getattr(self._connection, "connection_pool", None)
        if pool is not None and pool.master_address != (self._connection.host, self._connection.port):
            raise ConnectionError("the primary is another one by now")


def connector(link: ClientLink) -> Callable[[], t.Any] | None:
    """Return what opens a connection of its own to where a link leads, or ``None`` where that is not one server."""
    pool: t.Any = None if link.is_cluster else getattr(link.client, "connection_pool", None)
    if not hasattr(pool, "connection_class"):
        return None

    def connect() -> t.Any:
        options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_LEFT_OUT)}
        options |= dict.fromkeys(("socket_timeout", "socket_connect_timeout"), ANSWER)
        connection = pool.connection_class(**options | {"protocol": 2, "health_check_interval": 0})
        connection.connect()
        return connection

    return connect

"""A lock in a store: one holder among all processes, for a bounded time."""

from __future__ import annotations

import contextlib
import secrets
import typing as t

from . import clock
from .errors import LockTimeout, StoreError
from .stores.base import Store

_RELEASED: t.Final = b""
_FIRST_PAUSE: t.Final = 0.001
_LONGEST_PAUSE: t.Final = 0.02


class StoreLock:
    """A lock that its holder must give back within ``lease`` seconds, or lose: a killed process blocks nobody for long.

    :param busy: what the error says when the lock is not free in time.
    :param timeout: how long to wait for it, in seconds.
    :param lease: how long it is held at most, in seconds.
    """

    def __init__(self, store: Store, key: str, busy: str, *, timeout: float, lease: float) -> None:
        self._store = store
        self._key = key
        self._busy = busy
        self._timeout = timeout
        self._lease = lease
        self._mine = secrets.token_bytes(16)
        self._since = 0.0

    def acquire(self) -> None:
        """Wait for the lock.

        :raises LockTimeout: if it was not free in time.
        """
        deadline, pause = clock.monotonic() + self._timeout, _FIRST_PAUSE
        while True:
            # Counted from here, the lease ends no later than in the store, however late its answer comes. And the last
            # attempt begins after the deadline, when one who had the lock before us and was killed has lost it.
            self._since = clock.monotonic()
            if self._store.add(self._key, self._mine, self._lease):
                return
            if self._since >= deadline:
                raise LockTimeout(self._busy)
            clock.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def is_held(self) -> bool:
        """Tell whether the lock has been held all along; if not, another may have had it meanwhile.

        In the second half of the lease it asks the store, and begins a new lease.
        """
        if clock.monotonic() - self._since < self._lease / 2:
            return True
        return self._store.swap(self._key, self._mine, self._mine, self._lease)

    def release(self) -> None:
        """Give the lock back; if it was lost, leave its new holder alone."""
        # A store that fails now has saved the session a moment ago, and the lease ends by itself.
        with contextlib.suppress(StoreError):
            if self._store.swap(self._key, self._mine, _RELEASED, self._lease):
                self._store.delete(self._key)

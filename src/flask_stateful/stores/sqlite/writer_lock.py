"""Whose turn it is to write: one thread of one process at a time.

SQLite has such a lock of its own, but whoever finds it taken sleeps, longer each time, and then finds it taken again:
of two processes that write without pause, one gets next to nothing (measured: 0 to 2 % of the writes) where no
checkpoint interrupts the other. Here all who wait ask again after the same short pause, so all have the same chance.
The kernel frees the lock of a process that dies.
"""

from __future__ import annotations

import os
import sys
import threading

from ... import clock
from ...errors import StoreUnavailable
from ..forks import tell_of_forks
from .errors import store_error

#: Whoever finds the lock taken tries so often at once, about as long as one write takes (30 µs), before it pauses.
_TRIES = 20
#: Seconds of a pause, about the shortest there is: after it, more than 100 µs have passed.
_PAUSE = 0.00002

if sys.platform == "win32":  # no flock there: SQLite's own lock has to do

    def try_lock(descriptor: int) -> bool:
        """Leave it to SQLite."""
        return True

    def unlock(descriptor: int) -> None:
        """Leave it to SQLite."""

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Take the lock of an open file, and tell whether it was free."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Give the lock of an open file back."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def create_private(path: str) -> None:
    """Make an empty file that only this user may open, unless there is one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    os.close(descriptor)
    os.chmod(path, 0o600)  # an odd umask may have taken bits away


class WriterLock:
    """A lock for ``with``, shared by all threads and processes that name the same file.

    :param path: the file to lock, made at first use.
    :param timeout: seconds to wait for one's turn.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._threads = threading.Lock()
        self._descriptor: int | None = None
        tell_of_forks(self)

    def __enter__(self) -> None:
        deadline = clock.monotonic() + self._timeout
        if not self._threads.acquire(blocking=False) and not clock.acquire(self._threads, self._timeout):
            raise self._out_of_time()
        try:
            self._lock_file(deadline)
        except BaseException:
            self._close()  # which frees it, should it have been taken
            self._threads.release()
            raise

    def __exit__(self, *exception: object) -> None:
        try:
            if self._descriptor is not None:
                unlock(self._descriptor)
        finally:
            self._threads.release()

    def _lock_file(self, deadline: float) -> None:
        try:
            if self._descriptor is None:
                create_private(self._path)
                self._descriptor = os.open(self._path, os.O_RDWR)
            while not (try_lock(self._descriptor) or self._try_at_once(self._descriptor)):
                if clock.monotonic() >= deadline:
                    raise self._out_of_time()
                clock.wait(_PAUSE)
        except OSError as error:
            raise store_error(error, self._path) from error

    def _try_at_once(self, descriptor: int) -> bool:
        return any(try_lock(descriptor) for _ in range(_TRIES))

    def close(self) -> None:
        """Close the file as soon as nobody here writes; the next use opens it again."""
        with self._threads:
            self._close()

    def before_fork(self) -> None:
        """Let the parent's threads write on."""

    def after_fork_in_parent(self) -> None:
        """Nothing has changed."""

    def after_fork_in_child(self) -> None:
        """Begin anew: a thread that the child does not have may hold the one lock, and the other is the parent's.

        Closing a copy of the descriptor does not free the parent's lock; keeping it would, when the parent is killed,
        hold that lock for ever.
        """
        self._threads = threading.Lock()
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _out_of_time(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self._path} was not free within {self._timeout} s: end the process that keeps it (fuser names it), "
            f"or give the store more time with STATEFUL_STORE_TIMEOUT"
        )

"""What an SQLite store does beside the requests: it carries the log over, and removes what has expired.

A checkpoint inside a commit, SQLite's default, lets one write in a thousand wait for the disk (measured: 14 ms). Here
commits only append to the log, and one thread of each process carries the log over into the database.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import weakref

from ... import clock
from ..forks import tell_of_forks
from .connections import Connections
from .file import DatabaseFile
from .purge import Purge

_log = logging.getLogger("flask_stateful")

#: A round of maintenance follows when this process has written about so many pages of 4 KiB, ...
_PAGES_A_ROUND = 2000
#: ... or so many seconds after a write, where there are fewer.
_QUIET_SECONDS = 5.0
#: A round removes as many expired rows as pages were written, which is more than can have been added, or so many.
_ROWS_A_ROUND = 1000
#: From so many pages on, the writers are made to wait for a moment (measured: 10 to 30 ms), so that the log can start
#: over. Without that it would grow for as long as somebody writes.
_LOG_CEILING = 6000
#: If others append more pages than this while the log is copied, copying cannot keep up with them. Then each page
#: costs the writers so many seconds during one more copy, at most so many at once, lest that moment be a long one.
_MANY_PAGES, _BRAKE, _MOST_BRAKE = 2000, 0.0002, 0.02


class Maintenance:
    """Does its work in rounds, on a thread which the first write starts, and which rests while nothing is written.

    :param file: the database.
    :param connections: lend a connection for each round.
    """

    def __init__(self, file: DatabaseFile, connections: Connections) -> None:
        self._file = file
        self._connections = connections
        self._purge = Purge(file.writer)
        self._worker: _Worker | None = None
        #: About how many pages were written since the last round.
        self._pages = 0
        #: Whether that round left something to do.
        self._unfinished = False
        self._failing = False
        self._braking = False
        tell_of_forks(self)

    def wrote(self, size: int) -> None:
        """Hear of a write; the caller holds the writer lock.

        :param size: bytes of the values written.
        """
        pages = 2 + size // 4096
        self._pages += pages
        if self._braking:
            clock.wait(min(pages * _BRAKE, _MOST_BRAKE))
        if self._worker is None:
            self._start()
        elif self._pages >= _PAGES_A_ROUND or self._worker.resting:
            self._worker.wake()

    def is_due(self) -> bool:
        """Tell whether there is something to do."""
        return self._pages > 0 or self._unfinished

    def round(self) -> None:
        """Do what there is to do; what fails is tried again in the next round."""
        rows, self._pages = max(self._pages, _ROWS_A_ROUND), 0
        try:
            with self._file.errors():
                self._unfinished = not self._work(rows)
            self._failing = False
        except Exception as error:
            self._unfinished = True
            if not self._failing:
                _log.warning("maintenance of %s failed; it is tried again", self._file.path, exc_info=error)
            self._failing = True

    def purge(self) -> int:
        """Remove all that has expired by now, and carry it over bit by bit, lest it make the log a long one.

        :return: how many rows were removed, by this call and in rounds since the call before.
        """
        now, all_removed = clock.now(), False
        while not all_removed:
            with self._file.errors(), self._connections.lent() as connection:
                all_removed = self._remove_expired(connection, now, rows=_ROWS_A_ROUND, to_the_second=True)
                self._carry_over(connection)
        return self._purge.tell()

    def close(self) -> None:
        """End the thread, and do what it left."""
        if self._worker is not None:
            self._worker.end()
        if self.is_due():
            self.round()
        self._forget()

    def before_fork(self) -> None:
        """Nothing; the connections wait for a round to end."""

    def after_fork_in_parent(self) -> None:
        """Nothing has changed."""

    def after_fork_in_child(self) -> None:
        """Begin anew: the thread stayed with the parent."""
        if self._worker is not None:
            self._worker.disown()
        self._worker = None
        self._forget()
        self._purge.removed = 0

    def _forget(self) -> None:
        self._pages, self._unfinished, self._braking = 0, False, False

    def _start(self) -> None:
        self._worker = _Worker(self)
        try:
            self._worker.start()
        except RuntimeError as error:  # no thread can be had; the write has taken place all the same
            _log.warning("%s will grow: its maintenance thread cannot start", self._file.path, exc_info=error)

    def _work(self, rows: int) -> bool:
        """Do one round, of at most so many rows to remove, and tell whether all is done."""
        if self._file.is_replaced():
            _log.warning("%s was removed or replaced while in use; it begins anew", self._file.path)
            self._connections.reopen()
            self._file.writer.close()
        with self._connections.lent() as connection:
            all_removed = self._remove_expired(connection, clock.now(), rows=rows)
            return self._carry_over(connection) and all_removed

    def _remove_expired(
        self, connection: sqlite3.Connection, now: float, *, rows: int, to_the_second: bool = False
    ) -> bool:
        while rows > 0:
            seen = self._purge.batch(connection, now, to_the_second=to_the_second)
            if not seen:
                return True
            rows -= seen
        return False

    def _carry_over(self, connection: sqlite3.Connection) -> bool:
        """Copy the log into the database, and let it start over when it is long; tell whether all of it was copied."""
        log, left = _checkpoint(connection)
        if log > _LOG_CEILING:
            before = log
            log, _ = _checkpoint(connection)  # what was written meanwhile, so that little is left to do in the end
            if log - before > _MANY_PAGES:
                self._checkpoint_braking(connection)
            with self._file.writer:  # all is copied while nobody appends, and the next write starts the log over
                _, left = _checkpoint(connection)
        return left == 0

    def _checkpoint_braking(self, connection: sqlite3.Connection) -> None:
        self._braking = True
        try:
            _checkpoint(connection)
        finally:
            self._braking = False


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int]:
    """Copy what the log holds by now, without anybody waiting; return the pages in the log and those left."""
    busy, log, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    # Busy means that another process does the same; what was appended since it began is left.
    return log, busy or log - copied


class _Worker(threading.Thread):
    """Runs the rounds of a :class:`Maintenance`.

    It knows it only while it works, so that a store which is dropped unclosed can be freed. Then, or when the
    interpreter ends, the thread ends.
    """

    def __init__(self, maintenance: Maintenance) -> None:
        super().__init__(name="flask-stateful-sqlite", daemon=True)
        #: Whether it waits for the first write after a quiet time.
        self.resting = False
        self._ended = False
        self._wake = threading.Event()
        self._maintenance = weakref.ref(maintenance)
        self._freed = weakref.finalize(maintenance, self.end)

    def wake(self) -> None:
        """Let it go on now."""
        if not self._wake.is_set():
            self._wake.set()

    def end(self) -> None:
        """Let it end, and wait for that."""
        self._ended = True
        self._wake.set()
        if self.ident is not None and self is not threading.current_thread():
            self.join(timeout=5)

    def disown(self) -> None:
        """Forget it in a child process, where the thread is not, but may seem to hold the lock of its event."""
        self._freed.detach()

    def run(self) -> None:
        """Wait for enough writes, or for the first and then some time, and have a round done."""
        while maintenance := self._served():
            self.resting = True  # before the look, so that a write after it wakes this thread
            self.resting = not maintenance.is_due()
            del maintenance
            clock.wait_for(self._wake, None if self.resting else _QUIET_SECONDS)
            self._wake.clear()
            if not self.resting and (maintenance := self._served()):
                maintenance.round()

    def _served(self) -> Maintenance | None:
        return None if self._ended else self._maintenance()

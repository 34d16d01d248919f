"""Removing what has expired from an SQLite file, a few rows at a time.

An index over the expiries would be written whenever a session is renewed, which halves the writes there can be. So rows
are filed under coarse *buckets* instead: a bucket says when to look at a row. A renewed row stays where it is; when its
bucket comes, the purge sees that it is alive and files it under its present expiry. Only a row that is made to expire
*before* its bucket has to move at once.
"""

from __future__ import annotations

import sqlite3

from ... import clock
from .writer_lock import WriterLock

BUCKET_SECONDS = 60
#: The bucket of what never expires; the largest whole number that a float holds exactly.
_NEVER = 2**53

#: Seconds that other writers should wait for one batch.
_HOLD_SECONDS = 0.004
_FEWEST_ROWS, _MOST_ROWS = 10, 500

#: Rows that have expired, or have been renewed; in the minute that goes on, only the former.
_DUE = "SELECT id FROM entries WHERE bucket <= ? AND (bucket < ? OR expires <= ?) LIMIT ?"
_REMOVE = "DELETE FROM entries WHERE expires <= ? AND id IN "
_BUCKET = f"CAST(MIN(expires / {BUCKET_SECONDS}, {_NEVER}) AS INTEGER)"
_FILE_ANEW = f"UPDATE entries SET bucket = {_BUCKET} WHERE expires > ? AND id IN "  # noqa: S608 - only constants


def bucket_of(expires: float) -> int:
    """Return the bucket for what expires at a time."""
    return int(min(expires / BUCKET_SECONDS, _NEVER))


class Purge:
    """Removes expired rows, in batches of a size that lets other writers wait about :data:`_HOLD_SECONDS`.

    :param writer: the lock that writers take turns with.
    """

    def __init__(self, writer: WriterLock) -> None:
        #: How many rows were removed since somebody asked, by whichever thread; the writer lock guards it.
        self.removed = 0
        self._writer = writer
        self._rows = 50

    def batch(self, connection: sqlite3.Connection, now: float, *, to_the_second: bool = False) -> int:
        """Remove, or file anew, the next rows that are due.

        :param now: what has expired by then is due.
        :param to_the_second: look at the minute that goes on as well, most of whose rows may be alive.
        :return: how many rows there were; 0 when nothing is due.
        """
        minute = bucket_of(now)
        last = minute if to_the_second else minute - 1
        ids = [row[0] for row in connection.execute(_DUE, (last, minute, now, self._rows))]
        if ids:
            with self._writer:
                began = clock.monotonic()
                self._deal_with(connection, ids, now)
                self._adapt(len(ids), clock.monotonic() - began)
        return len(ids)

    def _deal_with(self, connection: sqlite3.Connection, ids: list[int], now: float) -> None:
        marks = f"({','.join('?' * len(ids))})"
        removed = connection.execute(_REMOVE + marks, (now, *ids)).rowcount
        if removed < len(ids):
            connection.execute(_FILE_ANEW + marks, (now, *ids))
        self.removed += removed

    def _adapt(self, rows: int, held: float) -> None:
        fitting = int(rows * _HOLD_SECONDS / held) if held else _MOST_ROWS
        self._rows = max(_FEWEST_ROWS, min(fitting, 2 * rows, _MOST_ROWS))

    def tell(self) -> int:
        """Return how many rows were removed since this was asked last."""
        with self._writer:
            removed, self.removed = self.removed, 0
        return removed

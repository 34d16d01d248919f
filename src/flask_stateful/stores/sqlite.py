"""A store in an SQLite file: nothing to install, shared by all processes of one machine, survives ``kill -9``."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import sqlite3
import threading
import typing as t
import weakref

from .. import clock
from ..errors import StoreError
from ._sqlite_connections import Connections
from ._sqlite_errors import store_error
from ._sqlite_file import DatabaseFile, Durability
from ._sqlite_maintenance import Maintenance
from ._sqlite_purge import Purge, bucket_of
from .base import Store, Ttl, is_key, parse_counter, require_key, ttl_seconds

# An update writes the bucket, and with it an index, only if it has to (see _sqlite_purge). So there are two statements:
# one that leaves the bucket and finds nothing to update where the row must be looked at earlier, and one that moves it.

_INSERT = "INSERT INTO entries (key, value, expires, bucket) VALUES (:key, :value, :expires, :bucket) ON CONFLICT (key) "
_SET = _INSERT + "DO UPDATE SET value = :value, expires = :expires WHERE bucket <= :bucket"
_SET_EARLIER = _INSERT + "DO UPDATE SET value = :value, expires = :expires, bucket = :bucket"
_ADD = _SET_EARLIER + " WHERE expires <= :now"

_SWAP = (
    "UPDATE entries SET value = :value, expires = :expires "
    "WHERE key = :key AND value = :old AND expires > :now AND bucket <= :bucket"
)
_SWAP_EARLIER = (
    "UPDATE entries SET value = :value, expires = :expires, bucket = :bucket "
    "WHERE key = :key AND value = :old AND expires > :now"
)
_TOUCH = "UPDATE entries SET expires = :expires WHERE key = :key AND expires > :now AND bucket <= :bucket"
_TOUCH_EARLIER = "UPDATE entries SET expires = :expires, bucket = :bucket WHERE key = :key AND expires > :now"

_GET = "SELECT value FROM entries WHERE key = ? AND expires > ?"
_GET_MANY = "SELECT key, value FROM entries WHERE expires > ? AND key IN "
_COUNT = "UPDATE entries SET value = :value WHERE key = :key"
_DELETE = "DELETE FROM entries WHERE key = ?"
_DELETE_MANY = "DELETE FROM entries WHERE key IN "
_SCAN_FROM = "SELECT key FROM entries WHERE key >= ? AND expires > ? ORDER BY key LIMIT 500"
_SCAN_ON = "SELECT key FROM entries WHERE key > ? AND expires > ? ORDER BY key LIMIT 500"

#: How many keys one statement or transaction takes, so that other writers get their turn between two.
_CHUNK = 100


class SQLiteStore(Store):
    """A store in an SQLite file.

    The file is made by the first call, readable by this user only. Its folder must be on a local disk.

    :param path: of the file; ``-wal``, ``-shm`` and ``-lock`` lie beside it and belong to it.
    :param timeout: seconds that a call waits for its turn to write, and for a lock of SQLite's.
    :param durability: ``"normal"``: confirmed writes survive the death of every process, the last of them may not
        survive a power cut. ``"full"``: they do as well, and each write waits for the disk.
    """

    abilities = frozenset({"touch", "incr", "many", "scan", "purge_expired"})

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = 0.25, durability: Durability = "normal"
    ) -> None:
        name = os.fspath(path)
        if not name or name.startswith(":"):
            raise ValueError(f"an SQLite store needs a file, not {name!r}; in memory only is MemoryStore()")
        if not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be seconds, more than 0, not {timeout}")
        if durability not in t.get_args(Durability):
            raise ValueError(f'durability must be "normal" or "full", not {durability!r}')
        self._file = DatabaseFile(os.path.abspath(name), timeout=timeout, durability=durability)
        self._writer = self._file.writer
        self._connections = Connections(self._file.open, timeout)
        self._maintenance = Maintenance(self._file, self._connections)
        with _stores_lock:
            _stores.add(self)

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._file.path

    def get(self, key: str) -> bytes | None:  # noqa: D102
        if not is_key(key):
            return None
        connection = self._connections.take()
        try:
            row = connection.execute(_GET, (key, clock.now())).fetchone()
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
        finally:
            self._connections.give_back(connection)
        return row and row[0]

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:  # noqa: D102
        ...

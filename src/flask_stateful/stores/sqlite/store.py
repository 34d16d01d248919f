"""A store in an SQLite file: nothing to install, shared by all processes of one machine, survives ``kill -9``."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sqlite3
import typing as t

from ... import clock
from ...epochs import Epochs, FileEpochs
from ..base import Store, Ttl, is_key, parse_counter, require_key, ttl_seconds
from .connections import Connections
from .errors import store_error
from .file import DatabaseFile, Durability
from .maintenance import Maintenance
from .purge import bucket_of

# An update writes the bucket, and with it an index, only if it has to (see purge). So there are two statements:
# one that leaves the bucket and finds nothing to update where the row must be looked at earlier, and one that moves it.

_INSERT = (
    "INSERT INTO entries (key, value, expires, bucket) VALUES (:key, :value, :expires, :bucket) ON CONFLICT (key) "
)
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
_DELETE_MANY = "DELETE FROM entries WHERE key IN "
_SCAN_FROM = "SELECT key FROM entries WHERE key >= ? AND expires > ? ORDER BY key LIMIT 500"
_SCAN_AFTER = "SELECT key FROM entries WHERE key > ? AND expires > ? ORDER BY key LIMIT 500"

_Item = t.TypeVar("_Item")

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

    abilities = frozenset({"touch", "incr", "many", "scan", "purge_expired", "epochs"})

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
        self._connections = Connections(self._file.open, timeout)
        self._maintenance = Maintenance(self._file, self._connections)

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return self._file.path

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        if not is_key(key):
            return None
        rows = self._read(_GET, (key, clock.now()))
        return rows[0][0] if rows else None

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._write(_SET, self._row(key, value, ttl), earlier=_SET_EARLIER, size=len(value))

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        return self._write(_ADD, self._row(key, value, ttl), size=len(value)) > 0

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        row = {**self._row(key, new, ttl), "old": old}
        return self._write(_SWAP, row, earlier=_SWAP_EARLIER, size=len(new)) > 0

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        self.delete_many([key])

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        times = _times(ttl)
        return is_key(key) and self._write(_TOUCH, {"key": key, **times}, earlier=_TOUCH_EARLIER) > 0

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter; an existing one keeps its ttl."""
        row = self._row(key, b"", ttl)
        with self._transaction() as connection:
            present = connection.execute(_GET, (key, row["now"])).fetchone()
            count = parse_counter(present and present[0]) + by
            connection.execute(_COUNT if present else _SET_EARLIER, {**row, "value": b"%d" % count})
        return count

    def get_many(self, keys: t.Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        now = clock.now()
        found: dict[str, bytes] = {}
        for chunk in _chunks(filter(is_key, keys)):
            found.update(self._read(_GET_MANY + _marks(chunk), (now, *chunk)))
        return found

    def set_many(self, values: t.Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        for chunk in _chunks([self._row(key, value, ttl) for key, value in values.items()]):
            with self._transaction(size=sum(len(row["value"]) + 4096 for row in chunk)) as connection:
                if connection.executemany(_SET, chunk).rowcount < len(chunk):
                    connection.executemany(_SET_EARLIER, chunk)

    def delete_many(self, keys: t.Iterable[str]) -> None:
        """Remove several values."""
        for chunk in _chunks(filter(is_key, keys)):
            self._write(_DELETE_MANY + _marks(chunk), chunk)

    def scan(self, prefix: str) -> t.Iterator[str]:
        """Yield the keys that begin with a text; those written meanwhile may be missed."""
        if prefix and not is_key(prefix):
            return
        statement, after = _SCAN_FROM, prefix
        while keys := [row[0] for row in self._read(statement, (after, clock.now()))]:
            for key in keys:
                if not key.startswith(prefix):
                    return
                yield key
            statement, after = _SCAN_AFTER, keys[-1]

    def epochs(self, prefix: str) -> Epochs:
        """Return the table that tells which keys were changed, shared by all processes that use the file."""
        self.get("flask-stateful:epochs")  # makes the folder, if need be
        return FileEpochs(f"{self.path}-epochs")

    def sibling(self, name: str) -> SQLiteStore:
        """Return a store in a file beside this one."""
        stem, extension = os.path.splitext(self.path)
        return SQLiteStore(f"{stem}-{name}{extension}", timeout=self._file.timeout, durability=self._file.durability)

    def purge_expired(self) -> int:
        """Remove what has expired, in small batches; the background thread of a store that is written does the same.

        :return: how many values were removed, by this call and in the background since the call before.
        """
        return self._maintenance.purge()

    def check(self) -> list[str]:
        """Open the file and describe what an operator should mend."""
        with self._lent() as connection:
            connection.execute(_GET, ("", 0)).fetchone()
            return self._file.problems(connection)

    def close(self) -> None:
        """End the background thread, carry the log over, and close the file."""
        self._maintenance.close()
        self._connections.close()
        self._file.writer.close()

    def _row(self, key: str, value: bytes, ttl: Ttl) -> dict[str, t.Any]:
        """Return the parameters of a writing statement, or raise where it may not be written."""
        if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        self.require_size(value)
        return {"key": require_key(key), "value": value, **_times(ttl)}

    def _read(self, statement: str, parameters: t.Sequence[t.Any]) -> list[t.Any]:
        """Return the rows that a statement finds."""
        connection = self._connections.take()
        try:
            return connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
        finally:
            self._connections.give_back(connection)

    def _write(self, statement: str, parameters: t.Any, *, earlier: str | None = None, size: int = 0) -> int:
        """Execute a statement in turn, and the second one if the first changed nothing; return the rows changed."""
        connection = self._connections.take()
        try:
            with self._file.writer:
                changed = connection.execute(statement, parameters).rowcount
                if not changed and earlier:
                    changed = connection.execute(earlier, parameters).rowcount
                self._maintenance.wrote(size)
                return changed
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error
        finally:
            self._connections.give_back(connection)

    @contextlib.contextmanager
    def _lent(self) -> t.Generator[sqlite3.Connection]:
        with self._connections.lent() as connection, self._file.errors():
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, size: int = 0) -> t.Generator[sqlite3.Connection]:
        """Keep all that is executed, or nothing."""
        with self._lent() as connection, self._file.writer:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            self._maintenance.wrote(size)


def _times(ttl: Ttl) -> dict[str, float]:
    """Return the parameters of a statement that have to do with time."""
    seconds, now = ttl_seconds(ttl), clock.now()
    expires = math.inf if seconds is None else now + seconds
    return {"now": now, "expires": expires, "bucket": bucket_of(expires)}


def _chunks(items: t.Iterable[_Item]) -> t.Iterator[list[_Item]]:
    """Yield items in lists that one statement or transaction can take."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _CHUNK)):
        yield chunk


def _marks(chunk: t.Sized) -> str:
    return f"({','.join('?' * len(chunk))})"

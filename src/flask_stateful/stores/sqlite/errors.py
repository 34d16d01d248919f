"""What goes wrong with an SQLite file, in the words of the contract."""

from __future__ import annotations

import errno
import sqlite3
import typing as t

from ...errors import StoreError, StoreUnavailable, ValueTooLarge


class _Kind(t.NamedTuple):
    raised: type[StoreError]
    text: str


_BUSY = _Kind(
    StoreUnavailable,
    "{path} is locked by another program: end that one, or give the store more time with STATEFUL_STORE_TIMEOUT",
)
_UNOPENED = _Kind(
    StoreUnavailable,
    "{path} cannot be opened: see that its folder exists and that this process may open more files",
)
_BROKEN = _Kind(
    StoreUnavailable,
    "{path} cannot be read or written: look at its disk, and at the quota and file size limit of this user",
)
_DENIED = _Kind(
    StoreError,
    "{path} cannot be written: give this user the right to write the file and its folder, or write another path",
)
_UNLOCKABLE = _Kind(StoreError, "{path} lies on a file system that has no locks: move it to a local disk")
_FULL = _Kind(StoreError, "the disk that holds {path} is full: free some space on it")
_DAMAGED = _Kind(
    StoreError,
    "{path} is damaged: stop the application and move the file away, together with its -wal and -shm; "
    "then put back a copy, or let the store begin anew",
)
_FOREIGN = _Kind(StoreError, "{path} is no SQLite database: write another path for the store")
_LARGE = _Kind(ValueTooLarge, "the value is longer than SQLite takes")
_OTHER = _Kind(StoreError, "{path}: SQLite failed, see the cause")

#: By SQLite's primary result code, https://www.sqlite.org/rescode.html
_SQLITE = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_PROTOCOL: _BUSY,
    sqlite3.SQLITE_CANTOPEN: _UNOPENED,
    sqlite3.SQLITE_IOERR: _BROKEN,
    sqlite3.SQLITE_READONLY: _DENIED,
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _FOREIGN,
    sqlite3.SQLITE_TOOBIG: _LARGE,
}

_SYSTEM = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOTDIR: _DENIED,
    errno.ENOENT: _UNOPENED,
    errno.EMFILE: _UNOPENED,
    errno.ENFILE: _UNOPENED,
    errno.ENOSPC: _FULL,
    errno.ENOLCK: _UNLOCKABLE,
    errno.ENOTSUP: _UNLOCKABLE,
}


def store_error(error: sqlite3.Error | OSError, path: str) -> StoreError:
    """Return what the contract raises for an error of SQLite or of the operating system."""
    if isinstance(error, OSError):
        kind = _SYSTEM.get(error.errno or 0, _BROKEN)
    else:
        # The low byte is the primary code. What Python itself finds wrong has none.
        kind = _SQLITE.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF, _OTHER)
    return kind.raised(kind.text.format(path=path))

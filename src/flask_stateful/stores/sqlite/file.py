"""The file under :class:`~flask_stateful.stores.sqlite.SQLiteStore`: made, recognised, opened and judged here.

Four files belong together: the database, ``-wal`` and ``-shm``, which SQLite makes with the database's own mode, and
``-lock``, which orders the writers. A file that is not ours is never changed.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import typing as t

from ... import clock
from ...errors import StoreError
from .errors import store_error
from .writer_lock import WriterLock, create_private

Durability: t.TypeAlias = t.Literal["normal", "full"]

#: Written into the header of the file: whose it is, and how it is laid out. The number spells "FSt1".
APPLICATION_ID = 0x46537431
LAYOUT = 1

_SCHEMA = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {LAYOUT}",
    """CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        expires REAL NOT NULL,
        bucket INTEGER NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS entries_bucket ON entries (bucket)",
)

#: The log is cut back to this when it starts over, so that a burst of writes does not keep the disk for ever.
LOG_KEPT_BYTES = 32 * 1024 * 1024

#: Seconds between two attempts at what SQLite does not wait for by itself.
_PAUSE = 0.001

_NETWORK_FILESYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"}
)


class DatabaseFile:
    """An SQLite file for one store.

    :param path: where it is, or is made at first use.
    :param timeout: seconds to wait for a lock.
    :param durability: ``"full"`` waits for the disk in every write, ``"normal"`` only in checkpoints.
    """

    def __init__(self, path: str, *, timeout: float, durability: Durability) -> None:
        self.path = path
        self.writer = WriterLock(f"{path}-lock", timeout)
        self.timeout = timeout
        self.durability: Durability = durability
        self._opened: tuple[int, int] | None = None

    def open(self) -> sqlite3.Connection:
        """Open a connection for any thread's use, making the file where there is none.

        :raises StoreError: if the file is not ours, too new, or cannot be used.
        """
        if os.path.isdir(self.path):
            raise StoreError(f"{self.path} is a folder: write the path of a file in it, like {self.path}/state.sqlite3")
        with self.errors():
            _make_folder(os.path.dirname(self.path))
            # Two processes must not make the same file; nor may a process close the descriptor that made it after it
            # has opened a connection, for that drops all its POSIX locks on the file.
            with self.writer:
                create_private(self.path)
                connection = self._open_recognised()
                self._opened = _identity(self.path)
        return connection

    @contextlib.contextmanager
    def errors(self) -> t.Generator[None]:
        """Turn errors of SQLite and of the operating system into those of the contract."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise store_error(error, self.path) from error

    def is_replaced(self) -> bool:
        """Tell whether the path no longer leads to the file that was opened."""
        return self._opened is not None and self._opened != _identity(self.path)

    def problems(self, connection: sqlite3.Connection) -> list[str]:
        """Return a sentence for each thing that an operator should mend."""
        wal = f"{self.path}-wal"
        found = [
            f"Other users may open {name}: run chmod 600 {name}."
            for name in (self.path, wal, f"{self.path}-shm", f"{self.path}-lock")
            if os.name == "posix" and os.path.exists(name) and os.stat(name).st_mode & 0o077
        ]
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            found.append(f"{self.path} lies where SQLite can keep no write-ahead log: move it to a local disk.")
        if (kind := filesystem_of(self.path)) in _NETWORK_FILESYSTEMS:
            found.append(
                f"{self.path} lies on a network file system ({kind}), whose locks cannot be trusted: "
                f"move it to a local disk, or use a store that is made for several machines, such as Redis."
            )
        if os.path.exists(wal) and (size := os.path.getsize(wal)) > 8 * LOG_KEPT_BYTES:
            found.append(f"{wal} has grown to {size >> 20} MiB: end the program that keeps {self.path} open to read.")
        return found

    def _open_recognised(self) -> sqlite3.Connection:
        new = self._is_new()
        connection = self._connect("mode=rw")
        try:
            if new:
                _lay_out(connection)
            self._keep_log(connection)
            connection.execute(f"PRAGMA synchronous = {self.durability}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _keep_log(self, connection: sqlite3.Connection) -> None:
        """Have changes written ahead to a log. While another connection works, SQLite refuses this without a wait."""
        deadline = clock.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = wal")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or clock.monotonic() >= deadline:
                    raise
                clock.wait(_PAUSE)
            else:
                return

    def _is_new(self) -> bool:
        """Tell whether the file is empty, and raise where it holds something that is not ours.

        Opened as immutable, a file is read without its log, and without making or replaying anything beside it.
        """
        if os.path.getsize(self.path) == 0:
            return True
        with contextlib.closing(self._connect("mode=ro&immutable=1")) as connection:
            # The header may count pages that so far are in the log only. SQLite overlooks that with this setting.
            connection.execute("PRAGMA writable_schema = on")
            (owner,) = connection.execute("PRAGMA application_id").fetchone()
            (layout,) = connection.execute("PRAGMA user_version").fetchone()
        if owner != APPLICATION_ID:
            raise StoreError(f"{self.path} belongs to another program: write another path for the store")
        if layout > LAYOUT:
            raise StoreError(
                f"{self.path} was made by a newer Flask-Stateful: upgrade this one, or write another path for the store"
            )
        return False

    def _connect(self, options: str) -> sqlite3.Connection:
        uri = f"{pathlib.Path(self.path).as_uri()}?{options}"
        return sqlite3.connect(uri, uri=True, timeout=self.timeout, isolation_level=None, check_same_thread=False)


def _lay_out(connection: sqlite3.Connection) -> None:
    """Mark the file as ours and make its table, at once and before it has a log: its header always says whose it is."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, for this user alone; :func:`os.makedirs` gives only the last one the mode."""
    if not os.path.isdir(folder):
        _make_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def filesystem_of(path: str) -> str | None:
    """Return the type of the file system that a path lies on, where the kernel tells (Linux)."""
    try:
        mounts = pathlib.Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    real = pathlib.PurePath(os.path.realpath(path))
    found, longest = None, 0
    for fields in map(str.split, mounts):
        # proc(5): the mount point is the fifth field, blanks written as \040; the type follows a lone dash.
        point = fields[4].replace(r"\040", " ")
        if real.is_relative_to(point) and len(point) >= longest:  # a later mount covers an earlier one
            found, longest = fields[fields.index("-") + 1], len(point)
    return found

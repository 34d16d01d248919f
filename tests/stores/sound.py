"""Stores that keep the contract and can do what memory cannot: tell changes, cross processes, be given a client."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import threading
import typing as t
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from flask_stateful import clock
from flask_stateful.epochs import Epochs, FileEpochs, NoEpochs
from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Store, Ttl, is_key, require_key, ttl_seconds
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FaultyStore, StoreConformance

#: What a file holds of each key: the value as hexadecimal text, and when it expires.
Rows = dict[str, tuple[str, float | None]]


class WatchableStore(MemoryStore):
    """A store in memory that tells what changes."""

    abilities = MemoryStore.abilities | {"watch"}

    def __init__(self) -> None:
        super().__init__(max_value_bytes=2**20)
        self._watches: dict[object, tuple[str, Callable[[str | None], None]]] = {}

    def watch(self, prefix: str, changed: Callable[[str | None], None]) -> Callable[[], None]:
        """Tell each change in the thread that makes it."""
        self._require_open()
        watch = object()
        self._watches[watch] = (prefix, changed)
        return lambda: self._unwatch(watch)

    def _unwatch(self, watch: object) -> None:
        self._watches.pop(watch, None)

    def _put(self, key: str, entry: t.Any) -> None:
        super()._put(key, entry)
        for prefix, changed in list(self._watches.values()):
            if key.startswith(prefix):
                changed(key)


class Client:
    """Stands for the connection of a client library."""

    closed = False

    def close(self) -> None:
        """End it."""
        self.closed = True

    def use(self) -> None:
        """Fail if it was closed."""
        assert not self.closed


class ClientStore(MemoryStore):
    """A store that is given a client, and cannot tell which keys were changed."""

    abilities = MemoryStore.abilities - {"epochs"}

    def __init__(self, client: Client) -> None:
        super().__init__(max_value_bytes=2**20)
        self.client = client

    def epochs(self, prefix: str) -> Epochs:
        """Return a table that tells nothing."""
        return NoEpochs()


class FileStore(Store):
    """All values in one file, which each call reads, and writes anew, under a lock: as slow and as safe as can be."""

    abilities = frozenset({"many", "epochs"})
    max_value_bytes = 2**20

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        with self._rows() as rows:
            return self._value(rows, key)

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        row = self._row(key, value, ttl)
        with self._rows() as rows:
            rows[key] = row

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        row = self._row(key, value, ttl)
        with self._rows() as rows:
            free = self._value(rows, key) is None
            if free:
                rows[key] = row
        return free

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        row = self._row(key, new, ttl)
        with self._rows() as rows:
            same = self._value(rows, key) == old
            if same:
                rows[key] = row
        return same

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        with self._rows() as rows:
            if is_key(key):
                rows.pop(key, None)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        with self._rows() as rows:
            found = {key: self._value(rows, key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        new = {key: self._row(key, value, ttl) for key, value in values.items()}
        with self._rows() as rows:
            rows.update(new)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        with self._rows() as rows:
            for key in filter(is_key, keys):
                rows.pop(key, None)

    def epochs(self, prefix: str) -> Epochs:
        """Return a table in a file beside this one."""
        return FileEpochs(f"{self.path}.epochs")

    def sibling(self, name: str) -> FileStore:
        """Return a store in a file beside this one."""
        return FileStore(Path(f"{self.path}.{name}"))

    def close(self) -> None:
        """Refuse what comes after."""
        self._closed = True

    @contextlib.contextmanager
    def _rows(self) -> Iterator[Rows]:
        """Hold the lock, and keep what was changed."""
        if self._closed:
            raise StoreError("this FileStore was closed")
        with open(f"{self.path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                rows = self._read()
                before = dict(rows)
                yield rows
                if rows != before:
                    self._write(rows)
            finally:
                # Closing would not do: a child forked meanwhile has the file open as well, and with it the lock.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _read(self) -> Rows:
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def _write(self, rows: Rows) -> None:
        new = Path(f"{self.path}.{os.getpid()}.{threading.get_ident()}")
        new.write_text(json.dumps(rows))
        new.replace(self.path)

    def _value(self, rows: Rows, key: str) -> bytes | None:
        value, expires = rows.get(key, ("", -math.inf)) if is_key(key) else ("", -math.inf)
        return bytes.fromhex(value) if expires is None or expires > clock.now() else None

    def _row(self, key: str, value: bytes, ttl: Ttl) -> tuple[str, float | None]:
        require_key(key)
        if not isinstance(value, bytes):
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        self.require_size(value)
        seconds = ttl_seconds(ttl)
        return value.hex(), None if seconds is None else clock.now() + seconds


class MemorySuite(StoreConformance):
    """The suite for stores in memory."""

    across_processes = False
    Store: type[MemoryStore] = MemoryStore

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store small enough to try its limit."""
        return self.Store(max_value_bytes=2**20)


class WatchableSuite(StoreConformance):
    """The suite for stores that tell changes."""

    across_processes = False
    Store: type[WatchableStore] = WatchableStore

    def make_store(self, tmp_path: Path) -> Store:
        """Return a new store."""
        return self.Store()


class ClientSuite(StoreConformance):
    """The suite for stores that are given a client, whose server can be away."""

    across_processes = False
    Store: type[ClientStore] = ClientStore

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store with a client of its own."""
        return self.Store(Client())

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        """Return a store and its client's use."""
        client = Client()
        return self.Store(client), client.use

    def make_unreachable(self, tmp_path: Path) -> Store:
        """Return a store that is never there."""
        return FaultyStore(MemoryStore(), "unavailable")


class FileSuite(StoreConformance):
    """The suite for stores that processes share."""

    Store: type[FileStore] = FileStore

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store in a new file."""
        return self.Store(tmp_path / "store.json")

    def reopen(self, store: Store) -> Store:
        """Return another store on the same file."""
        assert isinstance(store, FileStore)
        return type(store)(store.path)

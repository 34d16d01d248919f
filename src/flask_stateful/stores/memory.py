"""A store in the memory of one process."""

from __future__ import annotations

import math
import threading
import typing as t
from collections import deque

from .. import clock
from ..epochs import Epochs, LocalEpochs
from ..errors import StoreError
from .base import Store, Ttl, parse_counter, require_key, ttl_seconds
from .forks import tell_of_forks

#: How many keys each write looks at to find dead ones. With 2 it takes n / 2 writes to go around n keys, so no more
#: than half of them are dead as long as keys die no faster than they are written.
_STEPS = 2

#: How many keys a purge looks at before it lets other writers in.
_PURGE_BATCH = 1000


class _Entry(t.NamedTuple):
    """A value and when it expires, replaced as a whole and never changed: what makes reading without a lock safe."""

    value: bytes
    expires: float


#: What a deleted key holds until the hand comes by.
_DELETED = _Entry(b"", -math.inf)


class MemoryStore(Store):
    """Keeps values in a dictionary of this process: for tests, and for what need not survive a restart.

    Other processes do not see it. A forked child begins with a copy and goes its own way.

    Reading takes no lock. Expired values are removed a few at a time by the writes that follow, as a hand goes around
    the keys; what is never written to does not grow. No value is ever evicted to make room.

    :param max_value_bytes: the longest value, in bytes.
    """

    abilities = frozenset({"touch", "incr", "scan", "purge_expired", "epochs"})
    persistent = False

    def __init__(self, *, max_value_bytes: int = Store.max_value_bytes) -> None:
        self.max_value_bytes = max_value_bytes
        self._entries: dict[str, _Entry] = {}
        self._epochs = LocalEpochs()
        #: Every key of the entries once, in the order in which the hand looks at them. A deleted key stays in both
        #: until then, so that adding it again needs no search.
        self._ring: deque[str] = deque()
        self._lock = threading.Lock()
        self._closed = False
        tell_of_forks(self)

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        entry = self._find(key)
        return None if entry is None else entry.value

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        entry = self._new_entry(key, value, ttl)
        with self._lock:
            self._put(key, entry)

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        entry = self._new_entry(key, value, ttl)
        with self._lock:
            if self._find(key) is not None:
                return False
            self._put(key, entry)
        return True

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        entry = self._new_entry(key, new, ttl)
        with self._lock:
            present = self._find(key)
            if present is None or present.value != old:
                return False
            self._put(key, entry)
        return True

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        with self._lock:
            if self._find(key) is not None:
                self._put(key, _DELETED)

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        expires = _expiry(ttl)
        with self._lock:
            present = self._find(key)
            if present is None:
                return False
            self._put(key, _Entry(present.value, expires))
        return True

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter; an existing one keeps its ttl."""
        expires = _expiry(ttl)
        require_key(key)
        with self._lock:
            present = self._find(key)
            count = by if present is None else parse_counter(present.value) + by
            value = b"%d" % count
            self.require_size(value)
            self._put(key, _Entry(value, expires if present is None else present.expires))
        return count

    def epochs(self, prefix: str) -> Epochs:
        """Return the table that tells which keys were changed, one for all who use the store."""
        return self._epochs

    def scan(self, prefix: str) -> t.Iterator[str]:
        """Yield the keys that begin with a text, of those that were there when it began."""
        self._require_open()
        with self._lock:
            keys = list(self._entries)
        for key in keys:
            if key.startswith(prefix) and self._find(key) is not None:
                yield key

    def purge_expired(self) -> int:
        """Remove what has expired, in small batches."""
        self._require_open()
        purged, left = 0, len(self._ring)
        while left > 0:
            with self._lock:
                purged += self._turn_hand(min(left, _PURGE_BATCH))
            left -= _PURGE_BATCH
        return purged

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._entries.clear()
            self._ring.clear()

    def before_fork(self) -> None:
        """Wait until no thread is in the middle of a write."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let writers go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on with a copy."""
        self._lock = threading.Lock()

    def _find(self, key: str) -> _Entry | None:
        """Return what is there and has not expired; needs no lock."""
        self._require_open()
        try:
            entry = self._entries.get(key)
        except TypeError:  # not hashable, so it cannot be a key
            return None
        return None if entry is None or entry.expires <= clock.now() else entry

    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> _Entry:
        """Return what is to be written, or raise where it cannot be."""
        require_key(key)
        if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        self.require_size(value)
        return _Entry(value, _expiry(ttl))

    def _put(self, key: str, entry: _Entry) -> None:
        """Write an entry and turn the hand a little; the caller holds the lock."""
        self._require_open()
        if key not in self._entries:
            self._ring.append(key)
        self._entries[key] = entry
        self._turn_hand(_STEPS)

    def _turn_hand(self, steps: int) -> int:
        """Look at the next keys and drop those that are dead; the caller holds the lock.

        :return: how many had expired; deleted ones do not count.
        """
        now, expired = clock.now(), 0
        for _ in range(min(steps, len(self._ring))):
            key = self._ring.popleft()
            entry = self._entries[key]
            if entry.expires > now:
                self._ring.append(key)
            else:
                del self._entries[key]
                expired += entry is not _DELETED
        return expired

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError("this MemoryStore was closed")


def _expiry(ttl: Ttl) -> float:
    """Return the moment a ttl ends."""
    seconds = ttl_seconds(ttl)
    return math.inf if seconds is None else clock.now() + seconds

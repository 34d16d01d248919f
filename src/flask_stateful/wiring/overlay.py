"""What a test writes to a store, kept over it and forgotten when the test ends."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Iterable, Iterator, Mapping

from ..stores.base import Store, Ttl, is_key
from ..stores.forks import tell_of_forks
from ..stores.memory import MemoryStore

#: The calls of a store that an overlay takes over; all else is left to the store.
_CALLS: t.Final[tuple[str, ...]] = (
    "get",
    "set",
    "add",
    "swap",
    "delete",
    "touch",
    "incr",
    "get_many",
    "set_many",
    "delete_many",
    "scan",
    "purge_expired",
)


class OverlayStore(Store):
    """Reads from another store what it does not know yet, and keeps in memory what is written.

    What was read from the other store is kept as well, for as long as this one is used.
    """

    def __init__(self, under: Store) -> None:
        self.max_value_bytes = under.max_value_bytes
        self.abilities = frozenset({"touch", "incr", *(under.abilities & {"scan", "purge_expired"})})  # type: ignore[misc]
        self._read, self._list = under.get, under.scan
        self._memory = MemoryStore(max_value_bytes=under.max_value_bytes)
        self._known: set[str] = set()
        self._lock = threading.RLock()
        tell_of_forks(self)

    def _over(self, *keys: str) -> MemoryStore:
        """Return the memory, which holds what these keys have."""
        for key in keys:
            if is_key(key) and key not in self._known:
                self._fetch(key)
        return self._memory

    def _fetch(self, key: str) -> None:
        with self._lock:
            if key not in self._known:
                value = self._read(key)
                if value is not None:
                    self._memory.set(key, value)
                self._known.add(key)

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        return self._over(key).get(key)

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._over(key).set(key, value, ttl)

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        return self._over(key).add(key, value, ttl)

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        return self._over(key).swap(key, old, new, ttl)

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        self._over(key).delete(key)

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        return self._over(key).touch(key, ttl)

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter."""
        return self._over(key).incr(key, by, ttl)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        keys = list(keys)
        return self._over(*keys).get_many(keys)

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        self._over(*values).set_many(values, ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        keys = list(keys)
        self._over(*keys).delete_many(keys)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a text."""
        return self._over(*self._list(prefix)).scan(prefix)

    def purge_expired(self) -> int:
        """Remove what has expired of what was written here."""
        return self._memory.purge_expired()

    def close(self) -> None:
        """Forget everything; the other store stays as it is."""
        self._memory.close()

    def before_fork(self) -> None:
        """Let no key be half known in the child."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on, with a lock that no thread of the parent waits for."""
        self._lock = threading.RLock()


def cover(store: Store) -> t.Callable[[], None]:
    """Let a store's calls go to an overlay, whoever holds the store.

    :return: a function that uncovers the store.
    """
    overlay, earlier = OverlayStore(store), {name: vars(store)[name] for name in _CALLS if name in vars(store)}
    vars(store).update({name: getattr(overlay, name) for name in _CALLS})

    def uncover() -> None:
        for name in _CALLS:
            del vars(store)[name]
        vars(store).update(earlier)
        overlay.close()

    return uncover

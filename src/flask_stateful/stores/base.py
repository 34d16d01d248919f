"""The contract every store keeps. Bytes in, bytes out, with a ttl; nothing else.

*Keys* are any text of 1 to 1,024 UTF-8 bytes. A store encodes what its server cannot take. A malformed key (empty,
too long, not encodable, not text) is *not found* when reading or deleting, and a :exc:`ValueError` when writing.

*Values* are bytes of any length up to :attr:`Store.max_value_bytes`; more is
:exc:`~flask_stateful.errors.ValueTooLarge`.

*ttl* is relative: seconds (int or float) or a :class:`~datetime.timedelta`; ``None`` means for ever; zero or less,
and NaN, is a :exc:`ValueError`. Absent and expired are the same thing, from the instant the ttl has passed.

*Required* are :meth:`~Store.get`, :meth:`~Store.set`, :meth:`~Store.add`, :meth:`~Store.swap`, :meth:`~Store.delete`
and :meth:`~Store.close`. Each is atomic: seen by others whole or not at all, from any thread and process. When a
writing call has returned, the write is confirmed, and the next read anywhere sees it.

*Abilities* go beyond that. :meth:`~Store.touch`, :meth:`~Store.incr`, :meth:`~Store.get_many`, :meth:`~Store.set_many`
and :meth:`~Store.delete_many` always work: where a server has nothing better they are built from the required calls.
:meth:`~Store.scan`, :meth:`~Store.purge_expired` and :meth:`~Store.watch` work only where :attr:`Store.abilities`
names them, and raise :exc:`~flask_stateful.errors.UnsupportedOperation` elsewhere.

*Failures*: every exception of a client library leaves as :exc:`~flask_stateful.errors.StoreError` or, when the store
cannot be reached or does not answer in time, :exc:`~flask_stateful.errors.StoreUnavailable`, with the cause chained.
A store never retries, never sleeps except to wait its turn (bounded by its timeout), and never logs a value.

*Lifetime*: a store may be used from any thread, and after a fork. It closes what it opened, never what it was given.
:meth:`~Store.close` may be called twice.

:class:`flask_stateful.testing.StoreConformance` tests all of this.
"""

from __future__ import annotations

import abc
import math
import re
import typing as t
from datetime import timedelta

from ..epochs import Epochs, NoEpochs
from ..errors import StateConflict, StoreError, UnsupportedOperation, ValueTooLarge

#: Seconds, a timedelta, or ``None`` for ever.
Ttl: t.TypeAlias = float | timedelta | None

MAX_KEY_BYTES = 1024

_COUNTER = re.compile(rb"-?[0-9]+")

#: How often a fallback built on :meth:`Store.swap` tries again before it gives up.
_FALLBACK_TRIES = 100


def ttl_seconds(ttl: Ttl) -> float | None:
    """Return a ttl as seconds, or ``None`` for ever.

    :raises ValueError: if it is zero, negative or not a number.
    :raises TypeError: if it is neither a number nor a timedelta.
    """
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    elif isinstance(ttl, bool) or not isinstance(ttl, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"ttl must be seconds, a timedelta or None, not {type(ttl).__name__}")
    if not ttl > 0:
        raise ValueError(f"ttl must be more than 0 seconds, not {ttl}; None means for ever")
    return None if ttl == math.inf else ttl


def is_key(key: object) -> t.TypeGuard[str]:
    """Tell whether something can be a key: text of 1 to 1,024 UTF-8 bytes."""
    if not isinstance(key, str) or not key:
        return False
    if key.isascii():
        return len(key) <= MAX_KEY_BYTES
    try:
        return len(key.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def require_key(key: object) -> str:
    """Return the key, or raise :exc:`ValueError` where it cannot be one."""
    if not is_key(key):
        raise ValueError("a key must be text of 1 to 1,024 UTF-8 bytes")
    return key


class Store(abc.ABC):
    """A place for bytes with a ttl; see the module's text for the contract."""

    #: What this store can do beyond the required calls: any of ``"touch"``, ``"incr"``, ``"many"`` (in one exchange
    #: with the server rather than by the fallback), ``"scan"``, ``"purge_expired"``, ``"watch"``, ``"epochs"``.
    abilities: t.ClassVar[frozenset[str]] = frozenset()

    #: Whether other machines can share it. A shared store needs a ``SECRET_KEY`` that is shared as well.
    shared: t.ClassVar[bool] = False

    #: Whether what it holds outlives the process.
    persistent: t.ClassVar[bool] = True

    #: Whether calls cross a network, so that an outage must be kept from costing every request a timeout.
    remote: t.ClassVar[bool] = False

    #: The longest value, in bytes.
    max_value_bytes: int = 512 * 1024 * 1024

    @property
    def durable(self) -> bool:
        """Whether it keeps every record until its ttl is over, never evicting one to make room."""
        return True

    @abc.abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""

    @abc.abstractmethod
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""

    @abc.abstractmethod
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none.

        :return: whether this call wrote it; of any number of concurrent callers, exactly one did.
        """

    @abc.abstractmethod
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``.

        :return: whether this call replaced it. ``False`` also where there is no value: it never creates one.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what the store opened. Calls after it raise :exc:`~flask_stateful.errors.StoreError`."""

    def check(self) -> list[str]:
        """Reach the store once and describe what an operator should mend.

        :return: one sentence for each problem; an empty list when all is well.
        :raises StoreError: if the store does not work at all.
        """
        self.get("flask-stateful:check")
        return []

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl.

        :return: whether there was a value.
        """
        for _ in range(_FALLBACK_TRIES):
            value = self.get(key)
            if value is None:
                return False
            if self.swap(key, value, value, ttl):
                return True
        raise StateConflict("a key was rewritten too often to touch it")

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter, which is kept as decimal text and begins at 0.

        :param ttl: used when this call creates the counter; an existing one keeps what it has, as far as the server
            can.
        :return: the new count.
        :raises StoreError: if the value is not a whole number.
        """
        for _ in range(_FALLBACK_TRIES):
            value = self.get(key)
            count = parse_counter(value) + by
            new = b"%d" % count
            if self.add(key, new, ttl) if value is None else self.swap(key, value, new, ttl):
                return count
        raise StateConflict("a counter was rewritten too often to add to it")

    def get_many(self, keys: t.Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        found = {key: self.get(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set_many(self, values: t.Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl; each is atomic, together they need not be."""
        for key, value in values.items():
            self.set(key, value, ttl)

    def delete_many(self, keys: t.Iterable[str]) -> None:
        """Remove several values."""
        for key in keys:
            self.delete(key)

    def scan(self, prefix: str) -> t.Iterator[str]:
        """Yield the keys that begin with a text; those written meanwhile may be missed."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot list its keys")

    def purge_expired(self) -> int:
        """Remove what has expired, in small batches.

        :return: how many values were removed.
        """
        raise UnsupportedOperation(f"{type(self).__name__} removes expired values by itself")

    def watch(self, prefix: str, changed: t.Callable[[str | None], None]) -> t.Callable[[], None]:
        """Call ``changed`` with each key under a prefix that anyone changes; with ``None`` when some may be missed.

        :return: a function that ends the watch.
        """
        raise UnsupportedOperation(f"{type(self).__name__} cannot tell what changes")

    def epochs(self, prefix: str) -> Epochs:
        """Return the table that tells which keys under a prefix were changed, to be closed by the caller.

        A store without this ability returns one that tells nothing. :meth:`close` closes what the store has to keep up
        for it.
        """
        return NoEpochs()

    def sibling(self, name: str) -> Store:
        """Return a store for another kind of state, so that the load of one does not slow the other.

        A server takes both as they come: it returns itself. A store in a file returns one in a file of its own.
        """
        return self

    def require_size(self, value: bytes) -> None:
        """Raise :exc:`~flask_stateful.errors.ValueTooLarge` if a value is longer than the store takes."""
        if len(value) > self.max_value_bytes:
            raise ValueTooLarge(
                f"a value of {len(value):,} bytes exceeds the {self.max_value_bytes:,} that {type(self).__name__} takes"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def parse_counter(value: bytes | None) -> int:
    """Return a stored counter as a number, 0 where there is none.

    :raises StoreError: if the bytes are not a whole number.
    """
    if value is None:
        return 0
    # int() alone would take blanks and underscores, too, which a server's own counter refuses.
    if not _COUNTER.fullmatch(value):
        raise StoreError("incr() needs a whole number, and this key holds something else")
    return int(value)

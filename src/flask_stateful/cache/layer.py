"""What memory holds of the store, and how it knows that it still may."""

from __future__ import annotations

import random
import typing as t
from collections.abc import Callable

from .. import clock
from ..epochs import ANY, Epochs, Marks, NoEpochs
from ..errors import StoreError
from ..stores.base import Store
from .entries import Entry
from .memory import MemoryLayer, Node
from .values import Codec, copier, is_frozen


class Held:
    """A value in memory: :class:`Shared` or :class:`Copied`."""

    __slots__ = ("ask_at", "entry", "fresh_until", "marks", "newest", "refresh_at", "stale_until", "trusted_until")

    #: The value; whoever changes it changes nobody else's.
    value: t.Any

    def __init__(self, entry: Entry, marks: Marks, trusted_for: float) -> None:
        now = clock.monotonic()
        # Rounding must not let a value live longer than it should; a millisecond less does no harm.
        ahead = now - clock.now() - 0.001
        self.entry: t.Final = entry
        #: On the monotonic clock, which nobody sets back.
        self.fresh_until: t.Final = entry.fresh_until + ahead
        self.stale_until: t.Final = entry.stale_until + ahead
        #: From then on it is to be refreshed.
        self.refresh_at: t.Final = self.fresh_until - _lead(entry)
        #: From then on the store is asked, whether it has changed it or not.
        trusted_until = now + trusted_for
        self.trusted_until: t.Final = trusted_until if trusted_until < self.refresh_at else self.refresh_at
        #: From then on it is not served without asking anybody: a value made from tables never is.
        self.ask_at: t.Final = 0.0 if entry.tables else self.trusted_until
        self.marks: t.Final = marks
        #: The epoch of the newest change, of whatever key, that the marks were found to have survived.
        self.newest = -1


class Shared(Held):
    """A value that everybody may have as it is, since nobody can change it."""

    __slots__ = ("value",)


class Copied(Held):
    """A value that each reader gets a copy of."""

    __slots__ = ("codec", "copy", "unread")

    codec: Codec
    #: Makes a copy, from the second reader on.
    copy: Callable[[], t.Any] | None
    #: The value, until the first reader takes it: there may be no second one.
    unread: list[t.Any]

    @property
    def value(self) -> t.Any:
        """A copy of the value."""
        return self.copy() if self.copy is not None else self._take()

    def _take(self) -> t.Any:
        try:
            return self.unread.pop()
        except IndexError:
            self.copy = copier(self.codec, self.entry.payload)
            return self.copy()


def hold(entry: Entry, codec: Codec, marks: Marks, *, trusted_for: float) -> Held:
    """Return the value of an entry as memory holds it.

    :raises DecodeError: if it cannot be decoded.
    """
    value = codec.decode(entry.payload)
    if is_frozen(value):
        shared = Shared(entry, marks, trusted_for)
        shared.value = value
        return shared
    copied = Copied(entry, marks, trusted_for)
    copied.codec, copied.copy, copied.unread = codec, None, [value]
    return copied


def _lead(entry: Entry) -> float:
    """Return how long before its expiry a value is to be refreshed, in seconds.

    Where others may be served the old value meanwhile, the new one is to be there in time: that takes as long as the
    last one took, and some more by chance, so that not every process begins at once (after Vattani, Chierichetti and
    Lowenstein, VLDB 2015, but one computation earlier).
    """
    if entry.stale_until == entry.fresh_until or entry.lease:
        return 0.0
    lead = entry.cost * (1 + random.expovariate(1))
    return min(lead, (entry.fresh_until - entry.created_at) / 2)


#: What one request has asked for, by key.
Memo: t.TypeAlias = dict[str, Held]


class Layer:
    """The in-process layer.

    Where the store cannot tell what changes, nothing is held longer than for one request: that asks for a value once.

    :param memory: what holds the values; ``None`` turns the layer off.
    :param epochs: tell what has changed in the store.
    :param memo: returns what the current request has asked for; ``None`` outside of one.
    """

    def __init__(self, memory: MemoryLayer[Held] | None, epochs: Epochs, memo: Callable[[], Memo | None]) -> None:
        self._memo = memo
        self.use(memory, epochs)

    def use(self, memory: MemoryLayer[Held] | None, epochs: Epochs) -> None:
        """Hold values there from now on, and trust them by these."""
        self.memory = memory
        self.epochs = epochs
        #: Those of both that each hit needs.
        self.nodes: dict[str, Node[Held]] = {} if memory is None else memory.nodes
        self.table = epochs.table

    def get(self, key: str) -> Held | None:
        """Return what is held under a key, unless the store may hold something else by now."""
        held = self.memory.get(key) if self.memory is not None else None
        if held is not None:
            newest = self.table[ANY]
            if self.epochs.is_unchanged(held.marks):
                held.newest = newest
                return held
        if self.is_trusted:
            return None
        memo = self._memo()
        return memo.get(key) if memo is not None else None

    def get_untrusted(self, key: str) -> Held | None:
        """Return what is held under a key, however old: for calls that take a stale value when the store is gone."""
        return self.memory.get(key) if self.memory is not None else None

    def marks(self, keys: t.Iterable[str]) -> Marks:
        """Return where the epochs stand. Ask before asking the store, so that no change in between is missed."""
        return self.epochs.marks(keys) if self.memory is not None or self.epochs.at_hand else ()

    def put(self, held: Held) -> None:
        """Keep a value that the store has."""
        if self.memory is not None and self.epochs.live:
            self.memory.set(held.entry.key, held, len(held.entry.payload))
            return
        memo = self._memo()
        if memo is not None:
            memo[held.entry.key] = held

    def changed(self, keys: t.Iterable[str]) -> None:
        """Let no process trust what it holds of these keys."""
        self.epochs.changed(keys)
        memo = self._memo()
        if memo is not None:  # also while memory is what to ask: that may end within the request
            memo.clear()

    @property
    def is_trusted(self) -> bool:
        """Whether memory is what to ask, so that a request needs no memory of its own."""
        return self.memory is not None and self.epochs.live


def open_layer(store: Store, namespace: str, memory_bytes: int, memo: Callable[[], Memo | None]) -> Layer:
    """Return what memory is to hold of a store.

    :param namespace: prefixes every store key.
    :param memory_bytes: how much of it this process holds in memory; 0 for nothing.
    :param memo: returns what the current request has asked for.
    """
    memory = MemoryLayer[Held](max_bytes=memory_bytes) if memory_bytes else None
    try:
        epochs = store.epochs(f"{namespace}:cache")
    except StoreError:
        # Nothing is held in memory then; the store is asked each time.
        epochs = NoEpochs()
    return Layer(memory, epochs, memo)

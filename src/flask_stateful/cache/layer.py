"""What memory holds of the store, and how it knows that it still may."""

from __future__ import annotations

import typing as t

from .. import clock
from ..epochs import Epochs, Marks
from .entries import Entry
from .memory import MemoryLayer
from .values import Codec, is_frozen


class Held:
    """A value in memory: the value itself where nobody can change it, else its encoding, decoded for each reader."""

    __slots__ = ("_codec", "_frozen", "_value", "entry", "fresh_until", "marks", "stale_until")

    def __init__(self, entry: Entry, codec: Codec, marks: Marks) -> None:
        # Rounding must not let a value live longer than it should; a millisecond less does no harm.
        ahead = clock.monotonic() - clock.now() - 0.001
        self.entry: t.Final = entry
        #: On the monotonic clock, which nobody sets back.
        self.fresh_until: t.Final = entry.fresh_until + ahead
        self.stale_until: t.Final = entry.stale_until + ahead
        self.marks: t.Final = marks
        self._codec = codec
        self._value = codec.decode(entry.payload)
        self._frozen = is_frozen(self._value)

    @property
    def value(self) -> t.Any:
        """The value; whoever changes it changes nobody else's."""
        return self._value if self._frozen else self._codec.decode(self.entry.payload)


class Layer:
    """The in-process layer.

    :param memory: what holds the values; ``None`` turns the layer off.
    :param epochs: tell what has changed in the store.
    """

    def __init__(self, memory: MemoryLayer[Held] | None, epochs: Epochs) -> None:
        self.memory = memory
        self.epochs = epochs

    def get(self, key: str) -> Held | None:
        """Return what is held under a key, unless the store may hold something else by now."""
        held = self.memory.get(key) if self.memory is not None else None
        if held is None or not self.epochs.is_unchanged(held.marks):
            return None
        return held

    def get_untrusted(self, key: str) -> Held | None:
        """Return what is held under a key, however old: for calls that take a stale value when the store is gone."""
        return self.memory.get(key) if self.memory is not None else None

    def marks(self, keys: t.Iterable[str]) -> Marks:
        """Return where the epochs stand. Ask before asking the store, so that no change in between is missed."""
        return self.epochs.marks(keys)

    def put(self, held: Held) -> None:
        """Keep a value that the store has."""
        if self.memory is not None and self.epochs.live:
            self.memory.set(held.entry.key, held, len(held.entry.payload))

    def changed(self, keys: t.Iterable[str]) -> None:
        """Let no process trust what it holds of these keys."""
        self.epochs.changed(keys)

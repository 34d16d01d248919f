"""How a process learns that a key was changed elsewhere: a table of epochs.

Every key falls into one of some thousand slots. Whoever changes a key moves its slot's epoch on, in a table that all
who share the store can see. A process that keeps a copy of a value remembers the epoch from *before* it read the
value; as long as the table shows the same, the copy is true. Two keys in one slot cost a needless read, never a stale
one.
"""

from __future__ import annotations

import abc
import itertools
import math
import mmap
import os
import secrets
import typing as t
import zlib
from collections.abc import Iterable, MutableSequence

#: The slot of a key, and the epoch it had.
Mark: t.TypeAlias = tuple[int, int]
Marks: t.TypeAlias = tuple[Mark, ...]

#: How many slots there are: 512 KiB, and one in 65,536 changes elsewhere costs a needless read.
SLOTS: t.Final = 65_536

#: The slot that every change moves, whatever its key, after its own. While it stands still, so does all the rest, and
#: what was found to be true is.
ANY: t.Final = SLOTS

_EPOCH_BYTES: t.Final = 8


class Epochs(abc.ABC):
    """A table of epochs."""

    #: The epoch of each slot, and of :data:`ANY`.
    table: MutableSequence[int] | memoryview

    #: Whether changes made elsewhere are seen; while they are not, no copy can be trusted. That may begin a while after
    #: the first marks were taken, and end at any time; when it ends, :data:`ANY` moves.
    live: bool = True

    #: Whether marks cost next to nothing: nobody has to be listened to.
    at_hand: bool = True

    #: For how many seconds after it was read a copy is trusted at most, whatever the table says.
    trusted_for: float = math.inf

    def marks(self, keys: Iterable[str]) -> Marks:
        """Return where some keys stand now."""
        table = self.table
        return tuple((slot, table[slot]) for slot in map(slot_of, keys))

    def is_unchanged(self, marks: Marks) -> bool:
        """Tell whether no key behind some marks was changed since they were taken."""
        if not self.live:
            return False
        table = self.table
        for slot, epoch in marks:  # noqa: SIM110 (a generator takes longer than the rest of a hit)
            if table[slot] != epoch:
                return False
        return True

    @abc.abstractmethod
    def changed(self, keys: Iterable[str]) -> None:
        """Tell everybody that some keys were changed, unless the store does. Call it after the change is there."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the table."""


class LocalEpochs(Epochs):
    """Epochs of one process, for a store that no other process sees."""

    def __init__(self) -> None:
        self.table = [0] * (SLOTS + 1)
        self._next = itertools.count(1).__next__

    def changed(self, keys: Iterable[str]) -> None:
        """Move the epochs of some keys on: to one that no slot ever had, whatever other threads do meanwhile."""
        for slot in (*map(slot_of, keys), ANY):
            self.table[slot] = self._next()

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


class FileEpochs(Epochs):
    """Epochs in a file that all processes of one machine have in their memory.

    :param path: of the file, which is made when it is missing, readable by this user only.
    """

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(descriptor, (SLOTS + 1) * _EPOCH_BYTES)
            self._memory = mmap.mmap(descriptor, (SLOTS + 1) * _EPOCH_BYTES)
        finally:
            os.close(descriptor)
        self._view = memoryview(self._memory).cast("Q")
        self.table = self._view

    def changed(self, keys: Iterable[str]) -> None:
        """Move the epochs of some keys on.

        A random epoch rather than the next one: two processes that move the same slot need not agree on anything.
        """
        epoch = secrets.randbits(8 * _EPOCH_BYTES)
        for slot in (*map(slot_of, keys), ANY):
            self.table[slot] = epoch

    def close(self) -> None:
        """Let go of the file."""
        self._view.release()
        self._memory.close()


class NoEpochs(Epochs):
    """For a store that cannot tell what changes: nothing held in memory is ever trusted."""

    live = False

    def __init__(self) -> None:
        self.table = []

    def marks(self, keys: Iterable[str]) -> Marks:
        """Return nothing, since nothing is known."""
        return ()

    def changed(self, keys: Iterable[str]) -> None:
        """Do nothing, since nobody listens."""

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def slot_of(key: str) -> int:
    """Return the slot that a key falls into, the same in every process."""
    return slot_of_encoded(key.encode())


def slot_of_encoded(key: bytes) -> int:
    """Return the slot of a key that is encoded."""
    return zlib.crc32(key) % SLOTS

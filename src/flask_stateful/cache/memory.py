"""The in-process layer: values that were used lately, bounded by bytes and by number.

Eviction is SIEVE (Zhang et al., NSDI 2024): a hit only marks the value as visited, so reading takes no lock and moves
nothing; to make room, a hand walks from old to new, spares what was visited since it last came by, and evicts the first
value that was not.
"""

from __future__ import annotations

import threading
import typing as t

T = t.TypeVar("T")

#: What one value costs besides its own bytes, roughly.
OVERHEAD: t.Final = 200


#: How many values the hand spares in a row.
_MOST_STEPS: t.Final = 1000


class Node(t.Generic[T]):
    """One value, linked to the next older and the next newer one."""

    __slots__ = ("key", "newer", "older", "size", "value", "visited")

    def __init__(self, key: str, value: T, size: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        self.visited = False
        self.newer: Node[T] | None = None
        self.older: Node[T] | None = None


class MemoryLayer(t.Generic[T]):
    """Values by key; the cost of each operation does not depend on how many there are.

    :param max_bytes: how much is kept, by the sizes that callers state plus :data:`OVERHEAD` for each value.
    :param max_entries: how many values are kept.
    """

    def __init__(self, *, max_bytes: int, max_entries: int = 1_000_000) -> None:
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        #: The bytes that are kept now.
        self.bytes = 0
        #: By key. Whoever takes a value from there marks it as visited.
        self.nodes: t.Final[dict[str, Node[T]]] = {}
        self._newest: Node[T] | None = None
        self._oldest: Node[T] | None = None
        self._hand: Node[T] | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """Return a value, or ``None`` where there is none."""
        node = self.nodes.get(key)
        if node is None:
            return None
        node.visited = True
        return node.value

    def set(self, key: str, value: T, size: int) -> None:
        """Keep a value, unless it alone is larger than everything may be.

        :param size: of the value, in bytes.
        """
        size += OVERHEAD
        with self._lock:
            self._remove(key)
            if size > self.max_bytes:
                return
            while self.bytes + size > self.max_bytes or len(self.nodes) >= self.max_entries:
                self._evict()
            self._insert(Node(key, value, size))

    def delete(self, key: str) -> None:
        """Drop a value; where there is none, do nothing."""
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        """Drop every value."""
        with self._lock:
            self.nodes.clear()
            self._newest = self._oldest = self._hand = None
            self.bytes = 0

    def __len__(self) -> int:
        return len(self.nodes)

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child: a thread that the child does not have may hold it."""
        self._lock = threading.Lock()

    def _insert(self, node: Node[T]) -> None:
        node.older = self._newest
        if self._newest is not None:
            self._newest.newer = node
        self._newest = node
        if self._oldest is None:
            self._oldest = node
        self.nodes[node.key] = node
        self.bytes += node.size

    def _remove(self, key: str) -> None:
        node = self.nodes.pop(key, None)
        if node is None:
            return
        self.bytes -= node.size
        if self._hand is node:
            self._hand = node.newer
        if node.older is not None:
            node.older.newer = node.newer
        else:
            self._oldest = node.newer
        if node.newer is not None:
            node.newer.older = node.older
        else:
            self._newest = node.older

    def _evict(self) -> None:
        node = self._hand or self._oldest
        # Where everything was visited, the hand would walk past all of it while other writers wait.
        steps = _MOST_STEPS
        while node is not None and node.visited and steps:
            node.visited = False
            node = node.newer or self._oldest
            steps -= 1
        if node is not None:
            self._hand = node.newer
            self._remove(node.key)

"""What the store has to be told: invalidations that have not reached it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping


class Debts:
    """Names of what is to be invalidated, each until the store has been told *after* it was last named.

    One thread may tell the store of a name while another names it again. The first telling does not count for the
    second naming, which may have come after it.
    """

    def __init__(self) -> None:
        self._owed: dict[str, object] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._owed)

    def add(self, names: Iterable[str]) -> None:
        """Note that the store has to be told of some names."""
        with self._lock:
            for name in names:
                self._owed[name] = object()

    def all(self) -> dict[str, object]:
        """Return the names, each with what tells this naming from later ones."""
        with self._lock:
            return dict(self._owed)

    def settle(self, told: Mapping[str, object]) -> None:
        """Note that the store has been told of what :meth:`all` returned."""
        with self._lock:
            for name, naming in told.items():
                if self._owed.get(name) is naming:
                    del self._owed[name]

    def renew_lock(self) -> None:
        """Replace the lock, in a forked child: a thread that the child does not have may hold it."""
        self._lock = threading.Lock()

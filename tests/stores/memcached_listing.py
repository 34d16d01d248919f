"""Memcached, with a look at the keys that it holds."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator

from flask_stateful.stores.memcached import MemcachedStore


class ListedMemcached(MemcachedStore):
    """Lists its keys, which the store itself cannot: those that it was asked for, where there is something."""

    def __init__(self, *clients: t.Any) -> None:
        super().__init__(*clients)
        self._seen: set[str] = set()

    def _place(self, key: str) -> t.Any:
        self._seen.add(key)
        return super()._place(key)

    def scan(self, prefix: str) -> Iterator[str]:
        return (key for key in sorted(self._seen) if key.startswith(prefix) and self.get(key) is not None)

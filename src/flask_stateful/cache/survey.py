"""What the store holds of the cache, for an operator."""

from __future__ import annotations

import contextlib
import itertools
import typing as t
from collections.abc import Iterable, Iterator, Mapping

from .. import clock
from ..errors import DecodeError
from .entries import Entry, from_bytes

if t.TYPE_CHECKING:
    from .storage import CacheStorage

#: How many values are looked at in one exchange.
_AT_ONCE: t.Final = 500

#: The kinds of tags that tell which function or view a value belongs to.
_OWN: t.Final = ("function ", "view ")

OTHERS: t.Final = "values and fragments"


class Share:
    """What the store holds of one function or view."""

    def __init__(self) -> None:
        #: Values that may be served, and their bytes.
        self.entries = self.bytes = 0
        #: How many of them may be served only while somebody refreshes them.
        self.stale = 0
        #: Values that were invalidated, and lie there until they are replaced or their time is over.
        self.invalid = 0


def survey(storage: CacheStorage) -> dict[str, Share]:
    """Return what the store holds by function and view, the most bytes first.

    It looks at every value, so it takes a while for many.

    :raises UnsupportedOperation: if the store cannot list its keys.
    :raises StoreError: if the store fails.
    """
    shares: dict[str, Share] = {}
    for entry, size, is_current in _entries(storage):
        own = next((tag for tag in entry.tags if tag.startswith(_OWN)), OTHERS)
        share = shares.setdefault(own.partition(" ")[2] if own != OTHERS else OTHERS, Share())
        if not is_current:
            share.invalid += 1
        elif entry.stale_until > clock.now():
            share.entries += 1
            share.bytes += size
            share.stale += entry.fresh_until <= clock.now()
    return dict(sorted(shares.items(), key=lambda item: -item[1].bytes))


def _entries(storage: CacheStorage) -> Iterator[tuple[Entry, int, bool]]:
    """Yield every readable entry in the store, its size, and whether no tag has invalidated it."""
    keys = storage.store.scan(f"{storage.namespace}:cache:")
    for some in _batches(keys, _AT_ONCE):
        found = list(_readable(storage.store.get_many(some)))
        known = storage.store.get_many({storage.tags.key(tag) for entry, _ in found for tag in entry.tags})
        for entry, size in found:
            yield entry, size, storage.tags.are_current(entry.tags, known)


def _readable(stored: Mapping[str, bytes]) -> Iterator[tuple[Entry, int]]:
    for key, data in stored.items():
        with contextlib.suppress(DecodeError):
            slot = from_bytes(data, key)
            if isinstance(slot, Entry):
                yield slot, len(data)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

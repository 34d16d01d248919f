"""What the store holds of the cache, for an operator."""

from __future__ import annotations

import itertools
import typing as t
from collections.abc import Iterable, Iterator

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
    for entry, size in _entries(storage):
        own = next((tag for tag in entry.tags if tag.startswith(_OWN)), OTHERS)
        share = shares.setdefault(own.partition(" ")[2] if own != OTHERS else OTHERS, Share())
        if not _is_current(storage, entry):
            share.invalid += 1
        elif entry.stale_until > clock.now():
            share.entries += 1
            share.bytes += size
            share.stale += entry.fresh_until <= clock.now()
    return dict(sorted(shares.items(), key=lambda item: -item[1].bytes))


def _entries(storage: CacheStorage) -> Iterator[tuple[Entry, int]]:
    """Yield every entry in the store and its size; what cannot be read is left out."""
    keys = storage.store.scan(f"{storage.namespace}:cache:")
    for some in _batches(keys, _AT_ONCE):
        for key, data in storage.store.get_many(some).items():
            try:
                slot = from_bytes(data, key)
            except DecodeError:
                continue
            if isinstance(slot, Entry):
                yield slot, len(data)


def _is_current(storage: CacheStorage, entry: Entry) -> bool:
    known = storage.store.get_many(map(storage.tags.key, entry.tags)) if entry.tags else {}
    return storage.tags.are_current(entry.tags, known)


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch

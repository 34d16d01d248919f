"""Tags: a name that many cached values share, and one write that invalidates them all.

The store keeps a random *version* for each tag. A value remembers the versions that its tags had before it was
computed, and is current only while they are the same. Invalidating a tag gives it another version; nothing else is
written, however many values there are. Versions are random, not times or counts: no clock has to agree, and a version
that was lost makes values stale, never current again.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from .. import clock
from ..epochs import Mark
from ..serialization import url_safe
from ..stores.base import Store

if t.TYPE_CHECKING:
    from .layer import Layer

_VERSION_BYTES: t.Final = 12

#: The tag that every value of a namespace has.
EVERYTHING: t.Final = ""


#: How many versions are kept in memory.
_MOST_HELD: t.Final = 4096


class _HeldVersion:
    """A version in memory, which is true while its mark is, for a while."""

    __slots__ = ("mark", "until", "version")

    def __init__(self, version: bytes, mark: Mark, until: float) -> None:
        self.version = version
        self.mark = mark
        self.until = until


class Tags:
    """The tags of one namespace.

    :param layer: tells whether a version that was read before is still true.
    """

    def __init__(self, store: Store, namespace: str, layer: Layer) -> None:
        self._store = store
        self._namespace = namespace
        self._layer = layer
        self._held: dict[str, _HeldVersion] = {}
        self.key = functools.lru_cache(maxsize=4096)(self._key)
        #: Returns the keys of the versions of everything and of some tags.
        self.keys = functools.lru_cache(maxsize=4096)(self._keys)

    def fetch_one(self, key: str, tag_keys: Sequence[str]) -> tuple[list[Mark], dict[str, bytes]]:
        """Ask the store for one key, and for those tags' versions that memory does not hold, in one exchange.

        :return: marks from before the store was asked, where memory may keep the value; and what is known now, by key.
        """
        layer = self._layer
        marks = list(layer.marks((key,))) if layer.memory is not None else []
        known = self._recall_all(tag_keys, marks)
        if known is None:
            more_marks, known = self.fetch((key,), tag_keys)
            return list(more_marks.values()), known
        value = self._store.get(key)
        if value is not None:
            known[key] = value
        return marks, known

    def _recall_all(self, tag_keys: Iterable[str], marks: list[Mark]) -> dict[str, bytes] | None:
        """Return the versions of tags by key, and append their marks, if memory holds all of them and they are true."""
        epochs, known = self._layer.epochs, dict[str, bytes]()
        if not epochs.live:
            return None
        table, now = epochs.table, clock.monotonic()
        for key in tag_keys:
            held = self._held.get(key)
            if held is None or table[held.mark[0]] != held.mark[1] or now >= held.until:
                return None
            known[key] = held.version
            marks.append(held.mark)
        return known

    def fetch(self, keys: Iterable[str], tag_keys: Iterable[str]) -> tuple[dict[str, Mark], dict[str, bytes]]:
        """Ask the store for some keys, and for those tags' versions that memory does not hold, in one exchange.

        :return: marks from before the store was asked, and what is known now, both by key.
        """
        keys, tag_keys = list(keys), list(tag_keys)
        both = [*keys, *tag_keys]
        marks = dict(zip(both, self._layer.marks(both), strict=False))
        if not marks:  # memory holds nothing
            return marks, self._ask(both)
        known = self._recall(tag_keys, marks)
        found = self._ask([*keys, *(key for key in tag_keys if key not in known)])
        self._remember(tag_keys, marks, found)
        return marks, known | found

    def _ask(self, keys: list[str]) -> dict[str, bytes]:
        if len(keys) != 1:
            return self._store.get_many(keys) if keys else {}
        value = self._store.get(keys[0])
        return {} if value is None else {keys[0]: value}

    def _recall(self, tag_keys: list[str], marks: Mapping[str, Mark]) -> dict[str, bytes]:
        if not self._layer.epochs.live:
            return {}
        now = clock.monotonic()
        held = {key: self._held.get(key) for key in tag_keys}
        return {
            key: found.version
            for key, found in held.items()
            if found is not None and found.mark == marks.get(key) and now < found.until
        }

    def _remember(self, tag_keys: list[str], marks: Mapping[str, Mark], found: Mapping[str, bytes]) -> None:
        if len(self._held) >= _MOST_HELD:
            self._held.clear()
        until = clock.monotonic() + self._layer.epochs.trusted_for
        for key in tag_keys:
            if key in found and key in marks:
                self._held[key] = _HeldVersion(found[key], marks[key], until)

    def _key(self, tag: str) -> str:
        """Return the key that a tag's version is kept under."""
        digest = hashlib.sha256(tag.encode()).digest()[:16]
        return f"{self._namespace}:cache-tag:{url_safe(digest)}"

    def _keys(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(self.key, (EVERYTHING, *tags))))

    def versions(self, tags: Iterable[str], known: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the versions that tags have now, giving one to those that have none.

        :param known: what the store was just found to hold, by key.
        """
        return {tag: known.get(self.key(tag)) or self._begin(tag) for tag in tags}

    def read(self, tags: Iterable[str]) -> dict[str, bytes]:
        """Return the versions that tags have now, asking the store for those that memory does not hold."""
        tags = list(tags)
        keys = list(map(self.key, tags))
        known = self._recall_all(keys, [])
        if known is None:
            _, known = self.fetch((), keys)
        return self.versions(tags, known)

    def are_current(self, versions: Mapping[str, bytes], known: Mapping[str, bytes]) -> bool:
        """Tell whether tags still have these versions."""
        for tag, version in versions.items():  # noqa: SIM110 (a generator takes longer)
            if known.get(self.key(tag)) != version:
                return False
        return True

    def invalidate(self, tags: Iterable[str]) -> None:
        """Give tags new versions; no value that has one of them is current after this."""
        self._store.set_many({self.key(tag): _new_version() for tag in tags})

    def _begin(self, tag: str) -> bytes:
        version = _new_version()
        while not self._store.add(self.key(tag), version):
            found = self._store.get(self.key(tag))
            if found is not None:
                return found
        # Where the store has lost a version, others may hold the one that was lost.
        self._layer.changed([self.key(tag)])
        return version


def _new_version() -> bytes:
    return secrets.token_bytes(_VERSION_BYTES)

"""Tags: a name that many cached values share, and one write that invalidates them all.

The store keeps a random *version* for each tag. A value remembers the versions that its tags had before it was
computed, and is current only while they are the same. Invalidating a tag gives it another version; nothing else is
written, however many values there are. Versions are random, not times or counts: no clock has to agree, and a version
that was lost makes values stale, never current again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import secrets
import typing as t
from collections.abc import Iterable, Mapping

from ..stores.base import Store

_VERSION_BYTES: t.Final = 12

#: The tag that every value of a namespace has.
EVERYTHING: t.Final = ""


class Tags:
    """The tags of one namespace."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self.key = functools.lru_cache(maxsize=4096)(self._key)

    def _key(self, tag: str) -> str:
        """Return the key that a tag's version is kept under."""
        digest = hashlib.sha256(tag.encode()).digest()[:16]
        return f"{self._namespace}:cache-tag:{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"

    def versions(self, tags: Iterable[str], known: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the versions that tags have now, giving one to those that have none.

        :param known: what the store was just found to hold, by key.
        """
        return {tag: known.get(self.key(tag)) or self._begin(tag) for tag in tags}

    def read(self, tags: Iterable[str]) -> dict[str, bytes]:
        """Return the versions that tags have now, asking the store."""
        tags = list(tags)
        return self.versions(tags, self._store.get_many(map(self.key, tags)))

    def are_current(self, versions: Mapping[str, bytes], known: Mapping[str, bytes]) -> bool:
        """Tell whether tags still have these versions."""
        return all(known.get(self.key(tag)) == version for tag, version in versions.items())

    def invalidate(self, tags: Iterable[str]) -> None:
        """Give tags new versions; no value that has one of them is current after this."""
        self._store.set_many({self.key(tag): _new_version() for tag in tags})

    def _begin(self, tag: str) -> bytes:
        version = _new_version()
        while not self._store.add(self.key(tag), version):
            found = self._store.get(self.key(tag))
            if found is not None:
                return found
        return version


def _new_version() -> bytes:
    return secrets.token_bytes(_VERSION_BYTES)

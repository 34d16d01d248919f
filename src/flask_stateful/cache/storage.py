"""What the cache keeps: values in memory over values in a store."""

from __future__ import annotations

import dataclasses
import math
import typing as t
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from .. import clock
from ..epochs import Epochs, NoEpochs
from ..errors import DecodeError, StoreError
from ..stores.base import Store, Ttl
from .entries import Entry, Lease, Slot, from_bytes, to_bytes
from .layer import Held, Layer
from .memory import MemoryLayer
from .tags import EVERYTHING, Tags
from .values import Codec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call for a cached value."""

    key: str
    codec: Codec
    #: What log lines call it.
    name: str = "a value"
    #: Seconds that the value is fresh; ``None`` for ever.
    ttl: float | None = None
    #: Seconds after that during which it may be served stale.
    stale: float = 0.0
    tags: tuple[str, ...] = ()

    @property
    def lasts(self) -> float | None:
        """How long the store keeps the value, in seconds."""
        return None if self.ttl is None else self.ttl + self.stale

    def times(self) -> Times:
        """Return the times of an entry that is written now."""
        now = clock.now()
        fresh_until = math.inf if self.ttl is None else now + self.ttl
        return {"created_at": now, "fresh_until": fresh_until, "stale_until": fresh_until + self.stale}


class Times(t.TypedDict):
    """When an entry was made, and until when it may be served; seconds since 1970."""

    created_at: float
    fresh_until: float
    stale_until: float


class Found(t.NamedTuple):
    """What the store had under a key."""

    data: bytes | None
    slot: Slot | None
    #: The value, where there is one that no tag has invalidated.
    held: Held | None
    #: The versions of the call's tags, by key.
    versions: Mapping[str, bytes]


class CacheStorage:
    """The cached values of one application.

    :param namespace: prefixes every store key.
    :param memory: holds values in this process; ``None`` where nothing is to be held.
    """

    def __init__(self, store: Store, *, namespace: str, memory: MemoryLayer[Held] | None, epochs: Epochs) -> None:
        self.store = store
        self.namespace = namespace
        self.layer = Layer(memory, epochs)
        self.tags = Tags(store, namespace)
        #: How often what has happened.
        self.counters = Counter[str]()
        #: Changes that the store does not know of yet, since it could not be reached.
        self._owed_keys: set[str] = set()
        self._owed_tags: set[str] = set()

    # Reading

    def recall(self, key: str) -> Held | None:
        """Return what memory holds, if it is fresh and true."""
        held = self.layer.get(key)
        if held is not None and clock.monotonic() < held.fresh_until:
            self.counters["hits_memory"] += 1
            return held
        return None

    def look(self, call: Call) -> Found:
        """Ask the store: one exchange for the value and the versions of the call's tags.

        :raises StoreError: if the store fails.
        """
        self.pay()
        tag_keys = [self.tags.key(tag) for tag in (EVERYTHING, *call.tags)]
        marks = self.layer.marks([call.key, *tag_keys])
        known = self.store.get_many([call.key, *tag_keys])
        data = known.pop(call.key, None)
        if data is None:
            return Found(None, None, None, known)
        try:
            slot = from_bytes(data, call.key)
            if isinstance(slot, Lease):
                return Found(data, slot, None, known)
            if slot.tags.keys() - {EVERYTHING, *call.tags}:
                slot_keys = [self.tags.key(tag) for tag in slot.tags]
                marks = self.layer.marks([call.key, *slot_keys])
                known = self.store.get_many(slot_keys)
            held = Held(slot, call.codec, marks)
        except DecodeError:
            self.counters["undecodable"] += 1
            return Found(data, None, None, known)
        if not self.tags.are_current(slot.tags, known) or held.stale_until <= clock.monotonic():
            return Found(data, slot, None, known)
        self.layer.put(held)
        return Found(data, slot, held, known)

    # Writing

    def set(self, call: Call, value: t.Any, versions: Mapping[str, bytes] | None = None) -> None:
        """Write a value, whatever was there. Whoever is computing it will not write.

        :param versions: those that its tags had before it was computed; by default those that they have now.
        """
        self.pay()
        if versions is None:
            versions = self.tags.read((EVERYTHING, *call.tags))
        self.put(call.key, to_bytes(self.entry(call, value, versions)), call.lasts, None)

    def add(self, call: Call, value: t.Any) -> bool:
        """Write a value only where there is none that counts."""
        found = self.look(call)
        if found.held is not None:
            return False
        versions = self.tags.versions((EVERYTHING, *call.tags), found.versions)
        data = to_bytes(self.entry(call, value, versions))
        if found.data is None:
            added = self.store.add(call.key, data, call.lasts)
        else:
            added = self.store.swap(call.key, found.data, data, call.lasts)
        self.layer.changed([call.key])
        return added

    def touch(self, call: Call) -> bool:
        """Give a value another ttl, from now on."""
        while (found := self.look(call)).held is not None and found.data is not None:
            entry = msgspec.structs.replace(found.held.entry, **call.times())
            if self.store.swap(call.key, found.data, to_bytes(entry), call.lasts):
                self.layer.changed([call.key])
                return True
        return False

    def incr(self, key: str, by: int, ttl: Ttl) -> int:
        """Add to a counter."""
        count = self.store.incr(key, by, ttl)
        self.layer.changed([key])
        return count

    @staticmethod
    def entry(call: Call, value: t.Any, versions: Mapping[str, bytes], *, cost: float = 0.0) -> Entry:
        """Return the entry for a value that is written now.

        :raises EncodeError: if the value cannot be encoded.
        """
        payload = call.codec.encode(value)
        return Entry(key=call.key, cost=cost, tags=dict(versions), payload=payload, **call.times())

    def put(self, key: str, data: bytes, ttl: float | None, replaces: bytes | None) -> None:
        """Write what lies under a key from now on.

        :param replaces: what must lie there still; ``None`` overwrites anything.
        :raises StoreError: if the store fails.
        """
        if replaces is None:
            self.store.set(key, data, ttl)
        elif not self.store.swap(key, replaces, data, ttl):
            # The key was forgotten, or another took over: this value may be older than what follows.
            self.counters["refused"] += 1
            return
        self.layer.changed([key])

    # Invalidating

    def forget(self, keys: Iterable[str]) -> None:
        """Remove values. Whoever is computing one of them will not write it.

        :raises StoreError: if the store fails; it is done before this process next reads from the store.
        """
        keys = list(keys)
        self._owed_keys.update(keys)
        self.layer.changed(keys)
        self.pay()

    def invalidate(self, tags: Iterable[str]) -> None:
        """Invalidate every value that has one of these tags.

        :raises StoreError: if the store fails; it is done before this process next reads from the store.
        """
        tags = list(tags)
        self._owed_tags.update(tags)
        self.layer.changed(map(self.tags.key, tags))
        self.pay()

    def pay(self) -> None:
        """Tell the store what it does not know yet.

        :raises StoreError: if it fails again.
        """
        if self._owed_keys or self._owed_tags:
            keys, tags = list(self._owed_keys), list(self._owed_tags)
            self.store.delete_many(keys)
            self.tags.invalidate(tags)
            self.layer.changed([*keys, *map(self.tags.key, tags)])
            self._owed_keys.difference_update(keys)
            self._owed_tags.difference_update(tags)


def open_storage(store: Store, namespace: str, memory_bytes: int) -> CacheStorage:
    """Return the cached values that a store keeps.

    :param memory_bytes: how much of it this process holds in memory; 0 for nothing.
    """
    memory = MemoryLayer[Held](max_bytes=memory_bytes) if memory_bytes else None
    try:
        epochs = store.epochs()
    except StoreError:
        # Nothing is held in memory then; the store is asked each time.
        epochs = NoEpochs()
    return CacheStorage(store, namespace=namespace, memory=memory, epochs=epochs)
